//! Chooses a node: a function of the cluster, the pod, and the [`Turn`]. Follows
//! k8s.io/kubernetes/pkg/scheduler/schedule_one.go.

use std::fmt;

use super::cycle::Cycle;
use super::fit::{self, MOST};
use super::plugin::{Plugin, Plugins, Reason, Rejection};
use super::pod::Pod;
use super::snapshot::{Slot, Snapshot};
use super::storage::Plan;
use super::terms::bear;
use super::{affinity, spread};

/// Minimum number of suitable nodes to choose from.
const ENOUGH: usize = 100;
/// Minimum share of nodes to choose from, in percent.
const ENOUGH_PERCENT: usize = 5;

/// State carried from decision to decision.
pub struct Turn {
    /// The node at which the search starts, so that all nodes are checked equally often.
    next: usize,
    random: u64,
}

impl Turn {
    /// The initial state, with a seed for random choices.
    pub fn new(seed: u64) -> Turn {
        Turn {
            next: 0,
            random: seed | 1,
        }
    }

    /// A random number below `bound` (xorshift64*): picks one of equal nodes; not for secrets.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let mixed = self.random.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(mixed) * bound as u128) >> 64) as usize
    }
}

/// A scheduling decision.
#[derive(Debug)]
pub enum Decision {
    /// Use this node; the plan is what the pod's claims need first.
    Node(Slot, Plan),
    /// No node is suitable.
    Nowhere(Box<Diagnosis>),
}

/// Why no node is suitable.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// The number of nodes.
    pub nodes: usize,
    /// A reason that rejects all nodes at once.
    before: Option<Reason>,
    /// A short list, so a linear search is faster than hashing.
    reasons: Vec<(Reason, usize)>,
    /// The plugins that rejected nodes.
    pub plugins: Plugins,
    /// Nodes that could become suitable by preemption.
    pub resolvable: Vec<Slot>,
    /// The result of preemption.
    pub preemption: String,
}

impl Diagnosis {
    /// A diagnosis for a number of nodes.
    pub fn of(nodes: usize) -> Diagnosis {
        Diagnosis {
            nodes,
            ..Diagnosis::default()
        }
    }

    /// Adds the rejection by one node.
    pub fn add(&mut self, slot: Slot, rejection: Rejection) {
        self.plugins.add(rejection.plugin);
        if rejection.is_resolvable {
            self.resolvable.push(slot);
        }
        self.count(rejection.reasons(), 1);
    }

    /// Counts reasons for `nodes` nodes.
    pub fn count(&mut self, reasons: impl IntoIterator<Item = Reason>, nodes: usize) {
        for reason in reasons {
            match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += nodes,
                None => self.reasons.push((reason, nodes)),
            }
        }
    }

    fn all(nodes: &[Slot], rejection: Rejection) -> Diagnosis {
        let mut diagnosis = Diagnosis::of(nodes.len());
        diagnosis.plugins.add(rejection.plugin);
        if rejection.is_resolvable {
            diagnosis.resolvable = nodes.to_vec();
        }
        let reasons: Vec<Reason> = rejection.reasons().collect();
        diagnosis.before = Some(reasons.join(", ").into());
        diagnosis
    }
}

impl fmt::Display for Diagnosis {
    /// In upstream's words: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        match &self.before {
            Some(before) => write!(f, " {before}.")?,
            None if self.reasons.is_empty() => {}
            None => {
                let counted = self.reasons.iter();
                let mut texts: Vec<String> = counted
                    .map(|(reason, count)| format!("{count} {reason}"))
                    .collect();
                texts.sort();
                write!(f, " {}.", texts.join(", "))?;
            }
        }
        if !self.preemption.is_empty() {
            write!(f, " {}", self.preemption)?;
        }
        Ok(())
    }
}

/// Decides on a node for a pod.
pub fn decide(snapshot: &Snapshot, pod: &Pod, turn: &mut Turn) -> Decision {
    let all = snapshot.order();
    if all.is_empty() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.plugins.add(Plugin::NodeName);
        return Decision::Nowhere(Box::new(diagnosis));
    }
    let cycle = match Cycle::new(snapshot, pod) {
        Ok(cycle) => cycle,
        Err(rejection) => return Decision::Nowhere(Box::new(Diagnosis::all(all, rejection))),
    };
    match find(&cycle, turn) {
        Ok(nodes) => {
            let slot = choose(&cycle, &nodes, turn);
            Decision::Node(slot, cycle.plan(slot))
        }
        Err(diagnosis) => Decision::Nowhere(diagnosis),
    }
}

/// Finds suitable nodes, up to [`enough`].
fn find(cycle: &Cycle<'_>, turn: &mut Turn) -> Result<Vec<Slot>, Box<Diagnosis>> {
    let all = cycle.snapshot.order();
    if let Some(slot) = cycle.snapshot.nomination(cycle.pod)
        && cycle.check(slot).is_ok()
    {
        return Ok(vec![slot]);
    }
    let mut diagnosis = Diagnosis::of(all.len());
    let asked = match &cycle.only {
        Some(only) => {
            diagnosis.plugins.add(Plugin::NodeAffinity);
            let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
            if all.len() > only.len() {
                diagnosis.count([reason.into()], all.len() - only.len());
            }
            &only[..]
        }
        None => all,
    };
    let enough = enough(asked.len());
    let mut found = Vec::with_capacity(enough.min(asked.len()));
    let mut looked_at = 0;
    let start = turn.next.checked_rem(asked.len()).unwrap_or(0);
    for &slot in asked[start..].iter().chain(&asked[..start]) {
        if found.len() >= enough {
            break;
        }
        looked_at += 1;
        match cycle.check(slot) {
            Ok(()) => found.push(slot),
            Err(rejection) => diagnosis.add(slot, rejection),
        }
    }
    turn.next = (turn.next + looked_at) % all.len();
    if found.is_empty() {
        return Err(Box::new(diagnosis));
    }
    Ok(found)
}

/// How many suitable nodes to look for among `nodes`.
fn enough(nodes: usize) -> usize {
    if nodes < ENOUGH {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(ENOUGH_PERCENT);
    (nodes * percent / 100).max(ENOUGH)
}

/// The node with the highest score; a random one of several.
fn choose(cycle: &Cycle<'_>, nodes: &[Slot], turn: &mut Turn) -> Slot {
    if let [only] = nodes {
        return *only;
    }
    let scores = scores(cycle, nodes);
    let mut best = (nodes[0], i64::MIN);
    let mut equals = 0;
    for (slot, score) in nodes.iter().zip(scores) {
        if score > best.1 {
            best = (*slot, score);
            equals = 1;
        } else if score == best.1 {
            equals += 1;
            if turn.below(equals) == 0 {
                best.0 = *slot;
            }
        }
    }
    best.0
}

/// The total score of each node: the weighted sum over the plugins, with upstream's weights.
pub fn scores(cycle: &Cycle<'_>, nodes: &[Slot]) -> Vec<i64> {
    let (snapshot, pod) = (cycle.snapshot, cycle.pod);
    let mut totals = vec![0; nodes.len()];
    let images = fit::Images::of(pod, snapshot);
    let (mut taints, mut liked) = (None::<Vec<i64>>, None::<Vec<i64>>);
    let softening: Vec<_> = pod
        .tolerations
        .iter()
        .filter(|toleration| toleration.softens())
        .cloned()
        .collect();
    for (place, &slot) in nodes.iter().enumerate() {
        let site = snapshot.site(slot);
        let Some(node) = &site.node else { continue };
        let mut total = fit::least_allocated(pod, node, site);
        total += fit::balanced(pod, node, site).unwrap_or(0);
        total += cycle.room(node).unwrap_or(0);
        if let Some(images) = &images {
            total += images.score(slot);
        }
        totals[place] = total;
        let unborne = node
            .taints
            .iter()
            .filter(|taint| !taint.repels() && !bear(&softening, taint))
            .count();
        if unborne > 0 {
            taints.get_or_insert_with(|| vec![0; nodes.len()])[place] = unborne as i64;
        }
        if !pod.nodes.preferred.is_empty() {
            let held = pod.nodes.preferred.iter();
            let weight = held
                .filter(|(_, term)| term.holds(&node.name, &node.labels))
                .map(|(weight, _)| weight)
                .sum();
            liked.get_or_insert_with(|| vec![0; nodes.len()])[place] = weight;
        }
    }
    let mut add = |scores: Option<Vec<i64>>, weight: i64| {
        for (total, score) in totals.iter_mut().zip(scores.into_iter().flatten()) {
            *total += weight * score;
        }
    };
    add(taints.map(|taints| normal(taints, true)), 3);
    add(liked.map(|liked| normal(liked, false)), 2);
    add(spread::scores(pod, snapshot, nodes), 2);
    add(affinity::scores(pod, snapshot, nodes), 2);
    totals
}

/// Scales scores to [`MOST`]; `reversed` if lower is better.
fn normal(mut scores: Vec<i64>, reversed: bool) -> Vec<i64> {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let scaled = if highest == 0 {
            0
        } else {
            MOST * *score / highest
        };
        *score = if reversed { MOST - scaled } else { scaled };
    }
    scores
}
