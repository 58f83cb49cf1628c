//! Replica sets. Follows k8s.io/kubernetes/pkg/registry/apps/replicaset/strategy.go and pkg/apis/apps.

use crate::meta::{At, Errors};
use crate::resources::groups::core::pods::{cells, controllers, defaults};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{Cx, Generation, Printing, Rules, StatusRules};
use crate::schema::{Object, Value};

/// The counters in the status.
const STATUS: &[&str] = &[
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
    "terminatingReplicas",
];

/// The rules of replica sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        let spec = object.object_mut().entry("spec", || Object::new().into());
        defaults::absent(spec, "replicas", 1);
        defaults::template(spec, "template");
    },
    prepare_create: |object, _| workloads::drop_disabled(object, &Value::Null, TEMPLATE),
    prepare_update: |object, old, _| workloads::drop_disabled(object, old, TEMPLATE),
    validate,
    status: StatusRules::validated_by(|object, _, _, errors| {
        workloads::replica_status(object.field("status"), STATUS, errors);
    }),
    warnings: |object, old, _| workloads::warnings(object, old, TEMPLATE),
    nothing: super::NO_REPLICAS,
    printing: Printing::of(|object, now| {
        let mut cells = controllers::replicas(object, now);
        let spec = object.at("spec");
        cells.extend(cells::containers(spec.at("template").at("spec")));
        cells.push(cells::selector(spec.at("selector")));
        cells
    }),
    generation: Generation::Spec,
    internal: "apps.ReplicaSet",
    ..Rules::DEFAULT
};

fn validate(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    workloads::counts(spec, &["replicas", "minReadySeconds"], errors);
    // Upstream's errors say deployment here.
    select_and_template(spec, "deployment", old, errors);
    if let Some(old) = old {
        let was = old.value.at("spec").at("selector");
        workloads::immutable(spec.field("selector"), was, "", errors);
    }
}

/// Validates the selector and template of a ReplicaSet or Deployment.
pub(super) fn select_and_template(
    spec: At<'_>,
    kind: &str,
    old: Option<At<'_>>,
    errors: &mut Errors,
) {
    workloads::selector(spec, kind, errors);
    if workloads::matches(spec, errors) {
        let template = spec.field("template");
        workloads::template(template, "ReplicaSet", workloads::before(old), errors);
    } else {
        spec.field("selector")
            .invalid("invalid label selector", errors);
    }
}
