//! Cluster events, and which waiting pods they may help. Follows the EventsToRegister of upstream's plugins
//! and k8s.io/kubernetes/pkg/scheduler/framework/events.go.

use compact_str::{CompactString, format_compact};

use super::cycle::{brand, makes};
use super::fit;
use super::node::Node;
use super::plugin::{Plugin, Plugins};
use super::pod::Pod;
use super::snapshot::Snapshot;
use super::terms::{AffinityTerm, Labels, Spread, bear};
use crate::client::informer::{Change, Key};

/// A cluster event.
pub enum Event<'a> {
    /// A node was added.
    NodeCame(&'a Node),
    /// A node changed.
    NodeChanged { old: &'a Node, new: &'a Node },
    /// A node was deleted.
    NodeGone(&'a Node),
    /// A pod was placed.
    PodCame(&'a Pod),
    /// A placed pod changed.
    PodChanged { old: &'a Pod, new: &'a Pod },
    /// A placed or nominated pod lost its place or nomination.
    PodGone(&'a Pod),
    /// The waiting pod itself changed.
    Own { old: &'a Pod, new: &'a Pod },
    /// A storage object changed.
    Storage {
        /// Its kind.
        what: Stored,
        /// What happened to it.
        how: How,
        /// Its name.
        key: &'a Key,
    },
    /// A ResourceClaim changed.
    DeviceClaim {
        /// Its name.
        key: &'a Key,
        /// What happened to it.
        how: How,
        /// Whether it is new, or its status changed.
        is_otherwise: bool,
        /// Whether it had devices that are free now.
        frees: bool,
    },
    /// A device class changed.
    DeviceClass(How),
    /// RuntimeClasses changed.
    Handlers(How),
}

/// The kind of change to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was added.
    Add,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

impl How {
    /// The kind of a change.
    pub fn of<P>(change: &Change<'_, P>) -> How {
        match (change.old, change.new) {
            (None, _) => How::Add,
            (Some(_), Some(_)) => How::Update,
            (Some(_), None) => How::Delete,
        }
    }
}

/// The kinds of storage objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// PersistentVolumeClaim.
    Claim,
    /// PersistentVolume.
    Volume,
    /// StorageClass.
    Class,
    /// CSIDriver.
    Driver,
    /// CSINode.
    Node,
    /// CSIStorageCapacity.
    Capacity,
    /// VolumeAttachment.
    Attachment,
}

impl Stored {
    /// Its name upstream.
    fn name(self) -> &'static str {
        match self {
            Stored::Claim => "PersistentVolumeClaim",
            Stored::Volume => "PersistentVolume",
            Stored::Class => "storage.k8s.io/StorageClass",
            Stored::Driver => "storage.k8s.io/CSIDriver",
            Stored::Node => "storage.k8s.io/CSINode",
            Stored::Capacity => "storage.k8s.io/CSIStorageCapacity",
            Stored::Attachment => "storage.k8s.io/VolumeAttachment",
        }
    }

    /// Plugins whose result may change because of this.
    fn interests(self, how: How) -> &'static [Plugin] {
        use Plugin::*;
        match (self, how) {
            (Stored::Claim, How::Add) => &[
                VolumeRestrictions,
                NodeVolumeLimits,
                VolumeBinding,
                VolumeZone,
            ],
            (Stored::Claim, How::Update) => &[VolumeBinding, VolumeZone],
            (Stored::Volume, How::Add | How::Update) => &[VolumeBinding, VolumeZone],
            (Stored::Class, How::Add) => &[VolumeBinding, VolumeZone],
            (Stored::Class, How::Update) => &[VolumeBinding],
            (Stored::Driver, How::Update) => &[VolumeBinding],
            (Stored::Node, How::Add) => &[NodeVolumeLimits, VolumeBinding],
            (Stored::Node, How::Update) => &[NodeVolumeLimits],
            (Stored::Capacity, How::Add | How::Update) => &[VolumeBinding],
            (Stored::Attachment, How::Delete) => &[NodeVolumeLimits],
            // Deleting anything else does not help.
            _ => &[],
        }
    }
}

impl Event<'_> {
    /// Its label upstream. If several parts of an object changed, the first counts.
    pub fn label(&self) -> CompactString {
        match self {
            Event::NodeCame(_) => "NodeAdd".into(),
            Event::NodeChanged { old, new } => {
                let what = if old.is_unschedulable != new.is_unschedulable {
                    "NodeTaint"
                } else if old.allocatable != new.allocatable || old.pods != new.pods {
                    "NodeAllocatable"
                } else if old.labels != new.labels {
                    "NodeLabel"
                } else if old.taints != new.taints {
                    "NodeTaint"
                } else {
                    ""
                };
                format_compact!("NodeUpdate{what}")
            }
            Event::NodeGone(_) => "NodeDelete".into(),
            Event::PodCame(_) => "AssignedPodAdd".into(),
            Event::PodChanged { old, new } => format_compact!("AssignedPod{}", update(old, new)),
            Event::PodGone(_) => "AssignedPodDelete".into(),
            Event::Own { old, new } => format_compact!("TargetPod{}", update(old, new)),
            Event::Storage { what, how, .. } => format_compact!("{}{how:?}", what.name()),
            Event::DeviceClaim { how, .. } => {
                format_compact!("resource.k8s.io/ResourceClaim{how:?}")
            }
            Event::DeviceClass(how) => format_compact!("resource.k8s.io/DeviceClass{how:?}"),
            Event::Handlers(how) => format_compact!("node.k8s.io/RuntimeClass{how:?}"),
        }
    }

    /// Plugins whose result may change because of it.
    pub fn interests(&self) -> Plugins {
        use Plugin::*;
        let plugins: &[Plugin] = match self {
            Event::NodeCame(_) => &Plugin::ALL,
            Event::NodeChanged { old, new } => return changes_of_node(old, new),
            Event::NodeGone(_) => &[PodTopologySpread],
            Event::PodCame(_) => &[PodTopologySpread, InterPodAffinity],
            Event::PodChanged { old, new } => {
                let mut plugins = Plugins::default();
                if old.labels != new.labels {
                    plugins.add(PodTopologySpread);
                    plugins.add(InterPodAffinity);
                }
                if is_smaller(old, new) {
                    plugins.add(NodeResourcesFit);
                }
                return plugins;
            }
            Event::PodGone(_) => &[
                NodePorts,
                NodeResourcesFit,
                VolumeRestrictions,
                NodeVolumeLimits,
                PodTopologySpread,
                InterPodAffinity,
            ],
            Event::Own { .. } => &Plugin::ALL,
            Event::Storage { what, how, .. } => what.interests(*how),
            Event::DeviceClass(How::Delete) => &[],
            Event::DeviceClaim { .. } | Event::DeviceClass(_) => &[DynamicResources],
            Event::Handlers(_) => &[ZoneBrand],
        };
        plugins.iter().copied().collect()
    }

    /// Whether it may help a pod that these plugins rejected.
    pub fn helps(&self, rejected: Plugins, pod: &Pod, snapshot: &Snapshot) -> bool {
        let mut plugins = rejected.and(self.interests()).iter();
        plugins.any(|plugin| self.helps_with(plugin, pod, snapshot))
    }

    fn helps_with(&self, plugin: Plugin, pod: &Pod, snapshot: &Snapshot) -> bool {
        match self {
            Event::NodeCame(new) => node_helps(plugin, None, new, pod, snapshot),
            Event::NodeChanged { old, new } => node_helps(plugin, Some(old), new, pod, snapshot),
            Event::NodeGone(old) => hard(pod).all(|spread| has(&old.labels, spread)),
            Event::PodCame(other) => match plugin {
                Plugin::PodTopologySpread => is_counted(pod, other),
                _ => is_near_enough(pod, other, snapshot),
            },
            Event::PodChanged { old, new } => match plugin {
                Plugin::NodeResourcesFit => frees(pod, old, new),
                Plugin::PodTopologySpread => hard(pod).any(|spread| {
                    new.key.namespace == pod.key.namespace
                        && spread.counts(&old.labels) != spread.counts(&new.labels)
                }),
                _ => {
                    let is_hated = |other: &Pod| {
                        let mut far = terms(pod, |affinity| &affinity.anti_required);
                        far.any(|term| means(term, other, snapshot))
                    };
                    (!is_near_enough(pod, old, snapshot) && is_near_enough(pod, new, snapshot))
                        || (is_hated(old) && !is_hated(new))
                }
            },
            Event::PodGone(other) => match plugin {
                Plugin::NodePorts => other
                    .ports
                    .iter()
                    .any(|port| pod.ports.iter().any(|wanted| wanted.conflicts(port))),
                Plugin::PodTopologySpread => is_counted(pod, other),
                Plugin::InterPodAffinity => {
                    let mut far = terms(pod, |affinity| &affinity.anti_required);
                    let mut theirs = terms(other, |affinity| &affinity.anti_required);
                    far.any(|term| means(term, other, snapshot))
                        || theirs.any(|term| means(term, pod, snapshot))
                }
                Plugin::VolumeRestrictions | Plugin::NodeVolumeLimits => !other.volumes.is_empty(),
                _ => true,
            },
            Event::Own { old, new } => own_helps(plugin, old, new, snapshot),
            Event::Storage { what, key, .. } => match what {
                Stored::Claim => pod.has_claim(key),
                _ => !pod.volumes.is_empty(),
            },
            Event::DeviceClaim {
                key,
                is_otherwise,
                frees,
                ..
            } => {
                (*frees || (*is_otherwise && pod.has_device_claim(key)))
                    && snapshot.devices.missing(pod).is_none()
            }
            Event::DeviceClass(_) => !pod.device_claims.is_empty(),
            Event::Handlers(_) => !pod.runtime_class.is_empty(),
        }
    }
}

/// Plugins that depend on what changed in a node.
fn changes_of_node(old: &Node, new: &Node) -> Plugins {
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

fn node_helps(
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

/// Upstream's name for what changed in a pod.
fn update(old: &Pod, new: &Pod) -> &'static str {
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

fn is_smaller(old: &Pod, new: &Pod) -> bool {
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
fn frees(pod: &Pod, old: &Pod, new: &Pod) -> bool {
    let (was, is, wants) = (&old.requests, &new.requests, &pod.requests);
    (wants.cpu > 0 && is.cpu < was.cpu)
        || (wants.memory > 0 && is.memory < was.memory)
        || (wants.storage > 0 && is.storage < was.storage)
        || wants
            .scalars
            .iter()
            .any(|(name, wanted)| *wanted > 0 && is.scalar(name) < was.scalar(name))
}

fn own_helps(plugin: Plugin, old: &Pod, new: &Pod, snapshot: &Snapshot) -> bool {
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

fn hard(pod: &Pod) -> impl Iterator<Item = &Spread> {
    pod.spread.iter().filter(|spread| spread.is_hard)
}

fn has(labels: &Labels, spread: &Spread) -> bool {
    labels.get(&spread.topology).is_some()
}

/// Whether a pod is counted by a hard spread constraint of another.
fn is_counted(pod: &Pod, other: &Pod) -> bool {
    other.key.namespace == pod.key.namespace && hard(pod).any(|spread| spread.counts(&other.labels))
}

fn terms<'a>(
    pod: &'a Pod,
    of: impl Fn(&'a super::terms::PodAffinity) -> &'a Vec<AffinityTerm>,
) -> impl Iterator<Item = &'a AffinityTerm> {
    pod.affinity.as_deref().into_iter().flat_map(of)
}

fn means(term: &AffinityTerm, pod: &Pod, snapshot: &Snapshot) -> bool {
    let namespace = &pod.key.namespace;
    term.means_labels(&pod.labels)
        && term.means_namespace(namespace, &snapshot.namespace(namespace))
}

/// Whether a pod matches all required affinity terms of another; false if that has none.
fn is_near_enough(pod: &Pod, other: &Pod, snapshot: &Snapshot) -> bool {
    let mut near = terms(pod, |affinity| &affinity.required).peekable();
    near.peek().is_some() && near.all(|term| means(term, other, snapshot))
}
