//! VolumeBinding, VolumeRestrictions, VolumeZone and NodeVolumeLimits: whether a node reaches the volumes of a pod, and
//! which volumes its claims get there. Follows k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding,
//! volumerestrictions, volumezone, nodevolumelimits and k8s.io/component-helpers/storage/volume.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use compact_str::{CompactString, format_compact};

use super::cycle::Overlay;
use super::node::Node;
use super::plugin::{Plugin, Reason, Rejection};
use super::pod::{self, Pod};
use super::snapshot::{Quick, Slot, Snapshot};
use super::terms::{Labels, any_holds};
use super::volumes::{Capacity, Claim, Class, Driver, PLACES, Volume};
use crate::controllers::informer::Key;

const ONE_POD: &str = "ReadWriteOncePod";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Volumes and claims as they are known.
#[derive(Default)]
pub struct Storage {
    /// Volumes by name.
    pub volumes: BTreeMap<CompactString, Volume>,
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
    pub attachments: HashMap<CompactString, (CompactString, CompactString), Quick>,
    /// Volumes that are promised to claims, until the API shows it.
    promised: HashMap<CompactString, Key, Quick>,
    /// Claims whose volumes are to be made for a node, until the API shows it.
    selected: HashMap<Key, CompactString, Quick>,
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

    /// The claims that must be bound before the pod is.
    pub fn claims(&self) -> impl Iterator<Item = &Key> {
        self.bind
            .iter()
            .map(|(_, claim)| claim)
            .chain(&self.provision)
    }
}

impl Storage {
    /// Keeps what a plan says from others.
    pub fn promise(&mut self, plan: &Plan, node: &str) {
        for (volume, claim) in &plan.bind {
            self.promised.insert(volume.clone(), claim.clone());
        }
        for claim in &plan.provision {
            self.selected.insert(claim.clone(), node.into());
        }
    }

    /// Takes a promise back.
    pub fn release(&mut self, plan: &Plan) {
        plan.bind.iter().for_each(|(volume, _)| {
            self.promised.remove(volume);
        });
        plan.provision.iter().for_each(|claim| {
            self.selected.remove(claim);
        });
    }

    /// Takes in a claim as the API shows it; what was promised to it is shown by now.
    pub fn set_claim(&mut self, key: &Key, claim: Option<Claim>) {
        if let Some(selected) = self.selected.get(key)
            && claim
                .as_ref()
                .is_none_or(|claim| claim.selected.as_ref() == Some(selected) || claim.is_bound)
        {
            self.selected.remove(key);
        }
        match claim {
            Some(claim) => self.claims.insert(key.clone(), claim),
            None => self.claims.remove(key),
        };
    }

    /// Takes in a volume as the API shows it; what it was promised to is shown by now.
    pub fn set_volume(&mut self, name: &CompactString, volume: Option<Volume>) {
        if volume.as_ref().is_none_or(|volume| volume.claim.is_some()) {
            self.promised.remove(name);
        }
        match volume {
            Some(volume) => self.volumes.insert(name.clone(), volume),
            None => self.volumes.remove(name),
        };
    }

    /// Whether who makes volumes gave a claim back that was for a node.
    pub fn is_rejected(&self, key: &Key, claim: &Claim, node: &str) -> bool {
        !self.selected.contains_key(key) && claim.selected.as_deref() != Some(node)
    }

    fn selected<'a>(&'a self, key: &Key, claim: &'a Claim) -> Option<&'a CompactString> {
        self.selected.get(key).or(claim.selected.as_ref())
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
            return Some(promised == key);
        }
        let (owner, uid) = volume.claim.as_ref()?;
        Some(owner == key && (uid.is_empty() || *uid == claim.uid))
    }
}

/// The volumes of a pod, and what each node must have for them.
pub struct Wanted<'a> {
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    /// Volumes that its claims have; none for one that is not there.
    bound: Vec<Option<&'a Volume>>,
    /// Claims that get a volume where the pod goes, the smallest first.
    waiting: Vec<(Key, &'a Claim)>,
    /// Where its volumes are.
    places: Vec<(&'static str, &'a [CompactString])>,
    /// Claims that only one pod can use.
    alone: BTreeSet<Key>,
    disks: bool,
}

fn never(plugin: Plugin, reason: String) -> Rejection {
    Rejection::never(plugin, reason)
}

impl<'a> Wanted<'a> {
    /// Of a pod; none where it has no volume that matters.
    ///
    /// # Errors
    /// Why it can be nowhere.
    pub fn of(pod: &'a Pod, snapshot: &'a Snapshot) -> Result<Option<Wanted<'a>>, Rejection> {
        let mut wanted = Wanted {
            snapshot,
            pod,
            bound: Vec::new(),
            waiting: Vec::new(),
            places: Vec::new(),
            alone: BTreeSet::new(),
            disks: false,
        };
        if pod.volumes.is_empty() {
            return Ok(None);
        }
        let storage = &snapshot.storage;
        for volume in &pod.volumes {
            match volume {
                pod::Volume::Claim(name, false) => {
                    let key = Key::new(&pod.key.namespace, name);
                    let Some(claim) = storage.claims.get(&key) else {
                        let why = format!("persistentvolumeclaim \"{name}\" not found");
                        return Err(never(Plugin::VolumeRestrictions, why));
                    };
                    if claim.modes.iter().any(|mode| mode == ONE_POD) {
                        wanted.alone.insert(key);
                    }
                }
                pod::Volume::Disk(..) => wanted.disks = true,
                _ => {}
            }
        }
        let mut is_unbound = false;
        for volume in &pod.volumes {
            if let pod::Volume::Claim(name, is_made) = volume {
                is_unbound |= wanted.claim(name, *is_made)?;
            }
        }
        if is_unbound {
            return Err(Rejection::never(
                Plugin::VolumeBinding,
                "pod has unbound immediate PersistentVolumeClaims",
            ));
        }
        wanted.waiting.sort_by_key(|(_, claim)| claim.size);
        for volume in &pod.volumes {
            let pod::Volume::Claim(name, false) = volume else {
                continue;
            };
            let key = Key::new(&pod.key.namespace, name);
            let name = storage.claims.get(&key).map(|claim| &claim.volume);
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                continue;
            };
            let Some(volume) = storage.volumes.get(name) else {
                let why = format!("persistentvolume \"{name}\" not found");
                return Err(never(Plugin::VolumeZone, why));
            };
            let places = volume.places.iter();
            wanted
                .places
                .extend(places.map(|(label, values)| (*label, values.as_slice())));
        }
        Ok(Some(wanted))
    }

    /// Takes in a claim. Whether it must be bound before, and is not.
    fn claim(&mut self, name: &CompactString, is_made: bool) -> Result<bool, Rejection> {
        let (storage, pod) = (&self.snapshot.storage, self.pod);
        let refuse = |why: String| Err(never(Plugin::VolumeBinding, why));
        let key = Key::new(&pod.key.namespace, name);
        let Some(claim) = storage.claims.get(&key) else {
            return refuse(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
            ));
        };
        if claim.is_lost {
            return refuse(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                claim.volume
            ));
        }
        if claim.is_deleting {
            return refuse(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if is_made && claim.owner.as_deref() != Some(pod.uid()) {
            let namespace = &pod.key.namespace;
            return refuse(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
                pod.key.name
            ));
        }
        if claim.is_bound {
            self.bound.push(storage.volumes.get(&claim.volume));
            return Ok(false);
        }
        let class = storage.classes.get(&claim.class);
        if claim.volume.is_empty() && class.is_some_and(|class| class.waits) {
            self.waiting.push((key, claim));
            return Ok(false);
        }
        Ok(true)
    }

    /// VolumeRestrictions: whether volumes that only one pod can have are free.
    pub fn check_restrictions(&self, slot: Slot, overlay: &Overlay<'_>) -> Result<(), Rejection> {
        let site = self.snapshot.site(slot);
        if self.disks {
            let staying = site
                .pods
                .iter()
                .filter(|pod| !overlay.removed.iter().any(|gone| gone.key == pod.key));
            let disk = |volume: &pod::Volume| match volume {
                pod::Volume::Disk(identity, is_read) => Some((identity.clone(), *is_read)),
                _ => None,
            };
            let mut there = staying
                .chain(overlay.added)
                .flat_map(|pod| pod.volumes.iter().filter_map(disk));
            let conflicts = |(identity, is_read): (CompactString, bool)| {
                let mut own = self.pod.volumes.iter().filter_map(disk);
                own.any(|(wanted, reads)| wanted == identity && !(reads && is_read))
            };
            if there.any(conflicts) {
                return Err(Rejection::now(
                    Plugin::VolumeRestrictions,
                    "node(s) had no available disk",
                ));
            }
        }
        for claim in &self.alone {
            let change = overlay.count(|pod| pod.claims().any(|used| used == *claim));
            if i64::from(self.snapshot.users_of(claim)) + change > 0 {
                return Err(Rejection::now(
                    Plugin::VolumeRestrictions,
                    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
                ));
            }
        }
        Ok(())
    }

    /// NodeVolumeLimits: whether a node can have the volumes besides those that it has.
    pub fn check_limits(
        &self,
        slot: Slot,
        node: &Node,
        overlay: &Overlay<'_>,
    ) -> Result<(), Rejection> {
        let storage = &self.snapshot.storage;
        let mut new = handles(storage, self.pod);
        let there = storage.nodes.get(&node.name);
        for (driver, _) in &new {
            let must = storage
                .drivers
                .get(driver)
                .is_some_and(|driver| driver.must_be_there);
            if must && !there.is_some_and(|drivers| drivers.contains_key(driver)) {
                let why = format!("{driver} CSI driver is not installed on the node");
                return Err(Rejection::now(Plugin::NodeVolumeLimits, why));
            }
        }
        let Some(limits) = there.filter(|there| there.values().any(Option::is_some)) else {
            return Ok(());
        };
        let site = self.snapshot.site(slot);
        let staying = site
            .pods
            .iter()
            .filter(|pod| !overlay.removed.iter().any(|gone| gone.key == pod.key));
        let mut had: BTreeSet<(CompactString, CompactString)> = staying
            .chain(overlay.added)
            .flat_map(|pod| handles(storage, pod))
            .collect();
        let attached = storage
            .attachments
            .values()
            .filter(|(at, _)| *at == node.name);
        had.extend(
            attached.filter_map(|(_, volume)| Some(storage.volumes.get(volume)?.handle.clone())),
        );
        new.retain(|handle| !had.contains(handle));
        for (driver, limit) in limits {
            let count = |handles: &BTreeSet<(CompactString, CompactString)>| {
                handles.iter().filter(|(of, _)| of == driver).count() as i64
            };
            if count(&new) > 0 && limit.is_some_and(|limit| count(&had) + count(&new) > limit) {
                return Err(Rejection::now(
                    Plugin::NodeVolumeLimits,
                    "node(s) exceed max volume count",
                ));
            }
        }
        Ok(())
    }

    /// VolumeBinding: whether a node reaches the volumes there are, and can have those that are still wanted.
    pub fn check_binding(&self, node: &Node) -> Result<(), Rejection> {
        let mut reasons: Vec<Reason> = Vec::new();
        let mut is_missing = false;
        for volume in &self.bound {
            match volume {
                None => is_missing = true,
                Some(volume) if reaches(volume, node) => continue,
                Some(_) => {
                    reasons.push("node(s) didn't match PersistentVolume's node affinity".into());
                }
            }
            break;
        }
        if let Err(reason) = self.plan(node) {
            reasons.push(reason);
        }
        if is_missing {
            reasons.push(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".into(),
            );
        }
        Rejection::of(Plugin::VolumeBinding, reasons, false).map_or(Ok(()), Err)
    }

    /// What is to be done about claims that wait, if the pod goes to a node.
    ///
    /// # Errors
    /// Why they cannot be had there.
    pub fn plan(&self, node: &Node) -> Result<Plan, Reason> {
        const NO_VOLUME: Reason =
            Reason::Borrowed("node(s) didn't find available persistent volumes to bind");
        let storage = &self.snapshot.storage;
        let mut plan = Plan::default();
        for (key, claim) in &self.waiting {
            match storage.selected(key, claim) {
                Some(selected) if *selected != node.name => return Err(NO_VOLUME),
                Some(_) => plan.provision.push(key.clone()),
                None => match self.find(key, claim, node, &plan) {
                    Some(volume) => plan.bind.push((volume.clone(), key.clone())),
                    None => plan.provision.push(key.clone()),
                },
            }
        }
        for key in &plan.provision {
            let claim = storage.claims.get(key);
            let class = claim.and_then(|claim| storage.classes.get(&claim.class));
            let (Some(claim), Some(class)) = (claim, class) else {
                return Err(NO_VOLUME);
            };
            let is_allowed = class.places.is_empty()
                || class.places.iter().any(|term| {
                    term.iter().all(|(label, values)| {
                        let found = node.labels.get(label);
                        found.is_some_and(|found| values.iter().any(|value| value == found))
                    })
                });
            if matches!(class.provisioner.as_str(), "" | NO_PROVISIONER) || !is_allowed {
                return Err(NO_VOLUME);
            }
            let driver = storage.drivers.get(&class.provisioner);
            let is_told = driver.is_some_and(|driver| driver.tells_capacity);
            if is_told && claim.size > 0 && !has_room(storage, claim, &node.labels) {
                return Err("node(s) did not have enough free storage".into());
            }
        }
        Ok(plan)
    }

    /// The smallest volume that will do for a claim on a node; the one that is the claim's already before all others.
    fn find(
        &self,
        key: &Key,
        claim: &Claim,
        node: &Node,
        plan: &Plan,
    ) -> Option<&'a CompactString> {
        let storage = &self.snapshot.storage;
        let mut best: Option<(&CompactString, &Volume)> = None;
        for (name, volume) in &storage.volumes {
            let is_taken = plan.bind.iter().any(|(taken, _)| taken == name);
            let is_own = storage.is_for(name, volume, key, claim);
            if is_taken
                || is_own == Some(false)
                || volume.size < claim.size
                || volume.is_block != claim.is_block
                || volume.attributes != claim.attributes
                || volume.is_deleting
            {
                continue;
            }
            if is_own == Some(true) {
                return reaches(volume, node).then_some(name);
            }
            let fits = volume.is_available
                && claim
                    .selector
                    .as_ref()
                    .is_none_or(|selector| volume.labels.are_selected(selector))
                && volume.class == claim.class
                && claim.modes.iter().all(|mode| volume.modes.contains(mode))
                && reaches(volume, node);
            if fits && best.is_none_or(|(_, best)| volume.size < best.size) {
                best = Some((name, volume));
            }
        }
        best.map(|(name, _)| name)
    }

    /// VolumeZone: whether a node is where the volumes are.
    pub fn check_zone(&self, node: &Node) -> Result<(), Rejection> {
        if self.places.is_empty() || !PLACES.iter().any(|place| node.labels.get(place).is_some()) {
            return Ok(());
        }
        let is_there = |(label, values): &(&str, &[CompactString])| {
            let ga = match *label {
                "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
                "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
                other => other,
            };
            let at = node.labels.get(label).or_else(|| node.labels.get(ga));
            at.is_some_and(|at| values.iter().any(|value| value == at))
        };
        if self.places.iter().all(is_there) {
            return Ok(());
        }
        Err(Rejection::never(
            Plugin::VolumeZone,
            "node(s) had no available volume zone",
        ))
    }
}

fn reaches(volume: &Volume, node: &Node) -> bool {
    let nodes = volume.nodes.as_ref();
    nodes.is_none_or(|terms| any_holds(terms, &node.name, &node.labels))
}

fn has_room(storage: &Storage, claim: &Claim, node: &Labels) -> bool {
    storage.capacities.values().any(|capacity| {
        capacity.class == claim.class
            && capacity
                .largest
                .is_some_and(|largest| largest >= claim.size)
            && capacity
                .nodes
                .as_ref()
                .is_some_and(|nodes| node.are_selected(nodes))
    })
}

/// The volumes of drivers that a pod uses, or will: driver, and name there.
fn handles(storage: &Storage, pod: &Pod) -> BTreeSet<(CompactString, CompactString)> {
    let handle = |key: Key| {
        let claim = storage.claims.get(&key)?;
        match storage.volumes.get(&claim.volume) {
            Some(volume) => Some(volume.handle.clone()).filter(|(driver, _)| !driver.is_empty()),
            None if claim.volume.is_empty() => {
                let class = storage.classes.get(&claim.class)?;
                let name = format_compact!("{}/{}", key.namespace, key.name);
                Some((class.provisioner.clone(), name))
            }
            None => None,
        }
    };
    pod.claims().filter_map(handle).collect()
}
