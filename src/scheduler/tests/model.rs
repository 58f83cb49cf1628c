//! Random events in a small cluster: derived data stays correct, and decisions obey the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::decide::{Decision, Turn, decide};
use super::super::node::Node;
use super::super::pod::Pod;
use super::super::preempt::{Outcome, preempt};
use super::super::snapshot::Snapshot;
use super::pod;
use crate::client::informer::Key;

/// The whole content of a snapshot as text.
fn told(snapshot: &Snapshot, names: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut order: Vec<&str> = snapshot
        .order()
        .iter()
        .map(|slot| snapshot.site(*slot).name())
        .collect();
    order.sort_unstable();
    out.push(format!("{order:?}"));
    for name in names {
        let Some(slot) = snapshot.find(name) else {
            continue;
        };
        let site = snapshot.site(slot);
        let mut pods: Vec<&str> = site.pods.iter().map(|pod| pod.key.name.as_str()).collect();
        pods.sort_unstable();
        let mut scalars = site.used.scalars.clone();
        scalars.sort();
        let (cpu, memory) = (site.used.cpu, site.used.memory);
        out.push(format!(
            "{name} {pods:?} {cpu} {memory} {scalars:?} {:?} {}",
            site.weight,
            site.ports.len()
        ));
        for key in ["topology.kubernetes.io/zone", "kubernetes.io/hostname"] {
            let topology = snapshot.topology(key);
            let place = topology.of(slot);
            let mut beside: Vec<&str> = snapshot
                .order()
                .iter()
                .filter(|other| topology.of(**other) == place)
                .map(|other| snapshot.site(*other).name())
                .collect();
            beside.sort_unstable();
            out.push(format!("{key} {beside:?}"));
        }
    }
    let mut classes: Vec<String> = Vec::new();
    for class in snapshot.classes_in("n") {
        let mut nodes: Vec<(&str, u32)> = class
            .nodes
            .iter()
            .map(|(slot, count)| (snapshot.site(*slot).name(), *count))
            .collect();
        nodes.sort_unstable();
        classes.push(format!(
            "{:?} {:?} {} {nodes:?}",
            class.labels(),
            class.affinity(),
            class.is_deleting()
        ));
    }
    classes.sort();
    out.extend(classes);
    out.push(format!("{}", snapshot.classes_with_affinity().count()));
    out.push(format!(
        "{} {}",
        snapshot.has_less_than(1),
        snapshot.has_less_than(5)
    ));
    out.push(format!(
        "{}",
        snapshot.image("i:latest").map_or(0, |nodes| nodes.len())
    ));
    out
}

/// Random events in a cluster of a few nodes and pods.
#[derive(Clone, Debug)]
enum Happens {
    Node {
        number: usize,
        zone: usize,
        taint: bool,
        has_image: bool,
    },
    NodeGone {
        number: usize,
    },
    Pod {
        number: usize,
        node: usize,
        cpu: u32,
        app: usize,
        priority: i32,
        shape: usize,
    },
    PodGone {
        number: usize,
    },
    /// A pod is scheduled by a decision, and stays assumed.
    Decided {
        number: usize,
        cpu: u32,
        app: usize,
        priority: i32,
        shape: usize,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    let (node, pod, cpu, app, priority, shape) = (
        0..4_usize,
        0..12_usize,
        0..3000_u32,
        0..2_usize,
        0..8_i32,
        0..5_usize,
    );
    prop_oneof![
        2 => (node.clone(), 0..2_usize, any::<bool>(), any::<bool>())
            .prop_map(|(number, zone, taint, has_image)| Happens::Node { number, zone, taint, has_image }),
        1 => node.clone().prop_map(|number| Happens::NodeGone { number }),
        3 => (pod.clone(), node, cpu.clone(), app.clone(), priority.clone(), shape.clone())
            .prop_map(|(number, node, cpu, app, priority, shape)| Happens::Pod { number, node, cpu, app, priority, shape }),
        2 => pod.clone().prop_map(|number| Happens::PodGone { number }),
        4 => (pod, cpu, app, priority, shape)
            .prop_map(|(number, cpu, app, priority, shape)| Happens::Decided { number, cpu, app, priority, shape }),
    ]
}

fn shaped(
    number: usize,
    node: &str,
    cpu: u32,
    app: usize,
    priority: i32,
    shape: usize,
) -> Arc<Pod> {
    let app = format!("app{app}");
    let term =
        |key: &str| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}]);
    let required = |term: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": term});
    let mut spec = match shape {
        1 => json!({"affinity": {"podAntiAffinity": required(term("kubernetes.io/hostname"))}}),
        2 => {
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}}]})
        }
        3 => json!({"tolerations": [{"operator": "Exists"}]}),
        4 => json!({"affinity": {"podAffinity": required(term("topology.kubernetes.io/zone"))}}),
        _ => json!({}),
    };
    spec["nodeName"] = node.into();
    spec["priority"] = priority.into();
    let ports = if shape == 3 {
        json!([{"hostPort": 80}])
    } else {
        json!([])
    };
    spec["containers"] = json!([{"image": "i", "ports": ports,
        "resources": {"requests": {"cpu": format!("{cpu}m"), "x.example/y": "1"}}}]);
    pod(
        &format!("p{number}"),
        json!({"labels": {"app": app}}),
        spec,
        json!({}),
    )
}

fn made(number: usize, zone: usize, taint: bool, has_image: bool) -> Arc<Node> {
    let taints = if taint {
        json!([{"key": "k", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    let images = if has_image {
        json!([{"names": ["i:latest"], "sizeBytes": 1000}])
    } else {
        json!([])
    };
    let name = format!("node{number}");
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("{zone}")}},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "6", "x.example/y": "4"}, "images": images},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

/// Whether a pod may be on a node, computed without derived data.
fn may_be(
    pod: &Pod,
    node: &Node,
    nodes: &BTreeMap<String, Arc<Node>>,
    pods: &BTreeMap<String, Arc<Pod>>,
) -> bool {
    let on: Vec<&Arc<Pod>> = pods
        .values()
        .filter(|other| other.node == node.name && other.key != pod.key)
        .collect();
    let cpu: i64 = on.iter().map(|other| other.requests.cpu).sum();
    let scalar: i64 = on
        .iter()
        .map(|other| other.requests.scalar("x.example/y"))
        .sum();
    let bears = !pod.tolerations.is_empty();
    let zone = |name: &str| {
        nodes
            .get(name)
            .and_then(|node| node.labels.get("topology.kubernetes.io/zone"))
    };
    let hates = |who: &Pod, whom: &Pod| {
        who.affinity.as_ref().is_some_and(|affinity| {
            affinity
                .anti_required
                .iter()
                .any(|term| term.means_labels(&whom.labels))
        })
    };
    let wants = |whom: &Pod| {
        pod.affinity.as_ref().is_none_or(|affinity| {
            affinity
                .required
                .iter()
                .all(|term| term.means_labels(&whom.labels))
        })
    };
    let others: Vec<&Arc<Pod>> = pods
        .values()
        .filter(|other| nodes.contains_key(other.node.as_str()) && other.key != pod.key)
        .collect();
    let wants_none = pod
        .affinity
        .as_ref()
        .is_none_or(|affinity| affinity.required.is_empty());
    let is_beside = |other: &&Arc<Pod>| wants(other) && zone(&other.node) == zone(&node.name);
    let is_near =
        wants_none || others.iter().any(is_beside) || !others.iter().any(|other| wants(other));
    let is_even = pod.spread.iter().all(|spread| {
        let mut counts: BTreeMap<Option<&str>, i64> =
            nodes.keys().map(|name| (zone(name), 0)).collect();
        for other in others.iter().filter(|other| spread.counts(&other.labels)) {
            *counts.entry(zone(&other.node)).or_default() += 1;
        }
        counts[&zone(&node.name)] + 1 - counts.values().min().unwrap() <= spread.max_skew
    });
    (node.taints.is_empty() || bears)
        && (on.len() as i64) < node.pods
        && cpu + pod.requests.cpu <= 4000
        && scalar < 4
        && !on
            .iter()
            .any(|other| !other.ports.is_empty() && !pod.ports.is_empty())
        && !on
            .iter()
            .any(|other| hates(pod, other) || hates(other, pod))
        && is_near
        && is_even
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Derived data equals what is computed from scratch, and no decision breaks a rule.
    #[test]
    fn the_snapshot_is_true_and_decisions_keep_the_rules(events in prop::collection::vec(happens(), 1..60)) {
        let mut snapshot = Snapshot::default();
        let mut nodes: BTreeMap<String, Arc<Node>> = BTreeMap::new();
        let mut pods: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut turn = Turn::new(11);
        for event in events {
            match event {
                Happens::Node { number, zone, taint, has_image } => {
                    let node = made(number, zone, taint, has_image);
                    nodes.insert(node.name.to_string(), node.clone());
                    snapshot.set_node(node);
                }
                Happens::NodeGone { number } => {
                    let name = format!("node{number}");
                    nodes.remove(&name);
                    snapshot.remove_node(&name);
                }
                Happens::Pod { number, node, cpu, app, priority, shape } => {
                    let pod = shaped(number, &format!("node{node}"), cpu, app, priority, shape);
                    pods.insert(pod.key.name.to_string(), pod.clone());
                    snapshot.set_pod(pod);
                }
                Happens::PodGone { number } => {
                    let name = format!("p{number}");
                    let known = pods.remove(&name).is_some();
                    prop_assert_eq!(snapshot.remove_pod(&Key::new("n", &name)).is_some(), known);
                }
                Happens::Decided { number, cpu, app, priority, shape } => {
                    let new = shaped(number, "", cpu, app, priority, shape);
                    if pods.contains_key(new.key.name.as_str()) {
                        continue;
                    }
                    snapshot.prepare(&new);
                    match decide(&snapshot, &new, &mut turn) {
                        Decision::Node(slot, _) => {
                            let name = snapshot.site(slot).name().to_owned();
                            prop_assert!(may_be(&new, &nodes[&name], &nodes, &pods), "{new:?} on {name}");
                            let placed = snapshot.assume(&new, slot);
                            pods.insert(placed.key.name.to_string(), placed);
                        }
                        Decision::Nowhere(why) => {
                            for node in nodes.values() {
                                prop_assert!(!may_be(&new, node, &nodes, &pods), "{new:?} could be on {}: {why}", node.name);
                            }
                            if let Outcome::Plan(plan) = preempt(&snapshot, &new, &why, &mut turn) {
                                prop_assert!(!plan.victims.is_empty());
                                let mut left = pods.clone();
                                for victim in &plan.victims {
                                    prop_assert!(victim.priority < new.priority);
                                    left.remove(victim.key.name.as_str());
                                }
                                let node = &nodes[snapshot.site(plan.node).name()];
                                prop_assert!(may_be(&new, node, &nodes, &left), "{new:?} still not on {}", node.name);
                            }
                        }
                    }
                }
            }
        }
        let mut anew = Snapshot::default();
        nodes.values().for_each(|node| anew.set_node(node.clone()));
        pods.values().for_each(|pod| anew.set_pod(pod.clone()));
        let names: Vec<String> = nodes.keys().cloned().collect();
        prop_assert_eq!(told(&snapshot, &names), told(&anew, &names));
    }
}
