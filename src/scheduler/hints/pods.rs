//! Whether a change of a pod helps another one, or itself.

use super::super::node::Node;
use super::super::plugin::Plugin;
use super::super::pod::Pod;
use super::super::snapshot::Snapshot;
use super::super::terms::{AffinityTerm, Labels, Spread, bear};

/// Upstream's name for what changed in a pod.
pub(super) fn update(old: &Pod, new: &Pod) -> &'static str {
    if old.labels != new.labels {
        "UpdatePodLabel"
    } else if is_smaller(old, new) {
        "UpdatePodScaleDown"
    } else if old.requests != new.requests {
        "UpdatePodScaleUp"
    } else if !old.gates.is_empty() && new.gates.is_empty() {
        "UpdatePodSchedulingGatesEliminated"
    } else if old.tolerations != new.tolerations {
        "UpdatePodToleration"
    } else if old.device_claims != new.device_claims {
        "UpdatePodGeneratedResourceClaim"
    } else {
        "Update"
    }
}

pub(super) fn is_smaller(old: &Pod, new: &Pod) -> bool {
    let (was, is) = (&old.requests, &new.requests);
    is.cpu < was.cpu
        || is.memory < was.memory
        || is.storage < was.storage
        || was
            .scalars
            .iter()
            .any(|(name, amount)| is.scalar(name) < *amount)
}

/// Whether a pod that reduced its requests frees a resource that another requests.
pub(super) fn frees(pod: &Pod, old: &Pod, new: &Pod) -> bool {
    let (was, is, wants) = (&old.requests, &new.requests, &pod.requests);
    (wants.cpu > 0 && is.cpu < was.cpu)
        || (wants.memory > 0 && is.memory < was.memory)
        || (wants.storage > 0 && is.storage < was.storage)
        || wants
            .scalars
            .iter()
            .any(|(name, wanted)| *wanted > 0 && is.scalar(name) < was.scalar(name))
}

pub(super) fn own_helps(plugin: Plugin, old: &Pod, new: &Pod, snapshot: &Snapshot) -> bool {
    let bears_more = old.tolerations != new.tolerations;
    match plugin {
        Plugin::NodeUnschedulable => bears_more && bear(&new.tolerations, &Node::cordon()),
        Plugin::TaintToleration => bears_more,
        Plugin::NodeResourcesFit => is_smaller(old, new),
        Plugin::PodTopologySpread => {
            (bears_more && hard(new).any(|spread| spread.honors_taints))
                || hard(new).any(|spread| spread.counts(&old.labels) != spread.counts(&new.labels))
        }
        Plugin::InterPodAffinity => old.labels != new.labels,
        Plugin::DynamicResources => {
            old.device_claims != new.device_claims && snapshot.devices.missing(new).is_none()
        }
        Plugin::ZoneBrand => old.brand != new.brand,
        _ => false,
    }
}

pub(super) fn hard(pod: &Pod) -> impl Iterator<Item = &Spread> {
    pod.spread.iter().filter(|spread| spread.is_hard)
}

pub(super) fn has(labels: &Labels, spread: &Spread) -> bool {
    labels.get(&spread.topology).is_some()
}

/// Whether a pod is counted by a hard spread constraint of another.
pub(super) fn is_counted(pod: &Pod, other: &Pod) -> bool {
    other.key.namespace == pod.key.namespace && hard(pod).any(|spread| spread.counts(&other.labels))
}

pub(super) fn terms<'a>(
    pod: &'a Pod,
    of: impl Fn(&'a super::super::terms::PodAffinity) -> &'a Vec<AffinityTerm>,
) -> impl Iterator<Item = &'a AffinityTerm> {
    pod.affinity.as_deref().into_iter().flat_map(of)
}

pub(super) fn means(term: &AffinityTerm, pod: &Pod, snapshot: &Snapshot) -> bool {
    let namespace = &pod.key.namespace;
    term.means_labels(&pod.labels)
        && term.means_namespace(namespace, &snapshot.namespace(namespace))
}

/// Whether a pod matches all required affinity terms of another; false if that has none.
pub(super) fn is_near_enough(pod: &Pod, other: &Pod, snapshot: &Snapshot) -> bool {
    let mut near = terms(pod, |affinity| &affinity.required).peekable();
    near.peek().is_some() && near.all(|term| means(term, other, snapshot))
}
