//! What happens when a host runs out of something: which thresholds are met, which pod has to go, and what its status
//! says. Pure; [`keep`] acts on it. Follows pkg/kubelet/eviction/{eviction_manager,helpers}.go.

mod keep;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::supplies::{Amount, HostUsage};
use crate::meta::quantity::{Form, Quantity};

pub use keep::{Observed, keep};

/// How long a condition of the node stays after it was last observed.
const TRANSITION: SignedDuration = SignedDuration::from_secs(300);
/// Pods of this priority and more are never evicted: `system-cluster-critical` and above.
const CRITICAL: i32 = 2_000_000_000;

/// What is measured.
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

    /// The resource that runs out, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::Disk | Signal::ImageDisk => "ephemeral-storage",
            Signal::Inodes | Signal::ImageInodes => "inodes",
            Signal::Pids => "pids",
        }
    }

    /// The condition that the node has then.
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

    fn shown(self, amount: u64) -> String {
        let form = match self {
            Signal::Pids | Signal::Inodes | Signal::ImageInodes => Form::Decimal,
            _ => Form::Binary,
        };
        Quantity::units(i64::try_from(amount).unwrap_or(i64::MAX), form).to_string()
    }
}

/// How little may be left.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Amount(u64),
    /// Hundredths of all.
    Percent(f64),
}

/// Thresholds: `memory.available<100Mi,nodefs.available<10%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(Vec<(Signal, Limit)>);

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds(vec![
            (Signal::Memory, Limit::Amount(100 << 20)),
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
        let one = |part: &str| {
            let (name, limit) = part
                .split_once('<')
                .ok_or_else(|| format!("{part:?} is not SIGNAL<QUANTITY or SIGNAL<PERCENT%"))?;
            let signal = Signal::ALL.into_iter().find(|(_, own)| *own == name);
            let (signal, _) = signal.ok_or_else(|| format!("there is no signal {name:?}"))?;
            let limit = match limit.strip_suffix('%') {
                Some(percent) => percent
                    .parse()
                    .ok()
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .map(Limit::Percent),
                None => Quantity::parse(limit)
                    .ok()
                    .and_then(|limit| u64::try_from(limit.value()).ok())
                    .map(Limit::Amount),
            };
            let limit = limit.ok_or_else(|| format!("{part:?} names no amount"))?;
            Ok((signal, limit))
        };
        parts
            .map(one)
            .collect::<Result<_, String>>()
            .map(Thresholds)
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (signal, limit)) in self.0.iter().enumerate() {
            let name = Signal::ALL.iter().find(|(own, _)| own == signal);
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}<", name.map_or("", |(_, name)| name))?;
            match limit {
                Limit::Percent(percent) => write!(f, "{percent}%")?,
                Limit::Amount(amount) => f.write_str(&signal.shown(*amount))?,
            }
        }
        Ok(())
    }
}

/// A threshold that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// Of what.
    pub signal: Signal,
    /// How little may be left.
    pub limit: u64,
    /// How little is.
    pub available: u64,
}

impl Thresholds {
    /// Those that a host meets, memory first. What cannot be measured is not short.
    pub fn met(&self, host: &HostUsage) -> Vec<Met> {
        let mut met: Vec<Met> = self
            .0
            .iter()
            .filter_map(|(signal, limit)| {
                let amount = signal.of(host);
                let limit = match limit {
                    Limit::Amount(amount) => *amount,
                    Limit::Percent(percent) => (amount.capacity as f64 * percent / 100.0) as u64,
                };
                (amount.capacity > 0 && amount.available < limit).then_some(Met {
                    signal: *signal,
                    limit,
                    available: amount.available,
                })
            })
            .collect();
        met.sort_by_key(|met| met.signal != Signal::Memory);
        met
    }
}

/// The conditions that the node has: those of now, and those observed in the last five minutes. `last` is brought up to
/// date.
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

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Bytes of memory.
    pub memory: u64,
    /// Processes.
    pub pids: u64,
    /// Memory of each container.
    pub containers: Vec<(String, u64)>,
    /// What is on disk.
    pub disk: PodDisk,
}

/// What a pod has on disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Each of its empty directories that is not in memory.
    pub volumes: BTreeMap<String, u64>,
    /// What each container wrote to its root and log.
    pub containers: BTreeMap<String, u64>,
}

impl PodDisk {
    fn sum(&self) -> u64 {
        self.volumes.values().chain(self.containers.values()).sum()
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

fn quantity(container: &Container, limits: bool, resource: &str) -> u64 {
    let resources = container.resources.as_ref();
    let map = resources.and_then(|own| match limits {
        true => own.limits.as_ref(),
        false => own.requests.as_ref(),
    });
    let text = map.and_then(|map| map.get(resource));
    let value = text.and_then(|text| Quantity::parse(&text.0).ok());
    value.map_or(0, |value| u64::try_from(value.value()).unwrap_or(0))
}

/// What a pod asks for: its containers and sidecars together, or the largest of its init containers.
fn request(pod: &Pod, resource: &str) -> u64 {
    let Some(spec) = &pod.spec else { return 0 };
    let init = || spec.init_containers.iter().flatten();
    let sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let of = |one: &Container| quantity(one, false, resource);
    let together: u64 = spec
        .containers
        .iter()
        .chain(init().filter(sidecar))
        .map(of)
        .sum();
    let largest = init().filter(|one| !sidecar(one)).map(of).max();
    together.max(largest.unwrap_or(0))
}

/// Who goes first when a resource is short: who uses more than it asked for, of those the less important, of those
/// who exceeds its request by most. A pod whose use is not known goes before all others.
fn order(signal: Signal, a: (&Pod, Option<&PodUse>), b: (&Pod, Option<&PodUse>)) -> Ordering {
    let over = |(pod, used): (&Pod, Option<&PodUse>)| {
        let (used, asked) = match signal {
            Signal::Memory => (used?.memory, request(pod, "memory")),
            Signal::Pids => (used?.pids, 0),
            _ => (used?.disk.sum(), request(pod, "ephemeral-storage")),
        };
        Some(i128::from(used) - i128::from(asked))
    };
    let key = |of: (&Pod, Option<&PodUse>)| {
        let over = over(of);
        let exceeds = signal != Signal::Pids && over.is_some_and(|over| over > 0);
        let unknown = over.is_none();
        (Reverse((unknown, exceeds)), priority(of.0), Reverse(over))
    };
    key(a).cmp(&key(b))
}

/// Who has to go, and why: the place of the pod among `pods`.
pub fn victim(met: &[Met], pods: &[(&Pod, Option<&PodUse>)]) -> Option<(usize, String)> {
    let first = met.first()?;
    let mut candidates: Vec<usize> = (0..pods.len())
        .filter(|at| !critical(pods[*at].0))
        .collect();
    candidates.sort_by(|a, b| order(first.signal, pods[*a], pods[*b]));
    let chosen = *candidates.first()?;
    Some((chosen, message(first, pods[chosen])))
}

fn message(met: &Met, (pod, used): (&Pod, Option<&PodUse>)) -> String {
    let resource = met.signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        met.signal.shown(met.limit),
        // Memory and disk are told as the kernel counts them, in kibibytes.
        match met.signal.resource() {
            "memory" | "ephemeral-storage" => format!("{}Ki", met.available / 1024),
            _ => met.signal.shown(met.available),
        }
    );
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.unwrap_or_default();
    let empty = PodUse::default();
    let used = used.unwrap_or(&empty);
    let amounts: Vec<(&String, u64)> = match resource {
        "memory" => used
            .containers
            .iter()
            .map(|(name, used)| (name, *used))
            .collect(),
        "ephemeral-storage" => used
            .disk
            .containers
            .iter()
            .map(|(name, used)| (name, *used))
            .collect(),
        _ => Vec::new(),
    };
    for (name, amount) in amounts {
        let Some(container) = spec
            .containers
            .iter()
            .chain(&init)
            .find(|one| one.name == *name)
        else {
            continue;
        };
        let asked = quantity(container, false, resource);
        if amount > asked {
            let given = container
                .resources
                .as_ref()
                .and_then(|own| own.requests.as_ref());
            let given = given.and_then(|map| map.get(resource));
            text.push_str(&format!(
                "Container {name} was using {}, request is {}, has larger consumption of {resource}. ",
                Signal::Memory.shown(amount),
                given.map_or("0", |given| given.0.as_str()),
            ));
        }
    }
    text
}

/// Whether a pod says how much it may have on disk.
pub fn limits_disk(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let volumes = spec.volumes.iter().flatten();
    let mut sized = volumes.filter_map(|volume| volume.empty_dir.as_ref()?.size_limit.as_ref());
    let mut containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    sized.next().is_some() || containers.any(|one| quantity(one, true, "ephemeral-storage") > 0)
}

/// Why a pod that has so much on disk has to go, if it does.
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
        let Some(limit) = limit else { continue };
        let most = Quantity::parse(&limit.0).map_or(0, |limit| limit.value());
        let used = disk.volumes.get(&volume.name).copied().unwrap_or(0);
        if most > 0 && used > most as u64 {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    let limit = |one: &Container| quantity(one, true, "ephemeral-storage");
    let total: u64 = spec.containers.iter().map(limit).sum();
    let all = spec.containers.iter().all(|one| limit(one) > 0);
    if all && total > 0 && disk.sum() > total {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            Signal::Disk.shown(total)
        ));
    }
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).find_map(|one| {
        let used = disk.containers.get(&one.name).copied().unwrap_or(0);
        (limit(one) > 0 && used > limit(one)).then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                one.name,
                Signal::Disk.shown(limit(one))
            )
        })
    })
}

/// Why a pod may not come to a node with these conditions, if so.
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
            let all = key.is_empty() && one.operator.as_deref() == Some("Exists");
            (all || key == "node.kubernetes.io/memory-pressure")
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
