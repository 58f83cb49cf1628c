//! Checks that roles and bindings do not grant more than their author has. Upstream does this not in a plugin but in
//! the storage of these kinds, between mutating admission and validation, which is when the last plugin runs. Follows
//! k8s.io/kubernetes pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased.

use std::sync::Arc;

use super::{Attributes, Operation, Plugin};
use crate::auth::authorize::Authorizers;
use crate::auth::rbac::{GROUP, Grant, check_binding, check_role};
use crate::meta::Status;

/// The check; runs after all other plugins.
pub struct Grants(pub Arc<Authorizers>);

impl Plugin for Grants {
    fn name(&self) -> &'static str {
        "Grants"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.resource.group != GROUP
            || !request.subresource.is_empty()
            || !matches!(request.operation, Operation::Create | Operation::Update)
        {
            return Ok(());
        }
        let policy = self.0.rbac.policy(&self.0.world());
        let grant = Grant {
            user: request.user,
            authorizer: request.authorizer,
            policy: &policy,
            resource: &request.resource.plural,
            namespace: request.namespace,
            name: request.path_name,
        };
        let check = match &*request.resource.plural {
            "roles" | "clusterroles" => check_role,
            _ => check_binding,
        };
        check(&grant, &request.object, request.old)
    }
}
