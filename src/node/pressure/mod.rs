//! Decides what happens when a host runs out of a resource: which thresholds are met, which pod is evicted, and the
//! message in its status. Pure; [`keep`] acts on it. Follows pkg/kubelet/eviction/{eviction_manager,helpers}.go.

mod keep;
#[cfg(test)]
mod tests;
mod thresholds;
mod victims;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use self::thresholds::units;
use self::victims::{critical, quantity};
use super::describe::together;
use super::supplies::{Amount, HostUsage};
use crate::meta::amounts::Side;
use crate::meta::quantity::{Form, Quantity};

pub use self::thresholds::{Met, Thresholds};
pub use self::victims::{PodDisk, PodUse, victim};
pub use keep::{Observed, keep};

/// How long a condition of the node stays after it was last observed.
pub(super) const TRANSITION: SignedDuration = SignedDuration::from_secs(300);
/// A measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`
    Disk,
    /// `nodefs.inodesFree`
    Inodes,
    /// `imagefs.available`: images are on the node's disk.
    ImageDisk,
    /// `imagefs.inodesFree`
    ImageInodes,
    /// `pid.available`
    Pids,
}

impl Signal {
    const ALL: [(Signal, &'static str); 6] = [
        (Signal::Memory, "memory.available"),
        (Signal::Disk, "nodefs.available"),
        (Signal::Inodes, "nodefs.inodesFree"),
        (Signal::ImageDisk, "imagefs.available"),
        (Signal::ImageInodes, "imagefs.inodesFree"),
        (Signal::Pids, "pid.available"),
    ];

    fn name(self) -> &'static str {
        let found = Signal::ALL.iter().find(|(own, _)| *own == self);
        found.map_or("", |(_, name)| name)
    }

    /// The exhausted resource, as named in messages.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::Disk | Signal::ImageDisk => "ephemeral-storage",
            Signal::Inodes | Signal::ImageInodes => "inodes",
            Signal::Pids => "pids",
        }
    }

    /// The condition of the node.
    pub fn condition(self) -> &'static str {
        match self {
            Signal::Memory => "MemoryPressure",
            Signal::Pids => "PIDPressure",
            _ => "DiskPressure",
        }
    }

    fn of(self, host: &HostUsage) -> Amount {
        match self {
            Signal::Memory => host.memory,
            Signal::Disk | Signal::ImageDisk => host.disk,
            Signal::Inodes | Signal::ImageInodes => host.inodes,
            Signal::Pids => host.pids,
        }
    }

    /// The format of the remaining amount.
    fn form(self) -> Form {
        match self {
            Signal::Pids | Signal::Inodes | Signal::ImageInodes => Form::Decimal,
            _ => Form::Binary,
        }
    }
}

/// The conditions of the node: current ones, and those observed in the last five minutes. Updates `last`.
pub fn conditions(
    met: &[Met],
    last: &mut BTreeMap<&'static str, Timestamp>,
    now: Timestamp,
) -> Vec<&'static str> {
    for met in met {
        last.insert(met.signal.condition(), now);
    }
    last.retain(|_, at| now.duration_since(*at) < TRANSITION);
    last.keys().copied().collect()
}

/// Whether a pod limits its disk usage.
pub fn limits_disk(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let volumes = spec.volumes.iter().flatten();
    let mut sized = volumes.filter_map(|volume| volume.empty_dir.as_ref()?.size_limit.as_ref());
    let mut containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let limit = |one: &Container| quantity(one, Side::Limits, "ephemeral-storage");
    sized.next().is_some() || containers.any(|one| limit(one).is_some())
}

/// Why a pod with this disk usage has to be evicted, if it has.
pub fn exceeds(pod: &Pod, disk: &PodDisk) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if critical(pod) {
        return None;
    }
    for volume in spec.volumes.iter().flatten() {
        let Some(empty) = &volume.empty_dir else {
            continue;
        };
        let limit = empty
            .size_limit
            .as_ref()
            .filter(|_| empty.medium.as_deref() != Some("Memory"));
        let limit = limit.and_then(|limit| Quantity::parse(&limit.0).ok());
        let Some(limit) = limit.filter(|limit| limit.sign() > 0) else {
            continue;
        };
        let used = disk.volumes.get(&volume.name).copied().unwrap_or(0);
        if units(used, Form::Binary) > limit {
            let name = &volume.name;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "
            ));
        }
    }
    let whole = together(pod, Side::Limits, "ephemeral-storage");
    if let Some(limit) = whole.filter(|limit| units(disk.sum(), Form::Binary) > *limit) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).find_map(|one| {
        let limit = quantity(one, Side::Limits, "ephemeral-storage")?;
        let used = units(disk.containers.get(&one.name).copied()?, Form::Binary);
        (limit.sign() > 0 && used > limit).then(|| {
            let name = &one.name;
            format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". ")
        })
    })
}

/// Why a new pod is refused on a node with these conditions, if it is.
pub fn refuses(conditions: &[&str], pod: &Pod) -> Option<String> {
    if conditions.is_empty() || critical(pod) {
        return None;
    }
    let class = pod
        .status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref());
    if conditions == ["MemoryPressure"] {
        let spec = pod.spec.as_ref();
        let mut tolerations = spec
            .into_iter()
            .flat_map(|spec| spec.tolerations.iter().flatten());
        let tolerates = tolerations.any(|one| {
            let key = one.key.as_deref().unwrap_or_default();
            let effect = one.effect.as_deref().unwrap_or_default();
            let value = one.value.as_deref().unwrap_or_default();
            let bears = match one.operator.as_deref().unwrap_or_default() {
                "Exists" => true,
                "" | "Equal" => value.is_empty(),
                _ => false,
            };
            bears
                && matches!(key, "" | "node.kubernetes.io/memory-pressure")
                && matches!(effect, "" | "NoSchedule")
        });
        if class != Some("BestEffort") || tolerates {
            return None;
        }
    }
    Some(format!(
        "The node had condition: [{}]. ",
        conditions.join(" ")
    ))
}
