//! Nodes that come, change and go, and the order in which they are visited.

use std::sync::Arc;

use compact_str::CompactString;

use super::super::node::Node;
use super::super::pod::{Pod, Resources};
use super::super::terms::HostPort;
use super::{Slot, Snapshot};

/// A node and its pods.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The node; `None` if it is only known from pods.
    pub node: Option<Arc<Node>>,
    pub(super) name: CompactString,
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

impl Site {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn add(&mut self, pod: &Arc<Pod>) {
        self.used.add(&pod.requests, 1);
        self.weight.0 += pod.weight.0;
        self.weight.1 += pod.weight.1;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod.clone());
    }

    pub(super) fn remove(&mut self, pod: &Pod) {
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
    pub(super) fn slot_of(&mut self, name: &str) -> Slot {
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
    pub(super) fn tidy(&mut self, slot: Slot) {
        let site = &self.slots[slot as usize];
        if site.node.is_none() && site.pods.is_empty() && site.nominated.is_empty() {
            self.by_name.remove(&site.name);
            self.slots[slot as usize] = Site::default();
            self.free.push(slot);
        }
    }
}
