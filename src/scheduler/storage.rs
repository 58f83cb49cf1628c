//! Volumes and claims as the scheduler knows them, with what it has decided of them and the API does not show yet.
//! Follows k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding/passive_assume_cache.go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use compact_str::CompactString;

use super::pod::Pod;
use super::snapshot::Quick;
use super::volumes::{Capacity, Claim, Class, Driver, Volume};
use crate::client::informer::Key;

/// Volumes and claims as they are known.
#[derive(Default)]
pub struct Storage {
    /// Volumes by name.
    volumes: BTreeMap<CompactString, Volume>,
    /// Their names by class.
    of_class: HashMap<CompactString, BTreeSet<CompactString>, Quick>,
    /// Claims.
    pub claims: HashMap<Key, Claim, Quick>,
    /// Classes of volumes.
    pub classes: HashMap<CompactString, Class, Quick>,
    /// Drivers.
    pub drivers: HashMap<CompactString, Driver, Quick>,
    /// The drivers of nodes, each with how many volumes it can have there.
    pub nodes: HashMap<CompactString, HashMap<CompactString, Option<i64>, Quick>, Quick>,
    /// How much there is.
    pub capacities: HashMap<Key, Capacity, Quick>,
    /// Attached volumes: node and volume.
    attachments: HashMap<CompactString, (CompactString, CompactString), Quick>,
    /// The names of attachments by node.
    attached: HashMap<CompactString, BTreeSet<CompactString>, Quick>,
    /// Volumes that are promised to claims.
    promised: HashMap<CompactString, Promise<Key>, Quick>,
    /// Claims whose volumes are to be made for a node.
    selected: HashMap<Key, Promise<CompactString>, Quick>,
}

/// What is decided of an object, until the API shows another version of it.
struct Promise<T> {
    to: T,
    /// The version that it was decided on.
    version: String,
    /// The uid of the pod that it was decided for.
    pod: String,
}

/// What is to be done about the claims of a pod on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Volumes that claims get.
    pub bind: Vec<(CompactString, Key)>,
    /// Claims whose volumes are to be made.
    pub provision: Vec<Key>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

impl Storage {
    /// Keeps what a plan says from others, for a pod at its place.
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

    /// Takes back what was promised for a pod.
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

    /// Takes in a claim as the API shows it. What was decided on another version of it counts no longer.
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

    /// Takes in a volume as the API shows it. What was decided on another version of it counts no longer.
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

    /// Takes in that a volume is attached to a node: node and volume.
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

    /// The volumes that are attached to a node: driver, and name there.
    pub fn attached_to(&self, node: &str) -> impl Iterator<Item = &(CompactString, CompactString)> {
        let names = self.attached.get(node).into_iter().flatten();
        let volumes = names.filter_map(|name| self.attachments.get(name));
        volumes.filter_map(|(_, volume)| Some(&self.volumes.get(volume)?.handle))
    }

    /// The volumes that a claim can have wherever they are reached from: the one that is the claim's already, or else
    /// those that are free, the smallest first.
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

    /// The node that a claim's volume is made for, promised or known.
    pub fn selected<'a>(&'a self, key: &Key, claim: &'a Claim) -> Option<&'a CompactString> {
        let promised = self.selected.get(key).map(|promise| &promise.to);
        promised.or(claim.selected.as_ref())
    }

    /// Whether a volume is a claim's: promised, or bound from one side.
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

/// Takes a name out of those that are kept under a key.
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
