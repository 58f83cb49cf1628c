//! The rules that nodes are judged by, under upstream's names, and what they say of a node that will not do.

use std::borrow::Cow;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Plugin {
    /// The name that a pod gives, and whether there are nodes at all.
    NodeName,
    /// Cordoned nodes.
    NodeUnschedulable,
    /// Taints.
    TaintToleration,
    /// Node selectors.
    NodeAffinity,
    /// Ports of the host.
    NodePorts,
    /// Amounts.
    NodeResourcesFit,
    /// Volumes that not every two pods can have.
    VolumeRestrictions,
    /// How many volumes a node can have.
    NodeVolumeLimits,
    /// Claims, and the volumes for them.
    VolumeBinding,
    /// The zones of volumes.
    VolumeZone,
    /// How evenly pods are spread.
    PodTopologySpread,
    /// What pods want of other pods.
    InterPodAffinity,
    /// Claims to devices.
    DynamicResources,
    /// What nodes declare that they can do.
    NodeDeclaredFeatures,
    /// The brand of zones that a node makes.
    ZoneBrand,
}

impl Plugin {
    /// Every rule.
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

/// A set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plugins(u32);

impl Plugins {
    /// Adds a rule.
    pub fn add(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u32;
    }

    /// Whether it has a rule.
    pub fn has(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u32) != 0
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both have.
    pub fn and(self, other: Plugins) -> Plugins {
        Plugins(self.0 & other.0)
    }

    /// The rules.
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

/// Why, in upstream's words.
pub type Reason = Cow<'static, str>;

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The first rule that it breaks.
    pub plugin: Plugin,
    /// In what way.
    reason: Reason,
    /// In what others. Few have any, so that hearing from thousands of nodes allocates nothing.
    others: Vec<Reason>,
    /// Whether it could do once others have ended there.
    pub is_resolvable: bool,
}

impl Rejection {
    /// A node that cannot do, whoever ends there.
    pub fn never(plugin: Plugin, reason: impl Into<Reason>) -> Rejection {
        Rejection {
            plugin,
            reason: reason.into(),
            others: Vec::new(),
            is_resolvable: false,
        }
    }

    /// A node that cannot do in several ways; none where there are none.
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

    /// In what ways.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        std::iter::once(self.reason).chain(self.others)
    }

    /// A node that cannot do now.
    pub fn now(plugin: Plugin, reason: impl Into<Reason>) -> Rejection {
        Rejection {
            is_resolvable: true,
            ..Rejection::never(plugin, reason)
        }
    }
}
