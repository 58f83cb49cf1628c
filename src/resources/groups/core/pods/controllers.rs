//! Replication controllers. Follows k8s.io/kubernetes/pkg/registry/core/replicationcontroller/strategy.go.

use super::{cells, defaults};
use crate::meta::table;
use crate::resources::{Generation, Rules, Selectable};
use crate::schema::Value;

/// The rules of replication controllers.
pub(in crate::resources::groups) const REPLICATIONCONTROLLERS: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    cells: |object, now| {
        let mut cells = replicas(object, now);
        let spec = object.at("spec");
        cells.extend(cells::containers(spec.at("template").at("spec")));
        cells.push(cells::labels(spec.at("selector")));
        cells
    },
    selectable: &[Selectable {
        name: "status.replicas",
        value: |object| object.at("status").int("replicas").to_string(),
    }],
    own_selector_error: true,
    generation: Generation::Spec,
    orphans_by_default: true,
    internal: "core.ReplicationController",
    ..Rules::DEFAULT
};

/// The first cells of a ReplicationController or ReplicaSet: name, desired, current and ready replicas, age.
pub(in crate::resources::groups) fn replicas(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    vec![
        object.at("metadata").str("name").into(),
        spec.int("replicas").into(),
        status.int("replicas").into(),
        status.int("readyReplicas").into(),
        table::age(object, now),
    ]
}

fn set_defaults(object: &mut Value) {
    let labels = object
        .path(&["spec", "template", "metadata", "labels"])
        .clone();
    if !labels.is_empty() {
        if object.path(&["spec", "selector"]).is_empty() {
            object
                .object_mut()
                .object_mut("spec")
                .insert("selector", &labels);
        }
        if object.path(&["metadata", "labels"]).is_empty() {
            object
                .object_mut()
                .object_mut("metadata")
                .insert("labels", labels);
        }
    }
    if let Some(spec) = object.get_mut("spec") {
        defaults::absent(spec, "replicas", 1);
        if spec.get("template").is_some() {
            defaults::template(spec, "template");
        }
    }
}
