//! Controller revisions. Follows k8s.io/kubernetes/pkg/registry/apps/controllerrevision/strategy.go.

use crate::meta::{At, Errors, table};
use crate::resources::groups::workloads;
use crate::resources::{Cx, Printing, Rules, metadata};
use crate::schema::Value;

/// The rules of controller revisions.
pub(super) const RULES: Rules = Rules {
    validate,
    printing: Printing::of(cells),
    internal: "apps.ControllerRevision",
    ..Rules::DEFAULT
};

fn validate(object: At<'_>, old: Option<At<'_>>, cx: &Cx<'_>, errors: &mut Errors) {
    metadata::again(object, old, cx, errors);
    object.field("revision").non_negative(errors);
    let data = object.field("data");
    match old {
        Some(old) => workloads::immutable(data, old.value.at("data"), "", errors),
        None if data.is_absent() => errors.required(data.path, "data is mandatory"),
        None if data.value.as_object().is_none() => {
            errors.required(data.path, "data must be a valid JSON object");
        }
        None => {}
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let meta = object.at("metadata");
    let controller = meta
        .list("ownerReferences")
        .iter()
        .find(|owner| owner.bool("controller"))
        .map_or_else(|| "<none>".to_owned(), owner);
    vec![
        meta.str("name").into(),
        controller.into(),
        object.int("revision").into(),
        table::age(object, now),
    ]
}

/// `statefulset.apps/web`
fn owner(owner: &Value) -> String {
    let group = owner
        .str("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let kind = match group {
        "" => owner.str("kind").to_owned(),
        group => format!("{}.{group}", owner.str("kind")),
    };
    format!("{}/{}", kind.to_lowercase(), owner.str("name"))
}
