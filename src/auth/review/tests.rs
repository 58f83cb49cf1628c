use super::*;
use crate::schema::json;

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap().value
}

#[test]
fn reviews_are_refused_in_upstreams_words() {
    const PODS: &str = r#""resourceAttributes":{"namespace":"ns","verb":"get","resource":"pods"}"#;
    for (kind, review, refusals) in [
        (
            Kind::Any,
            r#"{"metadata":{},"spec":{"user":"u","resourceAttributes":{"verb":"get"}}}"#.to_owned(),
            &[][..],
        ),
        (Kind::Own, format!(r#"{{"spec":{{{PODS}}}}}"#), &[]),
        (
            Kind::Any,
            format!(r#"{{"spec":{{{PODS}}}}}"#),
            &[
                r#"spec.user: Invalid value: "": at least one of user or group must be specified"#,
            ],
        ),
        (
            Kind::Any,
            r#"{"spec":{"groups":["g"]}}"#.into(),
            &[
                "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ],
        ),
        (
            Kind::Any,
            format!(
                r#"{{"spec":{{"user":"u","nonResourceAttributes":{{"path":"/","verb":"get"}},{PODS}}}}}"#
            ),
            &[
                r#"spec: Invalid value: {"Path":"/","Verb":"get"}: exactly one of nonResourceAttributes or resourceAttributes must be specified"#,
            ],
        ),
        (
            Kind::Own,
            format!(r#"{{"metadata":{{"name":"x","managedFields":[{{}}]}},"spec":{{{PODS}}}}}"#),
            &[r#"metadata: Invalid value: {"name":"x","managedFields":[{}]}: must be empty"#],
        ),
        (
            Kind::Local,
            format!(
                r#"{{"metadata":{{"namespace":"other","labels":{{"a":"b"}}}},"spec":{{"user":"u",{PODS}}}}}"#
            ),
            &[
                r#"metadata: Invalid value: {"namespace":"other","labels":{"a":"b"}}: must be empty except for namespace"#,
                r#"spec.resourceAttributes.namespace: Invalid value: "ns": must match metadata.namespace"#,
            ],
        ),
        (
            Kind::Local,
            r#"{"spec":{"user":"u","nonResourceAttributes":{"path":"/","verb":"get"}}}"#.into(),
            &[
                r#"spec.nonResourceAttributes: Invalid value: {"Path":"/","Verb":"get"}: disallowed on this kind of request"#,
            ],
        ),
        (
            Kind::Own,
            r#"{"spec":{"resourceAttributes":{"fieldSelector":{},"labelSelector":{"rawSelector":"a","requirements":[{"key":"a","operator":"Near"}]}}}}"#.into(),
            &[
                "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
                r#"spec.resourceAttributes.labelSelector.rawSelector: Invalid value: "a": may not specified at the same time as requirements"#,
            ],
        ),
        (
            Kind::Own,
            r#"{"spec":{"resourceAttributes":{"fieldSelector":{"requirements":[{"operator":"In"},{"key":"k","operator":"Exists","values":["v"]}]}}}}"#.into(),
            &[
                "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
                "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.resourceAttributes.fieldSelector.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ],
        ),
    ] {
        let review = parsed(&review);
        let told: Vec<String> = validate(kind, At::root(&review))
            .0
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, refusals, "{kind:?} {review:?}");
    }
}

#[test]
fn what_is_asked_is_what_a_request_would_want() {
    for (spec, seen) in [
        (
            r#"{"nonResourceAttributes":{"path":"/p","verb":"post"}}"#,
            "false post  /p    ",
        ),
        (
            r#"{"resourceAttributes":{"verb":"get","resource":"pods","subresource":"log","name":"n","namespace":"ns"}}"#,
            "true get *  pods/log ns/n  ",
        ),
        // Resource attributes that name no resource still count as resource attributes.
        (
            r#"{"resourceAttributes":{"fieldSelector":{"requirements":[{"key":"spec.nodeName","operator":"In","values":["a,b"]}]}}}"#,
            r"true  *  / / spec.nodeName=a\,b ",
        ),
        // A key is one key, whatever is in it.
        (
            r#"{"resourceAttributes":{"fieldSelector":{"requirements":[{"key":"spec.nodeName=n,x","operator":"In","values":["y"]}]}}}"#,
            r"true  *  / / spec.nodeName\=n\,x=y ",
        ),
        (
            r#"{"resourceAttributes":{"fieldSelector":{"requirements":[{"key":"a","operator":"Near"}]},"labelSelector":{"requirements":[{"key":"a","operator":"Exists"},{"key":"b","operator":"Near"}]}}}"#,
            "true  *  / /  a spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector partially ignored due to parse error",
        ),
        (
            r#"{"resourceAttributes":{"labelSelector":{"rawSelector":"a in (","requirements":[]}}}"#,
            "true  *  / /   spec.resourceAttributes.labelSelector ignored due to parse error",
        ),
    ] {
        let (asked, complaints) = ask(&parsed(spec), |wants| {
            let place = if wants.is_resource() {
                format!(
                    "{}/{} {}/{}",
                    wants.resource, wants.subresource, wants.namespace, wants.name
                )
            } else {
                " ".to_owned()
            };
            format!(
                "{} {} {} {} {place} {} {}",
                wants.is_resource(),
                wants.verb,
                wants.version,
                wants.path.unwrap_or_default(),
                wants.field_selector,
                wants.label_selector
            )
        });
        let told = if complaints.is_empty() {
            asked
        } else {
            format!("{asked} {complaints}")
        };
        assert_eq!(told, seen, "{spec}");
    }
}

#[test]
fn users_are_read_and_shown() {
    let spec =
        parsed(r#"{"user":"u","uid":"i","groups":["b","a"],"extra":{"z":["1"],"a":["2","3"]}}"#);
    let user = subject(&spec);
    assert_eq!(user.extra("a"), ["2", "3"]);
    assert_eq!(
        json::to_string(&user_info(&user)),
        r#"{"username":"u","uid":"i","groups":["b","a"],"extra":{"a":["2","3"],"z":["1"]}}"#
    );
    assert_eq!(json::to_string(&user_info(&User::default())), "{}");
}
