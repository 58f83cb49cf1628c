//! Deployments. Follows k8s.io/kubernetes/pkg/registry/apps/deployment/strategy.go and pkg/apis/apps.

use crate::meta::selector::Selector;
use crate::meta::table;
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{Generation, Rules};
use crate::schema::{Object, Value};

/// The rules of deployments.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    cells,
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
