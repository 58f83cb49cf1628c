//! Kinds of the group `core`.

mod accounts;
mod components;
mod configmaps;
pub(in crate::resources::groups) mod endpoints;
pub(in crate::resources::groups) mod events;
mod limits;
mod namespaces;
pub(in crate::resources::groups) mod nodes;
pub(in crate::resources::groups) mod pods;
mod quotas;
mod resources;
mod secrets;
pub(in crate::resources) mod services;
#[cfg(test)]
mod tests;
pub(in crate::resources::groups) mod volumes;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "componentstatuses" => components::RULES,
        "configmaps" => configmaps::RULES,
        "endpoints" => endpoints::RULES,
        "events" => events::CORE,
        "limitranges" => limits::RULES,
        "namespaces" => namespaces::RULES,
        "nodes" => nodes::rules::RULES,
        "persistentvolumeclaims" => volumes::claims::RULES,
        "persistentvolumes" => volumes::persistent::RULES,
        "pods" => pods::PODS,
        "podtemplates" => pods::templates::PODTEMPLATES,
        "replicationcontrollers" => pods::controllers::REPLICATIONCONTROLLERS,
        "resourcequotas" => quotas::RULES,
        "secrets" => secrets::RULES,
        "serviceaccounts" => accounts::RULES,
        "services" => services::RULES,
        _ => Rules::DEFAULT,
    }
}
