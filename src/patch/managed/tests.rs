//! Sets and their algebra against a plain model, and what objects say, become and share.

use super::*;
use crate::schema::{builtin, json};

fn value(text: &str) -> crate::schema::Value {
    json::parse(text.as_bytes()).unwrap().value
}

#[test]
fn fields_are_written_back_as_they_were_read_in_order() {
    for (text, back) in [
        (r#"{"f:data":{".":{},"f:k":{}}}"#, ""),
        (
            r#"{"f:b":{},"f:a":{"f:x":{}}}"#,
            r#"{"f:a":{"f:x":{}},"f:b":{}}"#,
        ),
        (r#"{"f:a":{".":{}}}"#, r#"{"f:a":{}}"#),
        (
            r#"{"f:a":null,".":{},"x:later":{"f:b":{}}}"#,
            r#"{"f:a":{}}"#,
        ),
        (
            r#"{"k:{\"b\":1,\"a\":\"x\"}":{"f:c":{}},"v:\"s\"":{},"i:3":{},"v:2":{}}"#,
            r#"{"k:{\"a\":\"x\",\"b\":1}":{"f:c":{}},"v:2":{},"v:\"s\"":{},"i:3":{}}"#,
        ),
    ] {
        let set = fields::read(&value(text)).unwrap();
        let back = if back.is_empty() { text } else { back };
        assert_eq!(json::to_string(&fields::write(&set)), back);
    }
    for text in [
        r#"{"f":{}}"#,
        r#"{"ab":{}}"#,
        r#"{"f:a":1}"#,
        r#"{"k:1":{}}"#,
        r#"{"v:{":{}}"#,
    ] {
        assert!(fields::read(&value(text)).is_err(), "{text}");
    }
}

fn said(kind: &str, text: &str) -> Vec<String> {
    let schema = builtin::named(&format!("io.k8s.api.{kind}"));
    walk::fields_of(&value(text), typing::Type::root(schema)).paths()
}

#[test]
fn an_object_says_its_leaves_and_its_items() {
    assert_eq!(
        said(
            "core.v1.Pod",
            r#"{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","args":["x"],"ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}],"nodeSelector":{"x":"y"},"volumes":null}}"#
        ),
        [
            ".metadata.labels.a",
            ".spec.nodeSelector",
            ".spec.volumes",
            ".spec.containers[name=\"c\"]",
            ".spec.containers[name=\"c\"].args",
            ".spec.containers[name=\"c\"].name",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.containers[name=\"c\"].resources.limits.cpu",
        ]
    );
}
