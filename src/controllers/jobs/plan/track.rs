//! Counts the pods of a job: each is recorded in the status, then released by removing its finalizer, then counted, so
//! that a crash in between neither counts a pod twice nor loses one.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};

use super::super::conditions::{becomes, holds, set};
use super::super::facts::{index, is_indexed, number};
use super::super::policy::Verdict;
use super::Plan;
use crate::client::kinds::Pod;
use crate::controllers::pods::BURST;

/// What to write, and then to do.
pub(in super::super) struct Tracked {
    /// The status before finalizers are removed.
    pub status: JobStatus,
    /// The pods whose finalizer can be removed.
    pub release: Vec<Arc<Pod>>,
    tracked: HashSet<String>,
    end: Option<JobCondition>,
    /// There are more pods to count than fit into a status.
    more: bool,
    terminating: i32,
}

impl Plan<'_> {
    /// What to write before pods are released.
    pub fn track(self) -> Tracked {
        let (facts, now) = (self.facts, self.facts.now);
        let indexed = is_indexed(facts.spec);
        let mut status = self.status;
        status.active = Some(self.counts.active);
        status.ready = Some(self.counts.ready);
        status.terminating = Some(self.counts.terminating);
        let open: Vec<&Arc<Pod>> = facts.pods.iter().filter(|pod| facts.is_open(pod)).collect();
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let tracked: HashSet<String> = open.iter().map(|pod| uid(pod)).collect();
        count_released(&mut status, &tracked);
        let mut open = open;
        if indexed {
            open.sort_by_key(|pod| index(pod).unwrap_or(-1));
        }
        let failing = self
            .end
            .as_ref()
            .is_some_and(|end| end.type_ != "SuccessCriteriaMet");
        let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let known: HashSet<String> = uncounted.failed.iter().flatten().cloned().collect();
        let mut release = Vec::new();
        let mut done = 0;
        let mut more = false;
        for pod in open {
            let failed = facts.is_failed(pod);
            let ends = facts.job.metadata.deletion_timestamp.is_some() || self.end.is_some();
            let waits = index(pod).is_some_and(|index| {
                let waiting = self.waiting.get(&index);
                waiting.is_some_and(|waiting| waiting.metadata.uid == pod.metadata.uid)
            });
            if !ends && pod.phase() != "Succeeded" && (!failed || waits) {
                continue;
            }
            release.push(pod.clone());
            let uid = uid(pod);
            let place = facts.index(pod);
            if pod.phase() == "Succeeded" && !known.contains(&uid) {
                if indexed {
                    done += usize::from(place.is_some_and(|index| !self.before.has(index)));
                } else {
                    let list = uncounted.succeeded.get_or_insert_default();
                    if !list.contains(&uid) {
                        list.push(uid);
                    }
                }
            } else if (failed || failing)
                && !known.contains(&uid)
                && (!indexed || place.is_some())
                && facts.judge(pod) != Verdict::Ignore
            {
                uncounted.failed.get_or_insert_default().push(uid);
            }
            let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
            if done + length(&uncounted.succeeded) + length(&uncounted.failed) >= BURST {
                more = true;
                break;
            }
        }
        status.uncounted_terminated_pods = Some(uncounted);
        if indexed {
            status.succeeded = Some(self.succeeded.count());
            status.completed_indexes = Some(self.succeeded.to_string());
            status.failed_indexes = self.failed.map(|failed| failed.to_string());
        }
        let end = self.end.map(|end| {
            let last = match end.type_.as_str() {
                "FailureTarget" => "Failed",
                "SuccessCriteriaMet" => "Complete",
                _ => return end,
            };
            let finished = becomes(&end, last, now);
            if holds(&status, &end.type_).is_none() {
                status.conditions.get_or_insert_default().push(end);
            }
            finished
        });
        Tracked {
            status,
            release,
            tracked,
            end,
            more,
            terminating: self.counts.terminating,
        }
    }
}

impl Tracked {
    /// The status after the pods with these uids were released, and how the job ended, if it did.
    pub fn settle(mut self, released: &HashSet<String>) -> (JobStatus, Option<JobCondition>) {
        self.tracked.retain(|uid| !released.contains(uid));
        count_released(&mut self.status, &self.tracked);
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let left = uncounted.is_some_and(|uncounted| {
            let mut lists = [&uncounted.succeeded, &uncounted.failed].into_iter();
            lists.any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
        });
        let end = self
            .end
            .filter(|_| !self.more && !left && self.terminating == 0);
        if let Some(end) = &end {
            if end.type_ == "Complete" {
                self.status
                    .completion_time
                    .clone_from(&end.last_transition_time);
            }
            set(&mut self.status, end.clone());
        }
        (self.status, end)
    }
}

/// Counts recorded pods that are no longer `tracked`.
fn count_released(status: &mut JobStatus, tracked: &HashSet<String>) {
    let Some(uncounted) = &mut status.uncounted_terminated_pods else {
        return;
    };
    for (list, count) in [
        (&mut uncounted.succeeded, &mut status.succeeded),
        (&mut uncounted.failed, &mut status.failed),
    ] {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid));
        let gone = number(before - uids.len());
        if gone > 0 {
            *count = Some(count.unwrap_or(0) + gone);
        }
        if uids.is_empty() {
            *list = None;
        }
    }
}
