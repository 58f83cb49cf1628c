//! Decides what a job does next, from its spec, its pods and the time. Follows
//! k8s.io/kubernetes/pkg/controller/job/job_controller.go.
//!
//! ```text
//! plan -> (pods are created or deleted) -> carried_out -> track -> (status written, finalizers removed) -> settle
//! ```

mod end;
mod track;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{Backoff, finished_at};
use super::conditions::{condition, set};
use super::facts::{
    FAILURES, Facts, IGNORED, counted, index, is_indexed, is_suspended, number, waits_for_failure,
};
use super::indexes::Indexes;
use super::policy::Verdict;
use crate::client::kinds::Pod;
use crate::controllers::pods::{BURST, is_active, rank_for_ending};

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
