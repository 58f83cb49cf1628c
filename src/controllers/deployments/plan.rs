//! Decides what a deployment does next, from its spec, its replica sets and the time. Follows
//! k8s.io/kubernetes/pkg/controller/deployment (sync, rolling, recreate, progress).

mod scaling;
mod status;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

pub(super) use self::status::{find, new_condition, set_condition};
use super::annotations::{self, HASH, REVISION};
use super::sets::{actual, fenceposts, is_current, is_recreate, make_set, size, wanted};
use crate::client::events::Tone;

/// What to do. Sets are written before the deployment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A set to create.
    pub create: Option<ReplicaSet>,
    /// Sets to update.
    pub update: Vec<ReplicaSet>,
    /// Names of sets to delete.
    pub delete: Vec<String>,
    /// The deployment with its new status, for a status update.
    pub status: Option<Deployment>,
    /// The deployment with an older template, to be updated instead of everything else.
    pub rollback: Option<Deployment>,
    /// Events to record.
    pub events: Vec<Note>,
    /// In how many milliseconds to look again, whatever happens.
    pub again: Option<i64>,
}

/// An event to be recorded.
#[derive(Debug, PartialEq)]
pub(super) struct Note {
    /// The replica set that must have been written before the event is recorded. `None`: after all writes.
    pub after: Option<String>,
    pub tone: Tone,
    pub reason: &'static str,
    pub message: String,
}

/// The input of a decision. Sets are ordered by creation.
pub(super) struct Facts<'a> {
    pub deployment: &'a Deployment,
    pub sets: &'a [ReplicaSet],
    /// Whether pods of sets other than the current one still run.
    pub old_pods_run: bool,
    pub now: Timestamp,
}

/// A decision in progress.
struct Work<'a> {
    deployment: Deployment,
    facts: &'a Facts<'a>,
    /// The new state of the sets, except the current one.
    old: Vec<ReplicaSet>,
    current: Option<ReplicaSet>,
    /// The current set does not exist yet.
    created: bool,
    plan: Plan,
}

/// Decides.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let current = facts
        .sets
        .iter()
        .position(|set| is_current(facts.deployment, set));
    let mut old: Vec<ReplicaSet> = facts.sets.to_vec();
    let current = current.map(|current| old.remove(current));
    let mut work = Work {
        deployment: facts.deployment.clone(),
        facts,
        old,
        current,
        created: false,
        plan: Plan::default(),
    };
    work.decide();
    work.finish()
}

impl Work<'_> {
    fn decide(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.sync_current(false);
            return self.set_status(false);
        }
        self.note_pause();
        if self.deployment.spec.paused == Some(true) {
            self.sync_current(false);
            self.scale();
            if self.asked_rollback().is_none() {
                // It may be to one of the old sets, as soon as the deployment resumes.
                self.clean_up();
            }
            return self.set_status(false);
        }
        if let Some(revision) = self.asked_rollback() {
            return self.roll_back(revision);
        }
        self.sync_current(false);
        if self.is_scaling() {
            self.scale();
            return self.set_status(false);
        }
        let recreate = is_recreate(&self.deployment);
        let under_way = if recreate {
            self.recreate()
        } else {
            self.roll()
        };
        if !under_way && self.is_complete(self.facts.deployment.status.as_ref()) {
            self.clean_up();
        }
        self.set_status(true);
    }

    /// The writes that result from the decision.
    fn finish(mut self) -> Plan {
        let find = |set: &ReplicaSet| {
            let mut known = self.facts.sets.iter();
            known.find(|known| known.metadata.uid == set.metadata.uid)
        };
        for set in self
            .old
            .iter()
            .chain(self.current.iter().filter(|_| !self.created))
        {
            let deleted = self.plan.delete.contains(&set.name_any());
            if !deleted && find(set).is_some_and(|known| known != set) {
                self.plan.update.push(set.clone());
            }
        }
        if self.created {
            self.plan.create.clone_from(&self.current);
        }
        if self.plan.rollback.is_none() && self.deployment != *self.facts.deployment {
            self.plan.status = Some(self.deployment);
        }
        self.plan
    }

    /// Adds an event that a set was scaled.
    fn tell_scaled(&mut self, set: String, way: &str, had: i32, new: i32) {
        self.plan.events.push(Note {
            message: format!("Scaled {way} replica set {set} from {had} to {new}"),
            after: Some(set),
            tone: Tone::Normal,
            reason: "ScalingReplicaSet",
        });
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.current)
    }

    fn total(&self) -> i32 {
        self.all().map(size).sum()
    }

    fn has_deadline(&self) -> bool {
        let deadline = self.deployment.spec.progress_deadline_seconds;
        deadline.is_some_and(|seconds| seconds != i32::MAX)
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        let status = self.deployment.status.as_ref()?;
        find(status, kind)
    }

    fn progress(&mut self, state: &str, reason: &str, message: String) {
        let condition = new_condition("Progressing", state, reason, message, self.facts.now);
        set_condition(self.deployment.status.get_or_insert_default(), condition);
    }

    /// Updates the condition for paused and resumed deployments.
    fn note_pause(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = self
            .condition("Progressing")
            .and_then(|condition| condition.reason.clone());
        let reason = reason.as_deref();
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let paused = self.deployment.spec.paused == Some(true);
        match (paused, reason == Some("DeploymentPaused")) {
            (true, false) => self.progress(
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".to_owned(),
            ),
            (false, true) => self.progress(
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".to_owned(),
            ),
            _ => {}
        }
    }

    /// Updates the set of the current template, or creates it.
    fn sync_current(&mut self, create: bool) {
        let newest = annotations::newest(self.old.iter()) + 1;
        let (surge, _) = fenceposts(&self.deployment);
        if let Some(set) = &mut self.current {
            if self.created {
                return;
            }
            annotations::take_over(set, &self.deployment, newest);
            set.spec.min_ready_seconds = self.deployment.spec.min_ready_seconds;
            let revision = set.annotations().get(REVISION).cloned();
            let name = set.name_any();
            self.set_revision(revision.unwrap_or_default());
            if self.has_deadline() && self.condition("Progressing").is_none() {
                let message = format!("Found new replica set \"{name}\"");
                self.progress("True", "FoundNewReplicaSet", message);
            }
            return;
        }
        if !create {
            return;
        }
        let mut set = make_set(&self.deployment);
        let count = self.new_size(&set);
        set.spec.replicas = Some(count);
        annotations::take_over(&mut set, &self.deployment, newest);
        let desired = wanted(&self.deployment);
        annotations::set_sizes(&mut set, desired, desired + surge);
        let name = set.name_any();
        self.current = Some(set);
        self.created = true;
        if count > 0 {
            self.tell_scaled(name.clone(), "up", 0, count);
        }
        self.set_revision(newest.to_string());
        if self.has_deadline() {
            let message = format!("Created new replica set \"{name}\"");
            self.progress("True", "NewReplicaSetCreated", message);
        }
    }

    fn set_revision(&mut self, revision: String) {
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), revision);
    }

    /// Deletes old sets beyond the history limit.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut old: Vec<&ReplicaSet> = self
            .old
            .iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (annotations::revision(set), created, set.name_any())
        });
        let names = old.into_iter().take(surplus).filter(|set| {
            let seen = set
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            actual(set) == 0
                && size(set) == 0
                && set.metadata.generation.unwrap_or(0) <= seen.unwrap_or(0)
        });
        let names: Vec<String> = names.map(|set| set.name_any()).collect();
        self.plan.delete.extend(names);
    }

    /// The revision to roll back to; 0 for the previous one.
    fn asked_rollback(&self) -> Option<i64> {
        let annotations = self.deployment.annotations();
        annotations.get(annotations::ROLLBACK)?.parse().ok()
    }

    fn roll_back(&mut self, asked: i64) {
        self.sync_current(true);
        let revision = if asked == 0 {
            annotations::last(self.all())
        } else {
            asked
        };
        let mut back = self.facts.deployment.clone();
        let name = back.name_any();
        let found = self
            .facts
            .sets
            .iter()
            .find(|set| revision != 0 && annotations::revision(set) == Some(revision));
        let mut tell = |tone, reason, message: String| {
            self.plan.events.push(Note {
                after: None,
                tone,
                reason,
                message,
            });
        };
        let mut warn = |reason, message| tell(Tone::Warning, reason, message);
        match found {
            None if asked == 0 => {
                warn(
                    "DeploymentRollbackRevisionNotFound",
                    "Unable to find last revision.".to_owned(),
                );
            }
            None => warn(
                "DeploymentRollbackRevisionNotFound",
                "Unable to find the revision to rollback to.".to_owned(),
            ),
            Some(set) if is_current(&back, set) => warn(
                "DeploymentRollbackTemplateUnchanged",
                format!(
                    "The rollback revision contains the same template as current deployment \"{name}\""
                ),
            ),
            Some(set) => {
                if let Some(mut template) = set.spec.template.clone() {
                    if let Some(labels) = template
                        .metadata
                        .as_mut()
                        .and_then(|meta| meta.labels.as_mut())
                    {
                        labels.remove(HASH);
                    }
                    back.spec.template = template;
                }
                annotations::give_back(&mut back, set);
                tell(
                    Tone::Normal,
                    "DeploymentRollback",
                    format!("Rolled back deployment \"{name}\" to revision {revision}"),
                );
            }
        }
        if let Some(annotations) = back.metadata.annotations.as_mut() {
            annotations.remove(annotations::ROLLBACK);
        }
        self.plan.rollback = Some(back);
    }
}
