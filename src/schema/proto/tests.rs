use super::*;
use crate::schema::{Object, builtin, decode, json};

#[test]
fn an_object_is_the_same_after_a_round_trip() {
    let text = r#"{"metadata":{"name":"p","labels":{"a":"b"},"creationTimestamp":"2020-01-01T00:00:00Z","managedFields":[{"manager":"m","fieldsV1":{"f:a":{}}}]},
        "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"500m"}},
        "livenessProbe":{"httpGet":{"port":"http","path":"/"},"periodSeconds":5},"env":[{"name":"A","value":"B"}]}],
        "volumes":[{"name":"v","configMap":{"name":"c","defaultMode":420}}],"terminationGracePeriodSeconds":-1,"activeDeadlineSeconds":0,"hostNetwork":true}}"#;
    let schema = builtin::named("io.k8s.api.core.v1.Pod");
    let object = |value| decode::decode(value, schema, "v1.Pod").unwrap().value;
    let want = object(json::parse(text.as_bytes()).unwrap().value);
    let sealed = seal("v1", "Pod", &write(&want, schema));
    let envelope = open(&sealed).unwrap();
    assert_eq!(
        (envelope.api_version.as_str(), envelope.kind.as_str()),
        ("v1", "Pod")
    );
    assert_eq!(
        json::to_string(&object(read(envelope.raw, schema).unwrap())),
        json::to_string(&want)
    );
}

#[test]
fn lists_with_a_type_of_their_own_are_messages() {
    let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource");
    let value = json::parse(br#"{"kind":"K","verbs":["get","list"]}"#)
        .unwrap()
        .value;
    let bytes = write(&value, schema);
    // Between the zeros of the other fields, in the order of the schema.
    assert_eq!(
        bytes,
        b"\x0a\x00\x32\x00\x10\x00\x42\x00\x4a\x00\x1a\x01K\x22\x0b\x0a\x03get\x0a\x04list\x52\x00"
    );
    assert_eq!(
        json::to_string(&read(&bytes, schema).unwrap()),
        r#"{"name":"","singularName":"","namespaced":false,"group":"","version":"","kind":"K","verbs":["get","list"],"storageVersionHash":""}"#
    );
}

#[test]
fn slices_repeat_whatever_their_tags_say() {
    let schema = builtin::named("io.k8s.api.batch.v1.SuccessPolicy");
    let text = br#"{"rules":[{"succeededCount":1},{"succeededCount":2}]}"#;
    let value = json::parse(text).unwrap().value;
    let bytes = write(&value, schema);
    assert_eq!(bytes, b"\x0a\x02\x10\x01\x0a\x02\x10\x02");
    assert_eq!(read(&bytes, schema).unwrap(), value);
}

#[test]
fn what_is_embedded_in_what_is_embedded_is_a_message_in_a_message() {
    let schema = builtin::named("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations");
    let text =
        br#"{"resourceNames":["n"],"operations":["*"],"apiGroups":[""],"resources":["pods"]}"#;
    let value = json::parse(text).unwrap().value;
    let bytes = write(&value, schema);
    assert_eq!(
        bytes,
        b"\x0a\x01n\x12\x0d\x0a\x01*\x12\x08\x0a\x00\x1a\x04pods"
    );
    assert_eq!(read(&bytes, schema).unwrap(), value);
}

#[test]
fn a_time_that_is_not_set_is_empty() {
    let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.Condition");
    let value = json::parse(br#"{"lastTransitionTime":null}"#)
        .unwrap()
        .value;
    let bytes = write(&value, schema);
    assert_eq!(bytes, b"\x0a\x00\x12\x00\x18\x00\x22\x00\x2a\x00\x32\x00");
    assert_eq!(
        json::to_string(&read(&bytes, schema).unwrap()),
        r#"{"type":"","status":"","observedGeneration":0,"lastTransitionTime":null,"reason":"","message":""}"#
    );
}

#[test]
fn what_breaks_off_is_refused() {
    assert_eq!(open(b"{}").map(|_| ()), Err(Malformed::NoMagic));
    assert_eq!(open(b"k8s\0\x0a\x7f").map(|_| ()), Err(Malformed::Ends));
}

#[test]
fn zeros_are_written_but_of_what_go_holds_by_pointer() {
    let schema = builtin::named("io.k8s.api.core.v1.ContainerPort");
    let value = json::parse(br#"{"containerPort":80}"#).unwrap().value;
    let bytes = write(&value, schema);
    assert_eq!(bytes, b"\x0a\0\x10\0\x18\x50\x22\0\x2a\0");
    let schema = builtin::named("io.k8s.api.core.v1.HTTPGetAction");
    let bytes = write(&Object::new().into(), schema);
    assert_eq!(bytes, b"\x0a\0\x12\x06\x08\0\x10\0\x1a\0\x1a\0\x22\0");
    // Neither an optional object nor an empty list.
    let schema = builtin::named("io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(write(&Object::new().into(), schema), b"\x0a\0");
}

#[test]
fn refusals_say_what_upstream_says() {
    let read = |kind: &str, bytes: &[u8]| {
        let schema = builtin::named(&format!("io.k8s.api.core.v1.{kind}"));
        super::read(bytes, schema).unwrap_err().to_string()
    };
    for (kind, bytes, told) in [
        (
            "ConfigMap",
            &b"\x08\x05"[..],
            "proto: wrong wireType = 0 for field ObjectMeta",
        ),
        (
            "ConfigMap",
            b"\x0a\x02\x08\x05",
            "proto: wrong wireType = 0 for field Name",
        ),
        (
            "ConfigMap",
            b"\x0a\x05\x42\x03\x0a\x01a",
            "proto: wrong wireType = 2 for field Seconds",
        ),
        (
            "ConfigMap",
            b"\x22\x01a",
            "proto: wrong wireType = 2 for field Immutable",
        ),
        (
            "ConfigMap",
            b"\x10\x01",
            "proto: wrong wireType = 0 for field Data",
        ),
        (
            "ConfigMap",
            b"\x02\x01a",
            "proto: ConfigMap: illegal tag 0 (wire type 2)",
        ),
        (
            "ConfigMap",
            b"\x0c",
            "proto: ConfigMap: wiretype end group for non-group",
        ),
        (
            "ConfigMap",
            b"\x0b\x0c",
            "proto: wrong wireType = 3 for field ObjectMeta",
        ),
        ("ConfigMap", b"\x9e\x06", "proto: illegal wireType 6"),
        ("ConfigMap", b"\x9b\x06", "unexpected EOF"),
        ("ConfigMap", b"\x12\x05ab", "unexpected EOF"),
        ("ConfigMap", &[0xff; 11], "proto: integer overflow"),
        (
            "ConfigMap",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "proto: negative length found during unmarshaling",
        ),
        (
            "Pod",
            b"\x12\x02\x38\x01",
            "proto: wrong wireType = 0 for field NodeSelector",
        ),
        (
            "Volume",
            b"\x10\x01",
            "proto: wrong wireType = 0 for field VolumeSource",
        ),
        (
            "Volume",
            b"\x12\x02\x08\x01",
            "proto: wrong wireType = 0 for field HostPath",
        ),
        (
            "Volume",
            b"\x12\x02\x02\x01",
            "proto: VolumeSource: illegal tag 0 (wire type 2)",
        ),
    ] {
        assert_eq!(read(kind, bytes), told, "{bytes:?}");
    }
    let schema = builtin::named("io.k8s.api.core.v1.ConfigMap");
    assert!(super::read(b"\x9b\x06\x08\x01\x0b\x0c\x9c\x06", schema).is_ok());
    for (bytes, told) in [
        (
            &b"\x08\x01"[..],
            "proto: wrong wireType = 0 for field TypeMeta",
        ),
        (
            b"\x0a\x02\x08\x01",
            "proto: wrong wireType = 0 for field APIVersion",
        ),
        (b"\x12\0\0", "proto: Unknown: illegal tag 0 (wire type 0)"),
    ] {
        let refused = open(&[MAGIC, bytes].concat()).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), told, "{bytes:?}");
    }
}
