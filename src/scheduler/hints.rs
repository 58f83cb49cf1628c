//! Cluster events, and which waiting pods they may help. Follows the EventsToRegister of upstream's plugins
//! and k8s.io/kubernetes/pkg/scheduler/framework/events.go.

mod nodes;
mod pods;

use compact_str::{CompactString, format_compact};

use self::nodes::{changes_of_node, node_helps};
use self::pods::{
    frees, hard, has, is_counted, is_near_enough, is_smaller, means, own_helps, terms, update,
};
use super::node::Node;
use super::plugin::{Plugin, Plugins};
use super::pod::Pod;
use super::snapshot::Snapshot;
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
