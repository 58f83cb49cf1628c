//! Kinds that extend or coordinate servers: leases, admission registrations, API services, definitions, migrations.

use crate::resources::Rules;

/// The rules of a resource of these groups.
pub(super) fn rules(_group: &str, _plural: &str) -> Rules {
    Rules::DEFAULT
}
