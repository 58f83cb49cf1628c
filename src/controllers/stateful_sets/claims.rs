//! The claims of a stateful set's pods, and their owners. Follows
//! k8s.io/kubernetes/pkg/controller/statefulset/stateful_set_utils.go.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use super::plan::{ordinals, split};
use crate::client::informer::Informer;
use crate::client::kinds::{Claim, Pod, PodVolume};
use crate::client::owners::controller_reference;

/// The view of claims that decisions need.
pub(super) trait Claims: Sync {
    /// A claim of the set's namespace.
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Claim>>;

    /// Whether the claims of a pod have the owners that the set's policy requires. Missing claims count as having them.
    fn are_owned(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        names(set, ordinal).iter().all(|name| {
            let claim = self.get(namespace, name);
            claim.is_none_or(|claim| owners(&claim.metadata, set, Some(pod), ordinal).is_none())
        })
    }

    /// Whether a claim is still owned by an earlier pod of this ordinal.
    fn are_stale(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let (_, scaled) = policy(set);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let pod = pod_name(set, ordinal);
        scaled
            && names(set, ordinal).iter().any(|name| {
                let claim = self.get(namespace, name);
                claim.is_some_and(|claim| {
                    let mut owners = claim.owner_references().iter();
                    owners.any(|owner| is_pod(owner, &pod))
                })
            })
    }
}

impl Claims for Informer<Claim> {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<Claim>> {
        Informer::get(self, namespace, name)
    }
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The names of a pod's claims, in the order of their templates.
fn names(set: &StatefulSet, ordinal: i32) -> Vec<String> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| name(set, template, ordinal))
        .collect()
}

fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", template.name_any(), pod_name(set, ordinal))
}

/// Whether a claim has the name of one of the set's.
pub(super) fn has(set: &StatefulSet, claim: &str) -> bool {
    let mut templates = set.spec.volume_claim_templates.iter().flatten();
    split(claim)
        .is_some_and(|(_, ordinal)| templates.any(|template| name(set, template, ordinal) == claim))
}

/// Whether a pod uses the claims of its ordinal.
pub(super) fn are_used(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let mut templates = set.spec.volume_claim_templates.iter().flatten();
    templates.all(|template| {
        let named = |volume: &&PodVolume| template.metadata.name.as_ref() == Some(&volume.name);
        // The API allows no two of one name.
        let volume = pod.spec.volumes.iter().find(named);
        let claim = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        claim.is_some_and(|claim| claim.claim_name == name(set, template, ordinal))
    })
}

/// The claims of a pod, by volume name.
pub(super) fn made(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(name(set, template, ordinal));
            claim.metadata.namespace.clone_from(&set.metadata.namespace);
            let labels = claim.metadata.labels.get_or_insert_default();
            for (key, value) in set.spec.selector.match_labels.iter().flatten() {
                labels.insert(key.clone(), value.clone());
            }
            (template.name_any(), claim)
        })
        .collect()
}

/// Whether claims are deleted with the set, and with pods that are scaled down.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let ends = |what: Option<&String>| what.is_some_and(|what| what == "Delete");
    (
        ends(policy.and_then(|policy| policy.when_deleted.as_ref())),
        ends(policy.and_then(|policy| policy.when_scaled.as_ref())),
    )
}

fn is_set(owner: &OwnerReference, set: &StatefulSet) -> bool {
    owner.api_version == "apps/v1" && owner.kind == "StatefulSet" && owner.name == set.name_any()
}

fn is_pod(owner: &OwnerReference, name: &str) -> bool {
    owner.api_version == "v1" && owner.kind == "Pod" && owner.name == name
}

/// Whether a claim has a controller other than the set.
pub(super) fn is_managed(
    claim: &ObjectMeta,
    set: &StatefulSet,
    pod: Option<&Pod>,
    pod_name: &str,
) -> bool {
    let (deleted, scaled) = policy(set);
    let pod_uid = pod.and_then(|pod| pod.metadata.uid.as_ref());
    (deleted || scaled)
        && claim.owner_references.iter().flatten().any(|owner| {
            if is_set(owner, set) {
                Some(&owner.uid) != set.metadata.uid.as_ref()
            } else if is_pod(owner, pod_name) {
                Some(&owner.uid) != pod_uid
            } else {
                owner.controller == Some(true)
            }
        })
}

/// The owners that a claim should have; None if it has them.
pub(super) fn owners(
    claim: &ObjectMeta,
    set: &StatefulSet,
    pod: Option<&Pod>,
    ordinal: i32,
) -> Option<Vec<OwnerReference>> {
    let had = claim.owner_references.clone().unwrap_or_default();
    let pod_name = pod_name(set, ordinal);
    let set_uid = set.metadata.uid.as_deref().unwrap_or_default();
    let pod_uid = pod
        .and_then(|pod| pod.metadata.uid.as_deref())
        .unwrap_or_default();
    let stale = had.iter().any(|owner| {
        (is_set(owner, set) && owner.uid != set_uid)
            || (is_pod(owner, &pod_name) && owner.uid != pod_uid)
    });
    if stale {
        // The claim is about to be deleted with its earlier owner.
        return None;
    }
    let ours = |owner: &OwnerReference| owner.uid == set_uid || owner.uid == pod_uid;
    let managed = is_managed(claim, set, pod, &pod_name);
    if managed && !had.iter().any(ours) {
        return None;
    }
    let mut wanted: Vec<OwnerReference> = had
        .iter()
        .filter(|owner| !is_set(owner, set) && !is_pod(owner, &pod_name))
        .cloned()
        .collect();
    if !managed {
        let (deleted, scaled) = policy(set);
        let beyond = !ordinals(set).contains(&ordinal);
        let (by_set, by_pod) = match (deleted, scaled) {
            (false, false) => (false, false),
            (true, false) => (true, false),
            (false, true) => (false, beyond),
            (true, true) => (!beyond, beyond),
        };
        if by_set {
            wanted.push(controller_reference(set));
        }
        if let Some(pod) = pod.filter(|_| by_pod) {
            wanted.push(controller_reference(pod));
        }
    }
    (wanted != had).then_some(wanted)
}
