//! What a pod's containers were given when the node took the pod. They keep it: nothing is resized in place, and a pod
//! that asks for something else is told so, as by a kubelet that cannot either. Follows
//! pkg/kubelet/allocation/{allocation_manager,features_unsupported}.go and pkg/kubelet/events/resize.go.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use serde::Serialize;

use super::Memory;
use crate::meta::quantity::Quantity;

/// Why a resize is refused; for people.
pub const REFUSED: &str = "In-place pod resize is not supported on this node";

impl Memory {
    /// The pod with the resources that its containers were given, whatever it asks for since then. Notes what of that
    /// is refused.
    pub fn allocate(&mut self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.refused_resize = None;
        let changed = pod.metadata.generation != Some(1);
        let Some(wanted) = pod.spec.as_ref().filter(|_| changed) else {
            return pod.clone();
        };
        let mut spec = wanted.clone();
        let init = spec.init_containers.iter_mut().flatten();
        let init = give(init, self.last.init_container_statuses.as_deref());
        let regular = spec.containers.iter_mut();
        let regular = give(regular, self.last.container_statuses.as_deref());
        if !init && !regular {
            return pod.clone();
        }
        let init = wanted.init_containers.iter().flatten();
        let summary = Summary {
            init_containers: init.map(Asked::of).collect(),
            containers: wanted.containers.iter().map(Asked::of).collect(),
            generation: pod.metadata.generation.unwrap_or_default(),
            error: REFUSED,
        };
        let summary = serde_json::to_string(&summary).unwrap_or_default();
        self.refused_resize = Some(format!("Pod resize Infeasible: {summary}"));
        Arc::new(Pod {
            metadata: pod.metadata.clone(),
            spec: Some(spec),
            status: pod.status.clone(),
        })
    }
}

/// Gives containers what was reported of them; whether one of them asks for something else.
fn give<'c>(
    containers: impl Iterator<Item = &'c mut Container>,
    reported: Option<&[ContainerStatus]>,
) -> bool {
    let mut differs = false;
    for container in containers {
        let mut statuses = reported.into_iter().flatten();
        let status = statuses.find(|status| status.name == container.name);
        let given = status.and_then(|status| status.resources.as_ref());
        let wanted = container.resources.clone().unwrap_or_default();
        if let Some(given) = given.filter(|given| amounts(given) != amounts(&wanted)) {
            container.resources = Some(given.clone());
            differs = true;
        }
    }
    differs
}

/// Requests and limits by what they are worth.
fn amounts(of: &ResourceRequirements) -> [BTreeMap<&str, Option<Quantity>>; 2] {
    [&of.requests, &of.limits].map(|map| {
        let pairs = map.iter().flatten();
        pairs
            .map(|(name, amount)| (name.as_str(), Quantity::parse(&amount.0).ok()))
            .collect()
    })
}

/// What events say of a resize.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Asked<'p>>,
    containers: Vec<Asked<'p>>,
    generation: i64,
    error: &'static str,
}

#[derive(Serialize)]
struct Asked<'p> {
    name: &'p str,
    resources: ResourceRequirements,
}

impl<'p> Asked<'p> {
    fn of(container: &'p Container) -> Self {
        Asked {
            name: &container.name,
            resources: container.resources.clone().unwrap_or_default(),
        }
    }
}
