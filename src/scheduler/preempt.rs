//! Preemption: chooses pods to delete in favour of one with higher priority. Follows
//! k8s.io/kubernetes/pkg/scheduler/framework/{preemption,plugins/defaultpreemption}.

use std::cmp::Reverse;
use std::sync::Arc;

use compact_str::CompactString;

use super::cycle::Cycle;
use super::decide::{Diagnosis, Turn};
use super::plugin::Reason;
use super::pod::Pod;
use super::snapshot::{Slot, Snapshot};
use crate::meta::selector::Selector;

/// Minimum number of candidate nodes.
const ENOUGH: usize = 100;
/// Minimum share of candidate nodes among those that may help, in percent.
const ENOUGH_PERCENT: usize = 10;
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NO_HELP: &str = "Preemption is not helpful for scheduling";

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// Its pods; `None` if the selector is invalid.
    pub selector: Option<Selector>,
    /// `status.disruptionsAllowed`.
    pub allowed: i64,
    /// Pods already counted as disrupted.
    pub disrupted: Vec<CompactString>,
}

/// The preemption that makes room for a pod.
#[derive(Debug)]
pub struct Plan {
    /// The node.
    pub node: Slot,
    /// The pods to delete, highest priority first.
    pub victims: Vec<Arc<Pod>>,
}

/// The result of a preemption attempt.
#[derive(Debug)]
pub enum Outcome {
    /// Preemption is possible.
    Plan(Plan),
    /// Preemption cannot help; the pod's nomination is removed.
    None(String),
    /// Not possible yet; the pod's nomination is kept.
    NotNow(&'static str),
}

impl Outcome {
    /// The text for the event, as upstream.
    pub fn note(&self, snapshot: &Snapshot) -> String {
        match self {
            Outcome::Plan(plan) => format!(
                "preemption: found a potential placement for pod on node {}, preempting {} victims",
                snapshot.site(plan.node).name(),
                plan.victims.len()
            ),
            Outcome::None(why) => format!("preemption: {why}"),
            Outcome::NotNow(why) => format!("preemption: {why}"),
        }
    }
}

struct Candidate {
    node: Slot,
    victims: Vec<Arc<Pod>>,
    /// How many victims violate a budget.
    violations: usize,
}

/// Searches for the cheapest preemption for a pod that fits no node.
pub fn preempt(snapshot: &Snapshot, pod: &Pod, why: &Diagnosis, turn: &mut Turn) -> Outcome {
    if !pod.may_preempt {
        return Outcome::NotNow("not eligible due to preemptionPolicy=Never.");
    }
    if let Some(slot) = snapshot.nomination(pod)
        && why.resolvable.contains(&slot)
        && snapshot
            .site(slot)
            .pods
            .iter()
            .any(|other| other.priority < pod.priority && other.is_preempted)
    {
        return Outcome::NotNow("not eligible due to a terminating pod on the nominated node.");
    }
    let nodes = &why.resolvable;
    let mut refused = Diagnosis::of(why.nodes);
    let mut said = 0;
    let mut candidates: Vec<Candidate> = Vec::new();
    if !nodes.is_empty() {
        if !snapshot.has_less_than(pod.priority) {
            refused.count([NO_VICTIMS.into()], nodes.len());
            said = nodes.len();
        } else if let Ok(cycle) = Cycle::new(snapshot, pod) {
            let enough = (nodes.len() * ENOUGH_PERCENT / 100)
                .max(ENOUGH)
                .min(nodes.len());
            let start = turn.below(nodes.len());
            for &slot in nodes[start..].iter().chain(&nodes[..start]) {
                match candidate(&cycle, slot) {
                    Ok(candidate) => candidates.push(candidate),
                    Err(reasons) => {
                        refused.count(reasons, 1);
                        said += 1;
                    }
                }
                let is_harmless = |candidate: &Candidate| candidate.violations == 0;
                if candidates.len() >= enough && candidates.iter().any(is_harmless) {
                    break;
                }
            }
        }
    }
    match candidates.into_iter().min_by_key(cost) {
        Some(Candidate { node, victims, .. }) => Outcome::Plan(Plan { node, victims }),
        None => {
            if why.nodes > said {
                refused.count([NO_HELP.into()], why.nodes - said);
            }
            Outcome::None(refused.to_string())
        }
    }
}

/// The cost of a candidate, lowest best: violated budgets, the highest priority of its victims, the sum of their
/// priorities, their number, and how long those of the highest priority have run.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<CompactString>) {
    let victims = &candidate.victims;
    let highest = victims
        .iter()
        .map(|pod| pod.priority)
        .max()
        .unwrap_or(i32::MIN);
    let sum = victims
        .iter()
        .map(|pod| i64::from(pod.priority) - i64::from(i32::MIN))
        .sum();
    let started = victims
        .iter()
        .filter(|pod| pod.priority == highest)
        .map(|pod| begun(pod))
        .min()
        .unwrap_or_default();
    (
        candidate.violations,
        highest,
        sum,
        victims.len(),
        Reverse(started),
    )
}

/// When a pod started; later than all others if it has not.
fn begun(pod: &Pod) -> CompactString {
    if pod.started.is_empty() {
        "~".into()
    } else {
        pod.started.clone()
    }
}

/// The fewest victims on a node; or why preemption does not help there.
fn candidate(cycle: &Cycle<'_>, slot: Slot) -> Result<Candidate, Vec<Reason>> {
    let (snapshot, pod) = (cycle.snapshot, cycle.pod);
    let mut gone: Vec<Arc<Pod>> = snapshot
        .site(slot)
        .pods
        .iter()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if gone.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    cycle
        .check_with(slot, &gone)
        .map_err(|rejection| rejection.reasons().collect::<Vec<_>>())?;
    gone.sort_by_cached_key(|pod| (Reverse(pod.priority), begun(pod)));
    let exceeding = exceeding(snapshot, &gone);
    // Reprieve pods that violate a budget first, and among them those of highest priority.
    let mut order: Vec<usize> = (0..gone.len()).collect();
    order.sort_by_key(|place| !exceeding[*place]);
    let order: Vec<(Arc<Pod>, bool)> = order
        .into_iter()
        .map(|place| (gone[place].clone(), exceeding[place]))
        .collect();
    let mut violations = 0;
    for (spared, exceeds) in order {
        let place = gone.iter().position(|other| other.key == spared.key);
        let Some(place) = place else { continue };
        gone.remove(place);
        if cycle.check_with(slot, &gone).is_err() {
            gone.insert(place, spared);
            violations += usize::from(exceeds);
        }
    }
    Ok(Candidate {
        node: slot,
        victims: gone,
        violations,
    })
}

/// Which of these pods would violate a budget if deleted in this order.
fn exceeding(snapshot: &Snapshot, pods: &[Arc<Pod>]) -> Vec<bool> {
    let mut left: Vec<(&str, &Budget, i64)> = snapshot
        .budgets
        .iter()
        .map(|(key, budget)| (key.namespace.as_str(), budget, budget.allowed))
        .collect();
    let exceeds = |pod: &Arc<Pod>| {
        !pod.labels.is_empty()
            && left.iter_mut().any(|(namespace, budget, left)| {
                let counts = *namespace == pod.key.namespace
                    && budget
                        .selector
                        .as_ref()
                        .is_some_and(|all| !all.is_empty() && pod.labels.are_selected(all))
                    && !budget.disrupted.contains(&pod.key.name);
                *left -= i64::from(counts);
                counts && *left < 0
            })
    };
    pods.iter().map(exceeds).collect()
}
