use crate::resources::groups::trial::Trial;
use crate::schema::json;

const GROUP: &str = "admissionregistration.k8s.io";

#[test]
fn webhooks_get_defaults_and_say_what_they_do() {
    let trial = Trial::of(GROUP, "mutatingwebhookconfigurations");
    let body = |more: &str| {
        format!(
            r#"{{"metadata":{{"name":"c"}},"webhooks":[{{"name":"a.b.c","clientConfig":{{"service":{{"name":"s","namespace":"n"}}}}{more}}}]}}"#
        )
    };
    let (made, refused) = trial.create(&body(
        r#","sideEffects":"None","admissionReviewVersions":["v1"]"#,
    ));
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(
        json::to_string(&made.list("webhooks")[0]),
        r#"{"name":"a.b.c","clientConfig":{"service":{"namespace":"n","name":"s","port":443}},"failurePolicy":"Fail","matchPolicy":"Equivalent","namespaceSelector":{},"objectSelector":{},"sideEffects":"None","timeoutSeconds":10,"admissionReviewVersions":["v1"],"reinvocationPolicy":"Never"}"#
    );
    assert_eq!(
        trial.refusals(&body("")),
        [
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ]
    );
}

#[test]
fn rules_cover_no_resource_twice() {
    let rule = r#"{"operations":["*","CREATE"],"apiGroups":[""],"apiVersions":[""],"resources":["pods/*","pods/status","*/*"]}"#;
    let refused = Trial::of(GROUP, "validatingwebhookconfigurations").refusals(&format!(
        r#"{{"metadata":{{"name":"c"}},"webhooks":[{{"name":"a.b.c","sideEffects":"None","admissionReviewVersions":["v1"],"clientConfig":{{"url":"https://x"}},"rules":[{rule}]}}]}}"#
    ));
    assert_eq!(
        refused,
        [
            r#"webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations"#,
            "webhooks[0].rules[0].apiVersions[0]: Required value",
            r#"webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status"#,
            r#"webhooks[0].rules[0].resources: Invalid value: ["pods/*","pods/status","*/*"]: if '*/*' is present, must not specify other resources"#,
        ]
    );
}

#[test]
fn policies_need_something_to_judge() {
    let refused = Trial::of(GROUP, "validatingadmissionpolicies")
        .refusals(r#"{"metadata":{"name":"p"},"spec":{"paramKind":{"apiVersion":"a/b/c"}}}"#);
    assert_eq!(
        refused,
        [
            r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
            "spec.paramKind.kind: Required value",
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
}

#[test]
fn bindings_do_one_thing_about_a_refusal() {
    let refused = Trial::of(GROUP, "validatingadmissionpolicybindings").refusals(
        r#"{"metadata":{"name":"b"},"spec":{"validationActions":["Deny","Warn"],"paramRef":{"parameterNotFoundAction":"Deny"}}}"#,
    );
    assert_eq!(
        refused,
        [
            "spec.paramRef: Required value: one of name or selector must be specified",
            r#"spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
            "spec.policyName: Required value",
        ]
    );
}
