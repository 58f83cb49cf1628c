//! Whether a change of a node helps a pod.

use super::super::cycle::{brand, makes};
use super::super::fit;
use super::super::node::Node;
use super::super::plugin::{Plugin, Plugins};
use super::super::pod::Pod;
use super::super::snapshot::Snapshot;
use super::super::terms::{AffinityTerm, Spread, bear};
use super::pods::{hard, has, terms};

/// Plugins that depend on what changed in a node.
pub(super) fn changes_of_node(old: &Node, new: &Node) -> Plugins {
    use Plugin::*;
    let mut plugins = Plugins::default();
    let mut add = |more: &[Plugin]| more.iter().for_each(|plugin| plugins.add(*plugin));
    if old.labels != new.labels {
        add(&[
            NodeAffinity,
            PodTopologySpread,
            InterPodAffinity,
            VolumeBinding,
            VolumeZone,
            DynamicResources,
        ]);
    }
    if old.taints != new.taints || (old.is_unschedulable && !new.is_unschedulable) {
        add(&[NodeUnschedulable, TaintToleration, PodTopologySpread]);
    }
    if old.allocatable != new.allocatable || old.pods != new.pods {
        add(&[NodeResourcesFit, DynamicResources]);
    }
    if old.handlers != new.handlers {
        add(&[ZoneBrand]);
    }
    if old.features != new.features {
        add(&[NodeDeclaredFeatures]);
    }
    plugins
}

pub(super) fn node_helps(
    plugin: Plugin,
    old: Option<&Node>,
    new: &Node,
    pod: &Pod,
    snapshot: &Snapshot,
) -> bool {
    // Whether it holds now but did not before.
    let becomes = |does: &dyn Fn(&Node) -> bool| does(new) && !old.is_some_and(does);
    match plugin {
        Plugin::NodeUnschedulable => becomes(&|node| !node.is_unschedulable),
        Plugin::TaintToleration => becomes(&|node| {
            let mut repelling = node.taints.iter().filter(|taint| taint.repels());
            repelling.all(|taint| bear(&pod.tolerations, taint))
        }),
        Plugin::NodeAffinity => becomes(&|node| pod.nodes.allows(&node.name, &node.labels)),
        Plugin::NodeResourcesFit => {
            fit::could_fit(pod, new) && old.is_none_or(|old| has_more(pod, old, new))
        }
        Plugin::PodTopologySpread => {
            let matches = |node: &Node| hard(pod).all(|spread| has(&node.labels, spread));
            match old {
                None => matches(new),
                Some(old) if matches(old) != matches(new) => true,
                Some(old) => {
                    let moved = |spread: &Spread| {
                        old.labels.get(&spread.topology) != new.labels.get(&spread.topology)
                    };
                    matches(new) && (hard(pod).any(moved) || old.taints != new.taints)
                }
            }
        }
        Plugin::InterPodAffinity => {
            let place = |node: Option<&Node>, term: &AffinityTerm| {
                node.and_then(|node| node.labels.get(&term.topology))
                    .map(str::to_owned)
            };
            let mut near = terms(pod, |affinity| &affinity.required);
            let mut far = terms(pod, |affinity| &affinity.anti_required);
            near.any(|term| {
                let now = place(Some(new), term);
                now.is_some() && now != place(old, term)
            }) || far.any(|term| {
                let before = place(old, term);
                old.is_none() || (before.is_some() && before != place(Some(new), term))
            }) || (old.is_none() && pod.affinity.is_none())
        }
        Plugin::NodeDeclaredFeatures => becomes(&|node| node.declares(&pod.feature)),
        Plugin::ZoneBrand => {
            brand(snapshot, pod).is_none_or(|brand| becomes(&|node| makes(node, brand)))
        }
        _ => true,
    }
}

/// Whether a node has more of a resource that a pod requests.
fn has_more(pod: &Pod, old: &Node, new: &Node) -> bool {
    let (was, is, wants) = (&old.allocatable, &new.allocatable, &pod.requests);
    new.pods > old.pods
        || (wants.cpu > 0 && is.cpu > was.cpu)
        || (wants.memory > 0 && is.memory > was.memory)
        || (wants.storage > 0 && is.storage > was.storage)
        || wants
            .scalars
            .iter()
            .any(|(name, wanted)| *wanted > 0 && is.scalar(name) > was.scalar(name))
}
