//! Resources allocated to the pods of a node, and which of the pods that ask for more get it. Follows
//! pkg/kubelet/allocation/allocation_manager.go and pkg/kubelet/lifecycle/predicate.go.
//!
//! Nothing of this is kept on disk: a restarted agent finds its allocations in the statuses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::describe::demands;
use super::machine::{Given, Pending, RESIZES, summary};
use super::worker::Refusal;
use crate::meta::amounts::{Amounts, Side};
use crate::meta::ports::{HostPort, host_ports};
use crate::meta::quantity::Quantity;
use crate::schema::Value;

/// Resources requested or available: millicores, bytes, and the number of pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    pods: i64,
    cpu: i64,
    memory: i64,
    storage: i64,
}

/// The name of the last one in a node's status.
const PODS: &str = "pods";
const STORAGE: &str = "ephemeral-storage";

impl Room {
    fn of(amounts: &Amounts) -> Room {
        Room {
            pods: 1,
            cpu: amounts.get("cpu").milli_value(),
            memory: amounts.get("memory").value(),
            storage: amounts.get(STORAGE).value(),
        }
    }

    /// The resources of a node. Missing ones are unlimited.
    fn of_node(amounts: &Amounts) -> Room {
        let most = |name| amounts.0.get(name).map_or(i64::MAX, |most| most.value());
        Room {
            pods: most(PODS),
            storage: most(STORAGE),
            ..Room::of(amounts)
        }
    }

    /// The requests of a new pod.
    fn asked(pod: &Value) -> Room {
        Room::of(&Amounts::pod_at_most(pod, Side::Requests))
    }

    /// The resources that a pod occupies; with its status, the maximum of requested, allocated and actual ones.
    fn taken(pod: &Pod, status: Option<&PodStatus>) -> Room {
        Room::asked(&demands(pod.spec.as_ref(), status))
    }

    fn plus(self, other: Room) -> Room {
        Room {
            pods: self.pods.saturating_add(other.pods),
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            storage: self.storage.saturating_add(other.storage),
        }
    }

    fn minus(self, other: Room) -> Room {
        Room {
            pods: self.pods.saturating_sub(other.pods),
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
            storage: self.storage.saturating_sub(other.storage),
        }
    }

    /// Why `wanted` does not fit if `used` is taken: the first reason in upstream's order (`fitsRequest` of
    /// pkg/scheduler/framework/plugins/noderesources).
    fn lacks(self, wanted: Room, used: Room) -> Option<Refusal> {
        let lacks = |reason, name, wanted: i64, used: i64, capacity: i64| {
            (wanted > 0 && wanted > capacity.saturating_sub(used)).then(|| Refusal {
                reason,
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
                ),
            })
        };
        let of = |room: Room| [room.pods, room.cpu, room.memory, room.storage];
        let names = [
            ("OutOfpods", PODS),
            ("OutOfcpu", "cpu"),
            ("OutOfmemory", "memory"),
            ("OutOfephemeral-storage", STORAGE),
        ];
        let each = names.into_iter().zip(of(wanted)).zip(of(used));
        let mut each = each.zip(of(self));
        each.find_map(|((((reason, name), wanted), used), has)| {
            lacks(reason, name, wanted, used, has)
        })
    }
}

/// The order of pods that ask for a resize: smaller is earlier.
type Turn = (bool, Reverse<i32>, bool, bool, Option<Timestamp>);

fn turn(wanted: &Pod, given: &Pod, since: Option<Timestamp>) -> Turn {
    let [asks, has] = [wanted, given].map(|pod| Room::taken(pod, None));
    let priority = wanted.spec.as_ref().and_then(|spec| spec.priority);
    let class = wanted
        .status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref());
    (
        asks.cpu > has.cpu || asks.memory > has.memory,
        Reverse(priority.unwrap_or(0)),
        class != Some("Guaranteed"),
        since.is_none(),
        since,
    )
}

struct Entry {
    wanted: Arc<Pod>,
    given: Given,
    /// The resources that it occupies from the view of other pods.
    takes: Room,
    /// Its host ports.
    ports: Vec<HostPort>,
    /// The pod with its allocated resources, if it asks for others.
    allocated: Option<Arc<Pod>>,
    pending: Option<Pending>,
    accepted: Option<i64>,
    status: watch::Receiver<Option<Arc<PodStatus>>>,
    changed: Arc<Notify>,
}

impl Entry {
    /// The resources that it has, by its newest status.
    fn has(&self) -> Room {
        let decided = self.status.borrow();
        let status = decided.as_deref().or(self.wanted.status.as_ref());
        Room::taken(self.allocated(), status)
    }

    fn over(&self) -> bool {
        let over =
            |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        self.status.borrow().as_deref().is_some_and(over)
            || self.wanted.status.as_ref().is_some_and(over)
    }

    fn allocated(&self) -> &Arc<Pod> {
        self.allocated.as_ref().unwrap_or(&self.wanted)
    }
}

#[derive(Default)]
struct Known {
    /// Every pod of the node is known.
    listed: bool,
    pods: HashMap<String, Entry>,
    /// Those that ask for other resources than they have.
    asking: BTreeSet<String>,
}

/// The allocation of one pod.
pub struct Allotment {
    /// The pod with its allocated resources.
    pub pod: Arc<Pod>,
    /// The resize that is not granted, with the message of the event about it.
    pub pending: Option<(Pending, String)>,
    /// The generation whose resources were allocated since the last call.
    pub accepted: Option<i64>,
}

/// The allocations of the pods of a node.
pub struct Allocations {
    has: Room,
    known: Mutex<Known>,
}

impl Allocations {
    /// Allocations of a node with `capacity` for pods.
    pub fn new(capacity: &BTreeMap<String, String>) -> Self {
        let amounts = capacity.iter().filter_map(|(name, amount)| {
            Some((name.as_str().into(), Quantity::parse(amount).ok()?))
        });
        Allocations {
            has: Room::of_node(&Amounts(amounts.collect())),
            known: Mutex::default(),
        }
    }

    /// Adds a pod: it gets what it requests, or what its status says that an earlier agent allocated.
    pub fn take(
        &self,
        uid: &str,
        pod: &Arc<Pod>,
        status: watch::Receiver<Option<Arc<PodStatus>>>,
        changed: Arc<Notify>,
    ) {
        let told = pod.status.clone().unwrap_or_default();
        let mut conditions = told.conditions.iter().flatten();
        let pending = conditions.find(|one| one.type_ == RESIZES[0]);
        let pending = pending.map(|one| Pending {
            reason: one.reason.clone().unwrap_or_default(),
            message: one.message.clone().unwrap_or_default(),
            generation: one.observed_generation,
            since: one
                .last_transition_time
                .as_ref()
                .map_or_else(Timestamp::now, |at| at.0),
        });
        let given = pod.spec.as_ref().map(|spec| Given::told(spec, &told));
        let given = given.unwrap_or_default();
        let read = demands(pod.spec.as_ref(), pod.status.as_ref());
        let entry = Entry {
            takes: given.put(pod).map_or_else(
                || Room::asked(&read),
                |allocated| Room::taken(&allocated, None),
            ),
            ports: host_ports(read.at("spec")),
            given,
            wanted: pod.clone(),
            allocated: None,
            pending,
            accepted: None,
            status,
            changed,
        };
        self.known.lock().pods.insert(uid.to_owned(), entry);
    }

    /// Why a new pod does not fit beside the others, which its scheduler did not see. Pods from before this agent are
    /// not checked.
    pub fn refuses(&self, pod: &Pod) -> Option<Refusal> {
        let pod = demands(pod.spec.as_ref(), pod.status.as_ref());
        let known = self.known.lock();
        if !known.listed {
            return None;
        }
        let others = known.pods.values().filter(|entry| !entry.over());
        let used = others.clone().map(|entry| entry.takes);
        let used = used.fold(Room::default(), Room::plus);
        if let Some(refusal) = self.has.lacks(Room::asked(&pod), used) {
            return Some(refusal);
        }
        let ports = host_ports(pod.at("spec"));
        let mut taken = others.flat_map(|entry| &entry.ports);
        taken
            .any(|taken| ports.iter().any(|port| port.conflicts(taken)))
            .then(|| Refusal {
                reason: "NodePorts",
                message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                    .into(),
            })
    }

    /// Every pod of the node was added: from now on the free resources are known.
    pub fn listed(&self) {
        let mut known = self.known.lock();
        known.listed = true;
        self.settle(&mut known);
    }

    /// Forgets all pods, as before they were listed.
    pub fn clear(&self) {
        *self.known.lock() = Known::default();
    }

    /// A pod is gone: others may get its resources.
    pub fn remove(&self, uid: &str) {
        let mut known = self.known.lock();
        known.pods.remove(uid);
        known.asking.remove(uid);
        self.settle(&mut known);
    }

    /// The status of a pod changed: it may have terminated, or have become smaller.
    pub fn told(&self) {
        self.settle(&mut self.known.lock());
    }

    /// The allocation of a pod that requests `wanted`.
    pub fn give(&self, uid: &str, wanted: &Arc<Pod>) -> Allotment {
        let mut known = self.known.lock();
        let Some(entry) = known.pods.get_mut(uid) else {
            return Allotment {
                pod: wanted.clone(),
                pending: None,
                accepted: None,
            };
        };
        entry.wanted = wanted.clone();
        // A pod that was never changed has what it requested.
        let changed = wanted.metadata.generation != Some(1);
        entry.allocated = changed.then(|| entry.given.put(wanted)).flatten();
        if entry.allocated.is_none() {
            entry.pending = None;
            known.asking.remove(uid);
        } else {
            known.asking.insert(uid.to_owned());
            self.settle(&mut known);
        }
        let Some(entry) = known.pods.get_mut(uid) else {
            unreachable!("it was there, under the same lock");
        };
        let pending = entry.pending.clone().map(|pending| {
            let what = format!("Pod resize {}", pending.reason);
            let text = summary(&what, wanted, pending.generation, &pending.message);
            (pending, text)
        });
        Allotment {
            pod: entry.allocated().clone(),
            pending,
            accepted: entry.accepted.take(),
        }
    }

    /// Grants waiting resizes as far as possible, in their order, and wakes their workers.
    fn settle(&self, known: &mut Known) {
        if !known.listed {
            return;
        }
        let waiting = known.asking.iter().filter_map(|uid| {
            let entry = known.pods.get(uid)?;
            let given = entry.allocated.as_ref()?;
            let asks = entry.wanted.metadata.deletion_timestamp.is_none() && !entry.over();
            let since = entry.pending.as_ref().map(|pending| pending.since);
            asks.then(|| (turn(&entry.wanted, given, since), uid.clone()))
        });
        let mut waiting: Vec<(Turn, String)> = waiting.collect();
        if waiting.is_empty() {
            return;
        }
        waiting.sort();
        let here = known.pods.values().filter(|entry| !entry.over());
        let taken = here.map(Entry::has);
        let mut taken = taken.fold(Room::default(), Room::plus);
        for (_, uid) in waiting {
            let Some(entry) = known.pods.get_mut(&uid) else {
                continue;
            };
            let own = entry.has();
            let used = taken.minus(own);
            let generation = entry.wanted.metadata.generation;
            match self.has.lacks(Room::taken(&entry.wanted, None), used) {
                None => {
                    entry.given = entry
                        .wanted
                        .spec
                        .as_ref()
                        .map(Given::of)
                        .unwrap_or_default();
                    entry.takes = Room::taken(&entry.wanted, None);
                    entry.allocated = None;
                    entry.pending = None;
                    entry.accepted = generation;
                    taken = used.plus(entry.has());
                    known.asking.remove(&uid);
                }
                Some(Refusal { message, .. }) => {
                    let old = entry.pending.take();
                    let deferred = old.as_ref().filter(|old| old.reason == "Deferred");
                    let pending = Pending {
                        reason: "Deferred".into(),
                        message,
                        generation,
                        since: deferred.map_or_else(Timestamp::now, |old| old.since),
                    };
                    let same = old.as_ref() == Some(&pending);
                    entry.pending = Some(pending);
                    if same {
                        continue;
                    }
                }
            }
            entry.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
