//! Kinds of the group `apps`.

mod daemonsets;
mod deployments;
mod replicasets;
mod revisions;
mod statefulsets;
#[cfg(test)]
mod tests;

use crate::resources::Rules;
use crate::schema::Value;

/// Upstream's internal types always have `replicas`.
const NO_REPLICAS: fn(&mut Value) = |object| {
    let spec = object.object_mut().object_mut("spec");
    spec.insert_first("replicas", 0);
};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "controllerrevisions" => revisions::RULES,
        "daemonsets" => daemonsets::RULES,
        "deployments" => deployments::RULES,
        "replicasets" => replicasets::RULES,
        "statefulsets" => statefulsets::RULES,
        _ => Rules::DEFAULT,
    }
}
