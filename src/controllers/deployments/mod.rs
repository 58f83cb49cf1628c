//! deployment-controller: rolls out templates by a sequence of replica sets. Follows
//! k8s.io/kubernetes/pkg/controller/deployment.

mod annotations;
mod plan;
mod sets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

use self::plan::{Facts, Plan};
use self::sets::{is_current, is_recreate};
use super::pods::Pods;
use super::workload::{after_millis, queue_of, wake_owners};
use crate::client::Context;
use crate::client::errors::{is_already_exists, is_conflict, is_not_found, is_terminating, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{Claims, controller_of, is_controlled_by};
use crate::client::queue::{Next, Queue};
use crate::client::selector::selects;

const WORKERS: usize = 5;

impl Cached for Deployment {}

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Pods,
    recorder: Recorder,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        deployments: context.informers.of::<Deployment>(),
        sets: context.informers.of::<ReplicaSet>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("deployment-controller"),
        context,
    };
    let queue = queue_of(&controller.deployments);
    wake_owners(&controller.sets, &controller.deployments, &queue, fits);
    controller.wake_by_pods(&queue);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

/// The deployment that controls a set.
fn owner(set: Option<&Arc<ReplicaSet>>) -> Option<Key> {
    let set = set?;
    let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    Some(Key::new(namespace, &owner.name))
}

fn fits(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let selector = &deployment.spec.selector;
    *selector != LabelSelector::default()
        && selects(selector, set.metadata.labels.as_ref()).unwrap_or(false)
}

impl Controller {
    /// A deployment with strategy `Recreate` waits until old pods are gone.
    fn wake_by_pods(&self, queue: &Arc<Queue<Key>>) {
        let (sets, deployments) = (self.sets.clone(), self.deployments.clone());
        self.pods.cache.enqueue(queue, move |change| {
            let ended = |pod: Option<&Arc<Pod>>| pod.is_none_or(|pod| pod.is_terminal());
            if !ended(change.new) || (change.new.is_some() && ended(change.old)) {
                return None;
            }
            let namespace = &change.key.namespace;
            let set = controller_of(&change.old?.metadata)
                .filter(|owner| owner.kind == "ReplicaSet")
                .and_then(|owner| sets.get(namespace, &owner.name));
            let key = owner(set.as_ref())?;
            let deployment = deployments.get(namespace, &key.name)?;
            is_recreate(&deployment).then_some(key)
        });
    }

    async fn sync(&self, key: Key) -> Result<Next, kube::Error> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        if deployment.spec.selector == LabelSelector::default() {
            self.recorder.tell(
                &*deployment,
                Tone::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Next::Done);
        }
        let mut sets = self.claimed(&deployment).await?;
        sets.sort_by_cached_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.name_any())
        });
        let old_pods_run = is_recreate(&deployment)
            && sets
                .iter()
                .filter(|set| !is_current(&deployment, set))
                .any(|set| {
                    let mut pods = self.pods.owned(&set.metadata).into_iter();
                    pods.any(|pod| !pod.is_terminal())
                });
        let facts = Facts {
            deployment: &deployment,
            sets: &sets,
            old_pods_run,
            now: Timestamp::now(),
        };
        let plan = plan::plan(&facts);
        self.carry_out(&deployment, &key, plan).await
    }

    /// The replica sets of a deployment; matching orphans are adopted.
    async fn claimed(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, kube::Error> {
        let claims = Claims::<_, ReplicaSet>::of(&self.context.client, deployment, None);
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let sets = self.sets.list(namespace).into_iter();
        let sets = sets.map(|(_, set)| set).collect();
        let own = claims.take(sets, |set| fits(deployment, set)).await?;
        Ok(own.iter().map(|set| (**set).clone()).collect())
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        key: &Key,
        plan: Plan,
    ) -> Result<Next, kube::Error> {
        let client = || self.context.client.clone();
        let params = PostParams::default();
        let sets: Api<ReplicaSet> = Api::namespaced(client(), &key.namespace);
        let api: Api<Deployment> = Api::namespaced(client(), &key.namespace);
        let mut version = None;
        // Each event is recorded as soon as its write is done: the next plan would not include it.
        let tell = |set: Option<&str>| {
            let notes = plan.events.iter();
            for note in notes.filter(|note| note.after.as_deref() == set) {
                self.recorder
                    .tell(deployment, note.tone, note.reason, note.message.as_str());
            }
        };
        for set in &plan.update {
            match sets.replace(&set.name_any(), &params, set).await {
                Ok(written) => {
                    tell(set.metadata.name.as_deref());
                    version = written.resource_version().or(version);
                }
                Err(error) if is_conflict(&error) || is_not_found(&error) => {
                    return Ok(Next::Retry);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(set) = &plan.create {
            match sets.create(&params, set).await {
                Ok(made) => {
                    tell(set.metadata.name.as_deref());
                    version = made.resource_version().or(version);
                }
                Err(error) if is_terminating(&error) => return Ok(Next::Done),
                Err(error) => return self.not_created(deployment, &api, &sets, set, error).await,
            }
        }
        for name in &plan.delete {
            match sets.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        tell(None);
        let written = if let Some(back) = &plan.rollback {
            Some(api.replace(&key.name, &params, back).await)
        } else if let Some(new) = plan
            .status
            .as_ref()
            .filter(|new| !says_same(new, deployment))
        {
            Some(api.replace_status(&key.name, &params, new).await)
        } else {
            None
        };
        match written {
            None => {}
            Some(Ok(written)) => {
                self.deployments
                    .reach(written.resource_version().as_deref())
                    .await;
            }
            Some(Err(error)) if is_not_found(&error) => return Ok(Next::Done),
            Some(Err(error)) if is_conflict(&error) => return Ok(Next::Retry),
            Some(Err(error)) => return Err(error),
        }
        self.sets.reach(version.as_deref()).await;
        Ok(after_millis(plan.again))
    }

    /// What to do if the set of the current template cannot be created.
    async fn not_created(
        &self,
        deployment: &Deployment,
        api: &Api<Deployment>,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        error: kube::Error,
    ) -> Result<Next, kube::Error> {
        let name = set.name_any();
        let mut new = deployment.clone();
        let status = new.status.get_or_insert_default();
        if is_already_exists(&error) {
            let found = sets.get_opt(&name).await?;
            let own = found.is_some_and(|found| {
                is_controlled_by(&found.metadata, &deployment.metadata)
                    && is_current(deployment, &found)
            });
            if own {
                // The cache is behind, and will show the set.
                return Ok(Next::Retry);
            }
            // Another template has the same hash: the next attempt uses a different one.
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        } else {
            let message = format!(
                "Failed to create new replica set \"{name}\": {}",
                text(&error)
            );
            let deadline = deployment.spec.progress_deadline_seconds;
            if deadline.is_some_and(|seconds| seconds != i32::MAX) {
                let now = Timestamp::now();
                let reason = "ReplicaSetCreateError";
                let condition =
                    plan::new_condition("Progressing", "False", reason, message.clone(), now);
                plan::set_condition(status, condition);
            }
            self.recorder
                .tell(deployment, Tone::Warning, "ReplicaSetCreateError", message);
        }
        let name = deployment.name_any();
        match api
            .replace_status(&name, &PostParams::default(), &new)
            .await
        {
            Ok(written) => {
                self.deployments
                    .reach(written.resource_version().as_deref())
                    .await;
            }
            Err(problem) => {
                tracing::debug!(name, %problem, "cannot update the status of a deployment")
            }
        }
        Err(error)
    }
}

/// Whether two deployments have equal statuses; missing numbers are zero.
fn says_same(a: &Deployment, b: &Deployment) -> bool {
    let numbers = |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
        ];
        (
            counts.map(|count| count.unwrap_or(0)),
            status.terminating_replicas,
            status.collision_count,
            status.observed_generation.unwrap_or(0),
            status.conditions.unwrap_or_default(),
        )
    };
    numbers(a) == numbers(b)
        && a.metadata.annotations.clone().unwrap_or_default()
            == b.metadata.annotations.clone().unwrap_or_default()
}
