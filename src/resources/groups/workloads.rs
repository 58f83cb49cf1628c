//! Common parts of workloads: the pod template, a selector that must match it, and counters in the status. Follows
//! k8s.io/kubernetes/pkg/apis/apps/validation and the strategies in pkg/registry/apps.

use super::core::pods::disabled;
use super::core::pods::validate::{self, Before};
use super::core::pods::warnings;
use crate::meta::checks::selects;
use crate::meta::errors::Reason;
use crate::meta::{At, Errors, Path, names};
use crate::schema::semantic::same_as;
use crate::schema::{Value, internal};

/// The path of the template in most workloads.
pub(super) const TEMPLATE: &[&str] = &["spec", "template"];

/// Drops fields of disabled features from the template at `path`; `old` is the object to be replaced (null if there is
/// none).
pub(super) fn drop_disabled(object: &mut Value, old: &Value, path: &[&str]) {
    let template = path
        .iter()
        .try_fold(object, |value, step| value.get_mut(step));
    if let Some(template) = template.filter(|template| !template.is_null()) {
        disabled::drop_disabled(template, old.path(path));
    }
}

/// The template of an object at `path`; `text` is the path as text.
fn template_of<'a>(object: &'a Value, root: &'a Path<'a>, text: &'a str, path: &[&str]) -> At<'a> {
    At {
        value: object.path(path),
        path: root.field(text),
    }
}

/// Warnings about the template at `path`, if the object's generation was incremented.
pub(super) fn template_warnings(object: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    let generation = |object: &Value| object.at("metadata").int("generation");
    if old.is_some_and(|old| generation(old) == generation(object)) {
        return Vec::new();
    }
    let text = path.join(".");
    warnings::template(template_of(object, &Path::ROOT, &text, path))
}

/// The same, preceded by a warning about a name that is not a DNS label.
pub(super) fn warnings(object: &Value, old: Option<&Value>, path: &[&str]) -> Vec<String> {
    let mut told = Vec::new();
    if old.is_none() {
        let wrong = names::dns1123_label(object.at("metadata").str("name"));
        if !wrong.is_empty() {
            told.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                wrong.join(" ")
            ));
        }
    }
    told.extend(template_warnings(object, old, path));
    told
}

/// The exemptions due to the template of the old object.
pub(super) fn before(old: Option<At<'_>>) -> Before<'_> {
    old.map_or_else(Before::default, |old| {
        Before::template(old.value.path(TEMPLATE))
    })
}

/// Requires a selector that is not empty. `kind` is upstream's name of the workload.
pub(super) fn selector(spec: At<'_>, kind: &str, errors: &mut Errors) {
    let selector = spec.field("selector");
    if selector.is_absent() {
        return errors.required(selector.path, "");
    }
    selector.label_selector(false, errors);
    not_empty(selector, kind, errors);
}

/// Rejects an empty selector.
pub(super) fn not_empty(selector: At<'_>, kind: &str, errors: &mut Errors) {
    if !selector.is_absent() && selector.value.is_empty() {
        selector.invalid(format!("empty selector is invalid for {kind}"), errors);
    }
}

/// Requires that the selector matches the labels of the template. Returns false if the selector is invalid.
pub(super) fn matches(spec: At<'_>, errors: &mut Errors) -> bool {
    let labels = spec.value.path(&["template", "metadata", "labels"]);
    match selects(spec.value.at("selector"), labels) {
        None => return false,
        Some(true) => {}
        Some(false) => errors.invalid(
            spec.path.field("template.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        ),
    }
    true
}

/// Validates the template of a workload whose pods run forever. `kind` is upstream's name of the workload.
pub(super) fn template(template: At<'_>, kind: &str, before: Before<'_>, errors: &mut Errors) {
    validate::template(template, before, errors);
    runs_forever(template.field("spec"), kind, errors);
}

/// Requires that the pods are always restarted, and have no deadline.
pub(super) fn runs_forever(pod: At<'_>, kind: &str, errors: &mut Errors) {
    pod.field("restartPolicy").one_of(&["Always"], errors);
    pod.field("activeDeadlineSeconds").forbid(
        &format!("activeDeadlineSeconds in {kind} is not Supported"),
        errors,
    );
}

/// Rejects negative numbers.
pub(super) fn counts(owner: At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        owner.field(field).non_negative(errors);
    }
}

/// Rejects a counter that exceeds another: `(counter, other, upstream's name of the other)`.
pub(super) fn at_most(status: At<'_>, pairs: &[(&str, &str, &str)], errors: &mut Errors) {
    for (count, other, shown) in pairs {
        let n = status.value.int(count);
        if n > status.value.int(other) {
            errors.invalid(
                status.path.field(count),
                n,
                format!("cannot be greater than {shown}"),
            );
        }
    }
}

/// Validates the status of a workload with replicas.
pub(super) fn replica_status(status: At<'_>, fields: &[&str], errors: &mut Errors) {
    counts(status, fields, errors);
    for count in [
        "fullyLabeledReplicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        if fields.contains(&count) {
            at_most(status, &[(count, "replicas", "status.replicas")], errors);
        }
    }
    at_most(
        status,
        &[("availableReplicas", "readyReplicas", "readyReplicas")],
        errors,
    );
}

/// Rejects a decreased collision count: IsDecremented.
pub(super) fn collisions(status: At<'_>, old: &Value, errors: &mut Errors) {
    let (now, was) = (
        status.value.at("collisionCount").as_int(),
        old.at("collisionCount").as_int(),
    );
    if was.is_some_and(|was| now.is_none_or(|now| now < was)) {
        errors.invalid(
            status.path.field("collisionCount"),
            now.unwrap_or(0),
            "cannot be decremented",
        );
    }
}

/// Rejects a change. The error shows the new value as upstream's internal type prints it (`go_type` is `""` if it
/// prints like JSON).
pub(super) fn immutable(new: At<'_>, old: &Value, go_type: &str, errors: &mut Errors) {
    if same_as(go_type, new.value, old) {
        return;
    }
    match go_type {
        "" => new.invalid("field is immutable", errors),
        go_type => new.invalid_dump(go_type, "field is immutable", errors),
    }
}

/// The error `Unsupported value: DUMP: supported values: ...` for a struct.
pub(super) fn unsupported(at: At<'_>, go_type: &str, supported: &[&str], errors: &mut Errors) {
    let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
    errors.push(
        Reason::NotSupported,
        at.path,
        format!(
            "Unsupported value: {}: supported values: {}",
            internal::shown(at.value, go_type),
            list.join(", ")
        ),
    );
}

/// The number in an integer or percentage: getIntOrPercentValue.
pub(super) fn number(value: &Value) -> i64 {
    value
        .as_str()
        .and_then(names::percentage)
        .or_else(|| value.as_int())
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or(0)
}
