//! job-controller: pods that run until enough of them have succeeded. Follows k8s.io/kubernetes/pkg/controller/job.

mod backoff;
mod conditions;
mod facts;
mod indexes;
mod plan;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;

use self::backoff::Backoff;
pub(super) use self::conditions::end_of;
use self::facts::{FAILURES, Facts, IGNORED, INDEX, TRACKED};
use self::plan::{Act, Done, Place};
use super::pods::{Outcome, PodControl, Pods, Versions, from_template, slowly};
use super::workload::{Unfinished, after_millis, queue_with, wake_owners};
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{controller_of, controller_reference, is_controlled_by};
use crate::client::queue::{Delays, Next, Queue};
use crate::client::selector::selects;

const WORKERS: usize = 5;
/// How long failed jobs and pods are delayed.
const DELAYS: Delays = Delays {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// The value of `managedBy` for this controller.
const OURS: &str = "kubernetes.io/job-controller";
/// The longest prefix for generated names.
const LONGEST_PREFIX: usize = 58;

impl Cached for Job {}

struct Controller {
    context: Context,
    jobs: Informer<Job>,
    pods: Pods,
    recorder: Recorder,
    memory: Mutex<HashMap<Key, Memory>>,
}

/// What the controller knows about a job in addition to the API.
#[derive(Clone, Default)]
struct Memory {
    uid: Option<String>,
    backoff: Backoff,
    /// Pods that were counted and released, until the cache shows it.
    counted: HashSet<String>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        jobs: context.informers.of::<Job>(),
        pods: Pods::of(&context.informers),
        recorder: context.recorder("job-controller"),
        memory: Mutex::default(),
        context,
    };
    let queue = queue_with(&controller.jobs, DELAYS);
    wake_owners(&controller.pods.cache, &controller.jobs, &queue, fits);
    let lost = Arc::new(Queue::<Key>::with_delays(DELAYS));
    controller.note_lost(&lost);
    let look = |key: Key| controller.sync(key);
    let let_go = |key: Key| controller.let_go(key);
    join(
        controller.context.work(&queue, WORKERS, look),
        controller.context.work(&lost, WORKERS, let_go),
    )
    .await;
}

fn fits(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector
        .is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()).unwrap_or(false))
}

/// Whether another controller manages a job.
fn is_foreign(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_ref());
    manager.is_some_and(|manager| manager != OURS)
}

impl Controller {
    /// Enqueues pods that nobody will count: those of jobs that are gone or have finished.
    fn note_lost(&self, lost: &Arc<Queue<Key>>) {
        let jobs = self.jobs.clone();
        self.pods.cache.enqueue(lost, move |change| {
            let pod = change.new.filter(|pod| facts::is_tracked(pod))?;
            is_lost(&jobs, pod).then(|| change.key.clone())
        });
        let pods = self.pods.clone();
        self.jobs.enqueue(lost, move |change| -> Vec<Key> {
            let job = change.new.or(change.old);
            let ended = job.filter(|job| change.new.is_none() || conditions::end_of(job).is_some());
            let own = ended.into_iter().flat_map(|job| pods.owned(&job.metadata));
            own.filter(|pod| facts::is_tracked(pod))
                .map(|pod| Key::new(&change.key.namespace, &pod.name_any()))
                .collect()
        });
    }

    /// Removes the finalizer of a pod that nobody will count.
    async fn let_go(&self, key: Key) -> Result<Next, kube::Error> {
        let pod = self.pods.cache.get(&key.namespace, &key.name);
        if let Some(pod) = pod.filter(|pod| facts::is_tracked(pod) && is_lost(&self.jobs, pod)) {
            let version = self.release(&pod).await?;
            self.pods.cache.reach(version.as_deref()).await;
        }
        Ok(Next::Done)
    }

    /// Removes the finalizer of a pod. Returns the new resourceVersion; None if the pod was gone.
    async fn release(&self, pod: &Pod) -> Result<Option<String>, kube::Error> {
        if !facts::is_tracked(pod) {
            return Ok(None);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKED]}});
        let params = PatchParams::default();
        match api
            .patch(&pod.name_any(), &params, &Patch::Strategic(patch))
            .await
        {
            Ok(written) => Ok(written.resource_version()),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn sync(&self, key: Key) -> Result<Next, Unfinished> {
        let job = self.jobs.get(&key.namespace, &key.name);
        let Some(job) = job.filter(|job| !is_foreign(job) && conditions::end_of(job).is_none())
        else {
            self.memory.lock().remove(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &job.spec else {
            return Ok(Next::Done);
        };
        let pods = self.claimed(&job).await?;
        let memory = self.memory_of(&key, &job, &pods);
        let facts = Facts {
            job: &job,
            spec,
            pods: &pods,
            counted: &memory.counted,
            backoff: &memory.backoff,
            now: Timestamp::now(),
        };
        let mut plan = plan::plan(&facts);
        let (done, failure) = self.act(&job, spec, &plan.act).await;
        plan.carried_out(done);
        let (again, turned, backoff) = (plan.again, plan.turned, plan.backoff.clone());
        let tracked = plan.track();
        let written = match self.write(&job, &tracked.status).await {
            Err(error) if is_conflict(&error) => return Ok(Next::Retry),
            written => written?,
        };
        if let Some(suspended) = turned {
            let (reason, message) = if suspended {
                ("Suspended", "Job suspended")
            } else {
                ("Resumed", "Job resumed")
            };
            self.recorder.tell(&*job, Tone::Normal, reason, message);
        }
        let releases = tracked.release.iter().map(|pod| self.release(pod));
        let (mut released, mut versions, mut refusal) = (HashSet::new(), Versions::default(), None);
        for (pod, result) in tracked.release.iter().zip(join_all(releases).await) {
            match result {
                Ok(version) => {
                    versions.add(version);
                    released.extend(pod.metadata.uid.clone());
                }
                Err(error) => refusal = Some(error),
            }
        }
        if let Some(known) = self.memory.lock().get_mut(&key) {
            known.backoff = backoff;
            known.counted.extend(released.iter().cloned());
        }
        let (status, end) = tracked.settle(&released);
        let written = match self.write(&written, &status).await {
            Err(error) if is_conflict(&error) => return Ok(Next::Retry),
            written => written?,
        };
        if let Some(end) = end {
            self.tell_end(&written, spec, &end);
        }
        self.pods.cache.reach(versions.newest().as_deref()).await;
        self.jobs.reach(written.resource_version().as_deref()).await;
        match (refusal, failure) {
            (Some(error), _) => Err(error.into()),
            (None, Some(failure)) => Err(Unfinished::Refused(failure)),
            (None, None) => Ok(after_millis(again)),
        }
    }

    /// The pods of a job; matching orphans are adopted.
    async fn claimed(&self, job: &Job) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let client = &self.context.client;
        let mut own = self.pods.claimed(client, job, Some(TRACKED), fits).await?;
        for pod in &mut own {
            // The cache may not show the adoption yet.
            if !is_controlled_by(&pod.metadata, &job.metadata) && !facts::is_tracked(pod) {
                let finalizers = &mut Arc::make_mut(pod).metadata.finalizers;
                finalizers.get_or_insert_default().push(TRACKED.to_owned());
            }
        }
        Ok(own)
    }

    /// The memory of a job; forgets released pods once the cache shows that.
    fn memory_of(&self, key: &Key, job: &Job, pods: &[Arc<Pod>]) -> Memory {
        let mut all = self.memory.lock();
        let memory = all.entry(key.clone()).or_default();
        if memory.uid != job.metadata.uid {
            *memory = Memory {
                uid: job.metadata.uid.clone(),
                ..Memory::default()
            };
        }
        let behind: HashSet<&String> = pods
            .iter()
            .filter(|pod| facts::is_tracked(pod))
            .filter_map(|pod| pod.metadata.uid.as_ref())
            .collect();
        memory.counted.retain(|uid| behind.contains(uid));
        memory.clone()
    }

    /// Creates or deletes pods. Returns the outcome and the first error message.
    async fn act(&self, job: &Job, spec: &JobSpec, act: &Act) -> (Done, Option<String>) {
        let control = PodControl {
            client: &self.context.client,
            recorder: &self.recorder,
            owner: job,
        };
        let mut ready = 0;
        let outcome = match act {
            Act::Nothing => Outcome::default(),
            Act::Create(places) => {
                slowly(places.len(), |i| {
                    let pod = make_pod(job, spec, &places[i]);
                    let control = &control;
                    async move { control.create(&pod).await }
                })
                .await
            }
            Act::End(pods) | Act::Remove(pods) => {
                let counts = matches!(act, Act::End(_));
                let delete = async |pod: &Arc<Pod>| {
                    if !counts {
                        let released = self.release(pod).await;
                        released.map_err(|error| {
                            format!("removing completion finalizer: {}", text(&error))
                        })?;
                    }
                    control.delete(&pod.name_any()).await
                };
                let mut outcome = Outcome::default();
                for (pod, result) in pods.iter().zip(join_all(pods.iter().map(delete)).await) {
                    ready += usize::from(result.is_ok() && pod.is_ready());
                    outcome.take(result);
                }
                outcome
            }
        };
        self.pods.cache.reach(outcome.newest().as_deref()).await;
        let done = Done {
            pods: outcome.done,
            ready,
            whole: outcome.refusal.is_none(),
        };
        (done, outcome.refusal)
    }

    /// Writes a status, if it differs. Returns the resulting job.
    async fn write(&self, job: &Job, status: &JobStatus) -> Result<Job, kube::Error> {
        if job.status.as_ref() == Some(status) {
            return Ok(job.clone());
        }
        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Job> = Api::namespaced(self.context.client.clone(), namespace);
        let new = Job {
            status: Some(status.clone()),
            ..job.clone()
        };
        let name = job.name_any();
        match api
            .replace_status(&name, &PostParams::default(), &new)
            .await
        {
            Err(error) if is_not_found(&error) => Ok(new),
            written => written,
        }
    }

    fn tell_end(&self, job: &Job, spec: &JobSpec, end: &JobCondition) {
        if end.type_ != "Complete" {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let reason = text(&end.reason);
            self.recorder
                .tell(job, Tone::Warning, &reason, text(&end.message));
            return;
        }
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded);
        if spec.completions.is_some() && succeeded > spec.completions {
            let message = "Too many succeeded pods running after completion count reached";
            self.recorder
                .tell(job, Tone::Warning, "TooManySucceededPods", message);
        }
        self.recorder
            .tell(job, Tone::Normal, "Completed", "Job completed");
    }
}

/// Whether nobody will count a pod: it has no job, or its job is gone or has finished.
fn is_lost(jobs: &Informer<Job>, pod: &Pod) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else {
        return true;
    };
    if owner.kind != "Job" || owner.api_version != "batch/v1" {
        return false;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match jobs.get(namespace, &owner.name) {
        Some(job) if job.metadata.uid.as_ref() == Some(&owner.uid) => {
            !is_foreign(&job) && conditions::end_of(&job).is_some()
        }
        _ => true,
    }
}

/// The pod for a place.
fn make_pod(job: &Job, spec: &JobSpec, place: &Place) -> v1::Pod {
    let name = job.name_any();
    let mut pod = from_template(&spec.template, &name, controller_reference(job), None);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|known| known == TRACKED) {
        finalizers.push(TRACKED.to_owned());
    }
    let Some(index) = place.index else { return pod };
    let end = format!("-{index}-");
    let room = LONGEST_PREFIX.saturating_sub(end.len());
    let prefix = &name[..name.len().min(room)];
    pod.metadata.generate_name = Some(format!("{prefix}{end}"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (failures, ignored) = place
            .after
            .as_ref()
            .map_or((0, 0), |failed| facts::failures(spec, failed));
        annotations.insert(FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    let Some(spec) = &mut pod.spec else {
        return pod;
    };
    spec.hostname = Some(format!("{name}-{index}"));
    let containers = spec.init_containers.iter_mut().flatten();
    for container in containers.chain(&mut spec.containers) {
        const NAME: &str = "JOB_COMPLETION_INDEX";
        let env = container.env.get_or_insert_default();
        if env.iter().any(|known| known.name == NAME) {
            continue;
        }
        env.push(v1::EnvVar {
            name: NAME.to_owned(),
            value_from: Some(v1::EnvVarSource {
                field_ref: Some(v1::ObjectFieldSelector {
                    field_path: format!("metadata.labels['{INDEX}']"),
                    ..v1::ObjectFieldSelector::default()
                }),
                ..v1::EnvVarSource::default()
            }),
            ..v1::EnvVar::default()
        });
    }
    pod
}
