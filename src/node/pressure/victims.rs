//! Which pod is evicted, and what is told of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::super::describe::together;
use super::Signal;
use super::thresholds::{Met, units};
use crate::meta::amounts::Side;
use crate::meta::quantity::{Form, Quantity};

/// Pods with at least this priority are never evicted: `system-cluster-critical` and above.
const CRITICAL: i32 = 2_000_000_000;

/// The usage of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Memory in bytes.
    pub memory: u64,
    /// The number of processes.
    pub pids: u64,
    /// The memory of each container.
    pub containers: BTreeMap<String, u64>,
    /// The disk usage.
    pub disk: PodDisk,
}

/// The disk usage of a pod, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Its emptyDir volumes, except those in memory.
    pub volumes: BTreeMap<String, u64>,
    /// The root and logs of each container.
    pub containers: BTreeMap<String, u64>,
    /// Writable files that all containers share, such as `/etc/hosts`, and termination messages.
    pub files: u64,
}

impl PodDisk {
    pub(super) fn sum(&self) -> u64 {
        let parts = self.volumes.values().chain(self.containers.values());
        parts.sum::<u64>() + self.files
    }
}

fn priority(pod: &Pod) -> i32 {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.priority)
        .unwrap_or(0)
}

/// Whether a pod is never evicted.
pub(super) fn critical(pod: &Pod) -> bool {
    priority(pod) >= CRITICAL
}

/// The request or limit of a container for a resource.
pub(super) fn quantity(container: &Container, side: Side, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let map = match side {
        Side::Limits => resources.limits.as_ref(),
        Side::Requests => resources.requests.as_ref(),
    };
    Quantity::parse(&map?.get(resource)?.0).ok()
}

/// The order of eviction, smallest first: pods that exceed their requests, then lower priority, then the largest
/// excess. A pod with unknown usage precedes its equals. There are no requests for inodes; the pod with the largest
/// disk usage is assumed to have most of them.
fn rank(signal: Signal, (pod, used): (&Pod, Option<&PodUse>)) -> impl Ord + use<> {
    let asked = |resource| {
        let asked = together(pod, Side::Requests, resource);
        i128::from(asked.map_or(0, |asked| asked.value()))
    };
    let over = used.map(|used| match signal {
        Signal::Memory => i128::from(used.memory) - asked("memory"),
        Signal::Pids => i128::from(used.pids),
        Signal::Disk | Signal::ImageDisk => {
            i128::from(used.disk.sum()) - asked("ephemeral-storage")
        }
        Signal::Inodes | Signal::ImageInodes => i128::from(used.disk.sum()),
    });
    let unknown = over.is_none();
    let first = match signal {
        Signal::Pids => (false, false),
        _ => (unknown, over.is_some_and(|over| over > 0)),
    };
    (Reverse(first), priority(pod), Reverse((unknown, over)))
}

/// The pod to evict, as an index into `pods`, and the message.
pub fn victim(met: &[Met], pods: &[(&Pod, Option<&PodUse>)]) -> Option<(usize, String)> {
    let first = met.first()?;
    let candidates = (0..pods.len()).filter(|at| !critical(pods[*at].0));
    let chosen = candidates.min_by_key(|at| rank(first.signal, pods[*at]))?;
    Some((chosen, message(first, pods[chosen])))
}

fn message(met: &Met, (pod, used): (&Pod, Option<&PodUse>)) -> String {
    let resource = met.signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        met.limit, met.available
    );
    let (Some(spec), Some(used)) = (&pod.spec, used) else {
        return text;
    };
    let mut larger = |what: &str, name: &str, amount: u64, asked: Option<Quantity>| {
        text.push_str(&format!(
            "{what} {name} was using {}, request is {}, has larger consumption of {resource}. ",
            units(amount, Form::Binary),
            asked.unwrap_or_default(),
        ));
    };
    let whole = spec
        .resources
        .as_ref()
        .and_then(|own| own.requests.as_ref());
    if let Some(asked) = whole
        .and_then(|map| map.get(resource))
        .filter(|_| resource == "memory")
    {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        larger("Pod", name, used.memory, Quantity::parse(&asked.0).ok());
    }
    let amounts = match resource {
        "memory" => &used.containers,
        "ephemeral-storage" => &used.disk.containers,
        _ => return text,
    };
    for (name, amount) in amounts {
        let mut containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let Some(container) = containers.find(|one| one.name == *name) else {
            continue;
        };
        let asked = quantity(container, Side::Requests, resource);
        if units(*amount, Form::Binary) > asked.unwrap_or_default() {
            larger("Container", name, *amount, asked);
        }
    }
    text
}
