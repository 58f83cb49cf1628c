use crate::resources::groups::trial::Trial;

#[test]
fn priorities_are_bounded_and_stay() {
    let trial = Trial::of("scheduling.k8s.io", "priorityclasses");
    for (body, refused) in [
        (
            r#"{"metadata":{"name":"a"},"value":1000000001}"#,
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            r#"{"metadata":{"name":"system-a"},"value":1}"#,
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-a is not a known system priority class",
        ),
        (
            r#"{"metadata":{"name":"system-node-critical"},"value":1}"#,
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
        ),
        (
            r#"{"metadata":{"name":"a"},"preemptionPolicy":"X"}"#,
            r#"preemptionPolicy: Unsupported value: "X": supported values: "PreemptLowerPriority", "Never""#,
        ),
    ] {
        let told = trial.refusals(body);
        assert!(told.contains(&refused.to_owned()), "{told:?}");
    }
    let (made, _) = trial.create(r#"{"metadata":{"name":"a"},"value":1}"#);
    assert_eq!(made.at("metadata").int("generation"), 1);
    let (_, refused) = trial.update("", &made, |class| {
        class.set("value", 2);
        class.set("preemptionPolicy", "Never");
    });
    assert_eq!(
        refused,
        [
            "value: Forbidden: may not be changed in an update.",
            r#"preemptionPolicy: Invalid value: "Never": field is immutable"#
        ]
    );
}
