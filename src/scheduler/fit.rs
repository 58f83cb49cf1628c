//! NodeResourcesFit, NodeResourcesBalancedAllocation and ImageLocality: free resources of nodes, and images present.
//! Follows k8s.io/kubernetes/pkg/scheduler/framework/plugins/{noderesources,imagelocality}.

use super::cycle::Overlay;
use super::node::Node;
use super::plugin::{Plugin, Reason, Rejection};
use super::pod::{Pod, Resources};
use super::snapshot::{Site, Slot, Snapshot};

/// The highest score of a plugin.
pub const MOST: i64 = 100;
/// Images smaller than this in total do not affect scores; in bytes.
const SMALL_IMAGE: i64 = 23 << 20;
/// Larger images count as this size; in bytes.
const LARGE_IMAGE: i64 = 1000 << 20;

/// Whether a node has the resources that a pod requests.
pub fn check(pod: &Pod, node: &Node, site: &Site, overlay: &Overlay<'_>) -> Result<(), Rejection> {
    let pods = site.pods.len() + overlay.added.len() - overlay.removed.len();
    let room = |used: &Resources, others: i64| -> Result<(), Rejection> {
        let lacks = lacking(&pod.requests, others, used, node);
        let is_resolvable = lacks.iter().all(|(_, can_be)| *can_be);
        let reasons = lacks.into_iter().map(|(reason, _)| reason);
        let rejection = Rejection::of(Plugin::NodeResourcesFit, reasons, is_resolvable);
        rejection.map_or(Ok(()), Err)
    };
    if overlay.is_empty() {
        return room(&site.used, pods as i64);
    }
    let mut used = site.used.clone();
    overlay
        .added
        .iter()
        .for_each(|pod| used.add(&pod.requests, 1));
    overlay
        .removed
        .iter()
        .for_each(|pod| used.add(&pod.requests, -1));
    room(&used, pods as i64)
}

/// Whether an empty node would have the resources that a pod requests.
pub fn could_fit(pod: &Pod, node: &Node) -> bool {
    lacking(&pod.requests, 0, &Resources::default(), node).is_empty()
}

/// Missing resources of a node, each with whether it would suffice without other pods.
fn lacking(wants: &Resources, pods: i64, used: &Resources, node: &Node) -> Vec<(Reason, bool)> {
    let mut lacks = Vec::new();
    if pods + 1 > node.pods {
        lacks.push(("Too many pods".into(), true));
    }
    let has = &node.allocatable;
    for (wanted, used, has, reason) in [
        (wants.cpu, used.cpu, has.cpu, "Insufficient cpu"),
        (wants.memory, used.memory, has.memory, "Insufficient memory"),
        (
            wants.storage,
            used.storage,
            has.storage,
            "Insufficient ephemeral-storage",
        ),
    ] {
        if wanted > 0 && wanted > has - used {
            lacks.push((reason.into(), wanted <= has));
        }
    }
    for (name, wanted) in &wants.scalars {
        let (used, has) = (used.scalar(name), has.scalar(name));
        if *wanted > 0 && *wanted > has - used {
            lacks.push((format!("Insufficient {name}").into(), *wanted <= has));
        }
    }
    lacks
}

/// LeastAllocated: the more free resources a node has, the higher its score.
pub fn least_allocated(pod: &Pod, node: &Node, site: &Site) -> i64 {
    let left = |used: i64, wanted: i64, has: i64| {
        let used = used + wanted;
        if used > has {
            0
        } else {
            (has - used) * MOST / has
        }
    };
    let has = &node.allocatable;
    let (used, wanted) = (site.weight, pod.weight);
    match (has.cpu > 0, has.memory > 0) {
        (true, true) => (left(used.0, wanted.0, has.cpu) + left(used.1, wanted.1, has.memory)) / 2,
        (true, false) => left(used.0, wanted.0, has.cpu),
        (false, true) => left(used.1, wanted.1, has.memory),
        (false, false) => 0,
    }
}

/// BalancedAllocation: higher if cpu and memory utilization is more even with the pod than without. `None` for a pod
/// that requests neither.
pub fn balanced(pod: &Pod, node: &Node, site: &Site) -> Option<i64> {
    let wants = &pod.requests;
    if wants.cpu == 0 && wants.memory == 0 {
        return None;
    }
    let has = &node.allocatable;
    let evenness = |cpu: i64, memory: i64| -> i64 {
        let share = |used: i64, has: i64| (used as f64 / has as f64).min(1.0);
        let uneven = match has.cpu > 0 && has.memory > 0 {
            true => ((share(cpu, has.cpu) - share(memory, has.memory)) / 2.0).abs(),
            false => 0.0,
        };
        ((1.0 - uneven) * MOST as f64) as i64
    };
    let used = &site.used;
    let with = evenness(used.cpu + wants.cpu, used.memory + wants.memory);
    let without = evenness(used.cpu, used.memory);
    Some(MOST / 2 + (MOST / 2 + with - without) / 2)
}

/// ImageLocality: scores nodes by the pod's images present on them. `None` if no node has any.
pub struct Images<'a> {
    /// The bytes that an image counts for, and its nodes.
    known: Vec<(
        i64,
        &'a indexmap::IndexMap<Slot, i64, super::snapshot::Quick>,
    )>,
    count: i64,
    nodes: f64,
}

impl<'a> Images<'a> {
    /// Computes it for a pod.
    pub fn of(pod: &Pod, snapshot: &'a Snapshot) -> Option<Images<'a>> {
        let known: Vec<_> = pod
            .images
            .iter()
            .filter_map(|image| snapshot.image(image))
            .map(|nodes| (nodes.len() as i64, nodes))
            .collect();
        (!known.is_empty()).then(|| Images {
            known,
            count: pod.images.len() as i64,
            nodes: snapshot.order().len() as f64,
        })
    }

    /// The score of a node.
    pub fn score(&self, slot: Slot) -> i64 {
        let there = self.known.iter().filter_map(|(nodes, at)| {
            let size = at.get(&slot)?;
            let spread = *nodes as f64 / self.nodes;
            Some((*size as f64 * spread) as i64)
        });
        let most = LARGE_IMAGE * self.count;
        let sum = there.sum::<i64>().clamp(SMALL_IMAGE, most);
        MOST * (sum - SMALL_IMAGE) / (most - SMALL_IMAGE)
    }
}
