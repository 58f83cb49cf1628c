//! Tests volume limits and storage capacity of nodes.

use serde_json::{Value, json};

use super::super::cycle::Cycle;
use super::super::decide::scores;
use super::super::volumes::{
    Capacity, Claim, Class, Driver, RawCapacity, RawClaim, RawClass, RawDriver, RawVolume, Volume,
};
use super::{Key, Snapshot, asking, decided, node};

fn of<R: serde::de::DeserializeOwned, T: for<'a> From<&'a R>>(raw: Value) -> T {
    T::from(&serde_json::from_value::<R>(raw).unwrap())
}

fn claim(volume: &str, size: &str) -> Claim {
    of::<RawClaim, _>(json!({
        "metadata": {"name": "c", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"storageClassName": "made", "volumeName": volume,
            "resources": {"requests": {"storage": size}}},
    }))
}

/// Nodes, a driver that reports capacity, and its class.
fn cluster(nodes: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in nodes {
        snapshot.set_node(node(name, json!({}), json!({})));
    }
    let storage = &mut snapshot.storage;
    let class =
        json!({"metadata": {}, "provisioner": "d", "volumeBindingMode": "WaitForFirstConsumer"});
    storage
        .classes
        .insert("made".into(), of::<RawClass, Class>(class));
    let driver = json!({"metadata": {}, "spec": {"storageCapacity": true}});
    storage
        .drivers
        .insert("d".into(), of::<RawDriver, Driver>(driver));
    snapshot
}

#[test]
fn what_is_attached_and_what_is_used_counts_against_the_limit_of_a_node() {
    let claiming = |name: &str, claim: &str| {
        let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
        asking(name, "1", json!({"volumes": [volume]}))
    };
    for (what, limit, used, attached, volume, fits) in [
        ("its own", 1, None, vec![], "v", true),
        ("another's besides", 1, Some("w"), vec![], "v", false),
        (
            "another's besides, with room",
            2,
            Some("w"),
            vec![],
            "v",
            true,
        ),
        (
            "another's that is the same",
            1,
            Some("v"),
            vec![],
            "v",
            true,
        ),
        (
            "the same, which is attached, too",
            1,
            Some("v"),
            vec!["v"],
            "v",
            true,
        ),
        ("attached besides", 1, None, vec!["w"], "v", false),
        ("attached elsewhere", 1, None, vec!["elsewhere"], "v", true),
        // As upstream: it cannot be distinguished from a volume that is about to be detached.
        (
            "attached still, used by nobody",
            1,
            None,
            vec!["v"],
            "v",
            false,
        ),
        (
            "a volume that is gone counts by its class",
            1,
            Some("gone"),
            vec![],
            "v",
            false,
        ),
    ] {
        let mut snapshot = cluster(&["a"]);
        let storage = &mut snapshot.storage;
        let limits = [("d".into(), Some(limit))].into_iter().collect();
        storage.nodes.insert("a".into(), limits);
        for name in ["v", "w", "elsewhere"] {
            let csi = json!({"driver": "d", "volumeHandle": name});
            let volume: Volume =
                of::<RawVolume, _>(json!({"metadata": {"name": name}, "spec": {"csi": csi}}));
            storage.set_volume(&name.into(), Some(volume));
        }
        for name in attached {
            let node = if name == "elsewhere" { "b" } else { "a" };
            storage.set_attachment(&name.into(), Some((node.into(), name.into())));
        }
        storage.set_claim(&Key::new("n", "own"), Some(claim(volume, "1Gi")));
        if let Some(used) = used {
            storage.set_claim(&Key::new("n", "used"), Some(claim(used, "1Gi")));
            let other = claiming("other", "used").placed_on("a");
            snapshot.set_pod(other.into());
        }
        let cycle = Cycle::new(&snapshot, &claiming("p", "own")).map(|cycle| {
            let slot = snapshot.find("a").unwrap();
            let limits = cycle.check(slot).err();
            limits.is_none_or(|limits| {
                let reasons: Vec<_> = limits.reasons().collect();
                reasons != ["node(s) exceed max volume count"]
            })
        });
        assert_eq!(cycle.ok(), Some(fits), "{what}");
    }
}

#[test]
fn a_node_with_more_room_for_its_volumes_is_better() {
    let waits = |size: &str| {
        let raw = json!({
            "metadata": {"name": "c"},
            "spec": {"storageClassName": "made", "resources": {"requests": {"storage": size}}},
        });
        of::<RawClaim, Claim>(raw)
    };
    let capacity = |node: &str, total: &str| {
        of::<RawCapacity, Capacity>(json!({
            "metadata": {}, "storageClassName": "made", "capacity": total,
            "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": node}},
        }))
    };
    let volume = |name: &str, node: &str, size: &str| {
        let is_on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        of::<RawVolume, Volume>(json!({
            "metadata": {"name": name, "resourceVersion": "1"}, "status": {"phase": "Available"},
            "spec": {"storageClassName": "made", "capacity": {"storage": size},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [is_on]}]}}},
        }))
    };
    let claims = |names: &[&str]| {
        let volume =
            |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let volumes: Vec<Value> = names.iter().map(volume).collect();
        asking("p", "1", json!({"volumes": volumes}))
    };
    for (what, sizes, there, volumes, wanted) in [
        ("room", vec!["5Gi"], ["10Gi", "100Gi"], vec![], [50, 95]),
        (
            "room for two",
            vec!["5Gi", "20Gi"],
            ["50Gi", "100Gi"],
            vec![],
            [50, 75],
        ),
        (
            "volumes, and then no room counts",
            vec!["5Gi", "20Gi"],
            ["50Gi", "100Gi"],
            vec![("v", "a", "10Gi"), ("w", "b", "20Gi")],
            [50, 75],
        ),
        (
            "more than all",
            vec!["40Gi", "40Gi"],
            ["50Gi", "80Gi"],
            vec![],
            [0, 0],
        ),
    ] {
        let mut snapshot = cluster(&["a", "b"]);
        let storage = &mut snapshot.storage;
        let names: Vec<&str> = ["c", "d"][..sizes.len()].to_vec();
        for (name, size) in names.iter().zip(&sizes) {
            storage.set_claim(&Key::new("n", name), Some(waits(size)));
        }
        for (node, total) in ["a", "b"].into_iter().zip(there) {
            storage
                .capacities
                .insert(Key::new("n", node), capacity(node, total));
        }
        for (name, node, size) in volumes {
            storage.set_volume(&name.into(), Some(volume(name, node, size)));
        }
        let pod = claims(&names);
        let cycle = Cycle::new(&snapshot, &pod).expect("some node will do");
        let rooms = ["a", "b"].map(|name| {
            let node = snapshot.site(snapshot.find(name).unwrap()).node.as_ref();
            cycle.room(node.unwrap()).unwrap_or(-1)
        });
        assert_eq!(rooms, wanted, "{what}");
        let slots = ["a", "b"].map(|name| snapshot.find(name).unwrap());
        let sums = scores(&cycle, &slots);
        assert_eq!(sums[1] - sums[0], wanted[1] - wanted[0], "{what}");
        if wanted[0] < wanted[1] {
            assert_eq!(decided(&mut snapshot, &pod), "b", "{what}");
        }
    }
    let snapshot = cluster(&["a"]);
    let pod = asking("p", "1", json!({}));
    let cycle = Cycle::new(&snapshot, &pod).expect("it is a plain pod");
    let node = snapshot.site(snapshot.find("a").unwrap()).node.clone();
    assert_eq!(cycle.room(&node.unwrap()), None);
}
