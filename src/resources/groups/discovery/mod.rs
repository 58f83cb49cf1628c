//! Kinds of the group `discovery`.

mod slices;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "endpointslices" => slices::RULES,
        _ => Rules::DEFAULT,
    }
}
