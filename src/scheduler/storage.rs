//! Volumes and claims known to the scheduler, with its own decisions that the API does not show yet.
//! Follows k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding/passive_assume_cache.go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use compact_str::CompactString;

use super::pod::Pod;
use super::snapshot::Quick;
use super::volumes::{Capacity, Claim, Class, Driver, Volume};
use crate::client::informer::Key;

/// Volumes and claims.
#[derive(Default)]
pub struct Storage {
    /// Volumes by name.
    volumes: BTreeMap<CompactString, Volume>,
    /// Volume names by class.
    of_class: HashMap<CompactString, BTreeSet<CompactString>, Quick>,
    /// Claims.
    pub claims: HashMap<Key, Claim, Quick>,
    /// StorageClasses.
    pub classes: HashMap<CompactString, Class, Quick>,
    /// CSI drivers.
    pub drivers: HashMap<CompactString, Driver, Quick>,
    /// The drivers of nodes, each with its volume limit there.
    pub nodes: HashMap<CompactString, HashMap<CompactString, Option<i64>, Quick>, Quick>,
    /// CSIStorageCapacities.
    pub capacities: HashMap<Key, Capacity, Quick>,
    /// Attached volumes: node and volume.
    attachments: HashMap<CompactString, (CompactString, CompactString), Quick>,
    /// The names of attachments by node.
    attached: HashMap<CompactString, BTreeSet<CompactString>, Quick>,
    /// Volumes assumed to be bound to claims.
    promised: HashMap<CompactString, Promise<Key>, Quick>,
    /// Claims assumed to be provisioned for a node.
    selected: HashMap<Key, Promise<CompactString>, Quick>,
}

/// A decision about an object, valid until the API shows another version of it.
struct Promise<T> {
    to: T,
    /// The version on which it was decided.
    version: String,
    /// The uid of the pod for which it was decided.
    pod: String,
}

/// What the claims of a pod need on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Volumes to bind, with their claims.
    pub bind: Vec<(CompactString, Key)>,
    /// Claims to provision.
    pub provision: Vec<Key>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

impl Storage {
    /// Assumes the decisions of a plan for a placed pod, so that others do not use the same volumes.
    pub fn promise(&mut self, plan: &Plan, pod: &Pod) {
        for (name, claim) in &plan.bind {
            let Some(volume) = self.volumes.get(name) else {
                continue;
            };
            let promise = Promise {
                to: claim.clone(),
                version: volume.version.clone(),
                pod: pod.uid().to_owned(),
            };
            self.promised.insert(name.clone(), promise);
        }
        for key in &plan.provision {
            let Some(claim) = self.claims.get(key) else {
                continue;
            };
            let promise = Promise {
                to: pod.node.clone(),
                version: claim.version.clone(),
                pod: pod.uid().to_owned(),
            };
            self.selected.insert(key.clone(), promise);
        }
    }

    /// Reverts the assumed decisions for a pod.
    pub fn release(&mut self, plan: &Plan, pod: &Pod) {
        for (volume, _) in &plan.bind {
            let promise = self.promised.get(volume);
            if promise.is_some_and(|promise| promise.pod == pod.uid()) {
                self.promised.remove(volume);
            }
        }
        for claim in &plan.provision {
            let promise = self.selected.get(claim);
            if promise.is_some_and(|promise| promise.pod == pod.uid()) {
                self.selected.remove(claim);
            }
        }
    }

    /// Sets a claim from the API. Decisions made on another version of it are dropped.
    pub fn set_claim(&mut self, key: &Key, claim: Option<Claim>) {
        let is_same = |promise: &Promise<_>| {
            let now = claim.as_ref();
            now.is_some_and(|claim| claim.version == promise.version)
        };
        if !self.selected.get(key).is_some_and(is_same) {
            self.selected.remove(key);
        }
        match claim {
            Some(claim) => self.claims.insert(key.clone(), claim),
            None => self.claims.remove(key),
        };
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(name)
    }

    /// Sets a volume from the API. Decisions made on another version of it are dropped.
    pub fn set_volume(&mut self, name: &CompactString, volume: Option<Volume>) {
        let is_same = |promise: &Promise<_>| {
            let now = volume.as_ref();
            now.is_some_and(|volume| volume.version == promise.version)
        };
        if !self.promised.get(name).is_some_and(is_same) {
            self.promised.remove(name);
        }
        if let Some(old) = self.volumes.remove(name) {
            leave(&mut self.of_class, &old.class, name);
        }
        if let Some(volume) = volume {
            let names = self.of_class.entry(volume.class.clone()).or_default();
            names.insert(name.clone());
            self.volumes.insert(name.clone(), volume);
        }
    }

    /// Sets an attachment of a volume to a node: node and volume.
    pub fn set_attachment(
        &mut self,
        name: &CompactString,
        attachment: Option<(CompactString, CompactString)>,
    ) {
        if let Some((node, _)) = self.attachments.remove(name) {
            leave(&mut self.attached, &node, name);
        }
        if let Some(attachment) = attachment {
            let names = self.attached.entry(attachment.0.clone()).or_default();
            names.insert(name.clone());
            self.attachments.insert(name.clone(), attachment);
        }
    }

    /// The volumes attached to a node: driver, and volume handle.
    pub fn attached_to(&self, node: &str) -> impl Iterator<Item = &(CompactString, CompactString)> {
        let names = self.attached.get(node).into_iter().flatten();
        let volumes = names.filter_map(|name| self.attachments.get(name));
        volumes.filter_map(|(_, volume)| Some(&self.volumes.get(volume)?.handle))
    }

    /// The volumes that may be bound to a claim, wherever they are accessible: the one already bound to it, or else
    /// the available ones, smallest first.
    pub fn candidates(&self, key: &Key, claim: &Claim) -> Vec<(&CompactString, &Volume)> {
        let names = self.of_class.get(&claim.class).into_iter().flatten();
        let mut free = Vec::new();
        for (name, volume) in names.filter_map(|name| self.volumes.get_key_value(name)) {
            if volume.size < claim.size
                || volume.is_block != claim.is_block
                || volume.attributes != claim.attributes
                || volume.is_deleting
            {
                continue;
            }
            match self.is_for(name, volume, key, claim) {
                Some(true) => return vec![(name, volume)],
                Some(false) => continue,
                None => {}
            }
            let is_fit = volume.is_available
                && claim.modes.iter().all(|mode| volume.modes.contains(mode))
                && claim
                    .selector
                    .as_ref()
                    .is_none_or(|selector| volume.labels.are_selected(selector));
            if is_fit {
                free.push((name, volume));
            }
        }
        free.sort_by_key(|(_, volume)| volume.size);
        free
    }

    /// The node for which a claim is provisioned, assumed or from the API.
    pub fn selected<'a>(&'a self, key: &Key, claim: &'a Claim) -> Option<&'a CompactString> {
        let promised = self.selected.get(key).map(|promise| &promise.to);
        promised.or(claim.selected.as_ref())
    }

    /// Whether a volume belongs to a claim: assumed, or bound from either side.
    fn is_for(
        &self,
        name: &CompactString,
        volume: &Volume,
        key: &Key,
        claim: &Claim,
    ) -> Option<bool> {
        if let Some(promised) = self.promised.get(name) {
            return Some(promised.to == *key);
        }
        let (owner, uid) = volume.claim.as_ref()?;
        Some(owner == key && (uid.is_empty() || *uid == claim.uid))
    }
}

/// Removes a name from those stored under a key.
fn leave(
    names: &mut HashMap<CompactString, BTreeSet<CompactString>, Quick>,
    key: &str,
    name: &CompactString,
) {
    if let Some(kept) = names.get_mut(key) {
        kept.remove(name);
        if kept.is_empty() {
            names.remove(key);
        }
    }
}
