use super::*;
use crate::schema::{builtin, json};

fn decoded(text: &str, kind: &str) -> Result<(String, Vec<String>), String> {
    let value = json::parse(text.as_bytes())
        .map_err(|error| error.to_string())?
        .value;
    let decoded = decode(
        value,
        builtin::named(&format!("io.k8s.api.core.v1.{kind}")),
        &format!("v1.{kind}"),
    )?;
    Ok((json::to_string(&decoded.value), decoded.unknown))
}

#[test]
fn members_come_out_in_order_with_go_zero_values_and_without_the_unknown() {
    let (text, unknown) = decoded(r#"{"spec": {"ports": [{"name": "a"}], "extra": 1}, "metadata": {"labels": {"b": null, "a": "x"}, "nome": 1}, "kind": "Service"}"#, "Service").unwrap();
    assert_eq!(
        text,
        r#"{"kind":"Service","metadata":{"labels":{"a":"x","b":""}},"spec":{"ports":[{"name":"a","port":0,"targetPort":0}]},"status":{"loadBalancer":{}}}"#
    );
    assert_eq!(unknown, ["spec.extra", "metadata.nome"]);
}

const POD: &str = r#"{"kind": "Pod", "metadata": {"name": "a", "labels": {"b": "", "a": "x"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]},
    "spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}], "containers": [{"name": "c", "image": "i", "command": [], "env": [{"name": "A", "value": ""}],
    "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"cpu": "1000m"}, "requests": {}}, "securityContext": {"capabilities": {"drop": ["ALL"]}},
    "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 5}}], "nodeSelector": {}, "tolerations": [], "terminationGracePeriodSeconds": 0, "hostNetwork": false},
    "status": {"phase": "", "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}]}}"#;

/// Changes one member somewhere in the object, as a rule or plugin might; `at` determines where and how.
fn disturb(value: &mut Value, at: &mut u32) {
    let Value::Object(members) = value else {
        return;
    };
    let Some(name) = members
        .keys()
        .nth(*at as usize % members.len().max(1))
        .cloned()
    else {
        members.insert("zz", "1");
        return;
    };
    *at /= 7;
    let how = *at % 6;
    let Some(mut member) = members.remove(&name) else {
        return;
    };
    let is_list = matches!(member, Value::Array(_));
    match how {
        0 => member = Value::Null,
        1 => return,
        2 if is_list => member = Value::Array(Vec::new()),
        3 if matches!(member, Value::Object(_)) => member = Value::Object(Object::new()),
        _ => {
            *at /= 6;
            match &mut member {
                Value::Array(items) => items.iter_mut().for_each(|item| disturb(item, at)),
                other => disturb(other, at),
            }
        }
    }
    if how.is_multiple_of(2) {
        members.insert_first(name, member);
    } else {
        members.insert(name, member);
    }
}

proptest::proptest! {
    /// Settling in place gives the same result as decoding again.
    #[test]
    fn settling_is_decoding_again(changes in proptest::collection::vec(proptest::prelude::any::<u32>(), 0..6)) {
        let schema = builtin::named("io.k8s.api.core.v1.Pod");
        let mut pod = json::parse(POD.as_bytes()).unwrap().value;
        tidy_json(&mut pod, schema);
        for mut at in changes {
            disturb(&mut pod, &mut at);
        }
        let again = decode(pod.clone(), schema, "v1.Pod").unwrap().value;
        tidy_json(&mut pod, schema);
        proptest::prop_assert_eq!(json::to_string(&pod), json::to_string(&again));
        let (mut stored, mut twice) = (pod.clone(), pod);
        Decoder { stored: true, ..Decoder::default() }.settle(&mut stored, schema, Place { go_type: "", structure: "" });
        let anew = Decoder { stored: true, report: true, ..Decoder::default() }.value(twice.clone(), schema, Place { go_type: "", structure: "" });
        proptest::prop_assert_eq!(json::to_string(&stored), json::to_string(&anew));
        tidy(&mut twice, schema);
        tidy(&mut twice, schema);
        proptest::prop_assert_eq!(json::to_string(&twice), json::to_string(&anew));
    }
}

#[test]
fn whether_there_is_a_zero_is_known_without_making_it() {
    fn check(schema: &Schema, seen: &mut Vec<String>) {
        match &schema.shape {
            Shape::Struct(fields) => {
                if seen.contains(&fields.go_name.to_string()) {
                    return;
                }
                seen.push(fields.go_name.to_string());
                for (name, field) in &fields.fields {
                    assert_eq!(
                        has_zero(field),
                        zero(field).is_some(),
                        "{} {name}",
                        fields.go_name
                    );
                    check(&field.schema, seen);
                }
            }
            Shape::Map(below) | Shape::List(below) => check(below, seen),
            _ => {}
        }
    }
    let mut seen = Vec::new();
    for kind in ["Pod", "Service", "Node", "PersistentVolume", "Event"] {
        check(
            builtin::named(&format!("io.k8s.api.core.v1.{kind}")),
            &mut seen,
        );
    }
    assert!(seen.len() > 100, "{}", seen.len());
}

#[test]
fn numbers_are_bytes_and_the_zero_time_is_null_where_it_was_set() {
    for (text, kind, canonical) in [
        (
            r#"{"binaryData": {"k": [104, null], "l": []}}"#,
            "ConfigMap",
            r#"{"metadata":{},"binaryData":{"k":"aAA=","l":""}}"#,
        ),
        (
            r#"{"status": {"lastPhaseTransitionTime": "0001-01-01T00:00:00Z"}}"#,
            "PersistentVolume",
            r#"{"metadata":{},"spec":{},"status":{"lastPhaseTransitionTime":null}}"#,
        ),
        (
            r#"{"spec": {"capacity": {"storage": " 1Gi "}}}"#,
            "PersistentVolume",
            r#"{"metadata":{},"spec":{"capacity":{"storage":"1Gi"}},"status":{}}"#,
        ),
    ] {
        let (got, _) = decoded(text, kind).unwrap();
        assert_eq!(got, canonical, "{text}");
    }
}

#[test]
fn type_errors_name_the_go_struct_and_the_whole_path() {
    for (text, kind, error) in [
        (
            r#"{"data": {"k": 1}}"#,
            "ConfigMap",
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            r#"{"spec": {"ports": [{"port": "x"}]}}"#,
            "Service",
            "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"spec": {"ports": [{"port": 1.5}]}}"#,
            "Service",
            "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"spec": {"volumes": [{"configMap": {"name": []}}]}}"#,
            "Pod",
            "json: cannot unmarshal array into Go struct field ConfigMapVolumeSource.spec.volumes.VolumeSource.configMap.LocalObjectReference.name of type string",
        ),
        (
            r#"{"spec": {"tolerations": [{"effect": 5}]}}"#,
            "Pod",
            "json: cannot unmarshal number into Go struct field Toleration.spec.tolerations.effect of type v1.TaintEffect",
        ),
        (
            r#"{"metadata": {"labels": 7}}"#,
            "ConfigMap",
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            r#"{"binaryData": {"k": "AA"}}"#,
            "ConfigMap",
            "illegal base64 data at input byte 0",
        ),
        (
            r#"{"binaryData": {"k": "YQ==YQ=="}}"#,
            "ConfigMap",
            "illegal base64 data at input byte 4",
        ),
        (
            r#"{"binaryData": {"k": [1, 256]}}"#,
            "ConfigMap",
            "json: cannot unmarshal number 256 into Go struct field ConfigMap.binaryData of type uint8",
        ),
    ] {
        assert_eq!(decoded(text, kind), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn emptied_members_below_a_very_long_name_are_noted_in_part() {
    let lists: Vec<String> = (0..20_000)
        .map(|n| format!(r#""p{n}":{{"required":[]}}"#))
        .collect();
    let key = "k".repeat(1 << 20);
    let text = format!(
        r#"{{"properties":{{"{key}":{{"properties":{{{}}}}}}}}}"#,
        lists.join(",")
    );
    let value = json::parse(text.as_bytes()).unwrap().value;
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let decoded = decode(value, builtin::named(name), "v1.JSONSchemaProps").unwrap();
    assert!(
        (1..=17).contains(&decoded.emptied.len()),
        "{}",
        decoded.emptied.len()
    );
}

#[test]
fn numbers_as_quantities_are_compared_with_long_texts_once() {
    let long: Vec<String> = (0..100)
        .map(|n| format!(r#""a{n}":0.{n:03}{}"#, "0".repeat(15_000)))
        .collect();
    let more: Vec<String> = (0..50_000).map(|n| format!(r#""b{n}":0.5"#)).collect();
    let text = format!(
        r#"{{"spec":{{"hard":{{{},{}}}}}}}"#,
        long.join(","),
        more.join(",")
    );
    let parsed = json::parse(text.as_bytes()).unwrap();
    let schema = builtin::named("io.k8s.api.core.v1.ResourceQuota");
    let quota = decode_written(parsed.value, schema, "v1.ResourceQuota", &parsed.floats).unwrap();
    let hard = quota.value.at("spec").at("hard");
    assert_eq!(hard.str("b1"), "500m");
    assert_eq!(hard.str("a12"), "12m");
}
