//! Kinds of the group `networking`.

mod addresses;
mod classes;
pub(in crate::resources::groups) mod ingresses;
mod policies;
#[cfg(test)]
mod tests;

use crate::resources::Rules;

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "ingressclasses" => classes::RULES,
        "ingresses" => ingresses::RULES,
        "ipaddresses" => addresses::ADDRESSES,
        "networkpolicies" => policies::RULES,
        "servicecidrs" => addresses::RANGES,
        _ => Rules::DEFAULT,
    }
}
