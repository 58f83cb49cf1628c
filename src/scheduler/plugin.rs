//! The filter plugins, under upstream's names, and their rejections.

use std::borrow::Cow;

/// A plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Plugin {
    /// `spec.nodeName`; also if there are no nodes at all.
    NodeName,
    /// Cordoned nodes.
    NodeUnschedulable,
    /// Taints.
    TaintToleration,
    /// Node selectors.
    NodeAffinity,
    /// Host ports.
    NodePorts,
    /// Resources.
    NodeResourcesFit,
    /// Volumes that not all pods can share.
    VolumeRestrictions,
    /// The number of volumes on a node.
    NodeVolumeLimits,
    /// PersistentVolumeClaims and their volumes.
    VolumeBinding,
    /// The zones of volumes.
    VolumeZone,
    /// Topology spread constraints.
    PodTopologySpread,
    /// Affinity between pods.
    InterPodAffinity,
    /// ResourceClaims.
    DynamicResources,
    /// Declared features of nodes.
    NodeDeclaredFeatures,
    /// Zone brands supported by a node.
    ZoneBrand,
}

impl Plugin {
    /// Every plugin.
    pub const ALL: [Plugin; 15] = [
        Plugin::NodeName,
        Plugin::NodeUnschedulable,
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodePorts,
        Plugin::NodeResourcesFit,
        Plugin::VolumeRestrictions,
        Plugin::NodeVolumeLimits,
        Plugin::VolumeBinding,
        Plugin::VolumeZone,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
        Plugin::DynamicResources,
        Plugin::NodeDeclaredFeatures,
        Plugin::ZoneBrand,
    ];
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plugins(u32);

impl Plugins {
    /// Adds a plugin.
    pub fn add(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u32;
    }

    /// Whether it contains a plugin.
    pub fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The intersection.
    pub fn and(self, other: Plugins) -> Plugins {
        Plugins(self.0 & other.0)
    }

    /// The plugins.
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        Plugin::ALL
            .into_iter()
            .filter(move |plugin| self.has(*plugin))
    }
}

impl FromIterator<Plugin> for Plugins {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Plugins {
        let mut out = Plugins::default();
        plugins.into_iter().for_each(|plugin| out.add(plugin));
        out
    }
}

/// A reason in upstream's words.
pub type Reason = Cow<'static, str>;

/// Why a node is unsuitable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The first plugin that rejected it.
    pub plugin: Plugin,
    /// The first reason.
    reason: Reason,
    /// Further reasons. Mostly empty, so that rejections by thousands of nodes allocate nothing.
    others: Vec<Reason>,
    /// Whether preemption could make it suitable.
    pub is_resolvable: bool,
}

impl Rejection {
    /// A rejection that preemption cannot resolve.
    pub fn never(plugin: Plugin, reason: impl Into<Reason>) -> Rejection {
        Rejection {
            plugin,
            reason: reason.into(),
            others: Vec::new(),
            is_resolvable: false,
        }
    }

    /// A rejection with several reasons; `None` without reasons.
    pub fn of(
        plugin: Plugin,
        reasons: impl IntoIterator<Item = Reason>,
        is_resolvable: bool,
    ) -> Option<Rejection> {
        let mut reasons = reasons.into_iter();
        Some(Rejection {
            plugin,
            reason: reasons.next()?,
            others: reasons.collect(),
            is_resolvable,
        })
    }

    /// The reasons.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        std::iter::once(self.reason).chain(self.others)
    }

    /// A rejection that preemption may resolve.
    pub fn now(plugin: Plugin, reason: impl Into<Reason>) -> Rejection {
        Rejection {
            is_resolvable: true,
            ..Rejection::never(plugin, reason)
        }
    }
}
