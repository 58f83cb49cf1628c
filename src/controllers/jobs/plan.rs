//! Decides what a job does next, from its spec, its pods and the time. Follows
//! k8s.io/kubernetes/pkg/controller/job/job_controller.go.
//!
//! ```text
//! plan -> (pods are created or deleted) -> carried_out -> track -> (status written, finalizers removed) -> settle
//! ```

mod track;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::backoff::{Backoff, finished_at};
use super::indexes::Indexes;
use super::policy::{self, Verdict};
use crate::client::kinds::Pod;
use crate::controllers::pods::{BURST, is_active, rank_for_ending};

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

/// What to do with pods.
#[derive(Clone, Debug, Default)]
pub(super) enum Act {
    #[default]
    Nothing,
    /// Delete these and count them: the job ends.
    End(Vec<Arc<Pod>>),
    /// Delete these without counting them: they are surplus.
    Remove(Vec<Arc<Pod>>),
    /// Create pods.
    Create(Vec<Place>),
}

/// A pod to create.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Its index, in an indexed job.
    pub index: Option<i32>,
    /// The failed pod of this index that it replaces, if failures are counted by index.
    pub after: Option<Arc<Pod>>,
}

/// The outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// How many pods were created or deleted.
    pub pods: usize,
    /// How many of the deleted ones were ready.
    pub ready: usize,
    /// Whether no request failed.
    pub whole: bool,
}

/// A decision.
pub(super) struct Plan<'a> {
    facts: &'a Facts<'a>,
    /// What to do first.
    pub act: Act,
    /// In how many milliseconds to look again, whatever happens.
    pub again: Option<i64>,
    /// The failures, including new ones.
    pub backoff: Backoff,
    /// Whether the job was suspended or resumed.
    pub turned: Option<bool>,
    status: JobStatus,
    /// How the job ends, once all its pods are counted.
    end: Option<JobCondition>,
    active: Vec<Arc<Pod>>,
    counts: Counts,
    before: Indexes,
    succeeded: Indexes,
    failed: Option<Indexes>,
    /// By index, failed pods that wait for their replacement.
    waiting: BTreeMap<i32, Arc<Pod>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    active: i32,
    ready: i32,
    terminating: i32,
    succeeded: i32,
    failed: i32,
}

/// Whether a job is indexed.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// Whether a pod is replaced only once it has failed, not while it is being deleted.
fn waits_for_failure(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// The true condition `Complete` or `Failed` of a finished job; None if it has not finished.
pub(in crate::controllers) fn end_of(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holds(status, "Complete").or_else(|| holds(status, "Failed"))
}

/// Whether a pod has the tracking finalizer.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers()
        .iter()
        .any(|finalizer| finalizer == TRACKED)
}

/// The condition of a type, if it is true.
fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

fn condition(kind: &str, state: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The same condition with another type.
fn becomes(had: &JobCondition, kind: &str, now: Timestamp) -> JobCondition {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    condition(kind, "True", &text(&had.reason), &text(&had.message), now)
}

/// Sets a condition; a missing one is not added as false. Returns whether something changed.
fn set(status: &mut JobStatus, new: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|had| had.type_ == new.type_) {
        Some(had) => {
            let same =
                had.status == new.status && had.reason == new.reason && had.message == new.message;
            if !same {
                *had = new;
            }
            !same
        }
        None if new.status == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The index of a pod, if it has one.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    let index: i32 = pod.annotations().get(INDEX)?.parse().ok()?;
    (index >= 0).then_some(index)
}

/// The number in an annotation.
fn counted(pod: &Pod, annotation: &str) -> i32 {
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
    fn is_failed(&self, pod: &Pod) -> bool {
        if pod.phase() == "Failed" {
            return true;
        }
        // A lost pod may never reach the phase `Failed`.
        !waits_for_failure(self.spec) && pod.is_deleting() && pod.phase() != "Succeeded"
    }

    fn judge(&self, pod: &Pod) -> Verdict {
        policy::judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Whether a pod is tracked and was not counted yet.
    fn is_open(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_ref();
        is_tracked(pod) && uid.is_none_or(|uid| !self.counted.contains(uid))
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The index of a pod, if it is valid for the job.
    fn index(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| *index < self.completions())
    }

    /// Pods that can be counted now.
    fn countable(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let indexed = is_indexed(self.spec);
        self.pods
            .iter()
            .filter(move |pod| self.is_open(pod) && (!indexed || self.index(pod).is_some()))
    }
}

/// Decides what to do with pods.
pub(super) fn plan<'a>(facts: &'a Facts<'a>) -> Plan<'a> {
    let mut status = facts.job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let has = |list: &Option<Vec<String>>, pod: &Pod| {
        let uid = pod.metadata.uid.as_ref();
        list.iter().flatten().any(|known| Some(known) == uid)
    };
    let succeeded: Vec<&Arc<Pod>> = facts
        .countable()
        .filter(|pod| pod.phase() == "Succeeded" && !has(&uncounted.succeeded, pod))
        .collect();
    let failed: Vec<&Arc<Pod>> = facts
        .countable()
        .filter(|pod| facts.is_failed(pod) && !has(&uncounted.failed, pod))
        .collect();
    let length = |list: &Option<Vec<String>>| number(list.as_ref().map_or(0, Vec::len));
    let counting = failed
        .iter()
        .filter(|pod| facts.judge(pod) != Verdict::Ignore)
        .count();
    let active: Vec<Arc<Pod>> = facts
        .pods
        .iter()
        .filter(|pod| is_active(pod))
        .cloned()
        .collect();
    let counts = Counts {
        active: number(active.len()),
        ready: number(active.iter().filter(|pod| pod.is_ready()).count()),
        terminating: number(
            facts
                .pods
                .iter()
                .filter(|pod| pod.is_deleting() && !pod.is_terminal())
                .count(),
        ),
        succeeded: status.succeeded.unwrap_or(0)
            + number(succeeded.len())
            + length(&uncounted.succeeded),
        failed: status.failed.unwrap_or(0) + number(counting) + length(&uncounted.failed),
    };
    if status.start_time.is_none() && !is_suspended(facts.spec) {
        status.start_time = Some(Time(facts.now));
    }
    let mut plan = Plan {
        backoff: facts.backoff.after(&succeeded, &failed),
        facts,
        act: Act::Nothing,
        again: None,
        turned: None,
        end: None,
        status,
        active,
        counts,
        before: Indexes::default(),
        succeeded: Indexes::default(),
        failed: None,
        waiting: BTreeMap::new(),
    };
    plan.judge();
    plan.decide();
    plan
}

impl Plan<'_> {
    /// Decides whether and how the job ends.
    fn judge(&mut self) {
        let (facts, spec, now) = (self.facts, self.facts.spec, self.facts.now);
        self.end = self.known_end().or_else(|| self.failure());
        if !is_indexed(spec) {
            return;
        }
        let completions = facts.completions();
        let had = self.status.completed_indexes.as_deref().unwrap_or_default();
        self.before = Indexes::parse(had, completions);
        let newer = facts.countable().filter(|pod| pod.phase() == "Succeeded");
        self.succeeded = self.before.with(newer.filter_map(|pod| index(pod)));
        self.counts.succeeded = self.succeeded.count();
        if let Some(limit) = spec.backoff_limit_per_index {
            let had = self.status.failed_indexes.as_deref().unwrap_or_default();
            let is_lost = |pod: &&Arc<Pod>| {
                facts.is_failed(pod)
                    && match facts.judge(pod) {
                        Verdict::FailIndex => true,
                        Verdict::Ignore => false,
                        _ => counted(pod, FAILURES) >= limit,
                    }
            };
            let newer = facts.countable().filter(is_lost);
            let failed = Indexes::parse(had, completions).with(newer.filter_map(|pod| index(pod)));
            let (lost, done) = (failed.count(), self.succeeded.count());
            if self.end.is_none() {
                let end =
                    |reason, message| condition("FailureTarget", "True", reason, message, now);
                if spec.max_failed_indexes.is_some_and(|most| lost > most) {
                    self.end = Some(end(
                        "MaxFailedIndexesExceeded",
                        "Job has exceeded the specified maximal number of failed indexes",
                    ));
                } else if lost > 0 && lost + done >= completions {
                    self.end = Some(end("FailedIndexes", "Job has failed indexes"));
                }
            }
            self.waiting = self.waiting(&failed);
            self.failed = Some(failed);
        }
        if self.end.is_none() {
            let met = policy::met(spec.success_policy.as_ref(), completions, &self.succeeded);
            self.end = met.map(|message| {
                condition("SuccessCriteriaMet", "True", "SuccessPolicy", &message, now)
            });
        }
    }

    /// The end that was decided before, or that a failed pod causes by policy.
    fn known_end(&self) -> Option<JobCondition> {
        let (facts, now) = (self.facts, self.facts.now);
        if let Some(met) = holds(&self.status, "SuccessCriteriaMet") {
            return Some(met.clone());
        }
        if let Some(target) = holds(&self.status, "FailureTarget") {
            return Some(becomes(target, "Failed", now));
        }
        let mut failed = facts.pods.iter().filter(|pod| facts.is_failed(pod));
        failed.find_map(|pod| match facts.judge(pod) {
            Verdict::FailJob(message) => Some(condition(
                "FailureTarget",
                "True",
                "PodFailurePolicy",
                &message,
                now,
            )),
            _ => None,
        })
    }

    /// Too many failures, or too much time.
    fn failure(&mut self) -> Option<JobCondition> {
        let (spec, now) = (self.facts.spec, self.facts.now);
        let end = |reason, message| Some(condition("FailureTarget", "True", reason, message, now));
        let limit = spec.backoff_limit.unwrap_or(6);
        if self.counts.failed > limit || self.restarted_too_often(limit) {
            return end(
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            );
        }
        let seconds = spec
            .active_deadline_seconds
            .filter(|_| !is_suspended(spec))?;
        let start = self.status.start_time.as_ref()?.0;
        let left = seconds.saturating_mul(1000) - (now.as_millisecond() - start.as_millisecond());
        if left <= 0 {
            return end(
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            );
        }
        self.look_again(left);
        None
    }

    fn restarted_too_often(&self, limit: i32) -> bool {
        let template = self.facts.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self
            .facts
            .pods
            .iter()
            .filter(|pod| matches!(pod.phase(), "Running" | "Pending"));
        let restarts: i32 = running
            .flat_map(|pod| {
                let status = &pod.status;
                let all = status.init_container_statuses.iter();
                all.chain(&status.container_statuses)
            })
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    /// By index, the failed pods that were not replaced yet: their failure counts must be passed on.
    fn waiting(&self, failed: &Indexes) -> BTreeMap<i32, Arc<Pod>> {
        let facts = self.facts;
        let running: HashSet<i32> = self.active.iter().filter_map(|pod| index(pod)).collect();
        let mut waiting: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let age = |pod: &Pod| {
            (
                counted(pod, FAILURES) + counted(pod, IGNORED),
                finished_at(pod),
            )
        };
        for pod in facts.countable().filter(|pod| facts.is_failed(pod)) {
            let Some(index) = index(pod) else { continue };
            if self.succeeded.has(index) || failed.has(index) || running.contains(&index) {
                continue;
            }
            let later = waiting.get(&index).is_none_or(|known| {
                let (known, own) = (age(known), age(pod));
                known.0 <= own.0 && known.1 <= own.1
            });
            if later {
                waiting.insert(index, pod.clone());
            }
        }
        waiting
    }

    fn look_again(&mut self, millis: i64) {
        self.again = Some(self.again.map_or(millis, |known| known.min(millis)));
    }

    fn decide(&mut self) {
        if self.end.is_some() {
            self.act = Act::End(self.active.clone());
            return;
        }
        if self.facts.job.metadata.deletion_timestamp.is_some() {
            return;
        }
        let spec = self.facts.spec;
        if is_suspended(spec) {
            self.act = Act::Remove(self.active.clone());
            return;
        }
        let parallelism = spec.parallelism.unwrap_or(1);
        let wanted = match spec.completions {
            // One success is enough; pods that run then may continue.
            None if self.counts.succeeded > 0 => self.counts.active,
            None => parallelism,
            Some(all) => (all - self.counts.succeeded).clamp(0, parallelism.max(0)),
        };
        let mut surplus = self.surplus(self.counts.active - wanted);
        surplus.truncate(BURST);
        if !surplus.is_empty() {
            self.act = Act::Remove(surplus);
            return;
        }
        let ending = if waits_for_failure(spec) {
            self.counts.terminating
        } else {
            0
        };
        let missing = usize::try_from(wanted - ending - self.counts.active).unwrap_or(0);
        if missing > 0 {
            self.create(missing.min(BURST));
        }
    }

    /// The surplus pods, at least `least`: those without a valid index first.
    fn surplus(&self, least: i32) -> Vec<Arc<Pod>> {
        let least = usize::try_from(least).unwrap_or(0);
        let mut pods = self.active.clone();
        rank_for_ending(&mut pods);
        if !is_indexed(self.facts.spec) {
            pods.truncate(least);
            return pods;
        }
        // The last of each index is the one whose loss would cost most.
        let mut seen = HashSet::new();
        let mut keep = Vec::new();
        let mut surplus = Vec::new();
        for pod in pods.into_iter().rev() {
            match self.facts.index(&pod) {
                Some(index) if seen.insert(index) => keep.push(pod),
                _ => surplus.push(pod),
            }
        }
        let more = least.saturating_sub(surplus.len());
        surplus.extend(keep.into_iter().rev().take(more));
        surplus
    }

    fn create(&mut self, count: usize) {
        let (spec, now) = (self.facts.spec, self.facts.now);
        let per_index = spec.backoff_limit_per_index.is_some();
        if !per_index {
            let wait = self.backoff.wait(now);
            if wait > 0 {
                return self.look_again(wait);
            }
        }
        if !is_indexed(spec) {
            self.act = Act::Create(vec![Place::default(); count]);
            return;
        }
        let mut taken = self
            .succeeded
            .with(self.active.iter().filter_map(|pod| index(pod)));
        if waits_for_failure(spec) {
            let ending = self.facts.pods.iter();
            let ending = ending.filter(|pod| pod.is_deleting() && !pod.is_terminal());
            taken = taken.with(ending.filter_map(|pod| index(pod)));
        }
        if let Some(failed) = &self.failed {
            taken = taken.union(failed);
        }
        let mut soonest: Option<i64> = None;
        let mut places = Vec::new();
        for index in taken.missing(count, self.facts.completions()) {
            let after = self.waiting.get(&index).cloned();
            let wait = after.as_ref().map_or(0, |pod| {
                let failures = 1 + counted(pod, FAILURES) + counted(pod, IGNORED);
                let backoff = Backoff {
                    failures: failures.unsigned_abs(),
                    last: Some(finished_at(pod)),
                };
                backoff.wait(now)
            });
            if wait == 0 {
                places.push(Place {
                    index: Some(index),
                    after,
                });
            } else {
                soonest = Some(soonest.map_or(wait, |known| known.min(wait)));
            }
        }
        if places.is_empty() {
            if let Some(wait) = soonest {
                self.look_again(wait);
            }
            return;
        }
        self.act = Act::Create(places);
    }

    /// Applies the outcome of creating or deleting pods.
    pub fn carried_out(&mut self, done: Done) {
        let (spec, now) = (self.facts.spec, self.facts.now);
        let (pods, ready) = (number(done.pods), number(done.ready));
        match &self.act {
            Act::End(_) | Act::Remove(_) => {
                self.counts.active -= pods;
                self.counts.ready -= ready;
                self.counts.terminating += pods;
            }
            Act::Create(_) => self.counts.active += pods,
            Act::Nothing => {}
        }
        if self.end.is_some() {
            // Pods that could not be deleted would not be counted.
            if !done.whole {
                self.end = None;
            }
            return;
        }
        let enough = match spec.completions {
            None => self.counts.succeeded > 0,
            Some(all) => self.counts.succeeded >= all,
        };
        if enough && self.counts.active == 0 {
            self.end = Some(condition(
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                now,
            ));
            return;
        }
        if self.facts.job.metadata.deletion_timestamp.is_some() {
            return;
        }
        let suspended = is_suspended(spec);
        let new = if suspended {
            condition("Suspended", "True", "JobSuspended", "Job suspended", now)
        } else {
            condition("Suspended", "False", "JobResumed", "Job resumed", now)
        };
        if set(&mut self.status, new) {
            self.turned = Some(suspended);
            // The deadline applies to the continuous active time.
            self.status.start_time = (!suspended).then_some(Time(now));
        }
    }
}
