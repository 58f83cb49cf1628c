//! Kinds that extend or coordinate servers: leases, admission registration, API services, definitions, migrations.

use crate::resources::Rules;

mod definitions;
mod leases;
mod migrations;
mod services;
#[cfg(test)]
mod tests;

/// The rules of a resource of these groups.
pub(super) fn rules(group: &str, plural: &str) -> Rules {
    match (group, plural) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => definitions::RULES,
        ("apiregistration.k8s.io", "apiservices") => services::API_SERVICES,
        ("coordination.k8s.io", "leases") => leases::LEASES,
        ("storagemigration.k8s.io", "storageversionmigrations") => migrations::MIGRATIONS,
        _ => Rules::DEFAULT,
    }
}
