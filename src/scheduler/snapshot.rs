//! The cluster as seen by decisions: the free resources of each node, updated by every event. Follows
//! k8s.io/kubernetes/pkg/scheduler/backend/cache.
//!
//! Pods that look alike to other pods (namespace, labels, affinity terms) form a class; spreading and affinity only
//! need the number of pods of each class on each node, so they never look at single pods.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use compact_str::CompactString;
use indexmap::{IndexMap, IndexSet};

use super::devices::Devices;
use super::node::Node;
use super::pod::{Pod, Resources};
use super::preempt::Budget;
use super::spread::ZONE;
use super::storage::Storage;
use super::terms::{AffinityTerm, HOSTNAME, HostPort, Labels, PodAffinity, Spread};
use super::topology::{NOWHERE, Topologies, Topology};
use super::workloads::Workloads;
use crate::client::informer::Key;

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

/// A node and its pods.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The node; `None` if it is only known from pods.
    pub node: Option<Arc<Node>>,
    name: CompactString,
    /// The sum of its pods' requests.
    pub used: Resources,
    /// The sum of cpu and memory that its pods count for in scores.
    pub weight: (i64, i64),
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// The host ports of its pods.
    pub ports: Vec<HostPort>,
    /// Pods nominated for it.
    pub nominated: Vec<Arc<Pod>>,
}

struct Placed {
    pod: Arc<Pod>,
    slot: Slot,
    class: u32,
    is_assumed: bool,
}

/// Pods that look alike to other pods.
#[derive(Clone, Debug, Default)]
pub struct Class {
    key: ClassKey,
    /// Their number on each node.
    pub nodes: IndexMap<Slot, u32, Quick>,
    /// Their number in each topology domain of a label, by the domain's number.
    sums: Vec<(CompactString, Vec<i64>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ClassKey {
    namespace: CompactString,
    labels: Labels,
    affinity: Option<Arc<PodAffinity>>,
    is_deleting: bool,
}

impl Class {
    /// Their namespace.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// Their labels.
    pub fn labels(&self) -> &Labels {
        &self.key.labels
    }

    /// Their affinity terms.
    pub fn affinity(&self) -> Option<&PodAffinity> {
        self.key.affinity.as_deref()
    }

    /// Their number in each topology domain of a label, by the domain's number; trailing domains may be missing. `None`
    /// if sums are not kept for the label.
    pub fn sums(&self, label: &str) -> Option<&[i64]> {
        let mut sums = self.sums.iter();
        sums.find(|(known, _)| known == label)
            .map(|(_, sums)| &sums[..])
    }

    /// Changes their number on a node by `more`.
    fn count(&mut self, topologies: &Topologies, slot: Slot, more: i64) {
        for (label, sums) in &mut self.sums {
            add_to(sums, topologies.of(label, slot), more);
        }
    }

    /// Whether they are being deleted.
    pub fn is_deleting(&self) -> bool {
        self.key.is_deleting
    }
}

fn add_to(sums: &mut Vec<i64>, place: u32, more: i64) {
    if place == NOWHERE {
        return;
    }
    let place = place as usize;
    if sums.len() <= place {
        sums.resize(place + 1, 0);
    }
    sums[place] += more;
}

impl Site {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn add(&mut self, pod: &Arc<Pod>) {
        self.used.add(&pod.requests, 1);
        self.weight.0 += pod.weight.0;
        self.weight.1 += pod.weight.1;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod.clone());
    }

    fn remove(&mut self, pod: &Pod) {
        self.used.add(&pod.requests, -1);
        self.weight.0 -= pod.weight.0;
        self.weight.1 -= pod.weight.1;
        for port in &pod.ports {
            if let Some(place) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(place);
            }
        }
        if let Some(place) = self.pods.iter().position(|known| known.key == pod.key) {
            self.pods.swap_remove(place);
        }
    }
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

    /// Prepares the topologies of labels that a pod uses, so that decisions need not number their values.
    pub fn prepare(&mut self, pod: &Pod) {
        let mut keys: Vec<&str> = vec![HOSTNAME, ZONE];
        keys.extend(pod.spread.iter().map(|spread| spread.topology.as_str()));
        if let Some(affinity) = &pod.affinity {
            keys.extend(affinity.topologies());
        }
        for key in keys {
            if !self.topologies.has(key) {
                self.topologies.keep(key, self.number(key));
            }
        }
        let zone = pod.spread.is_empty() && self.workloads.may_select(pod);
        let spread = pod.spread.iter().map(|spread| &*spread.topology);
        for label in spread.chain(zone.then_some(ZONE)) {
            self.sum(&pod.key.namespace, label);
        }
    }

    /// Keeps sums by topology domain for the classes of a namespace, if the domains have many nodes: otherwise
    /// counting each time is as fast.
    fn sum(&mut self, namespace: &str, label: &str) {
        let nodes = self.order.len();
        let Some(topology) = self.topologies.get(label) else {
            return;
        };
        if topology.width() * SHARED > nodes {
            return;
        }
        for class in self.by_namespace.get(namespace).into_iter().flatten() {
            let class = &mut self.classes[*class as usize];
            if class.sums(label).is_some() {
                continue;
            }
            let mut sums = Vec::new();
            for (slot, count) in &class.nodes {
                add_to(&mut sums, topology.of(*slot), i64::from(*count));
            }
            class.sums.push((label.into(), sums));
        }
    }

    /// Updates the topologies with the labels of a node; `None` if it was deleted.
    fn relabel(&mut self, slot: Slot, labels: Option<&Labels>) {
        self.topologies.set(slot, labels);
        for class in &mut self.classes {
            if class.nodes.contains_key(&slot) {
                class.sums.clear();
            }
        }
    }

    /// Whether all existing nodes count for a spread constraint of a pod.
    pub fn counts_everywhere(&self, pod: &Pod, spread: &Spread) -> bool {
        (!spread.honors_affinity || pod.nodes.is_open())
            && (!spread.honors_taints || self.repelling == 0)
    }

    /// Drops topologies that are no longer used.
    pub fn tidy_up(&mut self) {
        self.topologies.tidy(self.order.len());
        // A dropped topology may be numbered differently when it is kept again.
        for class in &mut self.classes {
            class.sums.retain(|(label, _)| self.topologies.has(label));
        }
    }

    /// Classes with affinity terms.
    pub fn classes_with_affinity(&self) -> impl Iterator<Item = &Class> {
        self.with_affinity
            .iter()
            .map(|class| &self.classes[*class as usize])
    }

    /// Classes of a namespace.
    pub fn classes_in(&self, namespace: &str) -> impl Iterator<Item = &Class> {
        let classes = self.by_namespace.get(namespace).into_iter().flatten();
        classes.map(|class| &self.classes[*class as usize])
    }

    /// Classes in namespaces of a term, with matching labels.
    pub fn classes_meant<'a>(&'a self, term: &'a AffinityTerm) -> impl Iterator<Item = &'a Class> {
        let namespaces: Vec<&CompactString> = match term.only_namespaces() {
            Some(names) => names.iter().collect(),
            None => self
                .by_namespace
                .keys()
                .filter(|name| term.means_namespace(name, &self.namespace(name)))
                .collect(),
        };
        namespaces
            .into_iter()
            .flat_map(|name| self.classes_in(name))
            .filter(|class| term.means_labels(class.labels()))
    }

    /// Adds or updates a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let slot = self.slot_of(&node.name);
        let old = self.slots[slot as usize].node.replace(node.clone());
        let zone = node.zone();
        match &old {
            Some(old) if old.zone() == zone => {}
            Some(old) => {
                self.leave_zone(&old.zone(), slot);
                self.enter_zone(zone, slot);
            }
            None => self.enter_zone(zone, slot),
        }
        if old.as_ref().is_none_or(|old| old.images != node.images) {
            self.forget_images(old.as_deref(), slot);
            for (name, size) in &node.images {
                self.images
                    .entry(name.clone())
                    .or_default()
                    .insert(slot, *size);
            }
        }
        self.repelling += usize::from(node.repels());
        self.repelling -= usize::from(old.as_ref().is_some_and(|old| old.repels()));
        if old.is_none_or(|old| old.labels != node.labels) {
            self.relabel(slot, Some(&node.labels));
        }
    }

    /// Removes a node; pods that claim to be on it stay.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else {
            return;
        };
        let Some(old) = self.slots[slot as usize].node.take() else {
            return;
        };
        self.leave_zone(&old.zone(), slot);
        self.forget_images(Some(&old), slot);
        self.repelling -= usize::from(old.repels());
        self.relabel(slot, None);
        self.tidy(slot);
    }

    fn forget_images(&mut self, node: Option<&Node>, slot: Slot) {
        for (name, _) in node.iter().flat_map(|node| &node.images) {
            if let Some(nodes) = self.images.get_mut(name) {
                nodes.swap_remove(&slot);
                if nodes.is_empty() {
                    self.images.remove(name);
                }
            }
        }
    }

    fn enter_zone(&mut self, zone: CompactString, slot: Slot) {
        self.zones.entry(zone).or_default().push(slot);
        self.reorder();
    }

    fn leave_zone(&mut self, zone: &str, slot: Slot) {
        if let Some(nodes) = self.zones.get_mut(zone) {
            nodes.retain(|known| *known != slot);
            if nodes.is_empty() {
                self.zones.shift_remove(zone);
            }
        }
        self.reorder();
    }

    /// Orders nodes: one of each zone in turn.
    fn reorder(&mut self) {
        self.order.clear();
        let longest = self.zones.values().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            let nodes = self.zones.values().filter_map(|nodes| nodes.get(turn));
            self.order.extend(nodes);
        }
    }

    /// The slot of a node's name, created if missing.
    fn slot_of(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let site = Site {
            name: name.into(),
            ..Site::default()
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = site;
                slot
            }
            None => {
                self.slots.push(site);
                (self.slots.len() - 1) as Slot
            }
        };
        self.by_name.insert(name.into(), slot);
        slot
    }

    /// Frees a slot that is empty.
    fn tidy(&mut self, slot: Slot) {
        let site = &self.slots[slot as usize];
        if site.node.is_none() && site.pods.is_empty() && site.nominated.is_empty() {
            self.by_name.remove(&site.name);
            self.slots[slot as usize] = Site::default();
            self.free.push(slot);
        }
    }

    /// Adds or updates a placed pod; it may have been assumed before.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        self.place(pod, false);
    }

    /// Assumes a pod to be on a node, until that is observed or it is removed.
    pub fn assume(&mut self, pod: &Pod, slot: Slot) -> Arc<Pod> {
        let pod = Arc::new(pod.placed_on(self.site(slot).name()));
        self.place(pod.clone(), true);
        pod
    }

    fn place(&mut self, pod: Arc<Pod>, is_assumed: bool) {
        self.remove_pod(&pod.key);
        self.withdraw(&pod.key);
        let slot = self.slot_of(&pod.node);
        self.slots[slot as usize].add(&pod);
        let class = self.class_for(&pod);
        let alike = &mut self.classes[class as usize];
        *alike.nodes.entry(slot).or_insert(0) += 1;
        alike.count(&self.topologies, slot, 1);
        for claim in pod.claims() {
            *self.claims.entry(claim).or_insert(0) += 1;
        }
        *self.priorities.entry(pod.priority).or_insert(0) += 1;
        self.assumed += usize::from(is_assumed);
        let placed = Placed {
            slot,
            class,
            is_assumed,
            pod,
        };
        self.placed.insert(placed.pod.key.clone(), placed);
    }

    /// Removes a placed or assumed pod.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<Pod>> {
        let placed = self.placed.remove(key)?;
        self.assumed -= usize::from(placed.is_assumed);
        self.slots[placed.slot as usize].remove(&placed.pod);
        for claim in placed.pod.claims() {
            if let Some(users) = self.claims.get_mut(&claim) {
                *users -= 1;
                if *users == 0 {
                    self.claims.remove(&claim);
                }
            }
        }
        if let Some(pods) = self.priorities.get_mut(&placed.pod.priority) {
            *pods -= 1;
            if *pods == 0 {
                self.priorities.remove(&placed.pod.priority);
            }
        }
        let class = &mut self.classes[placed.class as usize];
        class.count(&self.topologies, placed.slot, -1);
        if let Some(count) = class.nodes.get_mut(&placed.slot) {
            *count -= 1;
            if *count == 0 {
                class.nodes.swap_remove(&placed.slot);
            }
        }
        if class.nodes.is_empty() {
            let class = std::mem::take(class);
            self.class_of.remove(&class.key);
            self.with_affinity.swap_remove(&placed.class);
            if let Some(classes) = self.by_namespace.get_mut(&class.key.namespace) {
                classes.swap_remove(&placed.class);
                if classes.is_empty() {
                    self.by_namespace.remove(&class.key.namespace);
                }
            }
            self.free_classes.push(placed.class);
        }
        self.tidy(placed.slot);
        Some(placed.pod)
    }

    fn class_for(&mut self, pod: &Pod) -> u32 {
        let key = ClassKey {
            namespace: pod.key.namespace.clone(),
            labels: pod.labels.clone(),
            affinity: pod.affinity.clone(),
            is_deleting: pod.is_deleting,
        };
        if let Some(class) = self.class_of.get(&key) {
            return *class;
        }
        let class = Class {
            key: key.clone(),
            ..Class::default()
        };
        let place = match self.free_classes.pop() {
            Some(place) => {
                self.classes[place as usize] = class;
                place
            }
            None => {
                self.classes.push(class);
                (self.classes.len() - 1) as u32
            }
        };
        if key.affinity.is_some() {
            self.with_affinity.insert(place);
        }
        self.by_namespace
            .entry(key.namespace.clone())
            .or_default()
            .insert(place);
        self.class_of.insert(key, place);
        place
    }

    /// Nominates a pod for a node, which reserves room against pods of lower priority; an empty name removes the
    /// nomination.
    pub fn nominate(&mut self, pod: &Arc<Pod>, node: &str) {
        self.withdraw(&pod.key);
        if node.is_empty() || pod.is_placed() || self.is_assumed(&pod.key) {
            return;
        }
        let slot = self.slot_of(node);
        self.slots[slot as usize].nominated.push(pod.clone());
        self.nominations.insert(pod.key.clone(), slot);
    }

    /// Removes the nomination of a pod. Returns the node's name, whether or not that node exists.
    pub fn withdraw(&mut self, key: &Key) -> Option<CompactString> {
        let slot = self.nominations.remove(key)?;
        let site = &mut self.slots[slot as usize];
        site.nominated.retain(|pod| pod.key != *key);
        let node = site.name.clone();
        self.tidy(slot);
        Some(node)
    }

    /// The node for which a pod is nominated; `None` if it does not exist.
    pub fn nomination(&self, pod: &Pod) -> Option<Slot> {
        let slot = self.nominations.get(&pod.key).copied();
        slot.filter(|slot| self.site(*slot).node.is_some())
    }
}
