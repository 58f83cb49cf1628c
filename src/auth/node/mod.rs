//! The node authorizer: a node may access its own Node and Lease, and otherwise only what the pods bound to it need.
//! Follows k8s.io/kubernetes plugin/pkg/auth/authorizer/node.

mod references;
mod relations;

use std::sync::Arc;

use super::{Attributes, Decision, User, bootstrap};
use crate::meta::errors::quoted;
use crate::meta::selector::{Op, parse_fields};
use crate::store::World;
use crate::store::view::View;

pub use references::{MIRROR, Reference, is_mirror, pod_references};
pub use relations::Relations;

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
/// The prefix of nodes' user names.
pub const PREFIX: &str = "system:node:";
/// The namespace of node leases.
pub const LEASES: &str = "kube-node-lease";

/// The node name of a user; `None` if it is not a node. Empty for a node without a name.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX)?;
    user.in_group(NODES).then_some(name)
}

/// The relations between nodes and objects in a store.
pub struct Nodes(View<Relations>);

impl Default for Nodes {
    fn default() -> Self {
        Nodes(View::new(relations::RESOURCES.map(Into::into).to_vec()))
    }
}

impl Nodes {
    /// The relations in `world`.
    pub fn relations(&self, world: &World) -> Arc<Relations> {
        self.0.of(world)
    }

    /// Whether `user`, if it is a node, may do what `wants` describes.
    pub fn decide(&self, world: &World, user: &User, wants: &Attributes<'_>) -> Decision {
        let Some(node) = identity(user) else {
            return no("");
        };
        if node.is_empty() {
            return no(format!("unknown node for user {}", quoted(&user.name)));
        }
        decide(node, wants, &|kind| {
            self.relations(world)
                .has(node, kind, wants.namespace, wants.name)
        })
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

/// Decides for the node `node`; `related` returns whether the object named in `wants` is related to it.
fn decide(node: &str, wants: &Attributes<'_>, related: &dyn Fn(Reference) -> bool) -> Decision {
    let by_relation = |kind: Reference| {
        if wants.name.is_empty() {
            return no("No Object name found");
        }
        if related(kind) {
            return yes();
        }
        no(format!(
            "no relationship found between node '{node}' and this object"
        ))
    };
    let get = |kind: Reference| match (wants.verb, wants.subresource) {
        ("get", "") => by_relation(kind),
        ("get", _) => no("cannot get subresource"),
        _ => no("can only get individual resources of this type"),
    };
    let read = |kind: Reference| {
        if !matches!(wants.verb, "get" | "list" | "watch") {
            no("can only read resources of this type")
        } else if !wants.subresource.is_empty() {
            no("cannot read subresource")
        } else if wants.namespace.is_empty() {
            no("can only read namespaced object of this type")
        } else {
            by_relation(kind)
        }
    };
    let selects = |field: &str| {
        parse_fields(wants.field_selector).is_ok_and(|selector| {
            selector
                .0
                .iter()
                .any(|term| term.key == field && term.op == Op::Equals && term.values == [node])
        })
    };
    match (wants.group, wants.resource) {
        ("", "secrets") => read(Reference::Secret),
        ("", "configmaps") => read(Reference::ConfigMap),
        ("", "persistentvolumeclaims") if wants.subresource == "status" => match wants.verb {
            "update" | "patch" => by_relation(Reference::Claim),
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims") => get(Reference::Claim),
        ("", "persistentvolumes") => get(Reference::Volume),
        ("resource.k8s.io", "resourceclaims") => get(Reference::ResourceClaim),
        ("storage.k8s.io", "volumeattachments") => get(Reference::Attachment),
        ("", "serviceaccounts") => match (wants.verb, wants.subresource) {
            ("get", "") => read(Reference::ServiceAccount),
            ("create", "token") if !wants.name.is_empty() => by_relation(Reference::ServiceAccount),
            ("create", _) if !wants.name.is_empty() => {
                no("can only create token subresource of serviceaccount")
            }
            _ => no("can only create tokens for individual service accounts"),
        },
        ("coordination.k8s.io", "leases") => lease(node, wants),
        ("storage.k8s.io", "csinodes") => csi_node(node, wants),
        ("resource.k8s.io", "resourceslices") => match (wants.subresource, wants.verb) {
            ("", "create") => yes(),
            ("", "get" | "update" | "patch" | "delete") => by_relation(Reference::Slice),
            ("", "watch" | "list" | "deletecollection") if selects("spec.nodeName") => yes(),
            ("", "watch" | "list" | "deletecollection") => no(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            ("", _) => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
            _ => no("cannot authorize ResourceSlice subresources"),
        },
        ("", "nodes") => own_node(node, wants),
        ("", "pods") => match (wants.subresource, wants.verb) {
            ("", "get") => get(Reference::Pod),
            ("", "list" | "watch") if selects("spec.nodeName") => yes(),
            ("", "list" | "watch") if !wants.name.is_empty() => by_relation(Reference::Pod),
            ("", "list" | "watch") => {
                no("can only list/watch pods with spec.nodeName field selector")
            }
            // The NodeRestriction plugin checks which pods a node may create and delete.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                yes()
            }
            _ => no(""),
        },
        ("certificates.k8s.io", "podcertificaterequests") => {
            match (wants.subresource, wants.verb) {
                ("", "create") => yes(),
                ("", "get") => by_relation(Reference::CertificateRequest),
                ("", "list" | "watch") if selects("spec.nodeName") => yes(),
                ("", "list" | "watch") => {
                    no("can only list/watch podcertificaterequests with nodeName field selector")
                }
                ("", verb) => no(format!("nodes may not {verb} podcertificaterequests")),
                _ => no("nodes may not access the status subresource of PodCertificateRequests"),
            }
        }
        _ if bootstrap::node_rules()
            .iter()
            .any(|rule| rule.allows(wants)) =>
        {
            yes()
        }
        _ => no(""),
    }
}

fn lease(node: &str, wants: &Attributes<'_>) -> Decision {
    if !matches!(wants.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if wants.namespace != LEASES {
        return no(format!(
            "can only access leases in the \"{LEASES}\" system namespace"
        ));
    }
    // The name of a created object is not known yet: the NodeRestriction plugin checks it.
    if wants.verb != "create" && wants.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, wants: &Attributes<'_>) -> Decision {
    match (wants.subresource, wants.verb) {
        ("", "get" | "create" | "update" | "patch" | "delete") => {}
        ("", _) => return no("can only get, create, update, patch, or delete a CSINode"),
        ("status", _) => return no("CSINode status access requires CSIVolumeHealth feature"),
        _ => return no("cannot authorize CSINode subresources"),
    }
    if wants.verb != "create" && wants.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn own_node(node: &str, wants: &Attributes<'_>) -> Decision {
    match (wants.subresource, wants.verb, wants.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => yes(),
        ("", "get" | "list" | "watch", name) if name == node => yes(),
        ("", "get" | "list" | "watch", "") => no(format!(
            "node '{node}' cannot read all nodes, only its own Node object"
        )),
        ("", "get" | "list" | "watch", name) => no(format!(
            "node '{node}' cannot read '{name}', only its own Node object"
        )),
        _ => no(""),
    }
}

#[cfg(test)]
mod tests;
