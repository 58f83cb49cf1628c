//! What a node may do to pods: its own mirror pods, the status of its pods.

use std::sync::Arc;

use super::super::{Attributes, Operation};
use super::{Refusal, Verdict, refuse};
use crate::auth::node::{self, MIRROR};
use crate::meta::errors::quoted;
use crate::schema::Value;

/// A pod to which the request refers; upstream's cache error names its kind.
pub(super) fn find(request: &Attributes<'_>, name: &str) -> Result<Arc<Value>, Refusal> {
    request
        .cluster
        .get("", "pods", request.namespace, name)
        .ok_or_else(|| Refusal::Missing("pod", name.to_owned()))
}

pub(super) fn pod(node: &str, request: &Attributes<'_>) -> Verdict {
    match request.operation {
        Operation::Create => mirror(node, request),
        Operation::Delete => {
            if find(request, request.name)?.at("spec").str("nodeName") == node {
                return Ok(());
            }
            refuse(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            ))
        }
        _ => refuse(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
    }
}

/// Checks a mirror pod.
fn mirror(node: &str, request: &Attributes<'_>) -> Verdict {
    let (meta, spec) = (request.object.at("metadata"), request.object.at("spec"));
    if !node::is_mirror(&request.object) {
        return refuse(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if spec.str("nodeName") != node {
        return refuse(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let [owner] = meta.list("ownerReferences") else {
        let which = match meta.list("ownerReferences").len() {
            0 => "an owner",
            _ => "a single owner",
        };
        return refuse(format!(
            "node {node:?} can only create pods with {which} reference set to itself"
        ));
    };
    if (
        owner.str("apiVersion"),
        owner.str("kind"),
        owner.str("name"),
    ) != ("v1", "Node", node)
    {
        return refuse(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if !owner.bool("controller") {
        return refuse(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.bool("blockOwnerDeletion") {
        return refuse(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let found = request.cluster.get("", "nodes", "", node);
    let found = found.ok_or_else(|| Refusal::Missing("node", node.to_owned()))?;
    let (expected, got) = (owner.str("uid"), found.at("metadata").str("uid"));
    if expected != got {
        return refuse(format!(
            "node {node} UID mismatch: expected {expected} got {got}"
        ));
    }
    match api_reference(&request.object) {
        Ok(Some(what)) => refuse(format!(
            "node {node:?} can not create pods that reference {what}"
        )),
        Ok(None) => Ok(()),
        Err(why) => refuse(format!(
            "error checking mirror pod for API references: {why}"
        )),
    }
}

/// The kind of API object to which a pod refers, as named in the error.
///
/// # Errors
/// It has an unknown volume source that may refer to anything.
fn api_reference(pod: &Value) -> Result<Option<&'static str>, String> {
    const NAMED: [(node::Reference, &str); 3] = [
        (node::Reference::ServiceAccount, "serviceaccounts"),
        (node::Reference::Secret, "secrets"),
        (node::Reference::ConfigMap, "configmaps"),
    ];
    let referred = node::pod_references(pod);
    let mut named = NAMED.iter();
    if let Some((_, what)) = named.find(|(kind, _)| referred.iter().any(|one| one.0 == *kind)) {
        return Ok(Some(what));
    }
    let spec = pod.at("spec");
    if !spec.list("resourceClaims").is_empty() {
        return Ok(Some("resourceclaims"));
    }
    // Volumes with an empty name refer to something, too.
    for volume in spec.list("volumes") {
        const WORDS: [(&str, &str); 7] = [
            ("configMap", "configmaps (via configmap volumes)"),
            ("secret", "secrets (via secret volumes)"),
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            (
                "ephemeral",
                "persistentvolumeclaims (via ephemeral volumes)",
            ),
            ("azureFile", "secrets (via azureFile volumes)"),
        ];
        const PROJECTED: [(&str, &str); 5] = [
            ("configMap", "configmaps (via projected volumes)"),
            ("secret", "secrets (via projected volumes)"),
            (
                "serviceAccountToken",
                "serviceaccounts (via projected volumes)",
            ),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificates"),
        ];
        let named = |value: &Value, words: &[(&str, &'static str)]| {
            let found = words.iter().find(|(key, _)| value.get(key).is_some());
            found.map(|(_, words)| *words)
        };
        if let Some(words) = named(volume, &WORDS) {
            return Ok(Some(words));
        }
        for source in volume.at("projected").list("sources") {
            if let Some(words) = named(source, &PROJECTED) {
                return Ok(Some(words));
            }
            if source.get("downwardAPI").is_none() {
                let name = quoted(volume.str("name"));
                return Err(format!("unknown source for projected volume {name}"));
            }
        }
    }
    Ok(None)
}

pub(super) fn pod_status(node: &str, request: &Attributes<'_>) -> Verdict {
    let Some(old) = request
        .old
        .filter(|_| request.operation == Operation::Update)
    else {
        return refuse("unexpected operation \"CREATE\"");
    };
    if old.at("spec").str("nodeName") != node {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let new = &request.object;
    if old.at("metadata").at("labels") != new.at("metadata").at("labels") {
        return refuse(format!(
            "node {node:?} cannot update labels through pod status"
        ));
    }
    for (key, what) in [
        ("resourceClaimStatuses", "resource claim statues"),
        (
            "extendedResourceClaimStatus",
            "extended resource claim status",
        ),
        (
            "nodeAllocatableResourceClaimStatuses",
            "node allocatable resource claim statuses",
        ),
    ] {
        if old.at("status").at(key) != new.at("status").at(key) {
            return refuse(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Object, json};

    #[test]
    fn what_a_mirror_pod_refers_to_is_named() {
        for (spec, what) in [
            (r#"{"containers": []}"#, None),
            (r#"{"serviceAccountName": "a"}"#, Some("serviceaccounts")),
            (
                r#"{"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}"#,
                Some("secrets"),
            ),
            (
                r#"{"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}"#,
                Some("secrets"),
            ),
            (
                r#"{"volumes": [{"name": "v", "secret": {}}]}"#,
                Some("secrets (via secret volumes)"),
            ),
            (
                r#"{"volumes": [{"projected": {"sources": [{"configMap": {"name": "c"}}]}}]}"#,
                Some("configmaps"),
            ),
            (
                r#"{"volumes": [{"csi": {"driver": "d"}}]}"#,
                Some("csidrivers (via CSI volumes)"),
            ),
            (
                r#"{"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}"#,
                Some("serviceaccounts (via projected volumes)"),
            ),
            (r#"{"volumes": [{"emptyDir": {}}]}"#, None),
            (
                r#"{"volumes": [{"projected": {"sources": [{"downwardAPI": {}}]}}]}"#,
                None,
            ),
        ] {
            assert_eq!(api_reference(&pod(spec)), Ok(what), "{spec}");
        }
        let unknown = pod(r#"{"volumes": [{"name": "v", "projected": {"sources": [{}]}}]}"#);
        let why = "unknown source for projected volume \"v\"";
        assert_eq!(api_reference(&unknown), Err(why.to_owned()));
    }

    fn pod(spec: &str) -> Value {
        let mut pod = Object::new();
        pod.insert("spec", json::parse(spec.as_bytes()).expect("JSON").value);
        pod.into()
    }
}
