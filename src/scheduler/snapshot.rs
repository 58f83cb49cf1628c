//! The cluster as seen by decisions: the free resources of each node, updated by every event. Follows
//! k8s.io/kubernetes/pkg/scheduler/backend/cache.
//!
//! Pods that look alike to other pods (namespace, labels, affinity terms) form a class; spreading and affinity only
//! need the number of pods of each class on each node, so they never look at single pods.

mod class;
mod nodes;
mod pods;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use compact_str::CompactString;
use indexmap::{IndexMap, IndexSet};

use self::class::ClassKey;
use self::pods::Placed;
use super::devices::Devices;
use super::pod::Pod;
use super::preempt::Budget;
use super::storage::Storage;
use super::terms::Labels;
use super::topology::{Topologies, Topology};
use super::workloads::Workloads;
use crate::client::informer::Key;

pub use self::class::Class;
pub use self::nodes::Site;

/// The index of a node, constant as long as the node exists.
pub type Slot = u32;

/// How many nodes on average must share a label value before sums are kept for it. Lower in tests, whose clusters are
/// small.
const SHARED: usize = if cfg!(test) { 1 } else { 8 };

/// A fast hasher for small keys.
pub type Quick = foldhash::fast::RandomState;

/// The cluster.
#[derive(Default)]
pub struct Snapshot {
    slots: Vec<Site>,
    free: Vec<Slot>,
    by_name: HashMap<CompactString, Slot, Quick>,
    /// Nodes in the order in which they are visited: one of each zone in turn.
    order: Vec<Slot>,
    zones: IndexMap<CompactString, Vec<Slot>, Quick>,
    /// How many nodes have taints that keep new pods away.
    repelling: usize,
    placed: HashMap<Key, Placed, Quick>,
    /// How many of those are only assumed.
    assumed: usize,
    classes: Vec<Class>,
    free_classes: Vec<u32>,
    class_of: HashMap<ClassKey, u32, Quick>,
    by_namespace: HashMap<CompactString, IndexSet<u32, Quick>, Quick>,
    /// Classes with affinity terms.
    with_affinity: IndexSet<u32, Quick>,
    nominations: HashMap<Key, Slot, Quick>,
    images: HashMap<CompactString, IndexMap<Slot, i64, Quick>, Quick>,
    /// The number of placed pods that use a claim.
    claims: HashMap<Key, u32, Quick>,
    /// The number of placed pods of each priority.
    priorities: BTreeMap<i32, u32>,
    /// Which nodes share label values.
    pub topologies: Topologies,
    /// The labels of namespaces.
    pub namespaces: HashMap<CompactString, Labels, Quick>,
    /// Services and controllers, which define groups of pods.
    pub workloads: Workloads,
    /// Volumes and claims.
    pub storage: Storage,
    /// ResourceClaims.
    pub devices: Devices,
    /// PodDisruptionBudgets.
    pub budgets: HashMap<Key, Budget, Quick>,
    /// The handler of each RuntimeClass.
    pub handlers: HashMap<CompactString, CompactString, Quick>,
}

impl Snapshot {
    /// The nodes in the order in which they are visited.
    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    /// A node.
    pub fn site(&self, slot: Slot) -> &Site {
        &self.slots[slot as usize]
    }

    /// The slot of a node; `None` if it does not exist.
    pub fn find(&self, name: &str) -> Option<Slot> {
        let slot = *self.by_name.get(name)?;
        self.site(slot).node.is_some().then_some(slot)
    }

    /// The number of slots.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// A placed or assumed pod.
    pub fn placed(&self, key: &Key) -> Option<&Arc<Pod>> {
        self.placed.get(key).map(|placed| &placed.pod)
    }

    /// Whether a pod is only assumed.
    pub fn is_assumed(&self, key: &Key) -> bool {
        self.placed.get(key).is_some_and(|placed| placed.is_assumed)
    }

    /// The numbers of known objects by upstream's names. Pods include assumed ones.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("assumed_pods", self.assumed),
            ("nodes", self.order.len()),
            ("pods", self.placed.len()),
        ]
    }

    /// Whether a placed pod has a lower priority than this.
    pub fn has_less_than(&self, priority: i32) -> bool {
        self.priorities.range(..priority).next().is_some()
    }

    /// The number of placed pods that use a claim.
    pub fn users_of(&self, claim: &Key) -> u32 {
        self.claims.get(claim).copied().unwrap_or(0)
    }

    /// The nodes that have an image, with its size.
    pub fn image(&self, name: &str) -> Option<&IndexMap<Slot, i64, Quick>> {
        self.images.get(name)
    }

    /// The labels of a namespace; empty if it is unknown.
    pub fn namespace(&self, name: &str) -> Labels {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }

    /// Which nodes share a value of the label.
    pub fn topology(&self, key: &str) -> Cow<'_, Topology> {
        match self.topologies.get(key) {
            Some(topology) => Cow::Borrowed(topology),
            None => Cow::Owned(self.number(key)),
        }
    }

    fn number(&self, key: &str) -> Topology {
        let nodes = self.order.iter().filter_map(|slot| {
            let node = self.site(*slot).node.as_ref()?;
            Some((*slot, &node.labels))
        });
        Topology::over(key, nodes)
    }
}
