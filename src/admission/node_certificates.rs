//! NodeRestriction for PodCertificateRequests: a node may only request certificates for its own pods, and for signers
//! that a volume of the pod names or that it has permission for. Follows
//! k8s.io/kubernetes plugin/pkg/admission/noderestriction.

use super::node_restriction::{Refusal, Verdict};
use super::{Attributes, Operation};
use crate::auth::node;
use crate::schema::Value;

/// Checks a node's write to a PodCertificateRequest.
///
/// # Errors
/// A denial, or a failure if the request may refer to objects that have not been observed yet.
pub(super) fn judge(node: &str, request: &Attributes<'_>) -> Verdict {
    let forbid = |why: String| Err(Refusal::Forbidden(why));
    let unexpected = match request.operation {
        Operation::Create => None,
        Operation::Update => Some("UPDATE"),
        Operation::Delete => Some("DELETE"),
    };
    if let Some(operation) = unexpected {
        return forbid(format!("unexpected operation {operation}"));
    }
    if !request.subresource.is_empty() {
        return forbid(format!("unexpected subresource {}", request.subresource));
    }
    let spec = request.object.at("spec");
    let said = spec.str("nodeName");
    if said != node {
        return forbid(format!(
            "PodCertificateRequest.Spec.NodeName={said:?}, which is not the requesting node {node:?}"
        ));
    }
    running(spec, request)?;
    let (name, signer) = (spec.str("podName"), spec.str("signerName"));
    let account = spec.str("serviceAccountName");
    let pod = request.cluster.get("", "pods", request.namespace, name);
    let mounted = pod.is_some_and(|pod| {
        let volumes = pod.at("spec").list("volumes").iter();
        let mut sources = volumes.flat_map(|volume| volume.at("projected").list("sources"));
        sources.any(|source| source.at("podCertificate").str("signerName") == signer)
    });
    if mounted || may_ask(request, signer, account) {
        return Ok(());
    }
    forbid(format!(
        "pod \"{}/{name}\" does not mount a podCertificate projected volume for signer {signer:?}",
        request.namespace
    ))
}

/// Checks that node, pod and service account match the request.
fn running(spec: &Value, request: &Attributes<'_>) -> Verdict {
    let fail = |why: String| Err(Refusal::Failed(why));
    let forbid = |why: String| Err(Refusal::Forbidden(why));
    let missing = |kind: &str, shown: &str, short: &str, name: &str| {
        format!(
            "while retrieving {kind} {shown:?} named in the PodCertificateRequest: {short} {name:?} not found"
        )
    };
    let (cluster, namespace) = (request.cluster, request.namespace);
    let within = |name: &str| format!("{namespace}/{name}");
    let uid = |object: &Value| object.at("metadata").str("uid").to_owned();
    let (host, name) = (spec.str("nodeName"), spec.str("podName"));
    let pod_name = within(name);
    let Some(found) = cluster.get("", "nodes", "", host) else {
        return fail(missing("node", host, "node", host));
    };
    let (said, is) = (spec.str("nodeUID"), uid(&found));
    if said != is {
        return fail(format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {said:?}, inconsistent with the running node ({is:?})"
        ));
    }
    let Some(pod) = cluster.get("", "pods", namespace, name) else {
        return fail(missing("pod", &pod_name, "pod", name));
    };
    let (said, is) = (spec.str("podUID"), uid(&pod));
    if said != is {
        return fail(format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({said:?}) which differs from running pod {is:?}"
        ));
    }
    if pod.at("spec").str("nodeName") != host {
        return forbid(format!(
            "pod {pod_name:?} is not running on node {host:?} named in the PodCertificateRequest"
        ));
    }
    if node::is_mirror(&pod) {
        return forbid(format!("pod {pod_name:?} is a mirror pod"));
    }
    let account = spec.str("serviceAccountName");
    let is = pod.at("spec").str("serviceAccountName");
    if account != is {
        return forbid(format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({account:?}) that differs from running pod ({is:?})"
        ));
    }
    let Some(found) = cluster.get("", "serviceaccounts", namespace, account) else {
        let shown = within(account);
        return fail(missing(
            "service account",
            &shown,
            "serviceaccount",
            account,
        ));
    };
    let (said, is) = (spec.str("serviceAccountUID"), uid(&found));
    if said != is {
        return fail(format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {said:?}, which differs from the running service account ({is:?})"
        ));
    }
    Ok(())
}

/// Whether the node has permission for the signer and the service account, whatever its pods mount.
fn may_ask(request: &Attributes<'_>, signer: &str, account: &str) -> bool {
    let signer = signer.replace('/', ":");
    let wants = crate::auth::Attributes {
        verb: "request-serviceaccounts-podcertificate-signer",
        group: "certificates.k8s.io",
        namespace: request.namespace,
        version: "v1",
        resource: &signer,
        name: account,
        ..crate::auth::Attributes::default()
    };
    let decision = request.authorizer.authorize(request.user, &wants);
    matches!(decision, crate::auth::Decision::Allow(_))
}
