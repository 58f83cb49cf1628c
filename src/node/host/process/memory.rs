//! The memory of a process: its limits, and how soon it is killed when the host has none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::SYSTEM_CRITICAL;
use crate::meta::quantity::Quantity;
use crate::node::machine::Size;
use crate::zone::Limits;

/// A memory request in bytes; defaults to the limit.
fn memory_request(of: Option<&ResourceRequirements>) -> Option<i64> {
    let listed = |map: &Option<
        BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| { Quantity::parse(&map.as_ref()?.get("memory")?.0).ok() };
    let (requests, limits) = (listed(&of?.requests), listed(&of?.limits));
    requests.or(limits).map(|memory| memory.value())
}

/// The OOM score adjustment of a container on a host with this much memory. Follows `GetContainerOOMScoreAdjust`
/// (pkg/kubelet/qos).
pub(super) fn oom_score(pod: &Pod, container: &Container, capacity: u64) -> i32 {
    const LEAST: i32 = -997;
    const MOST: i32 = 1000;
    let spec = pod.spec.clone().unwrap_or_default();
    let is_critical = spec
        .priority
        .is_some_and(|priority| priority >= SYSTEM_CRITICAL);
    if is_critical && spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return LEAST;
    }
    let status = pod.status.as_ref();
    match status.and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return LEAST,
        Some("BestEffort") => return MOST,
        _ => {}
    }
    let of = |one: &Container| memory_request(one.resources.as_ref()).unwrap_or(0);
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let is_sidecar = |one: &Container| one.restart_policy.as_deref() == Some("Always");
    let (mut beside, mut most) = (0, 0);
    for init in inits {
        most = most.max(beside + of(init));
        if is_sidecar(init) {
            beside += of(init);
        }
    }
    let most = most.max(beside + spec.containers.iter().map(of).sum::<i64>());
    // Pod-level requests beyond those of its containers are shared equally among them.
    let count = (inits.len() + spec.containers.len()).max(1) as i64;
    let whole = memory_request(spec.resources.as_ref());
    let share = whole.map_or(0, |whole| (whole - most).max(0) / count);
    let score = |memory: i64| {
        let whole = i128::from(capacity.max(1));
        i128::from(MOST) - i128::from(MOST) * i128::from(memory + share) / whole
    };
    let mut result = score(of(container));
    if inits
        .iter()
        .any(|one| one.name == container.name && is_sidecar(one))
    {
        // A sidecar is not killed before the containers that it serves.
        let least = spec.containers.iter().map(of).min().unwrap_or(0);
        result = result.min(score(least));
    }
    result.clamp(i128::from(MOST + LEAST), i128::from(MOST - 1)) as i32
}

/// Limits of a container, with kubelet's rules for shares and scores.
pub(in super::super) fn limits(pod: &Pod, container: &Container) -> Limits {
    let spec = pod.spec.clone().unwrap_or_default();
    let capacity = super::super::usage::memory().capacity;
    Limits {
        oom_score: Some(oom_score(pod, container, capacity)),
        ..Size::of(&spec, container).limits()
    }
}
