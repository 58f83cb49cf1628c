//! Replica sets. Follows k8s.io/kubernetes/pkg/registry/apps/replicaset/strategy.go and pkg/apis/apps.

use crate::resources::groups::core::pods::{cells, controllers, defaults};
use crate::resources::{Generation, Rules};
use crate::schema::Object;

/// The rules of replica sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let spec = object.object_mut().entry("spec", || Object::new().into());
        defaults::absent(spec, "replicas", 1);
        defaults::template(spec, "template");
    },
    cells: |object, now| {
        let mut cells = controllers::replicas(object, now);
        let spec = object.at("spec");
        cells.extend(cells::containers(spec.at("template").at("spec")));
        cells.push(cells::selector(spec.at("selector")));
        cells
    },
    generation: Generation::Spec,
    internal: "apps.ReplicaSet",
    ..Rules::DEFAULT
};
