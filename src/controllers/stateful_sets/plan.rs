//! Decides what a stateful set does next, from its spec, its pods, its claims and the time. Follows
//! k8s.io/kubernetes/pkg/controller/statefulset/stateful_set_control.go.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::claims::{Claims, are_used};
use crate::client::kinds::Pod;
use crate::controllers::history::POD_HASH;
use crate::controllers::pods::{BURST, is_available};
use crate::controllers::workload::scaled;

/// The label with the pod's own name.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// What to do, in this order; after a failure nothing that comes later, because upstream handles pod by pod, and takes
/// nothing down as long as it cannot make what is missing. In a parallel set a pod that cannot be corrected holds up only
/// the pods of later batches, and what takes pods down.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Pods whose labels, volumes or claims have to be corrected.
    pub repair: Vec<i32>,
    /// Pods to create: the ordinal, and whether it has the newer revision.
    pub create: Vec<(i32, bool)>,
    /// Pods whose missing claims must be created.
    pub claims: Vec<i32>,
    /// Pods to delete because they ended; they are created again.
    pub renew: Vec<String>,
    /// Surplus pods whose claims get other owners.
    pub disown: Vec<i32>,
    /// Surplus pods to delete.
    pub delete: Vec<String>,
    /// Pods of the older revision to delete.
    pub outdated: Vec<String>,
    /// The new status, in which those are still counted.
    pub status: StatefulSetStatus,
}

/// The input of a decision.
pub(super) struct Facts<'a> {
    pub set: &'a StatefulSet,
    /// The pods of the set.
    pub pods: &'a [Arc<Pod>],
    /// The names of the current and the newer revision.
    pub current: &'a str,
    pub update: &'a str,
    pub collisions: i32,
    pub claims: &'a dyn Claims,
    pub now: Timestamp,
}

pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The ordinals that the set should have.
pub(super) fn ordinals(set: &StatefulSet) -> Range<i32> {
    start(set)..start(set).saturating_add(replicas(set))
}

pub(super) fn start(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.ordinals.as_ref();
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The name of the set and the ordinal, from the name of a pod.
pub(super) fn split(name: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    Some((parent, ordinal.parse().ok().filter(|_| digits)?))
}

pub(super) fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy.as_deref() == Some("Parallel")
}

fn revision(pod: &Pod) -> &str {
    pod.labels().get(POD_HASH).map_or("", String::as_str)
}

/// An ordinal, and its pod, if it exists.
#[derive(Clone)]
struct Place {
    ordinal: i32,
    pod: Option<Arc<Pod>>,
}

/// Whether to stop after this step.
type Stop = bool;

struct Work<'a> {
    facts: &'a Facts<'a>,
    /// The wanted ordinals, in order.
    places: Vec<Place>,
    /// How many further wanted ordinals without a pod there are.
    unseen: usize,
    /// Pods beyond the wanted ones, the highest ordinal first.
    condemned: Vec<Place>,
    plan: Plan,
}

/// Decides.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let set = facts.set;
    let wanted = ordinals(set);
    let mut places = BTreeMap::new();
    let mut condemned = Vec::new();
    for pod in facts.pods {
        let name = pod.name_any();
        let Some((_, ordinal)) = split(&name) else {
            continue;
        };
        let place = Place {
            ordinal,
            pod: Some(pod.clone()),
        };
        if wanted.contains(&ordinal) {
            places.insert(ordinal, place);
        } else {
            condemned.push(place);
        }
    }
    // Of the ordinals without a pod only as many are looked at as can be created in one sync, because the wanted number
    // may be huge.
    let missing = wanted.len() - places.len();
    let gaps: Vec<i32> = wanted
        .filter(|ordinal| !places.contains_key(ordinal))
        .take(BURST)
        .collect();
    let unseen = missing - gaps.len();
    places.extend(
        gaps.into_iter()
            .map(|ordinal| (ordinal, Place { ordinal, pod: None })),
    );
    let places = places.into_values().collect();
    condemned.sort_by_key(|place| std::cmp::Reverse(place.ordinal));
    let mut work = Work {
        facts,
        places,
        unseen,
        condemned,
        plan: Plan::default(),
    };
    work.count();
    if set.metadata.deletion_timestamp.is_none() {
        work.decide();
    }
    work.complete();
    work.plan
}

impl Work<'_> {
    fn seconds(&self) -> i32 {
        self.facts.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, place: &Place) -> bool {
        let pod = place.pod.as_ref();
        pod.is_some_and(|pod| is_available(pod, self.seconds(), self.facts.now))
    }

    fn is_unavailable(&self, place: &Place) -> bool {
        !self.is_available(place) || place.pod.as_ref().is_some_and(|pod| pod.is_deleting())
    }

    fn count(&mut self) {
        let facts = self.facts;
        let pods = || facts.pods.iter().filter(|pod| !pod.phase().is_empty());
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let is_ready = |pod: &&Arc<Pod>| pod.phase() == "Running" && pod.is_ready();
        let of = |revision_name: &str| {
            let pods = pods().filter(|pod| !pod.is_deleting() && revision(pod) == revision_name);
            Some(number(pods.count()))
        };
        let available =
            pods().filter(|pod| is_ready(pod) && is_available(pod, self.seconds(), facts.now));
        let had = facts.set.status.as_ref();
        self.plan.status = StatefulSetStatus {
            observed_generation: facts.set.metadata.generation,
            replicas: number(pods().count()),
            ready_replicas: Some(number(pods().filter(is_ready).count())),
            available_replicas: Some(number(available.count())),
            current_replicas: of(facts.current),
            updated_replicas: of(facts.update),
            current_revision: Some(facts.current.to_owned()),
            update_revision: Some(facts.update.to_owned()),
            collision_count: Some(facts.collisions),
            conditions: had.and_then(|status| status.conditions.clone()),
        };
    }

    fn decide(&mut self) {
        let ordered = !is_parallel(self.facts.set);
        let first_unavailable = self
            .places
            .iter()
            .chain(self.condemned.iter().rev())
            .find(|place| self.is_unavailable(place))
            .map(|place| place.ordinal);
        for place in self.places.clone() {
            if self.keep(&place, ordered) && ordered {
                return;
            }
        }
        for place in self.condemned.clone() {
            if let Some(pod) = &place.pod
                && !self
                    .facts
                    .claims
                    .are_owned(self.facts.set, pod, place.ordinal)
            {
                self.plan.disown.push(place.ordinal);
            }
        }
        for place in self.condemned.clone() {
            if self.condemn(&place, ordered, first_unavailable) && ordered {
                return;
            }
        }
        self.update();
    }

    /// Handles one wanted ordinal.
    fn keep(&mut self, place: &Place, ordered: bool) -> Stop {
        let set = self.facts.set;
        let Some(pod) = &place.pod else {
            if self.facts.claims.are_stale(set, place.ordinal) {
                return true;
            }
            self.plan
                .create
                .push((place.ordinal, self.is_newer(place.ordinal)));
            return true;
        };
        if pod.is_terminal() {
            if !pod.is_deleting() {
                self.plan.renew.push(pod.name_any());
            }
            return true;
        }
        if pod.phase() == "Pending" {
            self.plan.claims.push(place.ordinal);
        }
        let is_ready = pod.phase() == "Running" && pod.is_ready();
        if ordered && (pod.is_deleting() || !is_ready || !self.is_available(place)) {
            return true;
        }
        let named = pod.labels().get(POD_NAME) == Some(&pod.name_any());
        if !named
            || !are_used(set, pod, place.ordinal)
            || !self.facts.claims.are_owned(set, pod, place.ordinal)
        {
            self.plan.repair.push(place.ordinal);
        }
        false
    }

    /// Whether a new pod gets the newer revision.
    fn is_newer(&self, ordinal: i32) -> bool {
        let set = self.facts.set;
        let strategy = set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let older = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if strategy.and_then(|strategy| strategy.type_.as_deref())
                == Some("RollingUpdate") =>
            {
                let status = set.status.as_ref();
                status
                    .and_then(|status| status.current_replicas)
                    .unwrap_or(0)
            }
            None => 0,
        };
        ordinal >= start(set).saturating_add(older)
    }

    /// Deletes one surplus pod.
    fn condemn(&mut self, place: &Place, ordered: bool, first_unavailable: Option<i32>) -> Stop {
        let Some(pod) = &place.pod else { return false };
        if pod.is_deleting() {
            return ordered;
        }
        let is_ready = pod.phase() == "Running" && pod.is_ready();
        let holds_up = !is_ready || !self.is_available(place);
        if ordered && holds_up && first_unavailable != Some(place.ordinal) {
            return true;
        }
        self.plan.delete.push(pod.name_any());
        true
    }

    /// Deletes pods of the older revision, as many as may be unavailable.
    fn update(&mut self) {
        let set = self.facts.set;
        let strategy = set.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let most = match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
            Some(value) => scaled(Some(value), replicas(set), false).max(1),
            None => 1,
        };
        let most = usize::try_from(most).unwrap_or(1);
        let parallel = is_parallel(set);
        let is_old = |place: &Place| {
            let pod = place.pod.as_ref();
            pod.is_none_or(|pod| revision(pod) != self.facts.update)
        };
        let is_deleting = |place: &Place| place.pod.as_ref().is_some_and(|pod| pod.is_deleting());
        let down: Vec<&Place> = self
            .places
            .iter()
            .filter(|place| self.is_unavailable(place))
            .collect();
        let waiting = parallel
            && down
                .iter()
                .any(|place| is_old(place) && !is_deleting(place));
        let down = down.len() + self.unseen;
        if down >= most && !waiting {
            return;
        }
        let mut left = most.saturating_sub(down);
        let from = start(set).saturating_add(partition);
        let candidates: Vec<&Place> = self
            .places
            .iter()
            .rev()
            .filter(|place| {
                place.ordinal >= from && is_old(place) && !is_deleting(place) && place.pod.is_some()
            })
            .collect();
        let mut delete = Vec::new();
        if parallel {
            // Unavailable pods are replaced regardless of the limit, because that does not reduce availability.
            delete.extend(candidates.iter().filter(|place| !self.is_available(place)));
        }
        for place in candidates {
            if left == 0 {
                break;
            }
            if parallel && self.is_unavailable(place) {
                continue;
            }
            delete.push(place);
            left -= 1;
        }
        let delete = delete.iter().filter_map(|place| place.pod.as_ref());
        self.plan.outdated = delete.map(|pod| pod.name_any()).collect();
    }

    /// Makes the newer revision the current one when the update is complete.
    fn complete(&mut self) {
        let wanted = replicas(self.facts.set);
        let status = &mut self.plan.status;
        if status.updated_replicas == Some(wanted)
            && status.ready_replicas == Some(wanted)
            && status.replicas == wanted
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
    }
}
