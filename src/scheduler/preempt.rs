//! Whom to end so that a pod that matters more has a place. Follows
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

/// How many nodes are tried at least.
const ENOUGH: usize = 100;
/// How many of those that could help are tried at least, in hundredths.
const ENOUGH_PERCENT: usize = 10;
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NO_HELP: &str = "Preemption is not helpful for scheduling";

/// How many pods of some kind may be ended now.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// Which pods; none where that cannot be read.
    pub selector: Option<Selector>,
    /// How many.
    pub allowed: i64,
    /// Pods that count as ended already.
    pub disrupted: Vec<CompactString>,
}

/// What would give a pod a place.
#[derive(Debug)]
pub struct Plan {
    /// Where.
    pub node: Slot,
    /// Whom to end, those that matter most first.
    pub victims: Vec<Arc<Pod>>,
}

/// What came of looking for a plan.
#[derive(Debug)]
pub enum Outcome {
    /// There is one.
    Plan(Plan),
    /// There is none; room that is kept for the pod is given up.
    None(String),
    /// It is not time for one; room that is kept for the pod stays.
    NotNow(&'static str),
}

impl Outcome {
    /// As upstream tells it.
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
    /// How many of them exceed a budget.
    violations: usize,
}

/// Looks for the least that must be ended for a pod that no node will do for.
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

/// What is compared of candidates, the least being the best: budgets exceeded, how much the one that matters most
/// matters, how much all matter, how many, and how long the ones that matter most have run.
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

/// When a pod began; later than all others where it has not yet.
fn begun(pod: &Pod) -> CompactString {
    if pod.started.is_empty() {
        "~".into()
    } else {
        pod.started.clone()
    }
}

/// The least to end on a node; or why that would not help.
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
    // Those that exceed a budget are spared first, and of them those that matter most.
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

/// Which of these pods would exceed a budget if they were ended in this order.
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
