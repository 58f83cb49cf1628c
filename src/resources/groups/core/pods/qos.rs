//! The QoS class of a pod. Follows k8s.io/kubernetes/pkg/apis/core/helper/qos.

use crate::meta::amounts::is_pod_level;
use crate::meta::quantity::Quantity;
use crate::schema::Value;

const BEST_EFFORT: &str = "BestEffort";
const BURSTABLE: &str = "Burstable";
const GUARANTEED: &str = "Guaranteed";

/// `Guaranteed`, `Burstable` or `BestEffort`, from a pod spec: ComputePodQOS.
pub(super) fn class(spec: &Value) -> &'static str {
    let own = spec.at("resources");
    let has_own = ["requests", "limits"]
        .iter()
        .any(|list| own.entries(list).any(|(name, _)| is_pod_level(name)));
    if has_own {
        return of(own);
    }
    let classes = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec.list(list))
        .map(|container| of(container.at("resources")));
    together(classes)
}

fn of(resources: &Value) -> &'static str {
    together(["cpu", "memory"].iter().map(|name| {
        let amount = |list: &str| {
            let text = resources.at(list).at(name).as_str().unwrap_or("0");
            Quantity::parse(text).unwrap_or_default()
        };
        let (request, limit) = (amount("requests"), amount("limits"));
        match (request == limit, request.sign()) {
            (false, _) => BURSTABLE,
            (true, 0) => BEST_EFFORT,
            (true, _) => GUARANTEED,
        }
    }))
}

/// The class of a whole: the common class of its parts, otherwise `Burstable`.
fn together(mut classes: impl Iterator<Item = &'static str>) -> &'static str {
    let Some(first) = classes.next() else {
        return BEST_EFFORT;
    };
    match classes.all(|class| class == first) {
        true => first,
        false => BURSTABLE,
    }
}
