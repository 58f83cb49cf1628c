//! Kinds of the group `core`.

pub(in crate::resources::groups) mod nodes;
pub(in crate::resources::groups) mod pods;
pub(in crate::resources::groups) mod volumes;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "persistentvolumeclaims" => volumes::claims::RULES,
        "persistentvolumes" => volumes::persistent::RULES,
        "pods" => pods::PODS,
        "podtemplates" => pods::templates::PODTEMPLATES,
        "replicationcontrollers" => pods::controllers::REPLICATIONCONTROLLERS,
        _ => Rules::DEFAULT,
    }
}

/// `events.k8s.io/v1` to and from core `v1`.
pub(super) fn events_conversion() -> Option<crate::resources::registry::Conversion> {
    None
}
