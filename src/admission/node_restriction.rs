//! NodeRestriction: a node may only write its own objects, and nothing in them that would attract pods or secrets.
//! Follows k8s.io/kubernetes plugin/pkg/admission/noderestriction.

mod own_node;
mod pods;
mod tokens;
mod volumes;

use self::own_node::own_node;
use self::pods::{find, pod, pod_status};
use self::tokens::token;
use self::volumes::volume;
use super::{Attributes, Operation, Plugin, node_certificates};
use crate::auth::node::{self, LEASES};
use crate::meta::Status;
use crate::meta::status::About;
use crate::schema::Value;

/// The plugin.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate(&self, request: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(node) = node::identity(request.user) else {
            return Ok(());
        };
        let verdict = if node.is_empty() {
            refuse(format!(
                "could not determine node from user {:?}",
                request.user.name.as_str()
            ))
        } else {
            judge(node, request)
        };
        verdict.map_err(|refusal| match refusal {
            Refusal::Forbidden(why) => request.forbidden(&why),
            Refusal::Failed(why) => Status::unclassified(why),
            Refusal::Missing(kind, name) => Status::not_found(About {
                group: "",
                kind,
                name: &name,
            }),
        })
    }
}

/// Why a node's request is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Forbidden(String),
    /// An object to which it refers does not exist: resource and name.
    Missing(&'static str, String),
    /// An object to which it refers is not in the expected state, which may change.
    Failed(String),
}

pub(super) type Verdict = Result<(), Refusal>;

fn refuse(why: impl Into<String>) -> Verdict {
    Err(Refusal::Forbidden(why.into()))
}

fn judge(node: &str, request: &Attributes<'_>) -> Verdict {
    let resource = request.resource;
    match (&*resource.group, &*resource.plural, request.subresource) {
        ("", "pods", "") => pod(node, request),
        ("", "pods", "status") => pod_status(node, request),
        ("", "pods", "eviction") => {
            if find(request, request.name)?.at("spec").str("nodeName") == node {
                return Ok(());
            }
            refuse(format!(
                "node {node} can only evict pods with spec.nodeName set to itself"
            ))
        }
        ("", "pods", other) => refuse(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        ("", "nodes", _) => own_node(node, request),
        ("", "persistentvolumeclaims", "status") => claim_status(node, request),
        ("", "persistentvolumeclaims", _) => refuse("may only update PVC status"),
        ("", "persistentvolumes", _) => volume(node, request),
        ("", "serviceaccounts", "token") if request.operation == Operation::Create => {
            token(node, request)
        }
        ("coordination.k8s.io", "leases", _) => {
            if request.namespace != LEASES {
                return refuse(format!(
                    "can only access leases in the {LEASES:?} system namespace"
                ));
            }
            named_so(node, request, "node lease")
        }
        ("storage.k8s.io", "csinodes", _) => named_so(node, request, "CSINode"),
        ("resource.k8s.io", "resourceslices", _) => slice(node, request),
        ("certificates.k8s.io", "certificatesigningrequests", "") => signing(node, request),
        ("certificates.k8s.io", "podcertificaterequests", _) => {
            node_certificates::judge(node, request)
        }
        _ => Ok(()),
    }
}

fn claim_status(node: &str, request: &Attributes<'_>) -> Verdict {
    let Some(old) = request
        .old
        .filter(|_| request.operation == Operation::Update)
    else {
        return refuse("unexpected operation \"CREATE\"");
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(meta) = claim.get_mut("metadata") {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
        if let Some(status) = claim.get_mut("status") {
            for key in [
                "capacity",
                "conditions",
                "allocatedResources",
                "allocatedResourceStatuses",
            ] {
                status.remove(key);
            }
        }
        claim
    };
    if rest(old) == rest(&request.object) {
        return Ok(());
    }
    refuse(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

fn named_so(node: &str, request: &Attributes<'_>, what: &str) -> Verdict {
    let name = match request.operation {
        Operation::Create => request.object.at("metadata").str("name"),
        _ => request.name,
    };
    if name == node {
        return Ok(());
    }
    refuse(format!(
        "can only access {what} with the same name as the requesting node"
    ))
}

fn slice(node: &str, request: &Attributes<'_>) -> Verdict {
    let (slice, verb) = match (request.operation, request.old) {
        (Operation::Create, _) => (&request.object, "create"),
        (Operation::Delete, Some(old)) => (old, "delete"),
        _ => return Ok(()),
    };
    if slice.at("spec").str("nodeName") == node {
        return Ok(());
    }
    refuse(format!(
        "can only {verb} ResourceSlice with the same NodeName as the requesting node"
    ))
}

fn signing(node: &str, request: &Attributes<'_>) -> Verdict {
    let spec = request.object.at("spec");
    let concerns = matches!(
        spec.str("signerName"),
        "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
    );
    if request.operation != Operation::Create || !concerns {
        return Ok(());
    }
    let wanted = format!("{}{node}", node::PREFIX);
    match super::certificates::subject(spec.str("request")) {
        Err(why) => refuse(format!("unable to parse csr: {why}")),
        Ok(subject) if subject.name == wanted => Ok(()),
        Ok(_) => refuse(format!("can only create a node CSR with CN={wanted}")),
    }
}
