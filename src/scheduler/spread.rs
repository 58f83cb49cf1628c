//! PodTopologySpread: how evenly pods are spread over hosts, zones and the like. Follows
//! k8s.io/kubernetes/pkg/scheduler/framework/plugins/podtopologyspread.

use std::borrow::Cow;

use super::cycle::Overlay;
use super::fit::MOST;
use super::plugin::{Plugin, Rejection};
use super::pod::Pod;
use super::snapshot::{Class, Site, Slot, Snapshot};
use super::terms::{HOSTNAME, Spread, bear};
use super::topology::{NOWHERE, Topology};
use crate::meta::selector::Selector;

const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
/// The zone label.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Default constraints of pods that belong to a workload and have none of their own: label and maximum skew.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// The hard constraints of a pod.
pub struct Hard<'a> {
    pod: &'a Pod,
    constraints: Vec<Constraint<'a>>,
}

struct Constraint<'a> {
    spread: &'a Spread,
    topology: Cow<'a, Topology>,
    /// Which nodes count, by slot; `None` for all.
    counted: Option<Vec<bool>>,
    /// Matching pods by topology domain; -1 for a domain without counted nodes.
    pods: Vec<i64>,
    places: i64,
    least: Least,
    own: i64,
}

/// The domain with the fewest pods, and the lowest number of all others.
#[derive(Clone, Copy)]
struct Least {
    place: u32,
    pods: i64,
    others: i64,
}

/// The classes whose pods are counted.
fn counted<'a>(
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    selector: Option<&'a Selector>,
) -> impl Iterator<Item = &'a Class> {
    // An empty selector matches nothing here.
    let selector = selector.filter(|selector| !selector.is_empty());
    selector.into_iter().flat_map(move |selector| {
        snapshot
            .classes_in(&pod.key.namespace)
            .filter(move |class| !class.is_deleting() && class.labels().are_selected(selector))
    })
}

/// Whether a node counts for a constraint.
fn includes(pod: &Pod, spread: &Spread, site: &Site) -> bool {
    let Some(node) = &site.node else {
        return false;
    };
    (!spread.honors_affinity || pod.nodes.is_open() || pod.nodes.allows(&node.name, &node.labels))
        && (!spread.honors_taints
            || !node
                .taints
                .iter()
                .any(|taint| taint.repels() && !bear(&pod.tolerations, taint)))
}

/// Whether every node has all labels.
fn has_everywhere(snapshot: &Snapshot, topologies: &[Cow<'_, Topology>]) -> bool {
    let nodes = snapshot.order().len();
    topologies.iter().all(|topology| topology.nodes() == nodes)
}

/// Initial pod numbers: zero for each domain with nodes, else -1; and the number of such domains.
fn empty(topology: &Topology) -> (Vec<i64>, i64) {
    let sizes = topology.sizes().iter();
    let pods: Vec<i64> = sizes.map(|size| if *size > 0 { 0 } else { -1 }).collect();
    let places = pods.iter().filter(|pods| **pods == 0).count();
    (pods, places as i64)
}

/// Adds the pods of a class by domain, if all nodes count; uses `sums` if they are kept.
fn add(class: &Class, sums: Option<&[i64]>, topology: &Topology, pods: &mut [i64]) {
    if let Some(sums) = sums {
        for (pods, more) in pods.iter_mut().zip(sums) {
            *pods += more;
        }
        return;
    }
    for (slot, count) in &class.nodes {
        if let Some(pods) = pods.get_mut(topology.of(*slot) as usize) {
            *pods += i64::from(*count);
        }
    }
}

impl<'a> Hard<'a> {
    /// Computes it for a pod; `None` without hard constraints.
    pub fn of(pod: &'a Pod, snapshot: &'a Snapshot) -> Option<Hard<'a>> {
        let spreads: Vec<&Spread> = pod.spread.iter().filter(|spread| spread.is_hard).collect();
        if spreads.is_empty() {
            return None;
        }
        let topologies: Vec<Cow<'a, Topology>> = spreads
            .iter()
            .map(|spread| snapshot.topology(&spread.topology))
            .collect();
        let has_all = |slot: Slot| {
            topologies
                .iter()
                .all(|topology| topology.of(slot) != NOWHERE)
        };
        let mut constraints = Vec::with_capacity(spreads.len());
        let all_have_all = has_everywhere(snapshot, &topologies);
        for (spread, topology) in spreads.iter().zip(&topologies) {
            if all_have_all && snapshot.counts_everywhere(pod, spread) {
                let (mut pods, places) = empty(topology);
                // Sums use the domain numbers of kept topologies.
                let is_kept = matches!(topology, Cow::Borrowed(_));
                for class in counted(snapshot, pod, spread.selector.as_ref()) {
                    let sums = class.sums(&spread.topology).filter(|_| is_kept);
                    add(class, sums, topology, &mut pods);
                }
                constraints.push(Constraint {
                    spread,
                    least: least(&pods),
                    topology: topology.clone(),
                    counted: None,
                    pods,
                    places,
                    own: i64::from(spread.counts(&pod.labels)),
                });
                continue;
            }
            let mut nodes = vec![false; snapshot.width()];
            let mut pods = vec![-1; topology.width()];
            let mut places = 0;
            for &slot in snapshot.order() {
                if has_all(slot) && includes(pod, spread, snapshot.site(slot)) {
                    nodes[slot as usize] = true;
                    let count = &mut pods[topology.of(slot) as usize];
                    places += i64::from(*count < 0);
                    *count = 0;
                }
            }
            for class in counted(snapshot, pod, spread.selector.as_ref()) {
                for (slot, count) in &class.nodes {
                    if nodes[*slot as usize] {
                        pods[topology.of(*slot) as usize] += i64::from(*count);
                    }
                }
            }
            constraints.push(Constraint {
                spread,
                least: least(&pods),
                topology: topology.clone(),
                counted: Some(nodes),
                pods,
                places,
                own: i64::from(spread.counts(&pod.labels)),
            });
        }
        Some(Hard { pod, constraints })
    }

    /// Whether the pod may go to this node without exceeding the skew.
    pub fn check(&self, slot: Slot, overlay: &Overlay<'_>) -> Result<(), Rejection> {
        for constraint in &self.constraints {
            let place = constraint.topology.of(slot);
            if place == NOWHERE {
                return Err(Rejection::never(Plugin::PodTopologySpread, NO_LABEL));
            }
            if constraint.skew(self.pod, slot, place, overlay) > constraint.spread.max_skew {
                return Err(Rejection::now(Plugin::PodTopologySpread, UNEVEN));
            }
        }
        Ok(())
    }
}

impl Constraint<'_> {
    fn skew(&self, pod: &Pod, slot: Slot, place: u32, overlay: &Overlay<'_>) -> i64 {
        let counts = |counted: &Vec<bool>| counted[slot as usize];
        let change = match !overlay.is_empty() && self.counted.as_ref().is_none_or(counts) {
            true => overlay.count(|other| {
                other.key.namespace == pod.key.namespace
                    && !other.is_deleting
                    && self.spread.counts(&other.labels)
            }),
            false => 0,
        };
        let there = self.pods[place as usize].max(0) + change;
        let least = if self.places < self.spread.min_domains {
            0
        } else if change == 0 {
            self.least.pods
        } else if self.least.place == place {
            there.min(self.least.others)
        } else {
            there.min(self.least.pods)
        };
        there + self.own - least
    }
}

fn least(pods: &[i64]) -> Least {
    const MANY: i64 = i32::MAX as i64;
    let mut least = Least {
        place: NOWHERE,
        pods: MANY,
        others: MANY,
    };
    for (place, &pods) in pods.iter().enumerate().filter(|(_, pods)| **pods >= 0) {
        if pods < least.pods {
            least = Least {
                place: place as u32,
                pods,
                others: least.pods,
            };
        } else {
            least.others = least.others.min(pods);
        }
    }
    least
}

/// Scores of nodes by soft constraints; `None` if there are none.
pub fn scores(pod: &Pod, snapshot: &Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
    let asked = !pod.spread.is_empty();
    let wanted: Vec<Cow<'_, Spread>> = if asked {
        let soft = pod.spread.iter().filter(|spread| !spread.is_hard);
        soft.map(Cow::Borrowed).collect()
    } else {
        let selector = snapshot.workloads.selector_for(pod)?;
        DEFAULTS
            .iter()
            .map(|(topology, max_skew)| {
                Cow::Owned(Spread {
                    max_skew: *max_skew,
                    topology: (*topology).into(),
                    selector: Some(selector.clone()),
                    min_domains: 1,
                    honors_affinity: true,
                    honors_taints: false,
                    is_hard: false,
                })
            })
            .collect()
    };
    if wanted.is_empty() {
        return None;
    }
    let topologies: Vec<Cow<'_, Topology>> = wanted
        .iter()
        .map(|spread| snapshot.topology(&spread.topology))
        .collect();
    // Nodes without a zone still differ in their hostnames, unless the pod itself asks for zones.
    let is_ignored = |slot: Slot| {
        asked
            && topologies
                .iter()
                .any(|topology| topology.of(slot) == NOWHERE)
    };
    let judged = nodes.iter().filter(|slot| !is_ignored(**slot)).count();
    let all_have_all = has_everywhere(snapshot, &topologies);
    let mut raw = vec![0.0; nodes.len()];
    for (spread, topology) in wanted.iter().zip(&topologies) {
        let classes: Vec<&Class> = counted(snapshot, pod, spread.selector.as_ref()).collect();
        let skew = (spread.max_skew - 1) as f64;
        if spread.topology == HOSTNAME {
            let weight = ((judged + 2) as f64).ln();
            for (score, slot) in raw.iter_mut().zip(nodes) {
                if topology.of(*slot) != NOWHERE && !is_ignored(*slot) {
                    let pods = classes.iter().filter_map(|class| class.nodes.get(slot));
                    *score += f64::from(pods.sum::<u32>()) * weight + skew;
                }
            }
            continue;
        }
        let mut pods = vec![-1_i64; topology.width()];
        let (mut places, mut nowhere) = (0, false);
        for slot in nodes.iter().filter(|slot| !is_ignored(**slot)) {
            match topology.of(*slot) {
                NOWHERE => nowhere = true,
                place => {
                    let count = &mut pods[place as usize];
                    places += usize::from(*count < 0);
                    *count = 0;
                }
            }
        }
        if places == 0 {
            continue;
        }
        let all_count = all_have_all && snapshot.counts_everywhere(pod, spread);
        let is_kept = matches!(topology, Cow::Borrowed(_));
        for class in &classes {
            if all_count {
                let (mut all, _) = empty(topology);
                let sums = class.sums(&spread.topology).filter(|_| is_kept);
                add(class, sums, topology, &mut all);
                let wanted = pods.iter_mut().zip(all).filter(|(pods, _)| **pods >= 0);
                wanted.for_each(|(pods, more)| *pods += more);
                continue;
            }
            for (slot, count) in &class.nodes {
                let place = topology.of(*slot);
                if place != NOWHERE
                    && pods[place as usize] >= 0
                    && !is_ignored(*slot)
                    && includes(pod, spread, snapshot.site(*slot))
                {
                    pods[place as usize] += i64::from(*count);
                }
            }
        }
        let weight = ((places + usize::from(nowhere) + 2) as f64).ln();
        for (score, slot) in raw.iter_mut().zip(nodes) {
            let place = topology.of(*slot);
            if place != NOWHERE && !is_ignored(*slot) {
                *score += pods[place as usize] as f64 * weight + skew;
            }
        }
    }
    let raw: Vec<i64> = raw
        .into_iter()
        .map(|score: f64| score.round() as i64)
        .collect();
    let judged = || {
        let pairs = raw.iter().zip(nodes);
        pairs
            .filter(|(_, slot)| !is_ignored(**slot))
            .map(|(score, _)| *score)
    };
    let (lowest, highest) = (judged().min().unwrap_or(0), judged().max().unwrap_or(0));
    let normal = raw.iter().zip(nodes).map(|(score, slot)| {
        if is_ignored(*slot) {
            0
        } else if highest == 0 {
            MOST
        } else {
            MOST * (highest + lowest - score) / highest
        }
    });
    Some(normal.collect())
}
