use crate::resources::groups::trial::Trial;

#[test]
fn rules_of_roles_are_judged_and_declared_checks_come_last() {
    let rules = r#"[{"verbs":[],"nonResourceURLs":["/x"],"apiGroups":[""]},{"verbs":["get"]}]"#;
    let body = format!(r#"{{"metadata":{{"name":"r:a"}},"rules":{rules}}}"#);
    let both = [
        r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs"#,
        "rules[1].apiGroups: Required value: resource rules must supply at least one api group",
        "rules[1].resources: Required value: resource rules must supply at least one resource",
        "rules[0].verbs: Required value",
    ];
    let roles = Trial::of("rbac.authorization.k8s.io", "roles").refusals(&body);
    assert_eq!(
        roles[0],
        r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#
    );
    assert_eq!(roles[1..], both);
    let cluster = Trial::of("rbac.authorization.k8s.io", "clusterroles").refusals(&body);
    assert_eq!(cluster, both);
}

#[test]
fn bindings_get_the_group_and_keep_their_role() {
    let trial = Trial::of("rbac.authorization.k8s.io", "rolebindings");
    let (made, refused) = trial.create(
        r#"{"metadata":{"name":"b"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"s"}],"roleRef":{"kind":"Role","name":"r"}}"#,
    );
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(made.at("roleRef").str("apiGroup"), super::GROUP);
    assert_eq!(made.list("subjects")[0].str("apiGroup"), super::GROUP);
    assert_eq!(made.list("subjects")[1].str("apiGroup"), "");
    let (_, refused) = trial.update("", &made, |binding| {
        binding
            .object_mut()
            .object_mut("roleRef")
            .insert("name", "other");
    });
    assert_eq!(
        refused,
        [
            r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"other"}: field is immutable"#
        ]
    );
}

#[test]
fn subjects_are_judged_by_their_kind() {
    let refused = Trial::of("rbac.authorization.k8s.io", "clusterrolebindings").refusals(
        r#"{"metadata":{"name":"b"},"subjects":[{"kind":"Group","name":"g","apiGroup":"x"},{"kind":"ServiceAccount","name":"s","apiGroup":"x"},{"kind":"X"}],"roleRef":{"kind":"Role","name":"r"}}"#,
    );
    assert_eq!(
        refused,
        [
            r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
            r#"subjects[0].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io""#,
            r#"subjects[1].apiGroup: Unsupported value: "x": supported values: """#,
            "subjects[1].namespace: Required value",
            r#"subjects[2].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group""#,
            "subjects[2].name: Required value",
        ]
    );
}
