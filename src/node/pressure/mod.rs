//! Decides what happens when a host runs out of a resource: which thresholds are met, which pod is evicted, and the
//! message in its status. Pure; [`keep`] acts on it. Follows pkg/kubelet/eviction/{eviction_manager,helpers}.go.

mod keep;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::describe::together;
use super::supplies::{Amount, HostUsage};
use crate::meta::amounts::Side;
use crate::meta::quantity::{Form, Quantity};

pub use keep::{Observed, keep};

/// How long a condition of the node stays after it was last observed.
pub(super) const TRANSITION: SignedDuration = SignedDuration::from_secs(300);
/// Pods with at least this priority are never evicted: `system-cluster-critical` and above.
const CRITICAL: i32 = 2_000_000_000;

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

fn units(amount: u64, form: Form) -> Quantity {
    Quantity::units(i64::try_from(amount).unwrap_or(i64::MAX), form)
}

/// The least amount that must remain.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Amount(Quantity),
    /// In percent of the capacity.
    Percent(f64),
}

/// Thresholds: `memory.available<100Mi,nodefs.available<10%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(Vec<(Signal, Limit)>);

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds(vec![
            (
                Signal::Memory,
                Limit::Amount(units(100 << 20, Form::Binary)),
            ),
            (Signal::Disk, Limit::Percent(10.0)),
            (Signal::Inodes, Limit::Percent(5.0)),
            (Signal::ImageDisk, Limit::Percent(15.0)),
            (Signal::ImageInodes, Limit::Percent(5.0)),
        ])
    }
}

impl FromStr for Thresholds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let one = |part: &str| -> Result<Option<(Signal, Limit)>, String> {
            let (name, limit) = part
                .split_once('<')
                .ok_or_else(|| format!("{part:?} is not SIGNAL<QUANTITY or SIGNAL<PERCENT%"))?;
            let signal = Signal::ALL.into_iter().find(|(_, own)| *own == name);
            let (signal, _) = signal.ok_or_else(|| format!("there is no signal {name:?}"))?;
            if matches!(limit, "0%" | "100%") {
                // These values mean no threshold.
                return Ok(None);
            }
            let limit = match limit.strip_suffix('%') {
                Some(percent) => percent
                    .parse()
                    .ok()
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .map(Limit::Percent),
                None => Quantity::parse(limit)
                    .ok()
                    .filter(|limit| limit.sign() >= 0)
                    .map(Limit::Amount),
            };
            let limit = limit.ok_or_else(|| format!("{part:?} names no amount"))?;
            Ok(Some((signal, limit)))
        };
        parts
            .filter_map(|part| one(part).transpose())
            .collect::<Result<_, String>>()
            .map(Thresholds)
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (signal, limit)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}<{limit}", signal.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Percent(percent) => write!(f, "{percent}%"),
            Limit::Amount(amount) => write!(f, "{amount}"),
        }
    }
}

/// A threshold that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// The signal.
    pub signal: Signal,
    /// The least amount that must remain.
    pub limit: Quantity,
    /// The remaining amount.
    pub available: Quantity,
}

impl Thresholds {
    /// The limit of each signal, as in kubelet's `evictionHard`.
    pub fn limits(&self) -> BTreeMap<String, String> {
        let all = self.0.iter();
        all.map(|(signal, limit)| (signal.name().to_owned(), limit.to_string()))
            .collect()
    }

    /// What pods may use of a host with `capacity`: without what is kept free. Follows `hardEvictionReservation`
    /// (pkg/kubelet/cm).
    pub fn leave(&self, capacity: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut left = capacity.clone();
        for (signal, limit) in &self.0 {
            let name = match signal {
                Signal::Memory => "memory",
                Signal::Disk => "ephemeral-storage",
                _ => continue,
            };
            let Some(whole) = capacity
                .get(name)
                .and_then(|whole| Quantity::parse(whole).ok())
            else {
                continue;
            };
            let whole = whole.value();
            let kept = match limit {
                Limit::Amount(amount) => amount.value(),
                Limit::Percent(percent) => (whole as f64 * percent / 100.0) as i64,
            };
            let rest = units((whole - kept).max(0) as u64, Form::Binary);
            left.insert(name.to_owned(), rest.to_string());
        }
        left
    }

    /// The thresholds that a host meets, memory first. A signal that cannot be measured meets none.
    pub fn met(&self, host: &HostUsage) -> Vec<Met> {
        let mut met: Vec<Met> = self
            .0
            .iter()
            .filter_map(|(signal, limit)| {
                let amount = signal.of(host);
                let limit = match limit {
                    Limit::Amount(amount) => *amount,
                    Limit::Percent(percent) => {
                        let part = amount.capacity as f64 * percent / 100.0;
                        units(part as u64, Form::Binary)
                    }
                };
                let available = units(amount.available, signal.form());
                (amount.capacity > 0 && available < limit).then_some(Met {
                    signal: *signal,
                    limit,
                    available,
                })
            })
            .collect();
        met.sort_by_key(|met| met.signal != Signal::Memory);
        met
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
    fn sum(&self) -> u64 {
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
fn critical(pod: &Pod) -> bool {
    priority(pod) >= CRITICAL
}

/// The request or limit of a container for a resource.
fn quantity(container: &Container, side: Side, resource: &str) -> Option<Quantity> {
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
