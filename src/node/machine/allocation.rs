//! The resources allocated to a pod's containers: those requested when the node accepted the pod, and those granted by
//! resizes since. Follows pkg/kubelet/allocation/allocation_manager.go and pkg/kubelet/events/resize.go.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements,
};
use serde::Serialize;

use crate::meta::quantity::Quantity;

/// The resources of a pod and of its containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    whole: Option<ResourceRequirements>,
    containers: BTreeMap<String, ResourceRequirements>,
}

/// A resize that is not granted, for now or at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// `Deferred`, or the reason in a condition of an earlier agent.
    pub reason: String,
    /// A human-readable message.
    pub message: String,
    /// The generation of the pod that requests it.
    pub generation: Option<i64>,
    /// When it began.
    pub since: Timestamp,
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
}

impl Given {
    /// The resources that a pod's spec requests.
    pub fn of(spec: &PodSpec) -> Given {
        let own = |one: &Container| (one.name.clone(), one.resources.clone().unwrap_or_default());
        Given {
            whole: spec.resources.clone(),
            containers: all(spec).map(own).collect(),
        }
    }

    /// The resources that an earlier agent allocated, according to the status. The status has only actual limits: if
    /// the allocated requests equal those of the spec, its limits were allocated, too.
    pub fn told(spec: &PodSpec, status: &PodStatus) -> Given {
        let mut given = Given::of(spec);
        let statuses = status.init_container_statuses.iter().flatten();
        for status in statuses.chain(status.container_statuses.iter().flatten()) {
            let ContainerStatus {
                resources: Some(resources),
                ..
            } = status
            else {
                continue;
            };
            if let Some(own) = given.containers.get_mut(&status.name) {
                let requests = &status.allocated_resources;
                if amounts(requests.as_ref()) != amounts(own.requests.as_ref()) {
                    own.requests = requests.clone();
                    own.limits = resources.limits.clone();
                }
            }
        }
        let whole = given
            .whole
            .as_mut()
            .zip(status.allocated_resources.as_ref());
        if let Some((whole, requests)) = whole {
            let own = whole.requests.get_or_insert_default();
            let told = requests.iter().filter(|(name, _)| own.contains_key(*name));
            let told: BTreeMap<_, _> = told
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if amounts(Some(own)) != amounts(Some(&told)) {
                *own = told;
                whole.limits = status.resources.as_ref().and_then(|own| own.limits.clone());
            }
        }
        given
    }

    /// The pod with its allocated resources, if they differ from its spec.
    pub fn put(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let wanted = pod.spec.as_ref()?;
        let nothing = ResourceRequirements::default();
        let same = |one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>| {
            let [one, other] = [one, other].map(|of| of.unwrap_or(&nothing));
            amounts(one.requests.as_ref()) == amounts(other.requests.as_ref())
                && amounts(one.limits.as_ref()) == amounts(other.limits.as_ref())
        };
        let kept = |one: &Container| {
            let given = self.containers.get(&one.name);
            given.is_none() || same(given, one.resources.as_ref())
        };
        if all(wanted).all(kept) && same(self.whole.as_ref(), wanted.resources.as_ref()) {
            return None;
        }
        let mut spec = wanted.clone();
        spec.resources = self.whole.clone();
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            if let Some(given) = self.containers.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
        Some(Arc::new(Pod {
            metadata: pod.metadata.clone(),
            spec: Some(spec),
            status: pod.status.clone(),
        }))
    }
}

/// Quantities by value.
fn amounts(
    of: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> BTreeMap<&str, Option<Quantity>> {
    let pairs = of.into_iter().flatten();
    pairs
        .map(|(name, amount)| (name.as_str(), Quantity::parse(&amount.0).ok()))
        .collect()
}

/// The content of events about a resize.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Asked<'p>>,
    containers: Vec<Asked<'p>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'p str,
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

/// The message of an event: `what` happened, the resources of `pod`, and the error.
pub fn summary(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let Some(spec) = &pod.spec else {
        return what.to_owned();
    };
    let init = spec.init_containers.iter().flatten();
    let summary = Summary {
        init_containers: init.map(Asked::of).collect(),
        containers: spec.containers.iter().map(Asked::of).collect(),
        generation: generation.unwrap_or_default(),
        error,
    };
    let summary = serde_json::to_string(&summary).unwrap_or_default();
    format!("{what}: {summary}")
}
