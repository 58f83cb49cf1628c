//! Roles and their bindings. Follows k8s.io/kubernetes/pkg/registry/rbac and pkg/apis/rbac.

mod bindings;
mod roles;
#[cfg(test)]
mod tests;

use crate::meta::names;
use crate::resources::{Naming, Rules};

/// The API group, which also occurs in role references and subjects.
const GROUP: &str = "rbac.authorization.k8s.io";

/// What all four kinds have in common.
const COMMON: Rules = Rules {
    naming: Naming::validated_by(|name, _| names::path_segment(name)),
    create_on_update: true,
    ..Rules::DEFAULT
};

/// The rules of a resource of this group.
pub(super) fn rules(plural: &str) -> Rules {
    match plural {
        "roles" => roles::ROLES,
        "clusterroles" => roles::CLUSTER_ROLES,
        "rolebindings" => bindings::ROLE_BINDINGS,
        "clusterrolebindings" => bindings::CLUSTER_ROLE_BINDINGS,
        _ => Rules::DEFAULT,
    }
}
