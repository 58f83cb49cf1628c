use crate::resources::groups::trial::Trial;

#[test]
fn handlers_are_labels_that_stay() {
    let trial = Trial::of("node.k8s.io", "runtimeclasses");
    let (made, refused) = trial.create(r#"{"metadata":{"name":"r"},"handler":"lx"}"#);
    assert_eq!(refused, Vec::<String>::new());
    let changed = |to: &str| {
        let (_, told) = trial.update("", &made, |class| class.set("handler", to));
        told
    };
    assert_eq!(
        changed("kvm"),
        ["handler: Invalid value: null: field is immutable"]
    );
    assert_eq!(
        changed(""),
        [
            "handler: Invalid value: null: field is immutable",
            "handler: Required value"
        ]
    );
    assert!(changed("K")[0].starts_with(r#"handler: Invalid value: "K": a lowercase RFC 1123"#));
}

#[test]
fn what_a_class_adds_to_pods_is_judged() {
    let refused = Trial::of("node.k8s.io", "runtimeclasses").refusals(
        r#"{"metadata":{"name":"r"},"handler":"lx","overhead":{"podFixed":{"cpu":"-1"}},"scheduling":{"nodeSelector":{"a":"b"},"tolerations":[{"key":"k"},{"key":"k"},{"key":"k","operator":"X"}]}}"#,
    );
    assert_eq!(
        refused,
        [
            r#"overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
            r#"scheduling.tolerations[2].operator: Unsupported value: "X": supported values: "Equal", "Exists""#,
            r#"scheduling.tolerations[1]: Duplicate value: {"Key":"k","Operator":"","Value":"","Effect":"","TolerationSeconds":null}"#,
        ]
    );
}
