//! VolumeBinding, VolumeRestrictions, VolumeZone and NodeVolumeLimits: whether the volumes of a pod are accessible on
//! a node, and which volumes its claims get there. Follows
//! k8s.io/kubernetes/pkg/scheduler/framework/plugins/volumebinding, volumerestrictions, volumezone, nodevolumelimits
//! and k8s.io/component-helpers/storage/volume.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::{CompactString, format_compact};

use super::cycle::Overlay;
use super::fit::MOST;
use super::node::Node;
use super::plugin::{Plugin, Reason, Rejection};
use super::pod::{self, Pod};
use super::snapshot::{Slot, Snapshot};
use super::storage::{Plan, Storage};
use super::terms::{Labels, any_holds};
use super::volumes::{Capacity, Claim, PLACES, Volume};
use crate::client::informer::Key;

const ONE_POD: &str = "ReadWriteOncePod";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// An unbound claim that gets a volume on the pod's node.
struct Waiting<'a> {
    key: Key,
    claim: &'a Claim,
    /// Its candidates; the first that is accessible on the node is the best.
    volumes: Vec<(&'a CompactString, &'a Volume)>,
}

/// The volumes of a pod, and what they require of nodes.
pub struct Wanted<'a> {
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    /// Volumes of bound claims; `None` for one that does not exist.
    bound: Vec<Option<&'a Volume>>,
    /// Claims to bind or provision on the pod's node, smallest first.
    waiting: Vec<Waiting<'a>>,
    /// The CSI volumes that it uses, or will use.
    handles: BTreeSet<(CompactString, CompactString)>,
    /// The topology labels of its volumes.
    places: Vec<(&'static str, &'a [CompactString])>,
    /// ReadWriteOncePod claims.
    alone: BTreeSet<Key>,
    disks: bool,
}

fn never(plugin: Plugin, reason: String) -> Rejection {
    Rejection::never(plugin, reason)
}

impl<'a> Wanted<'a> {
    /// Computes it for a pod; `None` if it has no relevant volume.
    ///
    /// # Errors
    /// Why the pod fits no node.
    pub fn of(pod: &'a Pod, snapshot: &'a Snapshot) -> Result<Option<Wanted<'a>>, Rejection> {
        let mut wanted = Wanted {
            snapshot,
            pod,
            bound: Vec::new(),
            waiting: Vec::new(),
            handles: BTreeSet::new(),
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
        wanted.waiting.sort_by_key(|waiting| waiting.claim.size);
        wanted.handles = handles(storage, pod);
        for volume in &pod.volumes {
            let pod::Volume::Claim(name, false) = volume else {
                continue;
            };
            let key = Key::new(&pod.key.namespace, name);
            let name = storage.claims.get(&key).map(|claim| &claim.volume);
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                continue;
            };
            let Some(volume) = storage.volume(name) else {
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

    /// Adds a claim. Returns whether it must be bound first, but is not.
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
            self.bound.push(storage.volume(&claim.volume));
            return Ok(false);
        }
        let class = storage.classes.get(&claim.class);
        if claim.volume.is_empty() && class.is_some_and(|class| class.waits) {
            let volumes = storage.candidates(&key, claim);
            self.waiting.push(Waiting {
                key,
                claim,
                volumes,
            });
            return Ok(false);
        }
        Ok(true)
    }

    /// VolumeRestrictions: whether volumes usable by only one pod are free.
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

    /// NodeVolumeLimits: whether a node can attach the volumes in addition to its own. Like upstream, an attached
    /// volume that no pod there uses counts in addition to the pod's, even if it is the same volume.
    pub fn check_limits(
        &self,
        slot: Slot,
        node: &Node,
        overlay: &Overlay<'_>,
    ) -> Result<(), Rejection> {
        let storage = &self.snapshot.storage;
        if self.handles.is_empty() {
            return Ok(());
        }
        let there = storage.nodes.get(&node.name);
        for (driver, _) in &self.handles {
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
        let used: BTreeSet<(CompactString, CompactString)> = staying
            .chain(overlay.added)
            .flat_map(|pod| handles(storage, pod))
            .collect();
        let left: BTreeSet<_> = storage.attached_to(&node.name).collect();
        for (driver, limit) in limits {
            let Some(limit) = limit else { continue };
            let is_of = |(of, _): &&(CompactString, CompactString)| of == driver;
            let new = self.handles.difference(&used).filter(is_of).count();
            let left = left.iter().filter(|handle| !used.contains(**handle));
            let had =
                used.iter().filter(is_of).count() + left.filter(|handle| is_of(handle)).count();
            if new > 0 && (had + new) as i64 > *limit {
                return Err(Rejection::now(
                    Plugin::NodeVolumeLimits,
                    "node(s) exceed max volume count",
                ));
            }
        }
        Ok(())
    }

    /// VolumeBinding: whether bound volumes are accessible on a node, and unbound claims can get volumes there.
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

    /// How to bind and provision the unbound claims if the pod goes to a node.
    ///
    /// # Errors
    /// Why that is not possible there.
    pub fn plan(&self, node: &Node) -> Result<Plan, Reason> {
        const NO_VOLUME: Reason =
            Reason::Borrowed("node(s) didn't find available persistent volumes to bind");
        let storage = &self.snapshot.storage;
        let mut plan = Plan::default();
        for Waiting {
            key,
            claim,
            volumes,
        } in &self.waiting
        {
            match storage.selected(key, claim) {
                Some(selected) if *selected != node.name => return Err(NO_VOLUME),
                Some(_) => plan.provision.push(key.clone()),
                None => {
                    let is_free = |name| plan.bind.iter().all(|(taken, _)| taken != name);
                    let mut volumes = volumes.iter();
                    match volumes.find(|(name, volume)| is_free(*name) && reaches(volume, node)) {
                        Some((name, _)) => plan.bind.push(((*name).clone(), key.clone())),
                        None => plan.provision.push(key.clone()),
                    }
                }
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
            if is_told && claim.size > 0 && room(storage, claim, &node.labels).is_none() {
                return Err("node(s) did not have enough free storage".into());
            }
        }
        Ok(plan)
    }

    /// The score of a node by the capacity left after provisioning: the more, the better. `None` if nothing is
    /// provisioned. Follows scorer.go with the default shape.
    pub fn score(&self, node: &Node) -> Option<i64> {
        if self.waiting.is_empty() {
            return None;
        }
        let storage = &self.snapshot.storage;
        let plan = self.plan(node).ok()?;
        // By class: requested and available bytes.
        let mut classes: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for (name, key) in &plan.bind {
            let (volume, claim) = (storage.volume(name)?, storage.claims.get(key)?);
            let (asked, there) = classes.entry(&volume.class).or_default();
            *asked = asked.saturating_add(claim.size);
            *there = there.saturating_add(volume.size);
        }
        if plan.bind.is_empty() {
            for claim in plan
                .provision
                .iter()
                .filter_map(|key| storage.claims.get(key))
            {
                let driver = storage.classes.get(&claim.class);
                let driver = driver.and_then(|class| storage.drivers.get(&class.provisioner));
                if claim.size == 0 || !driver.is_some_and(|driver| driver.tells_capacity) {
                    continue;
                }
                if let Some(room) = room(storage, claim, &node.labels) {
                    let (asked, there) = classes.entry(&claim.class).or_default();
                    *asked = asked.saturating_add(claim.size);
                    // All claims of a class use the same capacity.
                    *there = room.total;
                }
            }
        }
        let scores = classes
            .values()
            .map(|(asked, there)| unused(*asked, *there));
        let sum: i64 = scores.sum();
        let count = classes.len().max(1) as f64;
        Some((sum as f64 / count).round() as i64)
    }

    /// VolumeZone: whether a node is in the zones of the volumes.
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

/// Whether a volume is accessible on a node.
pub fn reaches(volume: &Volume, node: &Node) -> bool {
    let nodes = volume.nodes.as_ref();
    nodes.is_none_or(|terms| any_holds(terms, &node.name, &node.labels))
}

/// The unused share of the capacity, in percent.
fn unused(asked: i64, there: i64) -> i64 {
    if there == 0 || asked > there {
        return 0;
    }
    MOST - (i128::from(asked) * i128::from(MOST) / i128::from(there)) as i64
}

/// A capacity with room for a claim, accessible on nodes with these labels.
fn room<'a>(storage: &'a Storage, claim: &Claim, node: &Labels) -> Option<&'a Capacity> {
    storage.capacities.values().find(|capacity| {
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

/// The CSI volumes that a pod uses, or will use: driver, and volume handle.
fn handles(storage: &Storage, pod: &Pod) -> BTreeSet<(CompactString, CompactString)> {
    let handle = |key: Key| {
        let claim = storage.claims.get(&key)?;
        match storage.volume(&claim.volume) {
            Some(volume) => Some(volume.handle.clone()).filter(|(driver, _)| !driver.is_empty()),
            // The volume does not exist yet or any more: its provisioner is used.
            None => {
                let class = storage.classes.get(&claim.class)?;
                let name = format_compact!("{}/{}", key.namespace, key.name);
                Some((class.provisioner.clone(), name))
            }
        }
    };
    pod.claims().filter_map(handle).collect()
}
