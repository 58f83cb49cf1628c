//! Kinds of the group `autoscaling`.

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(_plural: &str) -> Rules {
    Rules::DEFAULT
}

/// `autoscaling/v1` to and from `autoscaling/v2`.
pub(super) fn v1_conversion() -> Option<crate::resources::registry::Conversion> {
    None
}
