//! Classes of pods: how many pods of each are where.

use std::sync::Arc;

use compact_str::CompactString;
use indexmap::IndexMap;

use super::super::pod::Pod;
use super::super::spread::ZONE;
use super::super::terms::{AffinityTerm, HOSTNAME, Labels, PodAffinity, Spread};
use super::super::topology::{NOWHERE, Topologies};
use super::{Quick, SHARED, Slot, Snapshot};

/// Pods that look alike to other pods.
#[derive(Clone, Debug, Default)]
pub struct Class {
    pub(super) key: ClassKey,
    /// Their number on each node.
    pub nodes: IndexMap<Slot, u32, Quick>,
    /// Their number in each topology domain of a label, by the domain's number.
    sums: Vec<(CompactString, Vec<i64>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    pub(super) namespace: CompactString,
    pub(super) labels: Labels,
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
    pub(super) fn count(&mut self, topologies: &Topologies, slot: Slot, more: i64) {
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

impl Snapshot {
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
    pub(super) fn relabel(&mut self, slot: Slot, labels: Option<&Labels>) {
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

    pub(super) fn class_for(&mut self, pod: &Pod) -> u32 {
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
}
