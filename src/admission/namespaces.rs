//! NamespaceLifecycle: no new objects where there is no namespace, or where one ends; system namespaces stay.
//! Follows k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle.

use super::{Attributes, Operation, Plugin};
use crate::meta::Status;
use crate::meta::status::About;

/// The plugin.
pub struct NamespaceLifecycle;

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        if request.operation != Operation::Create
            || !request.resource.namespaced
            || !request.subresource.is_empty()
        {
            return Ok(());
        }
        let namespace = request.namespace;
        let Some(found) = request.cluster.get("", "namespaces", "", namespace) else {
            return Err(Status::not_found(About {
                group: "",
                kind: "namespaces",
                name: namespace,
            }));
        };
        if found.at("metadata").get("deletionTimestamp").is_none()
            && found.at("status").str("phase") != "Terminating"
        {
            return Ok(());
        }
        let about = About {
            group: &request.resource.group,
            kind: &request.resource.plural,
            name: request.name,
        };
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let cause = crate::value!({
            "reason": "NamespaceTerminating",
            "message": (format!("namespace {namespace} is being terminated")),
            "field": "metadata.namespace"
        });
        let mut status = Status::forbidden(about, &why);
        if let Some(details) = &mut status.details {
            details.set("causes", vec![cause]);
        }
        Err(status)
    }

    fn validate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let about = About {
            group: "",
            kind: "namespaces",
            name: request.name,
        };
        if request.operation == Operation::Delete
            && &*request.resource.plural == "namespaces"
            && request.resource.group.is_empty()
            && IMMORTAL.contains(&request.name)
        {
            return Err(Status::forbidden(
                about,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}
