//! Kinds of the group `storage`.

mod attachments;
mod capacities;
mod classes;
mod drivers;
mod nodes;
#[cfg(test)]
mod tests;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "csidrivers" => drivers::RULES,
        "csinodes" => nodes::RULES,
        "csistoragecapacities" => capacities::RULES,
        "storageclasses" => classes::STORAGE,
        "volumeattachments" => attachments::RULES,
        "volumeattributesclasses" => classes::ATTRIBUTES,
        _ => Rules::DEFAULT,
    }
}
