//! disruption-controller: computes how many pods of a disruption budget may be disrupted. Follows
//! k8s.io/kubernetes/pkg/controller/disruption.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;

use super::workload::{Unfinished, queue_with};
use crate::client::Context;
use crate::client::discovery::{self, Served};
use crate::client::errors::{is_conflict, is_not_found, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{controller_of, group_of};
use crate::client::queue::{Delays, Next, Queue};
use crate::client::selector::printed;

const WORKERS: usize = 1;
/// How long budgets are delayed whose pods could not be counted. Upstream retries at every change of a pod; here
/// changes that do not affect budgets wake nobody.
const DELAYS: Delays = Delays {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(60),
};

impl Cached for PodDisruptionBudget {}

struct Controller {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<v1::ReplicationController>,
    recorder: Recorder,
    /// The result of discovery when an owner of an unknown kind last appeared.
    served: Mutex<Arc<Vec<Served>>>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let informers = &context.informers;
    let controller = Controller {
        budgets: informers.of(),
        pods: informers.of(),
        sets: informers.of(),
        deployments: informers.of(),
        stateful_sets: informers.of(),
        replication_controllers: informers.of(),
        recorder: context.recorder("controllermanager"),
        served: Mutex::default(),
        context,
    };
    let queue = queue_with(&controller.budgets, DELAYS);
    let doubtful = Arc::new(Queue::<Key>::new());
    controller.wake(&queue, &doubtful);
    let look = |key: Key| controller.sync(key);
    let doubt = |key: Key| controller.take_back(key);
    tokio::join!(
        controller.context.work(&queue, WORKERS, look),
        controller.context.work(&doubtful, WORKERS, doubt),
    );
}

/// What of a pod decides about budgets.
fn facts(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    (
        (&meta.uid, &meta.labels, &meta.owner_references),
        (pod.is_deleting(), pod.is_ready()),
    )
}

impl Controller {
    /// Enqueues the budgets of changed pods, and puts pods with a `DisruptionTarget` into `doubtful`.
    fn wake(&self, queue: &Arc<Queue<Key>>, doubtful: &Arc<Queue<Key>>) {
        let (queue, doubtful) = (queue.clone(), doubtful.clone());
        let (budgets, recorder) = (self.budgets.clone(), self.recorder.clone());
        self.pods.subscribe(move |change| {
            if let Some(left) = change
                .new
                .and_then(|pod| plan::stale_after(pod, Timestamp::now()))
            {
                doubtful.add_after(change.key.clone(), left);
            }
            if !change.alters(facts) {
                return;
            }
            let mut own = Vec::new();
            for (key, budget) in budgets.list(&change.key.namespace) {
                let covers = |pod: Option<&Arc<Pod>>| {
                    pod.is_some_and(|pod| plan::covers(&budget, pod.metadata.labels.as_ref()))
                };
                if covers(change.new) {
                    own.push(key.name.clone());
                }
                if covers(change.old) || covers(change.new) {
                    queue.add(key);
                }
            }
            if let (Some(pod), [first, _, ..]) = (change.new, &own[..]) {
                let message = format!(
                    "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {first:?} arbitrarily.",
                    change.key.namespace, change.key.name
                );
                recorder.tell(&**pod, Tone::Warning, "MultiplePodDisruptionBudgets", message);
            }
        });
    }

    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list(&key.namespace)
            .into_iter()
            .map(|(_, pod)| pod)
            .filter(|pod| plan::covers(&budget, pod.metadata.labels.as_ref()))
            .collect();
        let tell = |tone, reason, message: &str| {
            self.recorder.tell(&*budget, tone, reason, message);
        };
        if pods.is_empty() {
            tell(Tone::Normal, "NoPods", "No matching pods found");
        }
        let spec = budget.spec.clone().unwrap_or_default();
        let scale = match plan::needs_scale(&spec) {
            true => self.scale(&pods).await,
            false => Ok((0, false)),
        };
        let (scale, unmanaged) = match scale {
            Ok(found) => found,
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                tell(Tone::Warning, "CalculateExpectedPodCountFailed", &message);
                // A failed request may succeed later without any event.
                self.write(&budget, plan::failed(&budget, &why, now))
                    .await?;
                return Ok(Next::Retry);
            }
        };
        if unmanaged {
            let selector = printed(spec.selector.as_ref());
            let message = format!(
                "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
            );
            tell(Tone::Warning, "UnmanagedPods", &message);
        }
        let demand = plan::demand(&spec, pods.len(), scale);
        let found = plan::findings(&budget, &pods, &demand, now);
        for pod in &found.spared {
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                key.namespace, key.name
            );
            self.recorder
                .tell(&**pod, Tone::Warning, "NotDeleted", message);
        }
        let again = found.again.map_or(Next::Done, Next::After);
        match self.write(&budget, found.status).await? {
            Next::Done => Ok(again),
            other => Ok(other),
        }
    }

    /// Writes the status of a budget, if it changed.
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<Next, Unfinished> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(Next::Done);
        }
        let namespace = budget.namespace().unwrap_or_default();
        let api: Api<PodDisruptionBudget> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let new = PodDisruptionBudget {
            status: Some(status),
            ..budget.clone()
        };
        // Not written over concurrent changes: evictions also update it.
        match api
            .replace_status(&budget.name_any(), &PostParams::default(), &new)
            .await
        {
            Ok(written) => {
                let version = written.resource_version();
                self.budgets.reach(version.as_deref()).await;
                Ok(Next::Done)
            }
            Err(error) if is_not_found(&error) => Ok(Next::Done),
            Err(error) if is_conflict(&error) => Ok(Next::Retry),
            Err(error) => Err(error.into()),
        }
    }

    /// The total number of pods that the owners of some pods want, and whether some pods have no owner.
    ///
    /// # Errors
    /// Why the number cannot be determined, in upstream's words.
    async fn scale(&self, pods: &[Arc<Pod>]) -> Result<(i32, bool), String> {
        let mut scales: HashMap<String, i32> = HashMap::new();
        let mut asked = HashSet::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !asked.insert(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let found = match self.known_scale(owner, namespace) {
                Some(found) => Some(found),
                None => self.asked_scale(owner, namespace).await?,
            };
            let (uid, scale) = found
                .ok_or_else(|| format!("found no controllers for pod {:?}", pod.name_any()))?;
            scales.insert(uid, scale);
        }
        Ok((scales.into_values().sum(), unmanaged))
    }

    /// The relevant owner (a replica set's deployment) and its scale, if it is in a cache.
    fn known_scale(&self, owner: &OwnerReference, namespace: &str) -> Option<(String, i32)> {
        let group = group_of(owner);
        match (group, owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = same(&self.replication_controllers, owner, namespace)?;
                Some((
                    uid(&found.metadata),
                    found.spec.as_ref()?.replicas.unwrap_or(1),
                ))
            }
            ("apps", "StatefulSet") => {
                let found = same(&self.stateful_sets, owner, namespace)?;
                Some((uid(&found.metadata), found.spec.replicas.unwrap_or(1)))
            }
            ("apps" | "extensions", "ReplicaSet") => {
                let set = same(&self.sets, owner, namespace)?;
                match controller_of(&set.metadata) {
                    Some(above) if above.kind == "Deployment" => {
                        let found = same(&self.deployments, above, namespace)?;
                        Some((uid(&found.metadata), found.spec.replicas.unwrap_or(1)))
                    }
                    _ => Some((uid(&set.metadata), set.spec.replicas.unwrap_or(1))),
                }
            }
            _ => None,
        }
    }

    /// An owner and its scale, from the API; None if it is gone.
    async fn asked_scale(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<(String, i32)>, String> {
        let client = &self.context.client;
        let served = self.served(owner).await.map_err(|error| text(&error))?;
        let Some(served) = served else {
            return Err(format!(
                "no matches for kind {:?} in version {:?}",
                owner.kind, owner.api_version
            ));
        };
        match served.api(client, namespace).get_scale(&owner.name).await {
            Ok(scale) if scale.metadata.uid.as_deref() == Some(&owner.uid) => {
                let wanted = scale.spec.and_then(|spec| spec.replicas);
                Ok(Some((owner.uid.clone(), wanted.unwrap_or(0))))
            }
            Ok(_) => Ok(None),
            Err(error) if is_not_found(&error) && served.has("scale") => Ok(None),
            Err(error) if is_not_found(&error) => {
                let (plural, group) = (&served.resource.plural, &served.resource.group);
                let dot = if group.is_empty() { "" } else { "." };
                Err(format!(
                    "{plural}{dot}{group} does not implement the scale subresource"
                ))
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// The resource of an owner: in the version of the reference, or in another.
    async fn served(&self, owner: &OwnerReference) -> Result<Option<Served>, kube::Error> {
        let group = group_of(owner);
        let find = |all: &[Served]| {
            let mut fits = all.iter().filter(|served| {
                served.resource.kind == owner.kind && served.resource.group == group
            });
            let first = fits.clone().next();
            let same = fits.find(|served| served.resource.api_version == owner.api_version);
            same.or(first).cloned()
        };
        let known = self.served.lock().clone();
        if let Some(found) = find(&known) {
            return Ok(Some(found));
        }
        let all = Arc::new(discovery::all(&self.context.client).await?);
        *self.served.lock() = all.clone();
        Ok(find(&all))
    }

    /// Sets the `DisruptionTarget` condition to false if nobody deleted the pod for long enough.
    async fn take_back(&self, key: Key) -> Result<Next, Unfinished> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let now = Timestamp::now();
        match plan::stale_after(&pod, now) {
            None => return Ok(Next::Done),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let condition = json!({
            "type": plan::TARGET,
            "status": "False",
            "reason": null,
            "message": null,
            "lastTransitionTime": now,
            "observedGeneration": pod.metadata.generation,
        });
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [condition]},
        });
        let api: Api<v1::Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        match api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Ok(_) => Ok(Next::Done),
            Err(error) if is_not_found(&error) => Ok(Next::Done),
            Err(error) if is_conflict(&error) => Ok(Next::Retry),
            Err(error) => Err(error.into()),
        }
    }
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

/// The object that a reference refers to, if it has the same uid.
fn same<K: Cached + Resource>(
    cache: &Informer<K>,
    owner: &OwnerReference,
    namespace: &str,
) -> Option<Arc<K>> {
    let found = cache.get(namespace, &owner.name)?;
    (found.meta().uid.as_deref() == Some(&owner.uid)).then_some(found)
}
