//! cronjob-controller: creates jobs on a schedule. Follows k8s.io/kubernetes/pkg/controller/cronjob.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

use self::plan::Facts;
use super::workload::{after_millis, queue_of, wake_owners};
use crate::client::Context;
use crate::client::errors::{is_already_exists, is_conflict, is_not_found, is_terminating, text};
use crate::client::events::{Recorder, Tone};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::owners::is_controlled_by;
use crate::client::queue::Next;

const WORKERS: usize = 5;

impl Cached for CronJob {}

struct Controller {
    context: Context,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
    local: TimeZone,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Controller {
        crons: context.informers.of::<CronJob>(),
        jobs: context.informers.of::<Job>(),
        recorder: context.recorder("cronjob-controller"),
        local: TimeZone::system(),
        context,
    };
    let queue = queue_of(&controller.crons);
    // Jobs are not adopted: a cron job only owns those that it created.
    wake_owners(&controller.jobs, &controller.crons, &queue, |_, _| false);
    let look = |key: Key| controller.sync(key);
    controller.context.work(&queue, WORKERS, look).await;
}

impl Controller {
    fn api(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    async fn sync(&self, key: Key) -> Result<Next, kube::Error> {
        let Some(cron) = self.crons.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let jobs = self.jobs.list(&key.namespace).into_iter();
        let jobs: Vec<Arc<Job>> = jobs
            .map(|(_, job)| job)
            .filter(|job| is_controlled_by(&job.metadata, &cron.metadata))
            .collect();
        let missing = self.missing(&cron, &jobs, &key).await?;
        let plan = plan::plan(&Facts {
            cron: &cron,
            jobs: &jobs,
            missing: &missing,
            local: &self.local,
            now: Timestamp::now(),
        });
        // If history cannot be deleted, due jobs are still started; the deletion is retried afterwards.
        let mut stays = None;
        for job in &plan.forget {
            if let Err(error) = self.delete(&cron, &job.name_any(), &key).await {
                stays = Some(error);
            }
        }
        for (tone, reason, message) in &plan.events {
            self.recorder.tell(&*cron, *tone, reason, message.as_str());
        }
        let mut status = plan.status;
        let mut failure = None;
        for active in &plan.replace {
            let name = active.name.clone().unwrap_or_default();
            match self.delete(&cron, &name, &key).await {
                Ok(()) => {
                    let left = status.active.iter_mut().flatten();
                    let left = left.filter(|known| known.uid != active.uid);
                    let left: Vec<ObjectReference> = left.map(|known| known.clone()).collect();
                    status.active = (!left.is_empty()).then_some(left);
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some((job, at)) = plan.create.filter(|_| failure.is_none()) {
            match self.create(&cron, &job, &key).await {
                Ok(Some(made)) => {
                    status.active.get_or_insert_default().push(made);
                    status.last_schedule_time = Some(Time(at));
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        if self.write(&cron, status, &key).await? {
            return Ok(Next::Retry);
        }
        match failure.or(stays) {
            Some(error) => Err(error),
            None => Ok(after_millis(plan.again)),
        }
    }

    /// Jobs that a status lists as active but that no longer exist, by uid.
    async fn missing(
        &self,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        key: &Key,
    ) -> Result<HashSet<String>, kube::Error> {
        let mut missing = HashSet::new();
        let status = cron.status.as_ref();
        let active = status.and_then(|status| status.active.as_deref());
        for active in active.unwrap_or_default() {
            if jobs.iter().any(|job| job.metadata.uid == active.uid) {
                continue;
            }
            let name = active.name.as_deref().unwrap_or_default();
            if self
                .api(&key.namespace)
                .get_metadata_opt(name)
                .await?
                .is_none()
            {
                missing.extend(active.uid.clone());
            }
        }
        Ok(missing)
    }

    async fn delete(&self, cron: &CronJob, name: &str, key: &Key) -> Result<(), kube::Error> {
        let params = DeleteParams::background();
        match self.api(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                let message = format!("Deleted job {name}");
                self.recorder
                    .tell(cron, Tone::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", text(&error));
                self.recorder
                    .tell(cron, Tone::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    /// Creates a job. Returns a reference to it; None if it is not a new job of this cron job.
    async fn create(
        &self,
        cron: &CronJob,
        job: &Job,
        key: &Key,
    ) -> Result<Option<ObjectReference>, kube::Error> {
        let api = self.api(&key.namespace);
        let made = match api.create(&PostParams::default(), job).await {
            Ok(made) => {
                let message = format!("Created job {}", made.name_any());
                self.recorder
                    .tell(cron, Tone::Normal, "SuccessfulCreate", message);
                made
            }
            Err(error) if is_terminating(&error) => return Ok(None),
            Err(error) if is_already_exists(&error) => {
                // It was created before, but the status was not updated.
                let found = api.get(&job.name_any()).await?;
                if !is_controlled_by(&found.metadata, &cron.metadata) {
                    return Ok(None);
                }
                found
            }
            Err(error) => {
                let message = format!("Error creating job: {}", text(&error));
                self.recorder
                    .tell(cron, Tone::Warning, "FailedCreate", message);
                return Err(error);
            }
        };
        self.jobs.reach(made.resource_version().as_deref()).await;
        Ok(Some(ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            namespace: made.metadata.namespace,
            name: made.metadata.name,
            uid: made.metadata.uid,
            resource_version: made.metadata.resource_version,
            field_path: None,
        }))
    }

    /// Writes a status, if it differs. Returns whether the cron job changed meanwhile.
    async fn write(
        &self,
        cron: &CronJob,
        status: CronJobStatus,
        key: &Key,
    ) -> Result<bool, kube::Error> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(false);
        }
        let api: Api<CronJob> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let new = CronJob {
            status: Some(status),
            ..cron.clone()
        };
        match api
            .replace_status(&key.name, &PostParams::default(), &new)
            .await
        {
            Ok(written) => {
                self.crons
                    .reach(written.resource_version().as_deref())
                    .await;
                Ok(false)
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) if is_conflict(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
