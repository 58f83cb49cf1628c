//! Kinds of the group `resource.k8s.io`: devices and device claims.

use crate::resources::Rules;

mod checks;
mod claims;
mod classes;
mod devices;
mod permissions;
mod requests;
mod slices;
mod status;
#[cfg(test)]
mod tests;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "deviceclasses" => classes::CLASSES,
        "devicetaintrules" => classes::TAINT_RULES,
        "resourceclaims" => claims::CLAIMS,
        "resourceclaimtemplates" => claims::TEMPLATES,
        "resourceslices" => slices::RULES,
        _ => Rules::DEFAULT,
    }
}
