//! Deployments. Follows k8s.io/kubernetes/pkg/registry/apps/deployment/strategy.go and pkg/apis/apps.

use super::replicasets::select_and_template;
use crate::meta::selector::Selector;
use crate::meta::strconv::parse_int;
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::groups::workloads::{self, TEMPLATE};
use crate::resources::{Cx, Generation, Printing, Rules, StatusRules, metadata};
use crate::schema::semantic::same_as;
use crate::schema::{Object, Value};

/// The counters in the status.
const STATUS: &[&str] = &[
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
];

/// The annotation for the revision to roll back to.
const ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// The rules of deployments.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    convert: read_rollback,
    prepare_create: |object, _| {
        workloads::drop_disabled(object, &Value::Null, TEMPLATE);
        object
            .object_mut()
            .object_mut("metadata")
            .insert("generation", 1);
    },
    prepare_update,
    validate,
    status: StatusRules {
        prepare: |object, old, _| {
            // Labels cannot change through the status, other metadata can. The rollback annotation belongs to the spec.
            let was = old.at("metadata");
            let meta = object.object_mut().object_mut("metadata");
            meta.insert("labels", was.at("labels"));
            let rollback = was.at("annotations").get(ROLLBACK);
            let annotations = meta.object_mut("annotations");
            match rollback {
                Some(revision) => drop(annotations.insert(ROLLBACK, revision)),
                None => drop(annotations.remove(ROLLBACK)),
            }
        },
        validate: |object, old, _, errors| {
            let status = object.field("status");
            workloads::replica_status(status, STATUS, errors);
            workloads::collisions(status, old.value.at("status"), errors);
        },
        ..StatusRules::DEFAULT
    },
    warnings: |object, old, _| workloads::warnings(object, old, TEMPLATE),
    nothing: super::NO_REPLICAS,
    printing: Printing {
        drop_shown_annotations: |object| metadata::drop_annotations(object, &[ROLLBACK]),
        cells,
        ..Printing::DEFAULT
    },
    generation: Generation::Own,
    internal: "apps.Deployment",
    ..Rules::DEFAULT
};

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::absent(spec, "replicas", 1);
    let strategy = spec.object_mut().entry("strategy", || Object::new().into());
    defaults::text(strategy, "type", "RollingUpdate");
    if strategy.str("type") == "RollingUpdate" {
        let rolling = strategy.object_mut().object_mut("rollingUpdate");
        rolling.set_default("maxUnavailable", "25%");
        rolling.set_default("maxSurge", "25%");
    }
    defaults::absent(spec, "revisionHistoryLimit", 10);
    defaults::absent(spec, "progressDeadlineSeconds", 600);
    defaults::template(spec, "template");
}

/// Parses the revision to roll back to; empty text counts as none.
fn read_rollback(object: &mut Value) -> Result<(), String> {
    let said = object.at("metadata").at("annotations").str(ROLLBACK);
    let revision = match said {
        "" => None,
        text => Some(parse_int(text).map_err(|why| {
            format!("failed to parse annotation[{ROLLBACK}]={text} as int64: {why}")
        })?),
    };
    match revision {
        None => metadata::drop_annotations(object, &[ROLLBACK]),
        Some(revision) => {
            let meta = object.object_mut().object_mut("metadata");
            let annotations = meta.object_mut("annotations");
            annotations.insert(ROLLBACK, revision.to_string());
        }
    }
    Ok(())
}

/// Changed annotations increment the generation, too, because they are copied to replica sets.
fn prepare_update(object: &mut Value, old: &Value, _: &Cx<'_>) {
    workloads::drop_disabled(object, old, TEMPLATE);
    const ANNOTATIONS: &[&str] = &["metadata", "annotations"];
    if !same_as("apps.DeploymentSpec", object.at("spec"), old.at("spec"))
        || object.path(ANNOTATIONS) != old.path(ANNOTATIONS)
    {
        let generation = old.at("metadata").int("generation");
        object
            .object_mut()
            .object_mut("metadata")
            .insert("generation", generation + 1);
    }
}

fn validate(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    workloads::counts(spec, &["replicas"], errors);
    select_and_template(spec, "deployment", old, errors);
    strategy(spec.field("strategy"), errors);
    workloads::counts(spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
    let rollback = object.value.at("metadata").at("annotations").str(ROLLBACK);
    if let Ok(revision @ ..0) = rollback.parse::<i64>() {
        errors.invalid(
            spec.path.field("rollback.version"),
            revision,
            "must be greater than or equal to 0",
        );
    }
    workloads::counts(spec, &["progressDeadlineSeconds"], errors);
    let deadline = spec.field("progressDeadlineSeconds");
    let ready = spec.value.int("minReadySeconds");
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        deadline.invalid("must be greater than minReadySeconds", errors);
    }
    if let Some(old) = old {
        let was = old.value.at("spec").at("selector");
        workloads::immutable(spec.field("selector"), was, "", errors);
    }
}

fn strategy(strategy: At<'_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.value.str("type") {
        "Recreate" => rolling.forbid(
            "may not be specified when strategy `type` is 'Recreate'",
            errors,
        ),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            unavailable.int_or_percent(errors);
            surge.int_or_percent(errors);
            if workloads::number(unavailable.value) == 0 && workloads::number(surge.value) == 0 {
                unavailable.invalid("may not be 0 when `maxSurge` is 0", errors);
            }
            unavailable.at_most_all(errors);
        }
        _ => workloads::unsupported(
            strategy,
            "apps.DeploymentStrategy",
            &["Recreate", "RollingUpdate"],
            errors,
        ),
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let ready = format!("{}/{}", status.int("readyReplicas"), spec.int("replicas"));
    let [names, images] = cells::containers(spec.at("template").at("spec"));
    let selector = match spec.get("selector").map(Selector::from_object) {
        Some(Ok(selector)) => selector.to_string(),
        Some(Err(_)) => "<invalid>".to_owned(),
        None => String::new(),
    };
    vec![
        object.at("metadata").str("name").into(),
        ready.into(),
        status.int("updatedReplicas").into(),
        status.int("availableReplicas").into(),
        table::age(object, now),
        names,
        images,
        selector.into(),
    ]
}
