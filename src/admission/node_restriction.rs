//! NodeRestriction: a node may only write its own objects, and nothing in them that would attract pods or secrets.
//! Follows k8s.io/kubernetes plugin/pkg/admission/noderestriction.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Attributes, Operation, Plugin, node_certificates};
use crate::auth::node::{self, LEASES, MIRROR};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::meta::status::About;
use crate::meta::volumes::{DRIVER, FINALIZER, keeper};
use crate::schema::{Object, Value};

/// Labels under kubernetes.io and k8s.io that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

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

/// A pod to which the request refers; upstream's cache error names its kind.
fn find(request: &Attributes<'_>, name: &str) -> Result<Arc<Value>, Refusal> {
    request
        .cluster
        .get("", "pods", request.namespace, name)
        .ok_or_else(|| Refusal::Missing("pod", name.to_owned()))
}

fn pod(node: &str, request: &Attributes<'_>) -> Verdict {
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

fn pod_status(node: &str, request: &Attributes<'_>) -> Verdict {
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

/// Whether a node only lets go of a volume that it keeps: removes the finalizer by which it holds it. Upstream's nodes may
/// not write volumes at all, so its plugin has no such rule; here nodes keep those of a driver of their own, and whoever lets
/// them write volumes should not let them write those of others.
fn volume(node: &str, request: &Attributes<'_>) -> Verdict {
    let refusal = || {
        refuse(format!(
            "node {node:?} can only remove the finalizer of volumes of {DRIVER} that are on it"
        ))
    };
    let Some(old) = request
        .old
        .filter(|_| request.operation == Operation::Update)
    else {
        return refusal();
    };
    let rest = |volume: &Value| {
        let mut volume = volume.clone();
        if let Some(meta) = volume.get_mut("metadata") {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
            meta.remove("finalizers");
        }
        volume
    };
    // Those of others.
    let finalizers = |volume: &Value| -> Vec<Value> {
        let all = volume.at("metadata").list("finalizers").iter();
        all.filter(|one| one.as_str() != Some(FINALIZER))
            .cloned()
            .collect()
    };
    let new = &request.object;
    let is_only_released = rest(old) == rest(new) && finalizers(old) == finalizers(new);
    match keeper(old) == Some(node) && is_only_released {
        true => Ok(()),
        false => refusal(),
    }
}

fn own_node(node: &str, request: &Attributes<'_>) -> Verdict {
    let named = request.object.at("metadata").str("name");
    let name = match request.name {
        "" => named,
        name => name,
    };
    if name != node {
        return refuse(format!(
            "node {node:?} is not allowed to modify node {name:?}"
        ));
    }
    let source = |object: &Value| object.at("spec").at("configSource").clone();
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            if !source(&request.object).is_null() {
                return refuse(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(&request.object, &Value::Null);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!(
                "node {node:?} is not allowed to set the following labels: {}",
                forbidden.join(", ")
            ))
        }
        (Operation::Update, Some(old)) => {
            let new = &request.object;
            if !source(new).is_null() && source(new) != source(old) {
                return refuse(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let taints = |node: &Value| node.at("spec").list("taints").to_vec();
            let owners = |node: &Value| node.at("metadata").list("ownerReferences").to_vec();
            if taints(new) != taints(old) {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            if owners(new) != owners(old) {
                return refuse(format!(
                    "node {node:?} is not allowed to modify ownerReferences"
                ));
            }
            let forbidden = forbidden_labels(new, old);
            if forbidden.is_empty() {
                return Ok(());
            }
            refuse(format!(
                "is not allowed to modify labels: {}",
                forbidden.join(", ")
            ))
        }
        _ => Ok(()),
    }
}

/// Changed labels that a node may not set, sorted.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |object: &Value| -> Object {
        let labels = object.at("metadata").at("labels").as_object();
        labels.cloned().unwrap_or_default()
    };
    let (new, old) = (labels(new), labels(old));
    let changed: BTreeSet<&str> = new
        .iter()
        .chain(old.iter())
        .filter(|(key, _)| new.get(key.as_str()) != old.get(key.as_str()))
        .map(|(key, _)| key.as_str())
        .collect();
    changed
        .into_iter()
        .filter(|label| !may_be_set(label))
        .map(str::to_owned)
        .collect()
}

fn may_be_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return true;
    };
    let within = |suffix: &str| {
        let front = domain.strip_suffix(suffix);
        front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

fn token(node: &str, request: &Attributes<'_>) -> Verdict {
    let spec = request.object.at("spec");
    let bound = spec.at("boundObjectRef");
    let (api, kind, name) = (
        bound.str("apiVersion"),
        bound.str("kind"),
        bound.str("name"),
    );
    if (api, kind) != ("v1", "Pod") || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound.str("uid");
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = find(request, name)?;
    if pod.at("metadata").str("uid") != uid {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod.at("spec").str("nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    audience(request, &pod)
}

/// Checks that a node requests tokens only for audiences that a volume of the pod names, or that it has permission for.
fn audience(request: &Attributes<'_>, pod: &Value) -> Verdict {
    let audience = match request.object.at("spec").list("audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let volumes = pod.at("spec").list("volumes");
    let projected = volumes
        .iter()
        .flat_map(|volume| volume.at("projected").list("sources"))
        .filter_map(|source| source.get("serviceAccountToken"))
        .any(|token| token.str("audience") == audience);
    if projected {
        return Ok(());
    }
    let mut missing = Vec::new();
    for volume in volumes {
        match driver_asks(request, pod, volume, audience) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => missing.push(why),
        }
    }
    missing.dedup();
    match missing.as_slice() {
        [] => {}
        [one] => return refuse(format!("error validating audience {audience:?}: {one}")),
        several => {
            let several = several.join(", ");
            return refuse(format!(
                "error validating audience {audience:?}: [{several}]"
            ));
        }
    }
    let wants = crate::auth::Attributes {
        verb: "request-serviceaccounts-token-audience",
        namespace: request.namespace,
        version: "v1",
        resource: audience,
        name: request.name,
        ..crate::auth::Attributes::default()
    };
    match request.authorizer.authorize(request.user, &wants) {
        crate::auth::Decision::Allow(_) => Ok(()),
        _ => refuse(format!(
            "{} is not authorized to request tokens for audience {audience:?}",
            request.user.name
        )),
    }
}

/// Whether the CSI driver of a volume requests tokens for an audience; errors name objects missing on the way to the
/// driver.
fn driver_asks(
    request: &Attributes<'_>,
    pod: &Value,
    volume: &Value,
    audience: &str,
) -> Result<bool, String> {
    let find = |group: &str, plural: &str, kind: &str, namespace: &str, name: &str| {
        let found = request.cluster.get(group, plural, namespace, name);
        found.ok_or_else(|| format!("{kind} {name:?} not found"))
    };
    let claimed = volume.at("persistentVolumeClaim").str("claimName");
    let claim = match volume.at("ephemeral").get("volumeClaimTemplate") {
        Some(_) => format!("{}-{}", pod.at("metadata").str("name"), volume.str("name")),
        None => claimed.to_owned(),
    };
    let driver = if claim.is_empty() {
        volume.at("csi").str("driver").to_owned()
    } else {
        let (plural, kind) = ("persistentvolumeclaims", "persistentvolumeclaim");
        let claim = find("", plural, kind, request.namespace, &claim)?;
        let volume = claim.at("spec").str("volumeName");
        let volume = find("", "persistentvolumes", "persistentvolume", "", volume)?;
        volume.at("spec").at("csi").str("driver").to_owned()
    };
    if driver.is_empty() {
        return Ok(false);
    }
    let kind = "csidriver.storage.k8s.io";
    let driver = find("storage.k8s.io", "csidrivers", kind, "", &driver)?;
    let mut wanted = driver.at("spec").list("tokenRequests").iter();
    Ok(wanted.any(|wanted| wanted.str("audience") == audience))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::trial::Trial;
    use crate::auth::User;
    use crate::schema::json;

    #[test]
    fn a_node_labels_itself_with_what_describes_it_only() {
        for (label, may) in [
            ("a", true),
            ("example.com/a", true),
            ("kubernetes.io/hostname", true),
            ("kubelet.kubernetes.io/a", true),
            ("sub.node.kubernetes.io/a", true),
            ("node-role.kubernetes.io/worker", false),
            ("node-restriction.kubernetes.io/a", false),
            ("x.node-restriction.kubernetes.io/a", false),
            ("k8s.io/a", false),
            ("notk8s.io/a", true),
        ] {
            assert_eq!(may_be_set(label), may, "{label}");
        }
    }

    #[test]
    fn a_node_lets_go_of_its_own_volumes_and_writes_nothing_else() {
        let trial = Trial::new("{}");
        let node = User::new("system:node:n", &[node::NODES]);
        let volume = |driver: &str, host: &str, finalizers: &str, rest: &str| {
            format!(
                r#"{{"metadata":{{"name":"v","finalizers":[{finalizers}]}},"spec":{{"csi":{{"driver":"{driver}"}},{rest}"nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"kubernetes.io/hostname","operator":"In","values":["{host}"]}}]}}]}}}}}}}}"#
            )
        };
        let held = format!(r#""{FINALIZER}","kubernetes.io/pv-protection""#);
        let (own, released) = (DRIVER, r#""kubernetes.io/pv-protection""#);
        let other = r#""persistentVolumeReclaimPolicy":"Retain","#;
        for (what, driver, host, (finalizers, rest), fine) in [
            ("lets go", own, "n", (released, ""), true),
            ("changes nothing", own, "n", (&*held, ""), true),
            ("removes what protects it", own, "n", ("", ""), false),
            ("holds it by another", own, "n", (r#""a/b""#, ""), false),
            ("changes it", own, "n", (released, other), false),
            ("of another node", own, "m", (released, ""), false),
            ("of another driver", "d", "n", (released, ""), false),
        ] {
            let old = volume(driver, host, &held, "");
            let new = volume(driver, host, finalizers, rest);
            let by = |user: &User| {
                trial.spec_by(user, &NodeRestriction, "persistentvolumes", &old, &new)
            };
            assert_eq!(by(&node).starts_with('{'), fine, "{what}: {}", by(&node));
            assert!(by(&User::new("jane", &[])).starts_with('{'), "{what}");
        }
        let new = volume(own, "n", &held, "");
        let made = trial.spec_by(&node, &NodeRestriction, "persistentvolumes", "", &new);
        assert!(made.contains("can only remove the finalizer"), "{made}");
    }

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
