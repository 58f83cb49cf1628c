//! InterPodAffinity: affinity and anti-affinity between pods. Follows
//! k8s.io/kubernetes/pkg/scheduler/framework/plugins/interpodaffinity.

use std::borrow::Cow;
use std::collections::HashMap;

use super::cycle::Overlay;
use super::fit::MOST;
use super::plugin::{Plugin, Rejection};
use super::pod::Pod;
use super::snapshot::{Class, Quick, Slot, Snapshot};
use super::terms::{AffinityTerm, Labels, PodAffinity};
use super::topology::{NOWHERE, Topology};

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const NOT_FAR: &str = "node(s) didn't match pod anti-affinity rules";
const NOT_WANTED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Numbers of pods by topology domain, for one label.
struct Count<'a> {
    topology: Cow<'a, Topology>,
    pods: Vec<i64>,
}

impl<'a> Count<'a> {
    fn over(snapshot: &'a Snapshot, key: &str) -> Count<'a> {
        let topology = snapshot.topology(key);
        Count {
            pods: vec![0; topology.width()],
            topology,
        }
    }

    /// Adds `times` for each pod of a class; returns how many of its pods are in some domain.
    fn add(&mut self, class: &Class, times: i64) -> i64 {
        let mut somewhere = 0;
        for (slot, count) in &class.nodes {
            let place = self.topology.of(*slot);
            if place != NOWHERE {
                self.pods[place as usize] += times * i64::from(*count);
                somewhere += i64::from(*count);
            }
        }
        somewhere
    }

    /// The number in a node's domain; `None` if it is in no domain.
    fn at(&self, slot: Slot) -> Option<i64> {
        match self.topology.of(slot) {
            NOWHERE => None,
            place => Some(self.pods[place as usize]),
        }
    }
}

/// The required affinity and anti-affinity of a pod.
pub struct Required<'a> {
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    namespace: Labels,
    near: Vec<(&'a AffinityTerm, Count<'a>)>,
    /// How many pods anywhere match the required affinity.
    wanted: i64,
    far: Vec<(&'a AffinityTerm, Count<'a>)>,
    /// Placed pods whose anti-affinity matches this pod, by label.
    unwanting: HashMap<&'a str, Count<'a>, Quick>,
}

fn means(snapshot: &Snapshot, term: &AffinityTerm, pod: &Pod) -> bool {
    let namespace = &pod.key.namespace;
    term.means_labels(&pod.labels)
        && term.means_namespace(namespace, &snapshot.namespace(namespace))
}

impl<'a> Required<'a> {
    /// Computes it for a pod; `None` if neither it nor other pods have relevant terms.
    pub fn of(pod: &'a Pod, snapshot: &'a Snapshot) -> Option<Required<'a>> {
        let namespace = snapshot.namespace(&pod.key.namespace);
        let mut unwanting: HashMap<&str, Count<'_>, Quick> = HashMap::default();
        for class in snapshot.classes_with_affinity() {
            let terms = class
                .affinity()
                .into_iter()
                .flat_map(|affinity| &affinity.anti_required);
            for term in terms {
                if term.means_labels(&pod.labels)
                    && term.means_namespace(&pod.key.namespace, &namespace)
                {
                    unwanting
                        .entry(&term.topology)
                        .or_insert_with(|| Count::over(snapshot, &term.topology))
                        .add(class, 1);
                }
            }
        }
        let own = pod.affinity.as_deref();
        let near_terms = own.map_or(&[][..], |affinity| &affinity.required);
        let far_terms = own.map_or(&[][..], |affinity| &affinity.anti_required);
        if unwanting.is_empty() && near_terms.is_empty() && far_terms.is_empty() {
            return None;
        }
        let counts = |terms: &'a [AffinityTerm]| -> Vec<(&'a AffinityTerm, Count<'a>)> {
            let counts = terms
                .iter()
                .map(|term| (term, Count::over(snapshot, &term.topology)));
            counts.collect()
        };
        let (mut near, mut far) = (counts(near_terms), counts(far_terms));
        let mut wanted = 0;
        if let [first, others @ ..] = near_terms {
            for class in snapshot.classes_meant(first) {
                let namespace = snapshot.namespace(class.namespace());
                let is_meant = others.iter().all(|term| {
                    term.means_labels(class.labels())
                        && term.means_namespace(class.namespace(), &namespace)
                });
                if is_meant {
                    wanted += near
                        .iter_mut()
                        .map(|(_, count)| count.add(class, 1))
                        .sum::<i64>();
                }
            }
        }
        for (term, count) in &mut far {
            for class in snapshot.classes_meant(term) {
                count.add(class, 1);
            }
        }
        Some(Required {
            snapshot,
            pod,
            namespace,
            near,
            wanted,
            far,
            unwanting,
        })
    }

    /// Whether a node satisfies all required terms.
    pub fn check(&self, slot: Slot, overlay: &Overlay<'_>) -> Result<(), Rejection> {
        if !self.is_near(slot, overlay) {
            return Err(Rejection::never(Plugin::InterPodAffinity, NOT_NEAR));
        }
        for (term, count) in &self.far {
            if let Some(pods) = count.at(slot)
                && pods + overlay.count(|pod| means(self.snapshot, term, pod)) > 0
            {
                return Err(Rejection::now(Plugin::InterPodAffinity, NOT_FAR));
            }
        }
        if self.is_unwanted(slot, overlay) {
            return Err(Rejection::now(Plugin::InterPodAffinity, NOT_WANTED));
        }
        Ok(())
    }

    fn is_near(&self, slot: Slot, overlay: &Overlay<'_>) -> bool {
        if self.near.is_empty() {
            return true;
        }
        let all = |pod: &Pod| {
            self.near
                .iter()
                .all(|(term, _)| means(self.snapshot, term, pod))
        };
        let change = overlay.count(|pod| all(pod));
        let mut are_there = true;
        for (_, count) in &self.near {
            match count.at(slot) {
                Some(pods) => are_there &= pods + change > 0,
                None => return false,
            }
        }
        // The first pod of a group with affinity to itself may be anywhere.
        are_there || (self.wanted + change * self.near.len() as i64 == 0 && all(self.pod))
    }

    fn is_unwanted(&self, slot: Slot, overlay: &Overlay<'_>) -> bool {
        let unwanting = |pod: &Pod, key: Option<&str>| -> i64 {
            let terms = pod
                .affinity
                .iter()
                .flat_map(|affinity| &affinity.anti_required);
            let meant = terms.filter(|term| {
                key.is_none_or(|key| term.topology == key)
                    && term.means_labels(&self.pod.labels)
                    && term.means_namespace(&self.pod.key.namespace, &self.namespace)
                    && self.snapshot.topology(&term.topology).of(slot) != NOWHERE
            });
            meant.count() as i64
        };
        let is_there = self.unwanting.iter().any(|(key, count)| {
            let gone: i64 = overlay
                .removed
                .iter()
                .map(|pod| unwanting(pod, Some(key)))
                .sum();
            count.at(slot).is_some_and(|pods| pods - gone > 0)
        });
        is_there || overlay.added.iter().any(|pod| unwanting(pod, None) > 0)
    }
}

/// Scores of nodes by preferred terms; `None` if there are none.
pub fn scores(pod: &Pod, snapshot: &Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
    let mut counts: HashMap<&str, Count<'_>, Quick> = HashMap::default();
    let own = pod
        .affinity
        .as_deref()
        .map_or(&[][..], |affinity| &affinity.preferred);
    for (weight, term) in own {
        let count = counts
            .entry(&term.topology)
            .or_insert_with(|| Count::over(snapshot, &term.topology));
        for class in snapshot.classes_meant(term) {
            count.add(class, *weight);
        }
    }
    let namespace = snapshot.namespace(&pod.key.namespace);
    for class in snapshot.classes_with_affinity() {
        for (weight, term) in class.affinity().into_iter().flat_map(wants) {
            if term.means_labels(&pod.labels)
                && term.means_namespace(&pod.key.namespace, &namespace)
            {
                counts
                    .entry(&term.topology)
                    .or_insert_with(|| Count::over(snapshot, &term.topology))
                    .add(class, weight);
            }
        }
    }
    if counts.is_empty() {
        return None;
    }
    let raw: Vec<i64> = nodes
        .iter()
        .map(|slot| counts.values().filter_map(|count| count.at(*slot)).sum())
        .collect();
    let (lowest, highest) = (*raw.iter().min()?, *raw.iter().max()?);
    let normal = raw.iter().map(|score| match highest - lowest {
        0 => 0,
        range => (MOST as f64 * ((score - lowest) as f64 / range as f64)) as i64,
    });
    Some(normal.collect())
}

/// The terms of a placed pod that affect scores, with their weights. A required affinity term has weight one.
fn wants(affinity: &PodAffinity) -> impl Iterator<Item = (i64, &AffinityTerm)> {
    let must = affinity.required.iter().map(|term| (1, term));
    let should = affinity
        .preferred
        .iter()
        .map(|(weight, term)| (*weight, term));
    must.chain(should)
}
