//! The status of a deployment: counts, availability and progress. Follows
//! k8s.io/kubernetes/pkg/controller/deployment/progress.go.

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::super::sets::{actual, available, fenceposts, wanted};
use super::Work;

impl Work<'_> {
    pub(super) fn is_complete(&self, status: Option<&DeploymentStatus>) -> bool {
        let desired = Some(wanted(&self.deployment));
        let zero = |number: Option<i32>| Some(number.unwrap_or(0));
        status.is_some_and(|status| {
            zero(status.updated_replicas) == desired
                && zero(status.replicas) == desired
                && zero(status.available_replicas) == desired
                && status.observed_generation.unwrap_or(0)
                    >= self.deployment.metadata.generation.unwrap_or(0)
        })
    }

    /// Sets the counts and the condition `Available`; with `progress` also `Progressing`.
    pub(super) fn set_status(&mut self, progress: bool) {
        let mut status = self.count();
        if progress {
            self.judge_progress(&mut status);
        }
        self.deployment.status = Some(status);
    }

    fn count(&self) -> DeploymentStatus {
        let sum = |of: &dyn Fn(&ReplicaSet) -> i32| Some(self.all().map(of).sum::<i32>());
        let ready = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            status.and_then(|status| status.ready_replicas).unwrap_or(0)
        };
        let desired = wanted(&self.deployment);
        let available: i32 = self.all().map(available).sum();
        let had = self.deployment.status.clone().unwrap_or_default();
        let (_, below) = fenceposts(&self.deployment);
        let terminating = self.all().try_fold(0, |sum, set| {
            let status = set.status.clone().unwrap_or_default();
            let unseen = status.observed_generation.unwrap_or(0) == 0;
            match status.terminating_replicas {
                Some(ending) => Some(sum + ending),
                None if unseen => Some(sum),
                None => None,
            }
        });
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(&actual),
            updated_replicas: Some(self.current.as_ref().map_or(0, actual)),
            ready_replicas: sum(&ready),
            available_replicas: Some(available),
            unavailable_replicas: Some((self.total() - available).max(0)),
            terminating_replicas: terminating,
            collision_count: had.collision_count,
            conditions: had.conditions,
        };
        let condition = if available >= desired - below {
            new_condition(
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".to_owned(),
                self.facts.now,
            )
        } else {
            new_condition(
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.".to_owned(),
                self.facts.now,
            )
        };
        set_condition(&mut status, condition);
        status
    }

    fn judge_progress(&mut self, status: &mut DeploymentStatus) {
        let now = self.facts.now;
        if !self.has_deadline() {
            remove_condition(status, "Progressing");
        }
        // The status before this step, but with the progress conditions of this step.
        let before = self.deployment.status.clone().unwrap_or_default();
        let current = find(&before, "Progressing").cloned();
        let reason = current
            .as_ref()
            .and_then(|condition| condition.reason.as_deref());
        let done =
            status.replicas == status.updated_replicas && reason == Some("NewReplicaSetAvailable");
        let who = match &self.current {
            Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
            None => format!("Deployment \"{}\"", self.deployment.name_any()),
        };
        if self.has_deadline() && !done {
            if self.is_complete(Some(status)) {
                let message = format!("{who} has successfully progressed.");
                set_condition(
                    status,
                    new_condition(
                        "Progressing",
                        "True",
                        "NewReplicaSetAvailable",
                        message,
                        now,
                    ),
                );
            } else if goes_on(&before, status) {
                let message = format!("{who} is progressing.");
                let mut condition =
                    new_condition("Progressing", "True", "ReplicaSetUpdated", message, now);
                if let Some(current) = &current {
                    if current.status.as_deref() == Some("True") {
                        condition
                            .last_transition_time
                            .clone_from(&current.last_transition_time);
                    }
                    remove_condition(status, "Progressing");
                }
                set_condition(status, condition);
            } else if self.has_timed_out(status) {
                let message = format!("{who} has timed out progressing.");
                set_condition(
                    status,
                    new_condition(
                        "Progressing",
                        "False",
                        "ProgressDeadlineExceeded",
                        message,
                        now,
                    ),
                );
            }
        }
        let failure = self.current.iter().chain(&self.old).find_map(|set| {
            let conditions = set.status.as_ref()?.conditions.as_ref()?;
            let mut failures = conditions.iter();
            failures.find(|condition| condition.type_.as_deref() == Some("ReplicaFailure"))
        });
        match failure.cloned() {
            Some(failure) => set_condition(
                status,
                DeploymentCondition {
                    type_: failure.type_,
                    status: failure.status,
                    reason: failure.reason,
                    message: failure.message,
                    last_update_time: failure.last_transition_time.clone(),
                    last_transition_time: failure.last_transition_time,
                },
            ),
            None => remove_condition(status, "ReplicaFailure"),
        }
        self.look_again(status);
    }

    fn has_timed_out(&self, status: &DeploymentStatus) -> bool {
        let Some(condition) = find(status, "Progressing") else {
            return false;
        };
        match condition.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => self
                .deadline(condition)
                .is_some_and(|deadline| deadline < self.facts.now.as_millisecond()),
        }
    }

    /// When the progress deadline of a condition passes, in milliseconds since 1970.
    fn deadline(&self, condition: &DeploymentCondition) -> Option<i64> {
        let since = condition.last_update_time.as_ref()?.0.as_millisecond();
        let seconds = self.deployment.spec.progress_deadline_seconds?;
        Some(since + i64::from(seconds) * 1000)
    }

    /// Looks again at the progress deadline of a deployment that may be stuck.
    fn look_again(&mut self, status: &DeploymentStatus) {
        let Some(condition) = find(status, "Progressing").filter(|_| self.has_deadline()) else {
            return;
        };
        let reason = condition.reason.as_deref();
        if self.is_complete(Some(status)) || reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        if let Some(deadline) = self.deadline(condition) {
            let left = deadline - self.facts.now.as_millisecond();
            self.plan.again = Some(left.max(0) + 1000);
        }
    }
}

fn goes_on(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(now.updated_replicas) > number(before.updated_replicas)
        || old(now) < old(before)
        || number(now.ready_replicas) > number(before.ready_replicas)
        || number(now.available_replicas) > number(before.available_replicas)
}

pub(in super::super) fn new_condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub(in super::super) fn find<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Sets a condition, unless it has the same status and reason already.
pub(in super::super) fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let kind = new.type_.clone().unwrap_or_default();
    if let Some(had) = find(status, &kind) {
        if had.status == new.status && had.reason == new.reason {
            return;
        }
        if had.status == new.status {
            new.last_transition_time
                .clone_from(&had.last_transition_time);
        }
    }
    remove_condition(status, &kind);
    status.conditions.get_or_insert_default().push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = status.conditions.as_mut() {
        conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}
