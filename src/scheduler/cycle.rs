//! One pod against the cluster: what is computed once, then asked of each node. Follows the PreFilter and Filter parts
//! of k8s.io/kubernetes/pkg/scheduler/framework.

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

/// What would be otherwise on the node in question.
#[derive(Clone, Copy, Default)]
pub struct Overlay<'a> {
    /// Pods that would be there too.
    pub added: &'a [Arc<Pod>],
    /// Pods that would not be there.
    pub removed: &'a [Arc<Pod>],
}

impl Overlay<'_> {
    /// Whether all is as it is.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// How many more of some pods would be there.
    pub fn count(&self, is_meant: impl Fn(&Pod) -> bool) -> i64 {
        let count = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_meant(pod)).count() as i64;
        count(self.added) - count(self.removed)
    }
}

/// A pod, and what the rules need to know of the whole cluster for it.
pub struct Cycle<'a> {
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// The pod.
    pub pod: &'a Pod,
    /// The only nodes that are asked; all where it is none.
    pub only: Option<Vec<Slot>>,
    spread: Option<spread::Hard<'a>>,
    affinity: Option<affinity::Required<'a>>,
    brand: Option<&'a str>,
    volumes: Option<Wanted<'a>>,
}

impl<'a> Cycle<'a> {
    /// Begins with a pod.
    ///
    /// # Errors
    /// Why no node at all will do.
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

    /// Whether the pod can be on a node, also with the pods that room is kept for there.
    pub fn check(&self, slot: Slot) -> Result<(), Rejection> {
        self.check_with(slot, &[])
    }

    /// The same, with some pods gone.
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

    /// Asks every rule in upstream's order; the first that says no counts.
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

    /// What is to be done about the pod's claims if it goes to a node that will do.
    pub fn plan(&self, slot: Slot) -> Plan {
        let node = self.snapshot.site(slot).node.as_ref();
        match (&self.volumes, node) {
            (Some(volumes), Some(node)) => volumes.plan(node).unwrap_or_default(),
            _ => Plan::default(),
        }
    }

    /// What a node is worth by the room that is left for the pod's volumes; none where it wants none.
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

/// Whether a pod bears what keeps others away from a node.
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

/// The brand that a pod asks for by its annotation or its runtime class; none for any.
pub fn brand<'a>(snapshot: &'a Snapshot, pod: &'a Pod) -> Option<&'a str> {
    if !pod.brand.is_empty() {
        return Some(&pod.brand);
    }
    let handler = snapshot.handlers.get(&pod.runtime_class)?;
    BRANDS.contains(&handler.as_str()).then_some(handler)
}

/// Whether a node makes zones of a brand, as far as it says what it makes.
pub fn makes(node: &Node, brand: &str) -> bool {
    node.handlers.is_empty() || node.handlers.iter().any(|handler| handler == brand)
}
