//! What a deployment does next, decided from what it is, its replica sets and the time.
//! Follows k8s.io/kubernetes/pkg/controller/deployment (sync, rolling, recreate, progress).

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::annotations::{self, HASH, REVISION};
use crate::controllers::events::Tone;
use crate::controllers::owners::controller_reference;

/// What is to be done. Sets are written before the deployment.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A set to be made.
    pub create: Option<ReplicaSet>,
    /// Sets to be written.
    pub update: Vec<ReplicaSet>,
    /// Names of sets to be deleted.
    pub delete: Vec<String>,
    /// The deployment with its new status, to be written as such.
    pub status: Option<Deployment>,
    /// The deployment with an older template, to be written instead of all others.
    pub rollback: Option<Deployment>,
    /// What is to be told, as reason and message.
    pub events: Vec<(Tone, &'static str, String)>,
    /// In how many milliseconds to look again, whatever happens.
    pub again: Option<i64>,
}

/// Everything a decision is made of. Sets are ordered by creation.
pub(super) struct Facts<'a> {
    pub deployment: &'a Deployment,
    pub sets: &'a [ReplicaSet],
    /// Whether pods of other sets than the current one have not ended yet.
    pub old_pods_run: bool,
    pub now: Timestamp,
}

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// A number or a share of `total`, rounded up or down.
pub(in crate::controllers) fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let share = if up {
                (product + 99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

/// How many pods there may be above what is wanted, and how many below.
pub(super) fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let total = wanted(deployment);
    let strategy = deployment.spec.strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = scaled(
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        total,
        true,
    );
    let below = scaled(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        total,
        false,
    );
    let below = if surge == 0 && below == 0 { 1 } else { below };
    (surge, below.min(total))
}

/// Whether two templates make the same pods.
fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template
            .metadata
            .as_mut()
            .and_then(|meta| meta.labels.as_mut())
        {
            labels.remove(HASH);
        }
        template
    };
    plain(a) == plain(b)
}

/// Whether a set is of the current template.
pub(super) fn is_current(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let template = set.spec.template.as_ref();
    template.is_some_and(|template| same_template(template, &deployment.spec.template))
}

/// The characters of a hash: no vowels and nothing that looks like one.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A hash of a template, other ones after collisions.
fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
        }
    };
    take(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        take(&collisions.to_le_bytes());
    }
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()]))
        .collect()
}

/// The replica set of the current template, without replicas.
fn make_set(deployment: &Deployment) -> ReplicaSet {
    let status = deployment.status.as_ref();
    let mut template = deployment.spec.template.clone();
    let hash = hash(&template, status.and_then(|status| status.collision_count));
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = deployment.spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.to_owned(), hash.clone());
    let name = deployment.name_any();
    let name = &name[..name.len().min(253 - 1 - hash.len())];
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// A decision that is being made.
struct Work<'a> {
    deployment: Deployment,
    facts: &'a Facts<'a>,
    /// Sets as they are to be; the current one apart.
    old: Vec<ReplicaSet>,
    current: Option<ReplicaSet>,
    /// The current set is not there yet.
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
            self.clean_up();
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

    /// What is to be written of what was decided.
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

    fn tell(&mut self, reason: &'static str, message: String) {
        self.plan.events.push((Tone::Normal, reason, message));
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

    /// Says that the deployment was paused or goes on.
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

    /// Brings the set of the current template up to date, or makes it.
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
            self.tell(
                "ScalingReplicaSet",
                format!("Scaled up replica set {name} from 0 to {count}"),
            );
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

    /// How large the current set may be now.
    fn new_size(&self, current: &ReplicaSet) -> i32 {
        let desired = wanted(&self.deployment);
        if is_recreate(&self.deployment) {
            return desired;
        }
        let strategy = self.deployment.spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = scaled(
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            desired,
            true,
        );
        let room = desired + surge - self.total();
        if room <= 0 {
            return size(current);
        }
        size(current) + room.min(desired - size(current))
    }

    /// Gives one set another size. Returns whether it had another one.
    fn resize(&mut self, uid: Option<String>, new: i32) -> bool {
        let desired = wanted(&self.deployment);
        let (surge, _) = fenceposts(&self.deployment);
        let mut all = self.old.iter_mut().chain(&mut self.current);
        let Some(set) = all.find(|set| set.metadata.uid == uid) else {
            return false;
        };
        let had = size(set);
        annotations::set_sizes(set, desired, desired + surge);
        set.spec.replicas = Some(new);
        let name = set.name_any();
        if had == new {
            return false;
        }
        let way = if had < new { "up" } else { "down" };
        self.tell(
            "ScalingReplicaSet",
            format!("Scaled {way} replica set {name} from {had} to {new}"),
        );
        true
    }

    /// Whether another number of replicas is wanted than when the sets were scaled.
    fn is_scaling(&self) -> bool {
        let desired = wanted(&self.deployment);
        self.all()
            .filter(|set| size(set) > 0)
            .any(|set| annotations::desired(set).is_some_and(|then| then != desired))
    }

    /// Spreads what is wanted over the sets in proportion to what they have.
    fn scale(&mut self) {
        let desired = wanted(&self.deployment);
        let (surge, _) = fenceposts(&self.deployment);
        let active: Vec<Option<String>> = self
            .all()
            .filter(|set| size(set) > 0)
            .map(|set| set.metadata.uid.clone())
            .collect();
        if active.len() <= 1 {
            let latest = self.current.as_ref().or(self.old.last());
            let uid = active
                .into_iter()
                .next()
                .or(latest.map(|set| set.metadata.uid.clone()));
            if let Some(uid) = uid {
                let had = self.all().find(|set| set.metadata.uid == uid).map(size);
                if had != Some(desired) {
                    self.resize(uid, desired);
                }
            }
            return;
        }
        let saturated = self.current.as_ref().is_some_and(|set| {
            size(set) == desired
                && annotations::desired(set) == Some(desired)
                && available(set) == desired
        });
        if saturated {
            let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
            let old: Vec<_> = old
                .into_iter()
                .map(|set| set.metadata.uid.clone())
                .collect();
            for uid in old {
                self.resize(uid, 0);
            }
            return;
        }
        if is_recreate(&self.deployment) {
            return;
        }
        let allowed = if desired > 0 { desired + surge } else { 0 };
        let add = allowed
            - self
                .all()
                .filter(|set| size(set) > 0)
                .map(size)
                .sum::<i32>();
        let mut sets: Vec<&ReplicaSet> = self.all().filter(|set| size(set) > 0).collect();
        let created =
            |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        // The largest first; of equally large ones the newest when there is to be more, else the oldest.
        sets.sort_by(|a, b| {
            let age = created(a)
                .cmp(&created(b))
                .then(a.name_any().cmp(&b.name_any()));
            let age = if add > 0 { age.reverse() } else { age };
            size(b).cmp(&size(a)).then(age)
        });
        let mut added = 0;
        let mut sizes: Vec<(Option<String>, i32)> = Vec::new();
        for set in sets {
            let mut new = size(set);
            if add != 0 {
                let share = self.share(set, add, added);
                new += share;
                added += share;
            }
            sizes.push((set.metadata.uid.clone(), new));
        }
        if add != 0
            && let Some((_, first)) = sizes.first_mut()
        {
            *first = (*first + add - added).max(0);
        }
        for (uid, new) in sizes {
            self.resize(uid, new);
        }
    }

    /// How much of `add` falls to one set, when `added` of it is given away already.
    fn share(&self, set: &ReplicaSet, add: i32, added: i32) -> i32 {
        if size(set) == 0 || add == added {
            return 0;
        }
        let desired = wanted(&self.deployment);
        let part = if desired == 0 {
            -size(set)
        } else {
            let (surge, _) = fenceposts(&self.deployment);
            let status = self.facts.deployment.status.as_ref();
            let before = annotations::most(set)
                .filter(|most| *most > 0)
                .or(status.and_then(|status| status.replicas))
                .unwrap_or(0);
            if before == 0 {
                return 0;
            }
            let exact = f64::from(size(set)) * f64::from(desired + surge) / f64::from(before);
            // Half away from zero, as Go rounds.
            exact.round() as i32 - size(set)
        };
        let rest = add - added;
        if add > 0 {
            part.min(rest)
        } else {
            part.max(rest)
        }
    }

    /// Goes one step on with a rolling update. Returns whether something was scaled.
    fn roll(&mut self) -> bool {
        self.sync_current(true);
        let desired = wanted(&self.deployment);
        let Some(current) = &self.current else {
            return false;
        };
        let (uid, had) = (current.metadata.uid.clone(), size(current));
        if !self.created && had != desired {
            let new = if had > desired {
                desired
            } else {
                self.new_size(current)
            };
            if new != had && self.resize(uid, new) {
                return true;
            }
        }
        self.shrink_old()
    }

    /// Makes old sets smaller, as far as enough pods stay available.
    fn shrink_old(&mut self) -> bool {
        let desired = wanted(&self.deployment);
        let (_, below) = fenceposts(&self.deployment);
        let least = desired - below;
        if self.old.iter().map(size).sum::<i32>() == 0 {
            return false;
        }
        let Some(current) = &self.current else {
            return false;
        };
        let (new_size, new_available) = (
            size(current),
            if self.created { 0 } else { available(current) },
        );
        let room = self.total() - least - (new_size - new_available);
        if room <= 0 {
            return false;
        }
        let mut shrunk = false;
        // Replicas that do not work first: they cost nothing.
        let mut left = room;
        let sick: Vec<_> = self
            .old
            .iter()
            .filter(|set| size(set) > 0 && size(set) != available(set))
            .map(|set| (set.metadata.uid.clone(), size(set), available(set)))
            .collect();
        for (uid, had, healthy) in sick {
            let less = left.min(had - healthy);
            if less <= 0 {
                break;
            }
            shrunk |= self.resize(uid, had - less);
            left -= less;
        }
        let all_available: i32 = self.old.iter().map(available).sum::<i32>() + new_available;
        let mut left = all_available - least;
        let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
        let old: Vec<_> = old
            .into_iter()
            .map(|set| (set.metadata.uid.clone(), size(set)))
            .collect();
        for (uid, had) in old {
            let less = left.min(had);
            if less <= 0 {
                break;
            }
            shrunk |= self.resize(uid, had - less);
            left -= less;
        }
        shrunk
    }

    /// Goes one step on with a deployment that ends all old pods before it makes new ones. Returns whether old ones
    /// are still under way.
    fn recreate(&mut self) -> bool {
        let old: Vec<_> = self.old.iter().filter(|set| size(set) > 0).collect();
        let old: Vec<_> = old
            .into_iter()
            .map(|set| set.metadata.uid.clone())
            .collect();
        let mut scaled = false;
        for uid in old {
            scaled |= self.resize(uid, 0);
        }
        if scaled || self.old.iter().map(actual).sum::<i32>() > 0 || self.facts.old_pods_run {
            return true;
        }
        self.sync_current(true);
        let desired = wanted(&self.deployment);
        if let Some(current) = self
            .current
            .as_ref()
            .filter(|set| !self.created && size(set) != desired)
        {
            let uid = current.metadata.uid.clone();
            self.resize(uid, desired);
        }
        false
    }

    /// Deletes old sets that the history has no room for.
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

    /// The revision that was asked for; 0 for the one before.
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
        let mut warn = |reason, message: String| {
            self.plan.events.push((Tone::Warning, reason, message));
        };
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
                self.tell(
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

    fn is_complete(&self, status: Option<&DeploymentStatus>) -> bool {
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

    /// Counts, and says how it goes: with `progress` also whether it goes on.
    fn set_status(&mut self, progress: bool) {
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
        // The status of before this step, but with what this step said of its progress.
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

    /// When a condition becomes too old, in milliseconds since 1970.
    fn deadline(&self, condition: &DeploymentCondition) -> Option<i64> {
        let since = condition.last_update_time.as_ref()?.0.as_millisecond();
        let seconds = self.deployment.spec.progress_deadline_seconds?;
        Some(since + i64::from(seconds) * 1000)
    }

    /// A deployment that may get stuck is looked at again when its time is over.
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

pub(super) fn new_condition(
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

pub(super) fn find<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Sets a condition, unless it says the same for the same reason already.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
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
