//! Tests which pods an event may help.

use serde_json::{Value, json};

use super::super::hints::{How, Stored};
use super::{Event, Instant, Key, Plugin, Plugins, Queue, asking, node, pod, three};

fn of(plugin: Plugin) -> Plugins {
    [plugin].into_iter().collect()
}

#[test]
fn a_pod_more_helps_those_that_want_it_near() {
    let snapshot = three();
    let term = |app: &str| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
    let wants = |near: &[&str], far: &[&str]| {
        let list = |apps: &[&str]| {
            let terms: Vec<Value> = apps.iter().map(|app| term(app)).collect();
            json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
        };
        json!({"affinity": {"podAffinity": list(near), "podAntiAffinity": list(far)}})
    };
    // Its label is `app: a`.
    let other = asking("other", "1", json!({"nodeName": "a"}));
    let was = pod(
        "other",
        json!({"labels": {"app": "b"}}),
        json!({"nodeName": "a"}),
        json!({}),
    );
    let rejected = of(Plugin::InterPodAffinity);
    for (spec, by_more, by_label) in [
        (json!({}), false, false),
        (wants(&[], &["a"]), false, false),
        (wants(&[], &["b"]), false, true),
        (wants(&["a"], &[]), true, true),
        (wants(&["a", "b"], &[]), false, false),
        (wants(&["b"], &[]), false, false),
        (wants(&["a"], &["a"]), true, true),
    ] {
        let waits = asking("waits", "1", spec.clone());
        let came = Event::PodCame(&other);
        assert_eq!(came.helps(rejected, &waits, &snapshot), by_more, "{spec}");
        let changed = Event::PodChanged {
            old: &was,
            new: &other,
        };
        let helps = changed.helps(rejected, &waits, &snapshot);
        assert_eq!(helps, by_label, "{spec}");
    }
}

#[test]
fn what_happens_to_volumes_helps_those_that_it_concerns() {
    let snapshot = three();
    let with = |volumes: Value| asking("p", "1", json!({"volumes": volumes}));
    let own = with(json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]));
    let made = with(json!([{"name": "v", "ephemeral": {}}]));
    let none = with(json!([]));
    let keys = [
        Key::new("n", "c"),
        Key::new("n", "p-v"),
        Key::new("other", "c"),
    ];
    let helps = |what, how, key: &Key, plugin, waits| {
        Event::Storage { what, how, key }.helps(of(plugin), waits, &snapshot)
    };
    let claim = Stored::Claim;
    for (key, of_own, of_made) in [
        (&keys[0], true, false),
        (&keys[1], false, true),
        (&keys[2], false, false),
    ] {
        let found = |waits| helps(claim, How::Update, key, Plugin::VolumeBinding, waits);
        assert_eq!((found(&own), found(&made)), (of_own, of_made), "{key:?}");
        assert!(!found(&none));
    }
    for (what, how, plugin, wanted) in [
        (claim, How::Add, Plugin::VolumeRestrictions, true),
        (claim, How::Update, Plugin::VolumeRestrictions, false),
        (claim, How::Delete, Plugin::VolumeBinding, false),
        (Stored::Volume, How::Add, Plugin::VolumeBinding, true),
        (Stored::Volume, How::Update, Plugin::VolumeZone, true),
        (Stored::Volume, How::Delete, Plugin::VolumeBinding, false),
        (Stored::Class, How::Update, Plugin::VolumeBinding, true),
        (Stored::Class, How::Update, Plugin::VolumeZone, false),
        (Stored::Driver, How::Add, Plugin::VolumeBinding, false),
        (Stored::Node, How::Update, Plugin::NodeVolumeLimits, true),
        (Stored::Node, How::Update, Plugin::VolumeBinding, false),
        (Stored::Capacity, How::Update, Plugin::VolumeBinding, true),
        (
            Stored::Attachment,
            How::Delete,
            Plugin::NodeVolumeLimits,
            true,
        ),
        (
            Stored::Attachment,
            How::Add,
            Plugin::NodeVolumeLimits,
            false,
        ),
    ] {
        let found = helps(what, how, &keys[0], plugin, &own);
        assert_eq!(found, wanted, "{what:?} {how:?} {plugin:?}");
        assert!(!helps(what, how, &keys[0], plugin, &none));
    }
    let event = Event::Storage {
        what: Stored::Class,
        how: How::Update,
        key: &keys[0],
    };
    assert_eq!(event.label(), "storage.k8s.io/StorageClassUpdate");
}

#[test]
fn labels_of_a_node_help_those_that_want_devices() {
    let snapshot = three();
    let claims = json!({"resourceClaims": [{"name": "d", "resourceClaimName": "c"}]});
    let waits = asking("waits", "1", claims);
    let rejected = of(Plugin::DynamicResources);
    let old = node("a", json!({}), json!({}));
    for (new, wanted) in [
        (node("a", json!({"more": ""}), json!({})), true),
        (node("a", json!({}), json!({"unschedulable": true})), false),
    ] {
        let event = Event::NodeChanged {
            old: &old,
            new: &new,
        };
        assert_eq!(event.helps(rejected, &waits, &snapshot), wanted);
    }
}

#[test]
fn a_pod_that_changes_while_it_is_placed_is_tried_again_as_it_is_then() {
    let snapshot = three();
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.set(asking("p", "1", json!({})), &snapshot, now);
    let busy = queue.next(now).expect("it is ready");
    let status = json!({"nominatedNodeName": "a"});
    let changed = pod("p", json!({}), json!({}), status.clone());
    queue.refresh(&changed);
    assert_eq!(queue.next(now).err(), Some(None), "it is being placed");
    let waits = queue.err(&busy, now).expect("it waits");
    assert_eq!(waits.nominated, "a");
    let another = pod("p", json!({"uid": "another"}), json!({}), status);
    queue.refresh(&another);
    let again = now + std::time::Duration::from_secs(2);
    let waits = queue.next(again).expect("it waits");
    assert_eq!(waits.uid(), "uid-p", "that is not it");
}
