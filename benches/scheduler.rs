//! Scheduling decisions per second over 5,000 nodes, in memory, on one thread: `cargo bench --bench scheduler`.

use std::sync::Arc;
use std::time::Instant;

use reddwarf::client::informer::Key;
use reddwarf::scheduler::decide::{Decision, Turn, decide};
use reddwarf::scheduler::node::Node;
use reddwarf::scheduler::pod::Pod;
use reddwarf::scheduler::snapshot::Snapshot;
use reddwarf::scheduler::terms::equal_to;
use reddwarf::schema::json;
use serde_json::{Value, json};

const NODES: usize = 5_000;
const PODS: usize = 10_000;

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for number in 0..NODES {
        let name = format!("node-{number}");
        let node = json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            }},
            "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
        });
        snapshot.set_node(Arc::new(read::<Node>(node)));
    }
    snapshot
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("it is written here")
}

fn main() {
    let near = |kind: &str| {
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}});
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    let spread = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}},
    }]});
    for (what, spec, in_service, pods) in [
        ("plain pods", json!({}), false, PODS),
        (
            "pods of a service, spread by default",
            json!({}),
            true,
            PODS,
        ),
        ("pods spread over zones", spread, false, PODS),
        (
            "pods apart from each other",
            near("podAntiAffinity"),
            false,
            NODES / 2,
        ),
    ] {
        let mut snapshot = cluster();
        if in_service {
            let selector = json::parse(br#"{"app":"a"}"#).expect("it is written here");
            let key = Key::new("n", "service");
            let selector = Some(equal_to(&selector.value));
            snapshot.workloads.set_service(&key, selector);
        }
        let pods: Vec<Pod> = (0..pods)
            .map(|number| {
                let mut spec = spec.clone();
                let requests = json!({"requests": {"cpu": "100m", "memory": "500Mi"}});
                spec["containers"] = json!([{"image": "i", "resources": requests}]);
                let name = format!("pod-{number}");
                let metadata =
                    json!({"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}});
                read(json!({"metadata": metadata, "spec": spec}))
            })
            .collect();
        let mut turn = Turn::new(1);
        let begun = Instant::now();
        let mut placed = 0;
        for pod in &pods {
            snapshot.prepare(pod);
            if let Decision::Node(slot, _) = decide(&snapshot, pod, &mut turn) {
                snapshot.assume(pod, slot);
                placed += 1;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{what}: {placed} of {} placed on {NODES} nodes, {:.0} decisions a second",
            pods.len(),
            pods.len() as f64 / seconds
        );
    }
}
