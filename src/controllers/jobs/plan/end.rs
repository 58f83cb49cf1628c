//! Whether a job has ended, and how.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::JobCondition;

use super::super::backoff::finished_at;
use super::super::conditions::{becomes, condition, holds};
use super::super::facts::{FAILURES, IGNORED, counted, index, is_indexed, is_suspended};
use super::super::indexes::Indexes;
use super::super::policy::{self, Verdict};
use super::Plan;
use crate::client::kinds::Pod;

impl Plan<'_> {
    /// Decides whether and how the job ends.
    pub(super) fn judge(&mut self) {
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
    pub(super) fn waiting(&self, failed: &Indexes) -> BTreeMap<i32, Arc<Pod>> {
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

    pub(super) fn look_again(&mut self, millis: i64) {
        self.again = Some(self.again.map_or(millis, |known| known.min(millis)));
    }
}
