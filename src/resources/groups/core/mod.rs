//! Kinds of the group `core`.

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(_plural: &str) -> Rules {
    Rules::DEFAULT
}

/// `events.k8s.io/v1` to and from core `v1`.
pub(super) fn events_conversion() -> Option<crate::resources::registry::Conversion> {
    None
}
