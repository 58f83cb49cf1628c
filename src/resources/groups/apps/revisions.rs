//! Controller revisions. Follows k8s.io/kubernetes/pkg/registry/apps/controllerrevision/strategy.go.

use crate::meta::table;
use crate::resources::Rules;
use crate::schema::Value;

/// The rules of controller revisions.
pub(super) const RULES: Rules = Rules {
    cells,
    internal: "apps.ControllerRevision",
    ..Rules::DEFAULT
};

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
