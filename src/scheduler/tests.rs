//! Tests decisions, and the state on which they are based.

mod binding;
mod devices;
mod hints;
mod model;
mod queue;
mod state;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::decide::{Decision, Turn, decide};
use super::hints::Event;
use super::node::Node;
use super::plugin::{Plugin, Plugins};
use super::pod::Pod;
use super::preempt::{Budget, Outcome, preempt};
use super::queue::Queue;
use super::snapshot::Snapshot;
use super::storage::Plan;
use super::terms::{equal_to, label_selector};
use super::volumes::{Claim, Class, RawClaim, RawClass, RawVolume, Volume};
use crate::client::informer::Key;

/// A pod with a name and the given parts of metadata, spec and status.
fn pod(name: &str, metadata: Value, spec: Value, status: Value) -> Arc<Pod> {
    let merged = |mut base: Value, more: Value| {
        let more = more.as_object().cloned().unwrap_or_default();
        base.as_object_mut().unwrap().extend(more);
        base
    };
    let named = json!({"name": name, "namespace": "n", "uid": format!("uid-{name}")});
    let usual = json!({"schedulerName": "default-scheduler", "containers": [{"image": "i"}]});
    let pod = json!({
        "metadata": merged(named, metadata),
        "spec": merged(usual, spec),
        "status": merged(json!({}), status),
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// A pod that requests cpu.
fn asking(name: &str, cpu: &str, spec: Value) -> Arc<Pod> {
    let mut spec = spec;
    let containers = json!([{"image": "i", "resources": {"requests": {"cpu": cpu}}}]);
    spec["containers"] = containers;
    pod(name, json!({"labels": {"app": "a"}}), spec, json!({}))
}

fn node(name: &str, labels: Value, spec: Value) -> Arc<Node> {
    let mut labels = labels;
    labels["kubernetes.io/hostname"] = name.into();
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

/// Three nodes in two zones.
fn three() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let labels = json!({"topology.kubernetes.io/zone": zone, "name": name});
        snapshot.set_node(node(name, labels, json!({})));
    }
    snapshot
}

/// The node for a pod, or why there is none; then the pods to preempt.
fn decided(snapshot: &mut Snapshot, pod: &Pod) -> String {
    snapshot.prepare(pod);
    let mut turn = Turn::new(7);
    match decide(snapshot, pod, &mut turn) {
        Decision::Node(slot, _) => snapshot.site(slot).name().to_owned(),
        Decision::Nowhere(mut diagnosis) => {
            let outcome = preempt(snapshot, pod, &diagnosis, &mut turn);
            diagnosis.preemption = outcome.note(snapshot);
            diagnosis.to_string()
        }
    }
}

#[test]
fn pods_go_where_they_may_and_are_told_why_they_may_not() {
    let on = |name: &str, node: &str, spec: Value| {
        let mut spec = spec;
        spec["nodeName"] = node.into();
        asking(name, "1", spec)
    };
    let port = json!({"containers": [{"ports": [{"hostPort": 80}]}]});
    let no_help =
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let no_victims =
        "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.";
    let term = |topology: &str| json!({"topologyKey": topology, "labelSelector": {"matchLabels": {"app": "a"}}});
    let zone = "topology.kubernetes.io/zone";
    let required = |term: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let names = |names: Value| {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": names}]);
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": fields}]}}}})
    };
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": zone,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]});
    for (there, spec, cpu, wanted) in [
        (
            vec![],
            json!({"nodeSelector": {"name": "b"}}),
            "1",
            "b".to_owned(),
        ),
        (vec![], names(json!(["c"])), "1", "c".to_owned()),
        (
            vec![],
            names(json!(["z"])),
            "1",
            format!(
                "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. {no_help}"
            ),
        ),
        (
            vec![],
            json!({"nodeSelector": {"name": "z"}}),
            "1",
            format!(
                "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {no_help}"
            ),
        ),
        (
            vec![],
            json!({}),
            "5",
            format!("0/3 nodes are available: 3 Insufficient cpu. {no_help}"),
        ),
        (
            vec![
                on("x", "a", json!({})),
                on("y", "b", json!({})),
                on("z", "c", json!({})),
            ],
            json!({}),
            "3500m",
            format!("0/3 nodes are available: 3 Insufficient cpu. {no_victims}"),
        ),
        // The least used node is the best.
        (
            vec![on("x", "a", json!({})), on("y", "b", json!({}))],
            json!({}),
            "1",
            "c".to_owned(),
        ),
        (
            vec![
                pod(
                    "x",
                    json!({}),
                    {
                        let mut spec = port.clone();
                        spec["nodeName"] = "a".into();
                        spec
                    },
                    json!({}),
                ),
                pod(
                    "y",
                    json!({}),
                    {
                        let mut spec = port.clone();
                        spec["nodeName"] = "c".into();
                        spec
                    },
                    json!({}),
                ),
            ],
            json!({"hostPorts": true}),
            "1",
            "b".to_owned(),
        ),
        (
            vec![on("x", "c", json!({}))],
            json!({"affinity": {"podAffinity": required(term("kubernetes.io/hostname"))}}),
            "1",
            "c".to_owned(),
        ),
        // The first pod of a group with affinity to itself may go to any node with the label.
        (
            vec![],
            json!({"affinity": {"podAffinity": required(term("nowhere"))}}),
            "1",
            format!(
                "0/3 nodes are available: 3 node(s) didn't match pod affinity rules. {no_help}"
            ),
        ),
        (
            vec![on("x", "a", json!({}))],
            json!({"affinity": {"podAntiAffinity": required(term(zone))}}),
            "1",
            "c".to_owned(),
        ),
        (
            vec![on(
                "x",
                "a",
                json!({"affinity": {"podAntiAffinity": required(term(zone))}}),
            )],
            json!({}),
            "1",
            "c".to_owned(),
        ),
        (
            vec![on("x", "a", json!({}))],
            spread.clone(),
            "1",
            "c".to_owned(),
        ),
        (
            vec![
                on("x", "a", json!({})),
                on("y", "b", json!({})),
                on("z", "c", json!({})),
            ],
            spread,
            "1",
            "c".to_owned(),
        ),
    ] {
        let mut snapshot = three();
        there.into_iter().for_each(|pod| snapshot.set_pod(pod));
        let mut spec = spec;
        let wants_port = spec.as_object_mut().unwrap().remove("hostPorts").is_some();
        let new = match wants_port {
            true => pod("new", json!({}), port.clone(), json!({})),
            false => asking("new", cpu, spec.clone()),
        };
        assert_eq!(decided(&mut snapshot, &new), wanted, "{spec}");
    }
}

#[test]
fn taints_and_cordons_keep_pods_away_unless_they_bear_them() {
    let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
    let bearing = |more: Value| json!({"tolerations": [more]});
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node("tainted", json!({}), taint("NoExecute")));
    snapshot.set_node(node("cordoned", json!({}), json!({"unschedulable": true})));
    for (tolerations, wanted) in [
        (
            json!({}),
            "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
        (
            bearing(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})),
            "tainted",
        ),
        (bearing(json!({"key": "k", "value": "v"})), "tainted"),
        (
            bearing(json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"})),
            "cordoned",
        ),
    ] {
        assert_eq!(
            decided(&mut snapshot, &asking("p", "1", tolerations)),
            wanted
        );
    }
    // A node with a PreferNoSchedule taint is used last, if there is no other.
    snapshot.set_node(node("soft", json!({}), taint("PreferNoSchedule")));
    assert_eq!(decided(&mut snapshot, &asking("p", "1", json!({}))), "soft");
    snapshot.set_node(node("free", json!({}), json!({})));
    assert_eq!(decided(&mut snapshot, &asking("p", "1", json!({}))), "free");
    let Decision::Nowhere(why) = decide(
        &Snapshot::default(),
        &asking("p", "1", json!({})),
        &mut Turn::new(1),
    ) else {
        panic!("there are no nodes");
    };
    assert_eq!(why.to_string(), "no nodes available to schedule pods");
}

#[test]
fn pods_go_where_what_they_need_is_declared() {
    let declaring = |features: Value| -> Arc<Node> {
        let status =
            json!({"allocatable": {"cpu": "4", "pods": "10"}, "declaredFeatures": features});
        let node = json!({"metadata": {"name": "n"}, "status": status});
        Arc::new(serde_json::from_value(node).unwrap())
    };
    let all = "RestartAllContainersOnContainerExits";
    let no = "0/1 nodes are available: 1 node(s) didn't match Pod's required features. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    for (list, action, features, wanted) in [
        ("containers", "Restart", json!([]), "n"),
        ("containers", "RestartAllContainers", json!(["Other"]), no),
        ("initContainers", "RestartAllContainers", json!(null), no),
        (
            "initContainers",
            "RestartAllContainers",
            json!(["Other", all]),
            "n",
        ),
    ] {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(declaring(features));
        let rules = json!([{"action": action}]);
        let spec = json!({list: [{"image": "i", "restartPolicyRules": rules}]});
        let wants = pod("p", json!({}), spec, json!({}));
        assert_eq!(decided(&mut snapshot, &wants), wanted, "{list} {action}");
    }
}

#[test]
fn pods_of_one_workload_are_spread_by_themselves() {
    let mut snapshot = three();
    let selector = crate::schema::json::parse(br#"{"app":"a"}"#).unwrap().value;
    let key = Key::new("n", "service");
    snapshot
        .workloads
        .set_service(&key, Some(equal_to(&selector)));
    let mut places: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..6 {
        let new = asking(&format!("p{number}"), "10m", json!({}));
        let place = decided(&mut snapshot, &new);
        let slot = snapshot.find(&place).unwrap();
        snapshot.assume(&new, slot);
        *places.entry(place).or_default() += 1;
    }
    assert_eq!(places.len(), 3, "{places:?}");
    assert!(
        places["c"] >= 2,
        "the node alone in its zone has more: {places:?}"
    );
}

#[test]
fn the_least_that_matters_least_is_ended() {
    let with = |name: &str, node: &str, priority: i32, cpu: &str, started: &str| {
        let spec = json!({"nodeName": node, "priority": priority,
            "containers": [{"resources": {"requests": {"cpu": cpu}}}]});
        let metadata = json!({"labels": {"name": name}});
        pod(name, metadata, spec, json!({"startTime": started}))
    };
    let early = "2026-01-01T00:00:00Z";
    let late = "2026-01-02T00:00:00Z";
    for (what, there, protected, cpu, wanted) in [
        (
            "priority, then as few as will do",
            vec![
                ("a1", "a", 5, "4"),
                ("b1", "b", 1, "2"),
                ("b2", "b", 1, "2"),
                ("c1", "c", 10, "4"),
            ],
            "",
            "2",
            Some(("b", vec!["b2"])),
        ),
        (
            "nobody who matters as much",
            vec![
                ("a1", "a", 10, "4"),
                ("b1", "b", 11, "4"),
                ("c1", "c", 10, "4"),
            ],
            "",
            "1",
            None,
        ),
        (
            "those within their budget rather than others",
            vec![
                ("a1", "a", 1, "4"),
                ("b1", "b", 2, "4"),
                ("c1", "c", 10, "4"),
            ],
            "a1",
            "1",
            Some(("b", vec!["b1"])),
        ),
        (
            "nobody where that does not help",
            vec![
                ("a1", "a", 1, "1"),
                ("b1", "b", 1, "1"),
                ("c1", "c", 1, "1"),
            ],
            "",
            "5",
            None,
        ),
    ] {
        let mut snapshot = three();
        for (place, (name, node, priority, cpu)) in there.into_iter().enumerate() {
            let started = if place == 1 { early } else { late };
            snapshot.set_pod(with(name, node, priority, cpu, started));
        }
        let selector = json!({"matchLabels": {"name": protected}}).to_string();
        let selector = crate::schema::json::parse(selector.as_bytes())
            .unwrap()
            .value;
        let budget = Budget {
            selector: label_selector(&selector),
            ..Budget::default()
        };
        snapshot.budgets.insert(Key::new("n", "budget"), budget);
        let new = asking("new", cpu, json!({"priority": 10}));
        let mut turn = Turn::new(3);
        let Decision::Nowhere(why) = decide(&snapshot, &new, &mut turn) else {
            panic!("{what}: it has a place");
        };
        let got = match preempt(&snapshot, &new, &why, &mut turn) {
            Outcome::Plan(plan) => {
                let victims = plan.victims.iter().map(|pod| pod.key.name.to_string());
                Some((
                    snapshot.site(plan.node).name().to_owned(),
                    victims.collect::<Vec<_>>(),
                ))
            }
            _ => None,
        };
        let wanted = wanted.map(|(node, victims)| {
            (
                node.to_owned(),
                victims.into_iter().map(str::to_owned).collect(),
            )
        });
        assert_eq!(got, wanted, "{what}");
        let humble = asking(
            "new",
            cpu,
            json!({"priority": 10, "preemptionPolicy": "Never"}),
        );
        assert!(matches!(
            preempt(&snapshot, &humble, &why, &mut turn),
            Outcome::NotNow(_)
        ));
    }
}

#[test]
fn pods_go_where_their_volumes_are_or_can_be() {
    let claim = |class: &str, volume: &str, more: Value| -> Claim {
        let mut annotations = more;
        if !volume.is_empty() {
            annotations["pv.kubernetes.io/bind-completed"] = "yes".into();
        }
        let raw: RawClaim = serde_json::from_value(json!({
            "metadata": {"name": "claim", "namespace": "n", "uid": "claim", "annotations": annotations},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOncePod"],
                "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .unwrap();
        Claim::from(&raw)
    };
    let volume = |name: &str, node: &str, size: &str, spec: Value| -> (CompactString, Volume) {
        let mut spec = spec;
        spec["capacity"] = json!({"storage": size});
        spec["accessModes"] = json!(["ReadWriteOncePod"]);
        spec["storageClassName"] = "waits".into();
        let expression = json!({"key": "name", "operator": "In", "values": [node]});
        spec["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}});
        let raw: RawVolume = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": spec, "status": {"phase": "Available"},
        }))
        .unwrap();
        (name.into(), Volume::from(&raw))
    };
    let class = |provisioner: &str, mode: &str| -> Class {
        let raw = json!({"metadata": {}, "provisioner": provisioner, "volumeBindingMode": mode});
        Class::from(&serde_json::from_value::<RawClass>(raw).unwrap())
    };
    let spec = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]});
    let new = asking("new", "1", spec.clone());
    let key = Key::new("n", "claim");
    let none = || json!({});
    let no_help =
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    for (what, known, volumes, wanted) in [
        (
            "no claim",
            None,
            vec![],
            Err("persistentvolumeclaim \"claim\" not found.".to_owned()),
        ),
        (
            "a claim that is bound first",
            Some(claim("at-once", "", none())),
            vec![],
            Err("pod has unbound immediate PersistentVolumeClaims.".to_owned()),
        ),
        (
            "a volume of one node",
            Some(claim("waits", "v", none())),
            vec![volume("v", "b", "1Gi", none())],
            Ok(("b", Plan::default())),
        ),
        (
            "a volume that is not there",
            Some(claim("waits", "v", none())),
            vec![],
            Err("persistentvolume \"v\" not found.".to_owned()),
        ),
        (
            "the smallest that is large enough",
            Some(claim("waits", "", none())),
            vec![
                volume("large", "b", "3Gi", none()),
                volume("small", "b", "1Gi", none()),
                volume("tiny", "b", "1Mi", none()),
            ],
            Ok((
                "b",
                Plan {
                    bind: vec![("small".into(), key.clone())],
                    provision: vec![],
                },
            )),
        ),
        (
            "none that is another's",
            Some(claim("waits", "", none())),
            vec![volume(
                "other",
                "b",
                "1Gi",
                json!({"claimRef": {"namespace": "n", "name": "other"}}),
            )],
            Err("3 node(s) didn't find available persistent volumes to bind.".to_owned()),
        ),
        (
            "one that is to be made",
            Some(claim("made", "", none())),
            vec![],
            Ok((
                "",
                Plan {
                    bind: vec![],
                    provision: vec![key.clone()],
                },
            )),
        ),
        (
            "one that is being made elsewhere",
            Some(claim(
                "made",
                "",
                json!({"volume.kubernetes.io/selected-node": "c"}),
            )),
            vec![],
            Ok((
                "c",
                Plan {
                    bind: vec![],
                    provision: vec![key.clone()],
                },
            )),
        ),
    ] {
        let mut snapshot = three();
        let storage = &mut snapshot.storage;
        storage.classes.insert(
            "waits".into(),
            class("kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        );
        storage
            .classes
            .insert("made".into(), class("d", "WaitForFirstConsumer"));
        storage
            .classes
            .insert("at-once".into(), class("d", "Immediate"));
        storage.set_claim(&key, known);
        for (name, volume) in volumes {
            storage.set_volume(&name, Some(volume));
        }
        match (wanted, decide(&snapshot, &new, &mut Turn::new(5))) {
            (Ok((node, plan)), Decision::Node(slot, got)) => {
                let name = snapshot.site(slot).name().to_owned();
                assert!(node.is_empty() || node == name, "{what}: {name}");
                assert_eq!(got, plan, "{what}");
                // The next pod finds neither the volume nor the claim free.
                let assumed = snapshot.assume(&new, slot);
                snapshot.storage.promise(&plan, &assumed);
                let second = asking("second", "1", spec.clone());
                let told = decided(&mut snapshot, &second);
                assert!(
                    told.contains(
                        "3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod"
                    ),
                    "{what}: {told}"
                );
            }
            (Err(why), _) => {
                let told = decided(&mut snapshot, &new);
                assert_eq!(
                    told,
                    format!("0/3 nodes are available: {why} {no_help}"),
                    "{what}"
                );
            }
            (Ok(_), Decision::Nowhere(why)) => panic!("{what}: {why}"),
        }
    }
}

#[test]
fn room_is_kept_for_those_who_matter_more() {
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node("a", json!({}), json!({})));
    let first = asking("first", "3", json!({"priority": 5}));
    snapshot.nominate(&first, "a");
    assert_eq!(
        decided(&mut snapshot, &asking("more", "2", json!({"priority": 6}))),
        "a"
    );
    let less = asking("less", "2", json!({"priority": 5}));
    assert!(
        decided(&mut snapshot, &less).starts_with("0/1 nodes are available: 1 Insufficient cpu.")
    );
    assert_eq!(decided(&mut snapshot, &first), "a");
    snapshot.withdraw(&first.key);
    assert_eq!(decided(&mut snapshot, &less), "a");
}
