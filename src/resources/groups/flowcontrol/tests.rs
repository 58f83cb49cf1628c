use crate::auth::bootstrap;
use crate::resources::groups::trial::Trial;
use crate::schema::json;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

#[test]
fn what_every_cluster_has_is_accepted_as_it_is_and_not_otherwise() {
    for (kind, plural) in [
        ("FlowSchema", "flowschemas"),
        ("PriorityLevelConfiguration", "prioritylevelconfigurations"),
    ] {
        let trial = Trial::of(GROUP, plural);
        let mut fixed = 0;
        for made in bootstrap::objects() {
            if made.object.str("kind") != kind {
                continue;
            }
            let (object, refused) = trial.create(&json::to_string(&made.object));
            assert_eq!(refused, Vec::<String>::new(), "{:?}", made.object);
            let (_, refused) = trial.update("", &object, |object| {
                let spec = object.object_mut().object_mut("spec");
                match kind {
                    "FlowSchema" => spec.insert("matchingPrecedence", 77),
                    _ => spec.object_mut("exempt").insert("lendablePercent", 7),
                };
            });
            fixed += usize::from(
                refused
                    .iter()
                    .any(|why| why.ends_with("must equal the fixed value")),
            );
        }
        // Of the exempt level, the field `exempt` may be changed.
        assert_eq!(fixed, if kind == "FlowSchema" { 2 } else { 1 }, "{kind}");
    }
}

#[test]
fn levels_have_the_settings_of_their_type() {
    let trial = Trial::of(GROUP, "prioritylevelconfigurations");
    for (spec, refused) in [
        (
            r#"{"type":"Limited","exempt":{}}"#,
            &["spec.exempt: Forbidden", "spec.limited: Required value"][..],
        ),
        (
            r#"{"type":"Limited","limited":{"limitResponse":{"type":"Queue"}}}"#,
            &["spec.limited.limitResponse.queuing: Required value"],
        ),
        (
            r#"{"type":"Limited","limited":{"limitResponse":{"type":"Queue","queuing":{"queues":512}}}}"#,
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ],
        ),
        (r#"{}"#, &["spec.type: Required value"]),
    ] {
        let body = format!(r#"{{"metadata":{{"name":"l"}},"spec":{spec}}}"#);
        assert_eq!(trial.refusals(&body), refused);
    }
}

#[test]
fn schemas_say_whose_requests_they_mean() {
    let rule = r#"{"subjects":[{"kind":"User","group":{"name":"g"}}],"nonResourceRules":[{"verbs":["fly"],"nonResourceURLs":["/a*"]}]}"#;
    let body = format!(
        r#"{{"metadata":{{"name":"s"}},"spec":{{"priorityLevelConfiguration":{{"name":"l"}},"rules":[{rule}]}}}}"#
    );
    assert_eq!(
        Trial::of(GROUP, "flowschemas").refusals(&body),
        [
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            r#"spec.rules[0].nonResourceRules[0].verbs: Unsupported value: ["fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#,
            r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "/a*": wildcard can only do suffix matching"#,
        ]
    );
}
