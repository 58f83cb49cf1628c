//! OwnerReferencesPermissionEnforcement: setting owners requires permission to delete the object, and blocking owner
//! deletion requires permission to update the owner's finalizers. Follows k8s.io/kubernetes/plugin/pkg/admission/gc.

use super::{Attributes, Operation, Plugin};
use crate::auth;
use crate::auth::Decision;
use crate::meta::Status;
use crate::schema::Value;

/// The plugin.
pub struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let pod_status = request.is_about("", "pods") && request.subresource == "status";
        if pod_status || !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let owners = |object: &'_ Value| object.at("metadata").list("ownerReferences").to_vec();
        let (new, old) = (owners(&request.object), request.old.map(owners));
        let old = old.unwrap_or_default();
        if new == old {
            return Ok(());
        }
        if request.operation == Operation::Update {
            let delete = auth::Attributes {
                verb: "delete",
                namespace: request.namespace,
                group: &request.resource.group,
                version: &request.resource.storage_version,
                resource: &request.resource.plural,
                subresource: request.subresource,
                name: request.name,
                ..auth::Attributes::default()
            };
            if let Some(reason) = refusal(request, &delete) {
                return Err(request.forbidden(&format!(
                    "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
                )));
            }
        }
        let blocking: Vec<&Value> = new
            .iter()
            .filter(|owner| {
                owner.bool("blockOwnerDeletion")
                    && !old.iter().any(|before| {
                        before.str("uid") == owner.str("uid") && before.bool("blockOwnerDeletion")
                    })
            })
            .collect();
        let anything = auth::Attributes {
            verb: "update",
            group: "*",
            version: "*",
            resource: "*",
            subresource: "finalizers",
            name: "*",
            ..auth::Attributes::default()
        };
        if blocking.is_empty() || refusal(request, &anything).is_none() {
            return Ok(());
        }
        for owner in blocking {
            judge(request, owner)?;
        }
        Ok(())
    }
}

fn judge(request: &Attributes<'_>, owner: &Value) -> Result<(), Status> {
    let (api_version, kind) = (owner.str("apiVersion"), owner.str("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let registry = request.cluster.registry();
    let found = registry
        .by_kind(group, kind)
        .filter(|found| found.version(version).is_some());
    let Some(found) = found else {
        return Err(request.forbidden(&format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
        )));
    };
    let hold = auth::Attributes {
        verb: "update",
        namespace: if found.namespaced {
            request.namespace
        } else {
            ""
        },
        group,
        version,
        resource: &found.plural,
        subresource: "finalizers",
        name: owner.str("name"),
        ..auth::Attributes::default()
    };
    match refusal(request, &hold) {
        None => Ok(()),
        Some(reason) => Err(request.forbidden(&format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
        ))),
    }
}

/// Why the user lacks permission; `None` if allowed.
fn refusal(request: &Attributes<'_>, attributes: &auth::Attributes<'_>) -> Option<String> {
    match request.authorizer.authorize(request.user, attributes) {
        Decision::Allow(_) => None,
        Decision::NoOpinion(reason) | Decision::Deny(reason) => Some(reason),
    }
}
