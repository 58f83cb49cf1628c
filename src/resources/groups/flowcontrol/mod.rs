//! Kinds of the group `flowcontrol`.

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(_plural: &str) -> Rules {
    Rules::DEFAULT
}
