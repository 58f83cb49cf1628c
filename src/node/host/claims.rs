//! Which persistent volumes a pod may have: only what its claims are bound to, and only where they can be reached.
//! Follows pkg/kubelet/volumemanager/populator and pkg/volume/util/operationexecutor.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use serde::Deserialize as _;

use super::{Host, text, uid};
use crate::meta::placement::{any_holds, node_terms};
use crate::schema::Value;

/// The finalizer of a claim that keeps it while pods use it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// The name of the volume to which a claim is bound. If it is of a generic ephemeral volume, `owner` is the pod for
/// which it must have been made: others may make claims of the same name.
///
/// # Errors
/// Why the pod cannot have it; upstream's texts.
pub(super) fn bound_to<'c>(
    claim: &'c PersistentVolumeClaim,
    owner: Option<&Pod>,
) -> Result<&'c str, String> {
    let (namespace, name) = (text(claim.metadata.namespace.as_ref()), claim.name_any());
    let failed = |what: &str| Err(format!("error processing PVC {namespace}/{name}: {what}"));
    let is_protected = claim.finalizers().iter().any(|one| one == PROTECTION);
    if claim.metadata.deletion_timestamp.is_some() && !is_protected {
        return failed("PVC is being deleted");
    }
    let status = claim.status.as_ref();
    if status.and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return failed("PVC is not bound");
    }
    let spec = claim.spec.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.as_deref());
    let Some(volume) = volume.filter(|volume| !volume.is_empty()) else {
        return failed("PVC has empty pvc.Spec.VolumeName");
    };
    if let Some(pod) = owner {
        let mut owners = claim.owner_references().iter();
        if !owners.any(|one| one.controller == Some(true) && one.uid == uid(pod)) {
            let pod = pod.name_any();
            return Err(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
            ));
        }
    }
    Ok(volume)
}

/// Checks that a volume is bound to the claim that names it: anybody may name any volume.
///
/// # Errors
/// It is not; upstream's texts.
pub(super) fn is_of(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), String> {
    let (namespace, of) = (text(claim.metadata.namespace.as_ref()), claim.name_any());
    let name = volume.name_any();
    let failed = |what: String| Err(format!("error processing PVC {namespace}/{of}: {what}"));
    let spec = volume.spec.as_ref();
    let Some(reference) = spec.and_then(|spec| spec.claim_ref.as_ref()) else {
        return failed(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let (bound, own) = (
        text(reference.uid.as_ref()),
        text(claim.metadata.uid.as_ref()),
    );
    match bound == own && !own.is_empty() {
        true => Ok(()),
        false => failed(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {bound} does not point to claim.UID {own}"
        )),
    }
}

/// The terms of which a node has to match one to have a volume; None if any node has it.
fn terms(spec: &PersistentVolumeSpec) -> Option<Value> {
    let required = spec.node_affinity.as_ref()?.required.as_ref()?;
    // A selector that cannot be read matches no node.
    let selector = serde_json::to_value(required).unwrap_or_default();
    Some(Value::deserialize(selector).unwrap_or_default())
}

/// Whether a node that matches these terms may have the volume.
fn is_reached(terms: &Value, node: Option<&Node>) -> bool {
    node.is_some_and(|node| any_holds(&node_terms(terms), &node.name_any(), node.labels()))
}

/// Whether only one pod may use a volume. With several access modes it is not known which one a pod means.
fn is_for_one_pod(spec: &PersistentVolumeSpec) -> bool {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    matches!(modes, [only] if only == "ReadWriteOncePod")
}

/// The persistent volumes that pods have.
#[derive(Default)]
pub struct Claims {
    /// Those that only one pod may use, each with the uid of the pod that has it.
    alone: Mutex<BTreeMap<String, String>>,
    /// Where a pod has them, by its uid and their names in it.
    paths: Mutex<BTreeMap<String, BTreeMap<String, PathBuf>>>,
}

/// The result of taking a volume.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// The pod had it.
    Before,
    /// The pod has it now.
    Now,
    /// Another pod has it.
    No,
}

impl Claims {
    fn take(&self, volume: &str, uid: &str) -> Taken {
        match self.alone.lock().entry(volume.to_owned()) {
            Entry::Occupied(own) if own.get() == uid => Taken::Before,
            Entry::Occupied(_) => Taken::No,
            Entry::Vacant(free) => {
                free.insert(uid.to_owned());
                Taken::Now
            }
        }
    }

    /// A pod has no volumes any more.
    pub(super) fn release(&self, uid: &str) {
        self.alone.lock().retain(|_, holder| holder != uid);
        self.paths.lock().remove(uid);
    }

    /// Where a pod has a volume, if it has it already. Its containers restart with it, whatever becomes of its claim:
    /// like kubelet, which looks at the volumes of a pod once.
    pub(super) fn path(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        self.paths.lock().get(uid)?.get(volume).cloned()
    }

    /// A pod has a volume.
    pub(super) fn keep(&self, uid: &str, volume: &str, path: PathBuf) {
        let mut all = self.paths.lock();
        let own = all.entry(uid.to_owned()).or_default();
        own.insert(volume.to_owned(), path);
    }

    fn give_back(&self, volume: &str, uid: &str) {
        let mut all = self.alone.lock();
        if all.get(volume).is_some_and(|holder| holder == uid) {
            all.remove(volume);
        }
    }
}

impl Host {
    /// Checks that the pod's node can reach a volume.
    ///
    /// # Errors
    /// It cannot, or it is unknown whether it can.
    pub(super) async fn reaches(
        &self,
        pod: &Pod,
        name: &str,
        spec: &PersistentVolumeSpec,
    ) -> Result<(), String> {
        let Some(terms) = terms(spec) else {
            return Ok(());
        };
        let failed = |error: String| {
            format!("MountVolume.NodeAffinity check failed for volume {name:?} : {error}")
        };
        let own = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = self.cluster_object::<Node>(pod, own.unwrap_or_default());
        let node = node.await.map_err(|error| failed(error.to_string()))?;
        match is_reached(&terms, node.as_deref()) {
            true => Ok(()),
            false => Err(failed("no matching NodeSelectorTerms".to_owned())),
        }
    }

    /// Makes the pod the only user of a volume that only one pod may use, at `path` or as a delegated dataset of that
    /// name.
    ///
    /// # Errors
    /// Another pod has it.
    pub(super) async fn use_alone(
        &self,
        pod: &Pod,
        name: &str,
        spec: &PersistentVolumeSpec,
        path: &str,
    ) -> Result<(), String> {
        if !is_for_one_pod(spec) {
            return Ok(());
        }
        let used = || {
            format!(
                "MountVolume.SetUp failed for volume {name:?} : volume uses the ReadWriteOncePod access mode and is already in use by another pod"
            )
        };
        match self.claims.take(name, uid(pod)) {
            Taken::Before => return Ok(()),
            Taken::No => return Err(used()),
            Taken::Now => {}
        }
        // Pods of an earlier agent are only known by their zones.
        let zones = self.runtime.list().await.map_err(|error| error.to_string());
        let found = zones.and_then(|zones| {
            let own = crate::node::zone_name(uid(pod));
            let others = zones.iter().map(|zone| &zone.spec);
            let mut others = others.filter(|spec| spec.name != own);
            let is_used = others.any(|spec| {
                spec.shares.iter().any(|share| share.as_os_str() == path)
                    || spec.datasets.iter().any(|dataset| dataset == path)
            });
            if is_used { Err(used()) } else { Ok(()) }
        });
        if found.is_err() {
            self.claims.give_back(name, uid(pod));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn claim(changes: &Json) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"namespace": "a", "name": "c", "uid": "u"},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        for (path, value) in changes.as_object().into_iter().flatten() {
            *claim.pointer_mut(path).expect("a place") = value.clone();
        }
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn only_a_bound_claim_gives_a_volume() {
        let deleted = |finalizers: Json| {
            json!({"/metadata": {"namespace": "a", "name": "c", "uid": "u", "finalizers": finalizers,
                "deletionTimestamp": "2026-01-01T00:00:00Z"}})
        };
        let owned = |uid: &str, controller: bool| {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": controller});
            json!({"/metadata": {"namespace": "a", "name": "c", "uid": "u", "ownerReferences": [owner]}})
        };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "pod"}}))
            .expect("a pod");
        for (changes, ephemeral, expected) in [
            (json!({}), false, Ok("pv")),
            (
                json!({"/status": {"phase": "Pending"}}),
                false,
                Err("PVC is not bound"),
            ),
            (
                json!({"/status": {"phase": "Lost"}}),
                false,
                Err("PVC is not bound"),
            ),
            (json!({"/status": null}), false, Err("PVC is not bound")),
            (
                json!({"/spec": {}}),
                false,
                Err("PVC has empty pvc.Spec.VolumeName"),
            ),
            (deleted(json!([])), false, Err("PVC is being deleted")),
            (deleted(json!([PROTECTION])), false, Ok("pv")),
            (json!({}), true, Err("pod is not owner")),
            (owned("other", true), true, Err("pod is not owner")),
            (owned("pod", false), true, Err("pod is not owner")),
            (owned("pod", true), true, Ok("pv")),
        ] {
            let claim = claim(&changes);
            let found = bound_to(&claim, ephemeral.then_some(&pod));
            match expected {
                Ok(volume) => assert_eq!(found, Ok(volume), "{changes}"),
                Err(why) => assert!(found.is_err_and(|error| error.contains(why)), "{changes}"),
            }
        }
    }

    #[test]
    fn a_volume_of_another_claim_is_not_given() {
        for (reference, expected) in [
            (json!({"namespace": "a", "name": "c", "uid": "u"}), true),
            (
                json!({"namespace": "b", "name": "c", "uid": "other"}),
                false,
            ),
            // The same name, and a former claim.
            (
                json!({"namespace": "a", "name": "c", "uid": "former"}),
                false,
            ),
            (json!({"namespace": "a", "name": "c"}), false),
            (Json::Null, false),
        ] {
            let volume = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": reference}});
            let volume = serde_json::from_value(volume).expect("a volume");
            assert_eq!(
                is_of(&volume, &claim(&json!({}))).is_ok(),
                expected,
                "{reference}"
            );
        }
    }

    #[test]
    fn a_volume_is_reached_from_the_nodes_that_it_names() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "here", "labels": {"kubernetes.io/hostname": "here"}}}),
        )
        .expect("a node");
        let at = |host: &str| {
            let is_on =
                json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [is_on]}]}}})
        };
        for (spec, expected) in [
            (at("here"), true),
            (at("elsewhere"), false),
            (
                json!({"nodeAffinity": {"required": {"nodeSelectorTerms": []}}}),
                false,
            ),
        ] {
            let spec = serde_json::from_value(spec).expect("a spec");
            let terms = terms(&spec).expect("terms");
            assert_eq!(is_reached(&terms, Some(&node)), expected);
            assert!(!is_reached(&terms, None), "its labels are unknown");
        }
        assert_eq!(terms(&PersistentVolumeSpec::default()), None);
    }

    #[test]
    fn what_only_one_pod_may_use_has_one_user() {
        for (modes, expected) in [
            (json!(["ReadWriteOncePod"]), true),
            (json!(["ReadWriteOnce"]), false),
            (json!(["ReadWriteOncePod", "ReadWriteOnce"]), false),
            (Json::Null, false),
        ] {
            let spec = serde_json::from_value(json!({"accessModes": modes})).expect("a spec");
            assert_eq!(is_for_one_pod(&spec), expected, "{modes}");
        }
        let claims = Claims::default();
        assert_eq!(claims.take("pv", "one"), Taken::Now);
        assert_eq!(claims.take("pv", "one"), Taken::Before);
        assert_eq!(claims.take("pv", "two"), Taken::No);
        claims.give_back("pv", "two");
        assert_eq!(claims.take("pv", "two"), Taken::No);
        claims.release("one");
        assert_eq!(claims.take("pv", "two"), Taken::Now);
        claims.give_back("pv", "two");
        assert_eq!(claims.take("pv", "one"), Taken::Now);
    }

    #[test]
    fn a_pod_keeps_its_volumes_until_it_has_none_any_more() {
        let claims = Claims::default();
        claims.keep("one", "data", "/volumes/pv".into());
        assert_eq!(claims.path("one", "data"), Some("/volumes/pv".into()));
        assert_eq!(claims.path("one", "logs"), None);
        assert_eq!(claims.path("two", "data"), None);
        claims.release("one");
        assert_eq!(claims.path("one", "data"), None);
    }
}
