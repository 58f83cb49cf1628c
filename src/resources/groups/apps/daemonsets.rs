//! Daemon sets. Follows k8s.io/kubernetes/pkg/registry/apps/daemonset/strategy.go and pkg/apis/apps.

use crate::meta::table;
use crate::resources::groups::core::pods::{cells, defaults};
use crate::resources::{Generation, Rules};
use crate::schema::{Object, Value};

/// The rules of daemon sets.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| set_defaults(object),
    cells,
    generation: Generation::Own,
    internal: "apps.DaemonSet",
    ..Rules::DEFAULT
};

fn set_defaults(object: &mut Value) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    let strategy = spec
        .object_mut()
        .entry("updateStrategy", || Object::new().into());
    defaults::text(strategy, "type", "RollingUpdate");
    if strategy.str("type") == "RollingUpdate" {
        let rolling = strategy.object_mut().object_mut("rollingUpdate");
        rolling.set_default("maxUnavailable", 1);
        rolling.set_default("maxSurge", 0);
    }
    defaults::absent(spec, "revisionHistoryLimit", 10);
    defaults::template(spec, "template");
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let template = spec.at("template").at("spec");
    let mut cells = vec![object.at("metadata").str("name").into()];
    cells.extend(
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ]
        .map(|key| Value::Int(status.int(key))),
    );
    cells.push(cells::labels(template.at("nodeSelector")));
    cells.push(table::age(object, now));
    cells.extend(cells::containers(template));
    cells.push(cells::selector(spec.at("selector")));
    cells
}
