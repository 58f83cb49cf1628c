//! Pods for workload controllers: finding them by owner, creating them from templates, deleting, ranking and counting
//! them. Follows k8s.io/kubernetes/pkg/controller/controller_utils.go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use futures::future::join_all;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::errors::{is_conflict, is_not_found, is_terminating, text};
use crate::client::events::{Recorder, Tone};
use crate::client::index::Index;
use crate::client::informer::{Informer, Informers, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{Claims, controller_of};

/// The most pods of one owner that are created or deleted in one sync.
pub const BURST: usize = 500;

/// The cache of pods, with indexes by controller and by node.
#[derive(Clone)]
pub struct Pods {
    /// The cache.
    pub cache: Informer<Pod>,
    /// By the name of their node.
    pub by_node: Index<Pod>,
    by_owner: Index<Pod>,
    by_claim: Index<Pod>,
}

/// The index key of a pod: its controller, or its namespace if it has none.
fn owner_key(pod: &Pod) -> Option<CompactString> {
    Some(match controller_of(&pod.metadata) {
        Some(owner) => owner.uid.as_str().into(),
        None => orphans(pod.metadata.namespace.as_deref().unwrap_or_default()),
    })
}

fn orphans(namespace: &str) -> CompactString {
    format_compact!("/{namespace}")
}

fn node_key(pod: &Pod) -> Option<CompactString> {
    let node = pod
        .spec
        .node_name
        .as_deref()
        .filter(|node| !node.is_empty());
    node.map(CompactString::from)
}

/// The index key of the pods that use a claim; unique because no name has a slash.
fn claim_key(namespace: &str, name: &str) -> CompactString {
    format_compact!("{namespace}/{name}")
}

fn claim_keys(pod: &Pod) -> Vec<CompactString> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    claims_of(pod)
        .map(|(name, _)| claim_key(namespace, &name))
        .collect()
}

/// The names of the claims that a pod uses, and whether each is created for the pod.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = (String, bool)> + '_ {
    pod.spec.volumes.iter().filter_map(|volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        let made = volume.ephemeral.is_some();
        made.then(|| (format!("{}-{}", pod.name_any(), volume.name), true))
    })
}

impl Pods {
    /// The pods that all controllers share; the cache belongs to the run of the caller.
    pub fn of(informers: &Informers) -> Pods {
        let shared = informers.shared(|informers| Pods::in_cache(informers.of()));
        Pods {
            cache: informers.of(),
            ..shared
        }
    }

    /// The pods of a cache.
    pub fn in_cache(cache: Informer<Pod>) -> Pods {
        Pods {
            by_node: Index::of(&cache, node_key),
            by_owner: Index::of(&cache, owner_key),
            by_claim: Index::of(&cache, claim_keys),
            cache,
        }
    }

    /// The pods that an owner controls, ordered by name.
    pub fn owned(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        self.by_owner.get(owner.uid.as_deref().unwrap_or_default())
    }

    /// The pods that use a claim, ordered by name.
    pub fn users(&self, claim: &Key) -> Vec<Arc<Pod>> {
        self.by_claim.get(&claim_key(&claim.namespace, &claim.name))
    }

    /// The pods of a namespace without a controller, ordered by name.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.by_owner.get(&orphans(namespace))
    }

    /// The pods that an owner controls, and those of its namespace without a controller.
    pub fn candidates(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let mut pods = self.owned(owner);
        pods.extend(self.orphans(owner.namespace.as_deref().unwrap_or_default()));
        pods
    }

    /// The pods of an owner, after adopting matching orphans and releasing pods that no longer match. Adopted pods get
    /// the finalizer, if any, and released ones lose it.
    ///
    /// # Errors
    /// The API rejects a change, except because a pod is gone.
    pub async fn claimed<O>(
        &self,
        client: &Client,
        owner: &O,
        finalizer: Option<&'static str>,
        fits: fn(&O, &Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, kube::Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let claims = Claims::<O, Pod>::of(client, owner, finalizer);
        let candidates = self.candidates(owner.meta());
        claims.take(candidates, |pod| fits(owner, pod)).await
    }
}

/// Whether a pod is neither terminated nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.is_deleting()
}

/// Whether a pod has been ready for `seconds` at `now`.
pub fn is_available(pod: &Pod, seconds: i32, now: Timestamp) -> bool {
    pod.is_ready() && millis_until_available(pod, seconds, now) == Some(0)
}

/// In how many milliseconds a pod will have been ready for `seconds`; 0 if it has. None if it is not ready.
fn millis_until_available(pod: &Pod, seconds: i32, now: Timestamp) -> Option<i64> {
    if !pod.is_ready() {
        return None;
    }
    if seconds == 0 {
        return Some(0);
    }
    let since = ready_since(pod)?;
    let due = since.as_millisecond() + i64::from(seconds) * 1000;
    Some((due - now.as_millisecond()).max(0))
}

/// In how many milliseconds the next of several pods will have been ready for `seconds`; None if none is waiting for
/// that.
pub fn millis_until_next(pods: &[Arc<Pod>], seconds: i32, now: Timestamp) -> Option<i64> {
    let due = pods
        .iter()
        .filter_map(|pod| millis_until_available(pod, seconds, now));
    due.filter(|due| *due > 0).min()
}

/// Since when a pod has been ready.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod.status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// A pod from a controller's template, with a generated name if `name` is None.
pub fn from_template(
    template: &v1::PodTemplateSpec,
    owner_name: &str,
    owner: OwnerReference,
    name: Option<String>,
) -> v1::Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    // A prefix that is too long is truncated by the API.
    let generate_name = name.is_none().then(|| format!("{owner_name}-"));
    v1::Pod {
        metadata: ObjectMeta {
            name,
            generate_name,
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The patch of a pod's status that announces its disruption; None if it is announced already. `status` are further
/// fields to patch.
pub fn disrupted(
    pod: &Pod,
    reason: &str,
    message: &str,
    mut status: serde_json::Map<String, Value>,
) -> Option<Value> {
    let had = pod.status.conditions.iter();
    let says = had
        .filter(|known| known.type_ == "DisruptionTarget")
        .find(|known| known.status == "True");
    let is_told = says.is_some_and(|known| {
        known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(message)
    });
    if !is_told {
        let since = says.and_then(|known| known.last_transition_time.clone());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
            "observedGeneration": pod.metadata.generation,
        });
        status.insert("conditions".to_owned(), json!([condition]));
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

/// Patches a pod's status. Returns whether the pod still exists.
///
/// # Errors
/// The API rejects the patch, except because the pod is gone or was replaced.
pub async fn patch_status(client: &Client, pod: &Pod, patch: &Value) -> Result<bool, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::default();
    match api
        .patch_status(&pod.name_any(), &params, &Patch::Strategic(patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates and deletes the pods of one owner, and records events about it.
pub struct PodControl<'a, O> {
    /// A client.
    pub client: &'a Client,
    /// Records events about the owner.
    pub recorder: &'a Recorder,
    /// The owner.
    pub owner: &'a O,
}

impl<O: Resource<DynamicType = ()>> PodControl<'_, O> {
    fn api(&self) -> Api<v1::Pod> {
        let namespace = self.owner.meta().namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a pod. Returns the new resourceVersion; None if the namespace is being deleted.
    ///
    /// # Errors
    /// The API's message, if it rejects the pod.
    pub async fn create(&self, pod: &v1::Pod) -> Result<Option<String>, String> {
        match self.api().create(&PostParams::default(), pod).await {
            Ok(made) => {
                let message = format!("Created pod: {}", made.name_any());
                self.recorder
                    .tell(self.owner, Tone::Normal, "SuccessfulCreate", message);
                Ok(made.resource_version())
            }
            Err(error) if is_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating: {}", text(&error));
                self.recorder
                    .tell(self.owner, Tone::Warning, "FailedCreate", message);
                Err(text(&error))
            }
        }
    }

    /// Deletes a pod. Returns the new resourceVersion; None if it was gone.
    ///
    /// # Errors
    /// The API's message, if it rejects the deletion.
    pub async fn delete(&self, name: &str) -> Result<Option<String>, String> {
        match self.api().delete(name, &DeleteParams::default()).await {
            Ok(deleted) => {
                let message = format!("Deleted pod: {name}");
                self.recorder
                    .tell(self.owner, Tone::Normal, "SuccessfulDelete", message);
                Ok(deleted.left().and_then(|pod| pod.resource_version()))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error deleting: {}", text(&error));
                self.recorder
                    .tell(self.owner, Tone::Warning, "FailedDelete", message);
                Err(format!("unable to delete pods: {}", text(&error)))
            }
        }
    }
}

/// The outcome of several writes.
#[derive(Default)]
pub struct Outcome {
    versions: Versions,
    /// How many succeeded.
    pub done: usize,
    /// The first error message.
    pub refusal: Option<String>,
}

impl Outcome {
    /// Adds a write: its resourceVersion, or its error message.
    pub fn take(&mut self, result: Result<Option<String>, String>) {
        match result {
            Ok(version) => {
                self.versions.add(version);
                self.done += 1;
            }
            Err(why) => self.refusal = self.refusal.take().or(Some(why)),
        }
    }

    /// Adds the outcome of later writes.
    pub fn add(&mut self, later: Outcome) {
        self.versions.add(later.newest());
        self.done += later.done;
        self.refusal = self.refusal.take().or(later.refusal);
    }

    /// The newest resourceVersion, if any.
    pub fn newest(&self) -> Option<String> {
        self.versions.newest()
    }
}

/// Writes `count` times, in batches of doubling size that stop at the first failure, so that writes that cannot succeed
/// are not tried often.
pub async fn slowly<F: Future<Output = Result<Option<String>, String>>>(
    count: usize,
    write: impl Fn(usize) -> F,
) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut from, mut size) = (0, 1);
    while from < count && outcome.refusal.is_none() {
        let to = (from + size).min(count);
        outcome.add(together((from..to).map(&write)).await);
        (from, size) = (to, size * 2);
    }
    outcome
}

/// Runs all writes at once.
pub async fn together<F: Future<Output = Result<Option<String>, String>>>(
    writes: impl IntoIterator<Item = F>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for result in join_all(writes).await {
        outcome.take(result);
    }
    outcome
}

/// The newest of several resourceVersions.
#[derive(Default)]
pub struct Versions(u64);

impl Versions {
    /// Adds one.
    pub fn add(&mut self, version: Option<String>) {
        let version = version.and_then(|version| version.parse().ok());
        self.0 = self.0.max(version.unwrap_or(0));
    }

    /// The newest, if any.
    pub fn newest(&self) -> Option<String> {
        (self.0 > 0).then(|| self.0.to_string())
    }
}

/// Sorts pods by deletion order, the least costly losses first: not scheduled, pending, not ready, low deletion cost by
/// annotation, on nodes with many related pods (`together` has their numbers), ready for a short time, often restarted,
/// young. Times are compared by magnitude, so that it is not always the newest that go.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], together: &HashMap<String, usize>, now: Timestamp) {
    let magnitude = |time: Option<Timestamp>| {
        let age = time.map_or(0, |time| now.as_nanosecond() - time.as_nanosecond());
        if age > 0 { i64::from(age.ilog2()) } else { -1 }
    };
    let rank = |pod: &Pod| {
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        let cost: i32 = pod
            .annotations()
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0);
        let crowd = together.get(node).copied().unwrap_or(0);
        (
            (standing(pod), cost, Reverse(crowd)),
            magnitude(ready_since(pod)),
        )
    };
    // Among pods that became ready at different times of one magnitude nothing else counts than their uids.
    let mut times = BTreeMap::new();
    let mut mixed = BTreeSet::new();
    for pod in pods.iter() {
        let since = ready_since(pod);
        if *times.entry(rank(pod)).or_insert(since) != since {
            mixed.insert(rank(pod));
        }
    }
    pods.sort_by_cached_key(|pod| {
        let rank = rank(pod);
        let uid = pod.metadata.uid.clone();
        let by_uid = mixed.contains(&rank).then(|| uid.clone());
        (
            (rank, by_uid),
            Reverse(restarts(pod)),
            magnitude(created(pod)),
            uid,
        )
    });
}

/// Sorts pods of workloads that serve no requests: deletion cost and nodes do not count, and times are compared
/// exactly.
pub fn rank_for_ending(pods: &mut [Arc<Pod>]) {
    pods.sort_by_cached_key(|pod| {
        (
            standing(pod),
            ready_since(pod).map(Reverse),
            Reverse(restarts(pod)),
            created(pod).map(Reverse),
        )
    });
}

/// The progress of a pod: whether it is scheduled, its phase, whether it is ready.
fn standing(pod: &Pod) -> (bool, u8, bool) {
    let is_placed = pod
        .spec
        .node_name
        .as_ref()
        .is_some_and(|node| !node.is_empty());
    let phase = match pod.phase() {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    (is_placed, phase, pod.is_ready())
}

fn created(pod: &Pod) -> Option<Timestamp> {
    let created = pod.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0)
}

/// The highest restart count of its containers, and of its sidecars.
fn restarts(pod: &Pod) -> (i32, i32) {
    let goes_on = |name: &str| {
        let mut init = pod.spec.init_containers.iter();
        init.any(|container| {
            container.name == name && container.restart_policy.as_deref() == Some("Always")
        })
    };
    let most = |statuses: &mut dyn Iterator<Item = &v1::ContainerStatus>| {
        statuses
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    };
    let status = &pod.status;
    (
        most(&mut status.container_statuses.iter()),
        most(
            &mut status
                .init_container_statuses
                .iter()
                .filter(|status| goes_on(&status.name)),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_pods_whose_loss_costs_least_go_first() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let made = |name: &str, rest: &str, annotations: &str| {
            pod(&format!(
                r#"{{"metadata":{{"name":"{name}","uid":"{name}","creationTimestamp":"2026-01-01T00:00:00Z","annotations":{{{annotations}}}}},{rest}}}"#
            ))
        };
        let ready = |since: &str| {
            format!(
                r#""conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"{since}"}}]"#
            )
        };
        let running = |node: &str, rest: &str| {
            format!(r#""spec":{{"nodeName":"{node}"}},"status":{{"phase":"Running",{rest}}}"#)
        };
        let old = ready("2026-01-01T01:00:00Z");
        let mut pods = vec![
            made("z-old", &running("n", &old), ""),
            made("y-young", &running("n", &ready("2026-01-01T11:59:00Z")), ""),
            made(
                "x-restarted",
                &running(
                    "n",
                    &format!(
                        r#"{old},"containerStatuses":[{{"name":"c","restartCount":3,"ready":true,"image":"","imageID":""}}]"#
                    ),
                ),
                "",
            ),
            made("w-crowd", &running("m", &old), ""),
            made(
                "v-cheap",
                &running("n", &old),
                r#""controller.kubernetes.io/pod-deletion-cost":"-5""#,
            ),
            made("u-unready", &running("n", r#""conditions":[]"#), ""),
            made(
                "t-pending",
                r#""spec":{"nodeName":"n"},"status":{"phase":"Pending"}"#,
                "",
            ),
            made("s-nowhere", r#""spec":{},"status":{"phase":"Pending"}"#, ""),
        ];
        let together = HashMap::from([("m".to_owned(), 2), ("n".to_owned(), 1)]);
        rank_for_deletion(&mut pods, &together, now);
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(
            names,
            [
                "s-nowhere",
                "t-pending",
                "u-unready",
                "v-cheap",
                "w-crowd",
                "y-young",
                "x-restarted",
                "z-old"
            ]
        );
        let restarted = r#","containerStatuses":[{"name":"c","restartCount":3,"ready":true,"image":"","imageID":""}]"#;
        let mut alike = [
            made(
                "b",
                &running("n", &(ready("2026-01-01T10:30:00Z") + restarted)),
                "",
            ),
            made("a", &running("n", &ready("2026-01-01T10:00:00Z")), ""),
        ];
        rank_for_deletion(&mut alike, &together, now);
        assert_eq!(alike[0].name_any(), "a", "by uid");
        // An hour more makes no difference in the first order, but does in the second.
        let newer = running("n", &ready("2026-01-01T02:00:00Z"));
        let costly = r#""controller.kubernetes.io/pod-deletion-cost":"5""#;
        pods.push(made("r-newer", &newer, costly));
        rank_for_ending(&mut pods);
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        let first = [
            "s-nowhere",
            "t-pending",
            "u-unready",
            "y-young",
            "r-newer",
            "x-restarted",
        ];
        assert_eq!(names[..6], first);
    }

    #[test]
    fn a_pod_is_available_after_a_while_of_readiness() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod = pod(
            r#"{"status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:05Z"}]}}"#,
        );
        assert!(is_available(&pod, 0, now) && is_available(&pod, 5, now));
        assert!(!is_available(&pod, 6, now));
        assert_eq!(millis_until_available(&pod, 6, now), Some(1000));
        assert!(!is_available(&Pod::default(), 0, now));
    }
}
