//! Kinds that extend or coordinate servers: leases, admission registrations, API services, definitions, migrations.

use crate::resources::Rules;

mod definitions;

/// The rules of a resource of these groups.
pub(super) fn rules(group: &str, plural: &str) -> Rules {
    match (group, plural) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => definitions::RULES,
        _ => Rules::DEFAULT,
    }
}
