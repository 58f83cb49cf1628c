//! NamespaceLifecycle: no objects are created in missing or terminating namespaces; system namespaces cannot be
//! deleted.
//! Follows k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle.

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::meta::status::About;

/// The plugin.
pub struct NamespaceLifecycle;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let about_namespaces = request.is_about("", "namespaces");
        if request.operation == Operation::Delete
            && about_namespaces
            && IMMORTAL.contains(&request.name)
        {
            return Err(Status::forbidden(
                namespace(request.name),
                "this namespace may not be deleted",
            ));
        }
        // Access reviews must not reveal whether a namespace exists.
        if request.operation != Operation::Create
            || request.namespace.is_empty()
            || about_namespaces
            || request.is_about("authorization.k8s.io", "localsubjectaccessreviews")
        {
            return Ok(());
        }
        let Some(found) = request.cluster.get("", "namespaces", "", request.namespace) else {
            return Err(Status::not_found(namespace(request.namespace)));
        };
        if found.at("status").str("phase") != "Terminating" {
            return Ok(());
        }
        let name = request.namespace;
        let mut status = request.forbidden(&format!(
            "unable to create new content in namespace {name} because it is being terminated"
        ));
        let cause = crate::value!({
            "reason": "NamespaceTerminating",
            "message": (format!("namespace {name} is being terminated")),
            "field": "metadata.namespace"
        });
        if let Some(details) = &mut status.details {
            details.set("causes", vec![cause]);
        }
        Err(status)
    }
}

fn namespace(name: &str) -> About<'_> {
    About {
        group: "",
        kind: "namespaces",
        name,
    }
}

/// NamespaceExists: rejects writes and deletions in namespaces that do not exist.
pub struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.namespace.is_empty()
            || request.is_about("", "namespaces")
            || request
                .cluster
                .get("", "namespaces", "", request.namespace)
                .is_some()
        {
            return Ok(());
        }
        Err(Status::not_found(namespace(request.namespace)))
    }
}
