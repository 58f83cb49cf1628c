//! The scheduling cycle of one pod: what is computed once, and the check of each node. Follows the PreFilter and Filter
//! parts of k8s.io/kubernetes/pkg/scheduler/framework.

use std::sync::Arc;

use super::node::Node;
use super::plugin::{Plugin, Rejection};
use super::pod::Pod;
use super::snapshot::{Slot, Snapshot};
use super::storage::Plan;
use super::terms::bear;
use super::wanted::Wanted;
use super::{affinity, fit, spread};
use crate::meta::placement::BRANDS;

/// Assumed changes to the pods of a node.
#[derive(Clone, Copy, Default)]
pub struct Overlay<'a> {
    /// Pods to add.
    pub added: &'a [Arc<Pod>],
    /// Pods to remove.
    pub removed: &'a [Arc<Pod>],
}

impl Overlay<'_> {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// By how many the pods that match `is_meant` change.
    pub fn count(&self, is_meant: impl Fn(&Pod) -> bool) -> i64 {
        let count = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_meant(pod)).count() as i64;
        count(self.added) - count(self.removed)
    }
}

/// A pod with the cluster-wide data that the plugins need for it.
pub struct Cycle<'a> {
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// The pod.
    pub pod: &'a Pod,
    /// The only nodes to check; `None` for all.
    pub only: Option<Vec<Slot>>,
    spread: Option<spread::Hard<'a>>,
    affinity: Option<affinity::Required<'a>>,
    brand: Option<&'a str>,
    volumes: Option<Wanted<'a>>,
}

impl<'a> Cycle<'a> {
    /// Runs PreFilter for a pod.
    ///
    /// # Errors
    /// Why the pod fits no node at all.
    pub fn new(snapshot: &'a Snapshot, pod: &'a Pod) -> Result<Cycle<'a>, Rejection> {
        let only = match pod.nodes.only() {
            None => None,
            Some(names) if names.is_empty() => {
                return Err(Rejection::never(
                    Plugin::NodeAffinity,
                    "pod affinity terms conflict",
                ));
            }
            Some(names) => Some(
                names
                    .iter()
                    .filter_map(|name| snapshot.find(name))
                    .collect(),
            ),
        };
        let volumes = Wanted::of(pod, snapshot)?;
        snapshot.devices.check(pod)?;
        Ok(Cycle {
            only,
            volumes,
            spread: spread::Hard::of(pod, snapshot),
            affinity: affinity::Required::of(pod, snapshot),
            brand: brand(snapshot, pod),
            snapshot,
            pod,
        })
    }

    /// Whether the pod fits a node, also if pods nominated for it are added.
    pub fn check(&self, slot: Slot) -> Result<(), Rejection> {
        self.check_with(slot, &[])
    }

    /// Like [`Cycle::check`], with some pods removed.
    pub fn check_with(&self, slot: Slot, removed: &[Arc<Pod>]) -> Result<(), Rejection> {
        let nominated = &self.snapshot.site(slot).nominated;
        if !nominated.is_empty() {
            let first: Vec<Arc<Pod>> = nominated
                .iter()
                .filter(|other| other.priority >= self.pod.priority && other.key != self.pod.key)
                .cloned()
                .collect();
            if !first.is_empty() {
                let added = &first[..];
                self.ask(slot, &Overlay { added, removed })?;
            }
        }
        let added = &[];
        self.ask(slot, &Overlay { added, removed })
    }

    /// Runs every filter in upstream's order, up to the first rejection.
    fn ask(&self, slot: Slot, overlay: &Overlay<'_>) -> Result<(), Rejection> {
        let (site, pod) = (self.snapshot.site(slot), self.pod);
        let Some(node) = &site.node else {
            return Err(Rejection::never(
                Plugin::NodeName,
                "node(s) didn't match the requested node name",
            ));
        };
        bears(pod, node)?;
        if !pod.nodes.is_open() && !pod.nodes.allows(&node.name, &node.labels) {
            return Err(Rejection::never(
                Plugin::NodeAffinity,
                "node(s) didn't match Pod's node affinity/selector",
            ));
        }
        if !pod.ports.is_empty() && self.ports_are_taken(slot, overlay) {
            return Err(Rejection::now(
                Plugin::NodePorts,
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        fit::check(pod, node, site, overlay)?;
        if let Some(volumes) = &self.volumes {
            volumes.check_restrictions(slot, overlay)?;
            volumes.check_limits(slot, node, overlay)?;
            volumes.check_binding(node)?;
            volumes.check_zone(node)?;
        }
        if let Some(spread) = &self.spread {
            spread.check(slot, overlay)?;
        }
        if let Some(affinity) = &self.affinity {
            affinity.check(slot, overlay)?;
        }
        if !pod.device_claims.is_empty() {
            self.snapshot.devices.check_node(pod, node)?;
        }
        if !node.declares(&pod.feature) {
            return Err(Rejection::never(
                Plugin::NodeDeclaredFeatures,
                "node(s) didn't match Pod's required features",
            ));
        }
        if let Some(brand) = self.brand
            && !makes(node, brand)
        {
            return Err(Rejection::never(
                Plugin::ZoneBrand,
                format!("node(s) didn't make zones of brand {brand}"),
            ));
        }
        Ok(())
    }

    /// What the pod's claims need if it goes to a suitable node.
    pub fn plan(&self, slot: Slot) -> Plan {
        let node = self.snapshot.site(slot).node.as_ref();
        match (&self.volumes, node) {
            (Some(volumes), Some(node)) => volumes.plan(node).unwrap_or_default(),
            _ => Plan::default(),
        }
    }

    /// The score of a node by the free capacity for the pod's volumes; `None` if the pod has no volumes to provision.
    pub fn room(&self, node: &Node) -> Option<i64> {
        self.volumes.as_ref()?.score(node)
    }

    fn ports_are_taken(&self, slot: Slot, overlay: &Overlay<'_>) -> bool {
        let site = self.snapshot.site(slot);
        let conflicts = |pod: &Arc<Pod>| {
            let pairs = pod.ports.iter();
            pairs
                .into_iter()
                .any(|taken| self.pod.ports.iter().any(|wanted| wanted.conflicts(taken)))
        };
        if overlay.removed.is_empty() {
            let taken = |wanted| site.ports.iter().any(|taken| taken.conflicts(wanted));
            return self.pod.ports.iter().any(taken) || overlay.added.iter().any(conflicts);
        }
        let staying = site
            .pods
            .iter()
            .filter(|pod| !overlay.removed.iter().any(|gone| gone.key == pod.key));
        staying.chain(overlay.added).any(conflicts)
    }
}

/// Checks that a pod tolerates a node's taints.
fn bears(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if node.is_unschedulable && !bear(&pod.tolerations, &Node::cordon()) {
        return Err(Rejection::never(
            Plugin::NodeUnschedulable,
            "node(s) were unschedulable",
        ));
    }
    let mut repelling = node.taints.iter().filter(|taint| taint.repels());
    if repelling.any(|taint| !bear(&pod.tolerations, taint)) {
        return Err(Rejection::never(
            Plugin::TaintToleration,
            "node(s) had untolerated taint(s)",
        ));
    }
    Ok(())
}

/// The zone brand required by a pod's annotation or RuntimeClass; `None` for any.
pub fn brand<'a>(snapshot: &'a Snapshot, pod: &'a Pod) -> Option<&'a str> {
    if !pod.brand.is_empty() {
        return Some(&pod.brand);
    }
    let handler = snapshot.handlers.get(&pod.runtime_class)?;
    BRANDS.contains(&handler.as_str()).then_some(handler)
}

/// Whether a node supports a zone brand, if it declares its brands.
pub fn makes(node: &Node, brand: &str) -> bool {
    node.handlers.is_empty() || node.handlers.iter().any(|handler| handler == brand)
}
