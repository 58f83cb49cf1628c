//! Stateful sets. Follows k8s.io/kubernetes/pkg/registry/apps/statefulset/strategy.go and pkg/apis/apps.

use crate::meta::{names, table};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{Generation, Rules};
use crate::schema::{Object, Value};

/// The rules of stateful sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    cells: |object, now| {
        let (spec, status) = (object.at("spec"), object.at("status"));
        let ready = format!("{}/{}", status.int("readyReplicas"), spec.int("replicas"));
        let [names, images] = cells::containers(spec.at("template").at("spec"));
        vec![
            object.at("metadata").str("name").into(),
            ready.into(),
            table::age(object, now),
            names,
            images,
        ]
    },
    name: names::label_name,
    generation: Generation::Spec,
    internal: "apps.StatefulSet",
    ..Rules::DEFAULT
};

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec
        .object_mut()
        .entry("updateStrategy", || Object::new().into());
    if strategy.str("type").is_empty() {
        strategy.set("type", "RollingUpdate");
        defaults::absent(strategy, "rollingUpdate", Object::new());
    }
    if strategy.str("type") == "RollingUpdate"
        && let Some(rolling) = strategy
            .as_object_mut()
            .and_then(|strategy| strategy.get_mut("rollingUpdate"))
            .filter(|rolling| !rolling.is_null())
    {
        defaults::absent(rolling, "partition", 0);
        defaults::absent(rolling, "maxUnavailable", 1);
    }
    let retention = spec
        .object_mut()
        .entry("persistentVolumeClaimRetentionPolicy", || {
            Object::new().into()
        });
    defaults::text(retention, "whenDeleted", "Retain");
    defaults::text(retention, "whenScaled", "Retain");
    defaults::absent(spec, "replicas", 1);
    defaults::absent(spec, "revisionHistoryLimit", 10);
    defaults::template(spec, "template");
    for claim in defaults::items(spec, "volumeClaimTemplates") {
        // As upstream's conversion to the internal type and back leaves them.
        claim.set("kind", "PersistentVolumeClaim");
        claim.set("apiVersion", "v1");
        let status = claim.object_mut().entry("status", || Object::new().into());
        defaults::text(status, "phase", "Pending");
        for list in ["capacity", "allocatedResources"] {
            if let Some(list) = status.get_mut(list) {
                defaults::round_up(list);
            }
        }
        let spec = claim.object_mut().entry("spec", || Object::new().into());
        defaults::claim_spec(spec);
    }
}
