//! ttl-after-finished-controller: deletes finished jobs after their TTL. Follows
//! k8s.io/kubernetes/pkg/controller/ttlafterfinished.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions, PropagationPolicy};

use super::jobs::end_of;
use super::workload::queue_of;
use crate::client::Context;
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::informer::Key;
use crate::client::queue::Next;

const WORKERS: usize = 5;

/// Runs the controller.
pub async fn run(context: Context) {
    let jobs = context.informers.of::<Job>();
    let queue = queue_of(&jobs);
    let look = |key: Key| {
        let (jobs, client) = (&jobs, context.client.clone());
        async move {
            let Some(left) = jobs
                .get(&key.namespace, &key.name)
                .and_then(|job| left(&job, Timestamp::now()))
            else {
                return Ok(Next::Done);
            };
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            let api: Api<Job> = Api::namespaced(client, &key.namespace);
            // It may have been replaced by now, or have a longer TTL.
            let Some(fresh) = api.get_opt(&key.name).await? else {
                return Ok(Next::Done);
            };
            match self::left(&fresh, Timestamp::now()) {
                None => return Ok(Next::Done),
                Some(left) if !left.is_zero() => return Ok(Next::After(left)),
                Some(_) => {}
            }
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                preconditions: Some(Preconditions {
                    uid: fresh.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&key.name, &params).await {
                Err(error) if is_conflict(&error) => Ok(Next::Retry),
                Err(error) if !is_not_found(&error) => Err(error),
                _ => Ok(Next::Done),
            }
        }
    };
    context.work(&queue, WORKERS, look).await;
}

/// How long a job is still kept; None if it has not finished, is kept forever, or is being deleted.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let since = end_of(job)?.last_transition_time.as_ref()?.0;
    let due = since.as_millisecond() + i64::from(seconds) * 1000;
    let left = u64::try_from(due - now.as_millisecond()).unwrap_or(0);
    Some(Duration::from_millis(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_is_kept_for_a_while_after_it_finished() {
        let job = |ttl: Option<i32>, condition: &str, status: &str, ends: bool| -> Job {
            serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": ends.then_some("2026-01-01T00:00:00Z")},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [
                    {"type": condition, "status": status, "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
            }))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T00:00:15Z".parse().unwrap();
        let seconds = |job: Job| left(&job, now).map(|left| left.as_secs());
        assert_eq!(seconds(job(Some(30), "Complete", "True", false)), Some(25));
        assert_eq!(seconds(job(Some(5), "Failed", "True", false)), Some(0));
        assert_eq!(seconds(job(Some(0), "Complete", "True", false)), Some(0));
        assert_eq!(seconds(job(None, "Complete", "True", false)), None);
        assert_eq!(seconds(job(Some(0), "Complete", "False", false)), None);
        assert_eq!(seconds(job(Some(0), "Suspended", "True", false)), None);
        assert_eq!(seconds(job(Some(0), "Complete", "True", true)), None);
    }
}
