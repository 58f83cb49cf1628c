use super::*;
use crate::meta::names::subdomain_name;
use crate::schema::json;

fn parsed(text: &str) -> Value {
    let whole = format!("{{\"metadata\":{text}}}");
    json::parse(whole.as_bytes()).unwrap().value
}

fn told(errors: &Errors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

fn created(text: &str) -> Vec<String> {
    let object = parsed(text);
    let mut errors = Errors::default();
    validate(
        At::root(&object).field("metadata"),
        true,
        subdomain_name,
        &mut errors,
    );
    told(&errors)
}

fn updated(new: &str, old: &str) -> Vec<String> {
    let (new, old) = (parsed(new), parsed(old));
    let mut errors = Errors::default();
    validate_update(
        At::root(&new).field("metadata"),
        At::root(&old).field("metadata"),
        &mut errors,
    );
    told(&errors)
}

#[test]
fn a_name_is_needed_and_a_bad_prefix_is_told_before_the_name_made_of_it() {
    assert_eq!(
        created(r#"{"namespace":"n"}"#),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let told = created(r#"{"namespace":"n","generateName":"AB-","name":"AB-bcdfg"}"#);
    assert!(told[0].starts_with("metadata.generateName: Invalid value: \"AB-\""));
    assert!(told[1].starts_with("metadata.name: Invalid value: \"AB-bcdfg\""));
    assert_eq!(told.len(), 2);
}

#[test]
fn keys_of_annotations_are_judged_in_lower_case_and_those_of_labels_as_they_are() {
    assert!(
        created(r#"{"name":"a","namespace":"n","annotations":{"Example.com/x":""}}"#).is_empty()
    );
    assert_eq!(
        created(r#"{"name":"a","namespace":"n","labels":{"Example.com/x":""}}"#).len(),
        1
    );
    assert_eq!(
        created(r#"{"name":"a","namespace":"n","labels":{"":"v"}}"#).len(),
        2
    );
}

#[test]
fn annotations_share_a_limit() {
    let text = format!(
        r#"{{"name":"a","namespace":"n","annotations":{{"k":"{}"}}}}"#,
        "v".repeat(ANNOTATIONS_MAX)
    );
    assert_eq!(
        created(&text),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
}

#[test]
fn owners_are_whole_and_at_most_one_controls() {
    assert_eq!(
        created(
            r#"{"name":"a","namespace":"n","ownerReferences":[{"apiVersion":"","kind":"","name":"","uid":""}]}"#
        ),
        ["apiVersion", "kind", "name", "uid"].map(|field| format!(
            "metadata.ownerReferences[0].{field}: Required value: must not be empty"
        ))
    );
    assert_eq!(
        created(
            r#"{"name":"a","namespace":"n","ownerReferences":[{"apiVersion":"a/b/c","kind":"K","name":"x","uid":"u"}]}"#
        ),
        [
            "metadata.ownerReferences[0].apiVersion: Invalid value: \"a/b/c\": must be <group>/<version> or <version>"
        ]
    );
    let told = created(
        r#"{"name":"a","namespace":"n","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"a","uid":"1","controller":true},{"apiVersion":"v1","kind":"Pod","name":"b","uid":"2","controller":true}]}"#,
    );
    assert!(told[0].starts_with("metadata.ownerReferences: Invalid value: [{\"apiVersion\""));
    assert!(told[0].ends_with(
        "Only one reference can have Controller set to true. Found \"true\" in references for Pod/a and Pod/b"
    ));
}

#[test]
fn a_terminating_object_takes_no_new_finalizers() {
    assert_eq!(
        updated(
            r#"{"name":"a","deletionTimestamp":"2020-01-01T00:00:00Z","finalizers":["example.com/old","example.com/new"]}"#,
            r#"{"name":"a","deletionTimestamp":"2020-01-01T00:00:00Z","finalizers":["example.com/old"]}"#
        ),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/new\"}"
        ]
    );
}

#[test]
fn what_makes_an_objects_identity_stays() {
    assert_eq!(
        updated(
            r#"{"name":"a","deletionGracePeriodSeconds":0,"deletionTimestamp":"2020-01-01T00:00:00Z"}"#,
            r#"{"name":"a"}"#
        ),
        [
            "metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable",
            "metadata.deletionGracePeriodSeconds: Invalid value: 0: field is immutable"
        ]
    );
    assert_eq!(
        updated(
            r#"{"name":"a","generation":1}"#,
            r#"{"name":"a","generation":2}"#
        ),
        ["metadata.generation: Invalid value: 1: must not be decremented"]
    );
}
