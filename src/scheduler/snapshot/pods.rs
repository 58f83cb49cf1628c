//! Pods that are placed, assumed, nominated and removed.

use std::sync::Arc;

use compact_str::CompactString;

use super::super::pod::Pod;
use super::{Slot, Snapshot};
use crate::client::informer::Key;

pub(super) struct Placed {
    pub(super) pod: Arc<Pod>,
    slot: Slot,
    class: u32,
    pub(super) is_assumed: bool,
}

impl Snapshot {
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
