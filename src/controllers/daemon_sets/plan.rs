//! Decides what a daemon set does next, from its spec, nodes, its pods and the time. Follows
//! k8s.io/kubernetes/pkg/controller/daemon (manage, rollingUpdate, updateDaemonSetStatus).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::place::{Place, Places, is_updated};
use crate::client::events::Tone;
use crate::client::kinds::{Node, Pod};
use crate::controllers::history::POD_HASH;
use crate::controllers::pods::is_available;
use crate::controllers::workload::scaled;

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Nodes for which to create a pod.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<String>,
    /// Nodes of the pods that are deleted because they failed.
    pub failed: Vec<String>,
    /// Events to record: type, reason and message.
    pub events: Vec<(Tone, &'static str, String)>,
    /// When to look again, whatever happens.
    pub again: Option<Duration>,
}

/// The input of a decision.
pub(super) struct Facts<'a> {
    pub set: &'a DaemonSet,
    pub places: &'a Places,
    pub nodes: &'a [Arc<Node>],
    /// The pods of the set.
    pub pods: &'a [Arc<Pod>],
    /// The hash of the newest revision.
    pub hash: &'a str,
    /// The remaining back-off of a node.
    pub left: &'a (dyn Fn(&str) -> Option<Duration> + Sync),
    pub now: Timestamp,
}

/// The pods of each node: scheduled ones first, then the oldest first.
type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Pod>>;

/// The node that a pod runs on or is meant for; None if that is unknown.
fn node_of(pod: &Pod) -> Option<&str> {
    let placed = pod.spec.node_name.as_deref();
    placed
        .filter(|name| !name.is_empty())
        .or(pod.spec.target.as_deref())
}

fn by_node(pods: &[Arc<Pod>]) -> ByNode<'_> {
    let mut all = ByNode::new();
    for pod in pods {
        // A terminated pod that is being deleted needs no action.
        if pod.is_terminal() && pod.is_deleting() {
            continue;
        }
        if let Some(node) = node_of(pod) {
            all.entry(node).or_default().push(pod);
        }
    }
    for pods in all.values_mut() {
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let placed = pod.spec.node_name.as_deref().unwrap_or_default();
            (placed.is_empty(), created, pod.metadata.name.clone())
        });
    }
    all
}

/// Decides: first creates and deletes pods so that each node has the right number, and if all do, replaces old ones.
pub(super) fn plan(facts: &Facts<'_>) -> Plan {
    let by_node = by_node(facts.pods);
    let mut plan = Plan::default();
    manage(facts, &by_node, &mut plan);
    let is_rolling = strategy(facts.set) != "OnDelete";
    if plan.create.is_empty() && plan.delete.is_empty() && is_rolling {
        Roll::of(facts, by_node).go(&mut plan);
    }
    plan
}

fn strategy(set: &DaemonSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    strategy
        .and_then(|strategy| strategy.type_.as_deref())
        .unwrap_or("RollingUpdate")
}

/// maxSurge and maxUnavailable for this many nodes, as numbers.
fn limits(set: &DaemonSet, wanted: usize) -> (usize, usize) {
    let total = i32::try_from(wanted).unwrap_or(i32::MAX);
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy
        .filter(|strategy| strategy.type_.as_deref() == Some("RollingUpdate"))
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let count = |value| usize::try_from(scaled(value, total, true)).unwrap_or(0);
    let surge = count(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
    let missing = count(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    if surge == 0 && missing == 0 && wanted > 0 {
        return (0, 1);
    }
    (surge, missing)
}

impl Facts<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        let seconds = self.set.spec.min_ready_seconds.unwrap_or(0);
        is_available(pod, seconds, self.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        is_updated(self.set, pod.labels(), self.hash)
    }
}

/// Handles nodes with missing, surplus, terminated or misplaced pods.
fn manage(facts: &Facts<'_>, by_node: &ByNode<'_>, plan: &mut Plan) {
    let surges = limits(facts.set, 1).0 > 0;
    for node in facts.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let place = facts.places.look(node);
        match (place, by_node.get(name)) {
            (Place::Wanted, None) => plan.create.push(name.to_owned()),
            (_, None) => {}
            (Place::Barred, Some(pods)) => {
                let pods = pods.iter().filter(|pod| !pod.is_deleting());
                plan.delete.extend(pods.map(|pod| pod.name_any()));
            }
            (_, Some(pods)) => {
                let running = running(facts, name, pods, plan);
                if surges && running.is_empty() && place == Place::Wanted {
                    plan.create.push(name.to_owned());
                } else if surges {
                    prune_surged(facts, &running, plan);
                } else {
                    let surplus = running.iter().skip(1);
                    plan.delete.extend(surplus.map(|pod| pod.name_any()));
                }
            }
        }
    }
    // Pods for deleted nodes never get scheduled, and nobody else deletes unscheduled pods.
    let names: std::collections::HashSet<&str> = facts
        .nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let lost = by_node.iter().filter(|(node, _)| !names.contains(*node));
    for pod in lost.flat_map(|(_, pods)| pods) {
        if pod.spec.node_name.as_deref().unwrap_or_default().is_empty() {
            plan.delete.push(pod.name_any());
        }
    }
}

/// The running pods of a node; terminated ones are planned for deletion.
fn running<'a>(facts: &Facts<'_>, node: &str, pods: &[&'a Pod], plan: &mut Plan) -> Vec<&'a Pod> {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
        let namespace = pod.namespace().unwrap_or_default();
        let name = pod.name_any();
        match pod.phase() {
            "Failed" => {
                if let Some(left) = (facts.left)(node) {
                    plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
                    continue;
                }
                let message = format!(
                    "Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"
                );
                plan.events
                    .push((Tone::Warning, "FailedDaemonPod", message));
                plan.failed.push(node.to_owned());
                plan.delete.push(name);
            }
            "Succeeded" => {
                let message = format!(
                    "Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"
                );
                plan.events
                    .push((Tone::Normal, "SucceededDaemonPod", message));
                plan.delete.push(name);
            }
            _ => running.push(*pod),
        }
    }
    running
}

/// With a surge, a node may have two pods while the older one is ready and the newer one is not yet.
fn prune_surged(facts: &Facts<'_>, running: &[&Pod], plan: &mut Plan) {
    if running.len() < 2 {
        return;
    }
    let (mut newer, mut older) = (None, None);
    for pod in running {
        let is_newer = pod.labels().get(POD_HASH).map(String::as_str) == Some(facts.hash);
        let slot = if is_newer { &mut newer } else { &mut older };
        match slot {
            None => *slot = Some(*pod),
            Some(_) => plan.delete.push(pod.name_any()),
        }
    }
    if let (Some(newer), Some(older)) = (newer, older)
        && (!older.is_ready() || facts.is_available(newer))
    {
        plan.delete.push(older.name_any());
    }
}

/// The newer and the older pod of a node; None if there are several of either, which is corrected first.
fn pair<'a>(facts: &Facts<'_>, pods: &[&'a Pod]) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
    let (mut newer, mut older) = (None, None);
    for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
        let slot = if facts.is_updated(pod) {
            &mut newer
        } else {
            &mut older
        };
        if slot.replace(*pod).is_some() {
            return None;
        }
    }
    Some((newer, older))
}

/// Replaces pods of older revisions.
struct Roll<'a> {
    facts: &'a Facts<'a>,
    /// Has an empty entry for each node that should have a pod but does not.
    by_node: ByNode<'a>,
    places: BTreeMap<&'a str, Place>,
    wanted: usize,
}

impl<'a> Roll<'a> {
    fn of(facts: &'a Facts<'a>, mut by_node: ByNode<'a>) -> Roll<'a> {
        let places: BTreeMap<&str, Place> = facts
            .nodes
            .iter()
            .filter_map(|node| Some((node.metadata.name.as_deref()?, facts.places.look(node))))
            .collect();
        let wanted: Vec<&str> = places
            .iter()
            .filter(|(_, place)| **place == Place::Wanted)
            .map(|(name, _)| *name)
            .collect();
        for node in &wanted {
            by_node.entry(node).or_default();
        }
        Roll {
            facts,
            by_node,
            wanted: wanted.len(),
            places,
        }
    }

    fn go(&self, plan: &mut Plan) {
        match limits(self.facts.set, self.wanted) {
            (0, missing) => self.replace(missing, plan),
            (surge, _) => self.surge(surge, plan),
        }
    }

    /// Deletes older pods, so that at most `most` nodes are without an available one.
    fn replace(&self, most: usize, plan: &mut Plan) {
        let mut missing = 0;
        let mut candidates = Vec::new();
        for pods in self.by_node.values() {
            match pair(self.facts, pods) {
                Some((None, Some(older))) if self.facts.is_available(older) => {
                    candidates.push(older.name_any());
                }
                Some((None, Some(older))) => {
                    // Deleting it does not reduce availability.
                    plan.delete.push(older.name_any());
                    missing += 1;
                }
                Some((Some(newer), None)) if self.facts.is_available(newer) => {}
                _ => missing += 1,
            }
        }
        candidates.truncate(most.saturating_sub(missing));
        plan.delete.extend(candidates);
    }

    /// Creates newer pods beside older ones, `most` at once, and deletes the older ones when the new ones are
    /// available.
    fn surge(&self, most: usize, plan: &mut Plan) {
        let facts = self.facts;
        let (mut surged, mut available) = (0, 0);
        let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
        for (node, pods) in &self.by_node {
            let Some((newer, older)) = pair(facts, pods) else {
                surged += 1;
                continue;
            };
            let stands = older.or(newer).is_some_and(|pod| facts.is_available(pod));
            available += usize::from(stands);
            let Some(older) = older else { continue };
            let is_wanted = self.places.get(node) == Some(&Place::Wanted);
            match newer {
                Some(newer) if facts.is_available(newer) => plan.delete.push(older.name_any()),
                Some(_) => surged += 1,
                None if !is_wanted && stands => misplaced.push(older.name_any()),
                None if !is_wanted => plan.delete.push(older.name_any()),
                None if stands => candidates.push((*node).to_owned()),
                None => plan.create.push((*node).to_owned()),
            }
        }
        // A misplaced pod is only deleted once another one is available elsewhere.
        misplaced.truncate(available.saturating_sub(self.wanted));
        plan.delete.extend(misplaced);
        candidates.truncate(most.saturating_sub(surged));
        plan.create.extend(candidates);
    }
}

/// The new status of a set; fields that are not computed here are kept.
pub(super) fn status(facts: &Facts<'_>, had: &DaemonSetStatus) -> DaemonSetStatus {
    let by_node = by_node(facts.pods);
    let mut status = DaemonSetStatus {
        observed_generation: facts.set.metadata.generation,
        collision_count: had.collision_count,
        conditions: had.conditions.clone(),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in facts.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let first = by_node.get(name).and_then(|pods| pods.first());
        if facts.places.look(node) != Place::Wanted {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod.is_ready());
        available += i32::from(facts.is_available(pod));
        updated += i32::from(facts.is_updated(pod));
    }
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status.updated_number_scheduled = Some(updated);
    status
}

/// Whether two statuses are equal; missing numbers are zero.
pub(super) fn same(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let numbers = |status: &DaemonSetStatus| {
        (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_misscheduled,
            status.number_ready,
            status.updated_number_scheduled.unwrap_or(0),
            status.number_available.unwrap_or(0),
            status.number_unavailable.unwrap_or(0),
            status.observed_generation.unwrap_or(0),
            status.collision_count.unwrap_or(0),
        )
    };
    numbers(a) == numbers(b)
}
