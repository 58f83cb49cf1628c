//! Kinds of the group `autoscaling`. Follows pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go and
//! pkg/apis/autoscaling.

mod cells;
mod conversion;
#[cfg(test)]
mod tests;
mod validate;

use crate::resources::groups::core::pods::defaults;
use crate::resources::registry::Conversion;
use crate::resources::{Cx, Generation, Printing, Rules, StatusRules};
use crate::schema::{Object, Value};
use crate::value;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "horizontalpodautoscalers" => Rules {
            defaults: set_defaults,
            validate: validate::autoscaler,
            status: StatusRules::validated_by(|object, _, _, errors| {
                validate::status(object.field("status"), errors);
            }),
            printing: Printing {
                cells: cells::cells,
                drop_shown_annotations: conversion::drop_annotations,
                ..Printing::DEFAULT
            },
            generation: Generation::Spec,
            internal: "autoscaling.HorizontalPodAutoscaler",
            ..Rules::DEFAULT
        },
        _ => Rules::DEFAULT,
    }
}

/// `autoscaling/v1` to and from `autoscaling/v2`.
pub(super) fn v1_conversion() -> Option<Conversion> {
    Some(Conversion {
        to_storage: conversion::from_v1,
        from_storage: conversion::to_v1,
    })
}

/// The default metric: CPU utilization.
fn processors(percent: i64) -> Value {
    value!({
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}
    })
}

const DEFAULT_PERCENT: i64 = 80;

fn set_defaults(object: &mut Value, cx: &Cx<'_>) {
    let spec = object.object_mut().entry("spec", || Object::new().into());
    defaults::absent(spec, "minReplicas", 1);
    if cx.version == "v1" {
        // Fields that only v2 has are converted to v2 and back, so that v2's defaults show in v1's annotations.
        *object = conversion::to_v1(conversion::from_v1(std::mem::take(object)));
        return;
    }
    if spec.get("metrics").is_none_or(Value::is_empty) {
        spec.set("metrics", vec![processors(DEFAULT_PERCENT)]);
    }
    if let Some(behavior) = spec
        .get_mut("behavior")
        .filter(|behavior| !behavior.is_null())
    {
        fill(behavior, true);
    }
    conversion::drop_annotations(object);
}

/// Fills in scaling rules that are not given; `policies` also for rules without policies.
fn fill(behavior: &mut Value, policies: bool) {
    for (direction, standard) in [
        (
            "scaleUp",
            value!({
                "stabilizationWindowSeconds": 0,
                "selectPolicy": "Max",
                "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15}
                ]
            }),
        ),
        (
            "scaleDown",
            value!({
                "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]
            }),
        ),
    ] {
        let given = behavior
            .get(direction)
            .is_some_and(|rules| !rules.is_null());
        let rules = behavior
            .object_mut()
            .entry(direction, || Object::new().into());
        for (name, value) in standard.entries_of() {
            if policies || !given || name != "policies" {
                defaults::absent(rules, name, value.clone());
            }
        }
    }
}
