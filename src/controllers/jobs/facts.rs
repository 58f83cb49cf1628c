//! What a job and its pods say.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::backoff::Backoff;
use super::policy::{self, Verdict};
use crate::client::kinds::Pod;

/// The finalizer that keeps a pod until it is counted.
pub(super) const TRACKED: &str = "batch.kubernetes.io/job-tracking";
/// The label and annotation with a pod's index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the number of earlier failures of this index that count.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with the number of those that are ignored.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The input of a decision.
pub(super) struct Facts<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    /// The pods of the job.
    pub pods: &'a [Arc<Pod>],
    /// Pods that were counted already, by uid, in case the cache does not show it yet.
    pub counted: &'a HashSet<String>,
    /// The failures so far.
    pub backoff: &'a Backoff,
    pub now: Timestamp,
}

/// Whether a job is indexed.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// Whether a pod is replaced only once it has failed, not while it is being deleted.
pub(super) fn waits_for_failure(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// Whether a pod has the tracking finalizer.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers()
        .iter()
        .any(|finalizer| finalizer == TRACKED)
}

pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The index of a pod, if it has one.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    let index: i32 = pod.annotations().get(INDEX)?.parse().ok()?;
    (index >= 0).then_some(index)
}

/// The number in an annotation.
pub(super) fn counted(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.annotations().get(annotation);
    let count: i32 = text.and_then(|count| count.parse().ok()).unwrap_or(0);
    count.max(0)
}

/// The failures of the index of `failed`, including itself: those that count, and those that are ignored.
pub(super) fn failures(spec: &JobSpec, failed: &Pod) -> (i32, i32) {
    let (count, ignored) = (counted(failed, FAILURES), counted(failed, IGNORED));
    match policy::judge(spec.pod_failure_policy.as_ref(), failed) {
        Verdict::Ignore => (count, ignored + 1),
        _ => (count + 1, ignored),
    }
}

impl Facts<'_> {
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        if pod.phase() == "Failed" {
            return true;
        }
        // A lost pod may never reach the phase `Failed`.
        !waits_for_failure(self.spec) && pod.is_deleting() && pod.phase() != "Succeeded"
    }

    pub(super) fn judge(&self, pod: &Pod) -> Verdict {
        policy::judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Whether a pod is tracked and was not counted yet.
    pub(super) fn is_open(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_ref();
        is_tracked(pod) && uid.is_none_or(|uid| !self.counted.contains(uid))
    }

    pub(super) fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The index of a pod, if it is valid for the job.
    pub(super) fn index(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| *index < self.completions())
    }

    /// Pods that can be counted now.
    pub(super) fn countable(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let indexed = is_indexed(self.spec);
        self.pods
            .iter()
            .filter(move |pod| self.is_open(pod) && (!indexed || self.index(pod).is_some()))
    }
}
