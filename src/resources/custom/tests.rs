use super::conditions::{Next, next};
use crate::schema::{Value, json};

fn definition(plural: &str, kind: &str, status: &str) -> Value {
    json::parse(
        format!(
            r#"{{"metadata": {{"name": "{plural}.x.io"}}, "spec": {{"group": "x.io", "names": {{"plural": "{plural}", "singular": "{}", "kind": "{kind}", "listKind": "{kind}List"}}}}, "status": {status}}}"#,
            kind.to_lowercase()
        )
        .as_bytes(),
    )
    .unwrap()
    .value
}

/// Takes steps until there is nothing to do; returns the conditions after each as `TYPE=STATUS/REASON`.
fn steps(mut object: Value, others: &[Value]) -> (Value, Vec<String>) {
    let mut told = Vec::new();
    while let Next::Write(changed) = next(&object, others.iter(), false, "now") {
        told.push(
            changed
                .at("status")
                .list("conditions")
                .iter()
                .map(|c| format!("{}={}/{}", c.str("type"), c.str("status"), c.str("reason")))
                .collect::<Vec<_>>()
                .join(" "),
        );
        object = changed;
        assert!(told.len() < 9, "{told:?}");
    }
    (object, told)
}

#[test]
fn a_definition_is_established_in_two_steps() {
    let (object, told) = steps(definition("widgets", "Widget", "{}"), &[]);
    assert_eq!(
        told,
        [
            "NamesAccepted=True/NoConflicts Established=False/Installing",
            "NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted"
        ]
    );
    assert_eq!(
        object.path(&["status", "acceptedNames"]),
        object.path(&["spec", "names"])
    );
}

#[test]
fn taken_names_are_not_accepted_until_they_are_free() {
    let (first, _) = steps(definition("widgets", "Widget", "{}"), &[]);
    let (second, told) = steps(
        definition("gadgets", "Widget", "{}"),
        std::slice::from_ref(&first),
    );
    assert_eq!(
        told,
        ["NamesAccepted=False/ListKindConflict Established=False/NotAccepted"]
    );
    assert_eq!(
        second.path(&["status", "acceptedNames"]).str("plural"),
        "gadgets"
    );
    assert_eq!(second.path(&["status", "acceptedNames"]).str("kind"), "");
    let (_, told) = steps(second, &[]);
    assert_eq!(
        told.last().unwrap(),
        "NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted"
    );
}

#[test]
fn a_definition_that_ends_waits_for_its_instances() {
    let (mut object, _) = steps(definition("widgets", "Widget", "{}"), &[]);
    object
        .object_mut()
        .object_mut("metadata")
        .insert("deletionTimestamp", "t");
    super::conditions::begin_ending(&mut object, "now");
    let Next::Write(object) = next(&object, [].iter(), true, "now") else {
        panic!("its condition is written first");
    };
    assert_eq!(super::condition(&object, "Terminating"), "True");
    assert_eq!(next(&object, [].iter(), true, "now"), Next::DeleteInstances);
    let Next::Write(object) = next(&object, [].iter(), false, "now") else {
        panic!("it goes when nothing is left");
    };
    assert!(object.at("metadata").list("finalizers").is_empty());
    assert_eq!(super::condition(&object, "Terminating"), "False");
    assert_eq!(next(&object, [].iter(), false, "now"), Next::Rest);
}
