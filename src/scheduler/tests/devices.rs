//! Tests how ResourceClaims affect pods.

use serde_json::{Value, json};

use std::sync::Arc;

use super::super::devices::RawClaim;
use super::super::hints::{Event, How};
use super::super::state::State;
use super::super::watch;
use super::{Instant, Key, Plugin, Plugins, decided, pod, three};
use crate::client::informer::Change;

fn claim(metadata: Value, status: Value) -> Option<Arc<RawClaim>> {
    let asks = json!({"devices": {"requests": [
        {"name": "one", "exactly": {"deviceClassName": "known"}},
        {"name": "any", "firstAvailable": [{"name": "best", "deviceClassName": "known"}]},
    ]}});
    let raw = json!({"metadata": metadata, "spec": asks, "status": status});
    Some(Arc::new(serde_json::from_value(raw).unwrap()))
}

/// Passes a change of a claim to the state.
fn changed(
    state: &mut State,
    name: &str,
    old: Option<&Arc<RawClaim>>,
    new: Option<&Arc<RawClaim>>,
) {
    let key = &Key::new("n", name);
    watch::device_claim(state, &Change { key, old, new });
}

#[test]
fn claims_are_waited_for_and_heeded_where_they_are_allocated() {
    let named = json!([{"name": "d", "resourceClaimName": "c"}]);
    let made = json!([{"name": "d", "resourceClaimTemplateName": "t"}]);
    let is_c = json!({"resourceClaimStatuses": [{"name": "d", "resourceClaimName": "c"}]});
    let owned = |uid: &str| {
        json!({"ownerReferences": [{
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true,
        }]})
    };
    let on_b = json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "name", "operator": "In", "values": ["b"]}]},
    ]}}});
    let everywhere = json!({"allocation": {}});
    let full: Vec<Value> = (0..256)
        .map(|n| json!({"uid": format!("other-{n}")}))
        .collect();
    let no_help =
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    for (claims, status, found, has_class, wanted) in [
        (&named, json!({}), None, true, None),
        (&made, json!({}), claim(json!({}), json!({})), true, None),
        (
            &made,
            is_c.clone(),
            claim(json!({}), everywhere.clone()),
            true,
            None,
        ),
        (
            &made,
            is_c.clone(),
            claim(owned("another"), everywhere.clone()),
            true,
            None,
        ),
        (
            &named,
            json!({}),
            claim(
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                everywhere.clone(),
            ),
            true,
            None,
        ),
        // Its status says that it needs none.
        (
            &made,
            json!({"resourceClaimStatuses": [{"name": "d"}]}),
            None,
            true,
            Some(""),
        ),
        (
            &made,
            is_c.clone(),
            claim(owned("uid-p"), on_b.clone()),
            true,
            Some("b"),
        ),
        (&named, json!({}), claim(json!({}), on_b), true, Some("b")),
        (
            &named,
            json!({}),
            claim(json!({}), everywhere),
            true,
            Some(""),
        ),
        (
            &named,
            json!({}),
            claim(json!({}), json!({"allocation": {}, "reservedFor": full})),
            true,
            Some("resourceclaim in use."),
        ),
        (
            &named,
            json!({}),
            claim(json!({}), json!({})),
            true,
            Some("3 cannot allocate all claims."),
        ),
        (
            &named,
            json!({}),
            claim(json!({}), json!({})),
            false,
            Some("request one: device class known does not exist."),
        ),
    ] {
        let what = format!("{claims} {found:?}");
        let mut state = State::new(1);
        state.snapshot = three();
        let pod = pod("p", json!({}), json!({"resourceClaims": claims}), status);
        let now = Instant::now();
        state.queue.set(pod.clone(), &state.snapshot, now);
        if let Some(found) = found {
            changed(&mut state, "c", None, Some(&found));
        }
        if has_class {
            state.snapshot.devices.classes.insert("known".into());
        }
        let State {
            queue, snapshot, ..
        } = &mut state;
        assert_eq!(queue.next(now).is_ok(), wanted.is_some(), "{what}");
        let Some(wanted) = wanted else { continue };
        let told = decided(snapshot, &pod);
        match wanted.len() {
            0 | 1 => assert!(
                ["a", "b", "c"].contains(&&*told) && told.contains(wanted),
                "{what}: {told}"
            ),
            _ => assert_eq!(
                told,
                format!("0/3 nodes are available: {wanted} {no_help}"),
                "{what}"
            ),
        }
    }
}

#[test]
fn a_claim_wakes_those_that_name_it_and_devices_that_are_free_wake_all() {
    let naming = |name: &str| {
        let claims = json!([{"name": "d", "resourceClaimName": name}]);
        pod(
            name,
            json!({}),
            json!({"resourceClaims": claims}),
            json!({}),
        )
    };
    let plain = claim(json!({}), json!({}));
    let labelled = claim(json!({"labels": {"a": "b"}}), json!({}));
    let allocated = claim(json!({}), json!({"allocation": {}}));
    let reserved = claim(
        json!({}),
        json!({"allocation": {}, "reservedFor": [{"uid": "another"}]}),
    );
    let rejected: Plugins = [Plugin::DynamicResources].into_iter().collect();
    for (what, old, new, wakes_own, wakes_other) in [
        ("new", &None, &plain, true, false),
        ("relabelled", &plain, &labelled, false, false),
        ("allocated", &plain, &allocated, true, false),
        ("reserved", &allocated, &reserved, true, false),
        ("deallocated", &allocated, &plain, true, true),
        // A pod that references it is gated now.
        ("gone with devices", &allocated, &None, false, true),
        ("gone without", &plain, &None, false, false),
    ] {
        let mut state = State::new(1);
        state.snapshot = three();
        let now = Instant::now();
        changed(&mut state, "other", None, plain.as_ref());
        changed(&mut state, "own", None, plain.as_ref());
        if let Some(old) = old {
            changed(&mut state, "own", plain.as_ref(), Some(old));
        }
        for name in ["own", "other"] {
            state.queue.set(naming(name), &state.snapshot, now);
        }
        while let Ok(busy) = state.queue.next(now) {
            state.queue.fail(&busy, rejected, now);
        }
        changed(&mut state, "own", old.as_ref(), new.as_ref());
        let woken: Vec<_> =
            std::iter::from_fn(|| Some(state.queue.next(now).ok()?.key.name.clone())).collect();
        let is_woken = |name: &str| woken.iter().any(|woken| woken == name);
        assert_eq!(
            (is_woken("own"), is_woken("other")),
            (wakes_own, wakes_other),
            "{what}"
        );
    }
}

#[test]
fn classes_wake_those_that_wait_for_devices_unless_they_are_gone() {
    let rejected: Plugins = [Plugin::DynamicResources].into_iter().collect();
    for (how, wanted) in [(How::Add, true), (How::Update, true), (How::Delete, false)] {
        let claims = json!([{"name": "d", "resourceClaimName": "c"}]);
        let waits = pod("p", json!({}), json!({"resourceClaims": claims}), json!({}));
        let event = Event::DeviceClass(how);
        assert_eq!(event.helps(rejected, &waits, &three()), wanted, "{how:?}");
        assert!(!event.helps(
            rejected,
            &pod("p", json!({}), json!({}), json!({})),
            &three()
        ));
    }
}

#[test]
fn a_pod_is_tried_when_its_status_names_the_claim_that_was_made_for_it_anew() {
    let mut state = State::new(1);
    state.snapshot = three();
    let now = Instant::now();
    let naming = |name: &str| {
        let claims = json!([{"name": "d", "resourceClaimTemplateName": "t"}]);
        let status = json!({"resourceClaimStatuses": [{"name": "d", "resourceClaimName": name}]});
        pod("p", json!({}), json!({"resourceClaims": claims}), status)
    };
    let owned = |uid: &str| {
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true}]);
        claim(json!({"uid": uid, "ownerReferences": owner}), json!({}))
    };
    let (old, new) = (owned("old"), owned("new"));
    let rejected: Plugins = [Plugin::DynamicResources].into_iter().collect();
    for is_tried in [false, true] {
        if is_tried {
            changed(&mut state, "old", None, old.as_ref());
        }
        state.queue.set(naming("old"), &state.snapshot, now);
        if is_tried {
            let busy = state.queue.next(now).expect("its claim is there");
            state.queue.fail(&busy, rejected, now);
        }
        changed(&mut state, "old", old.as_ref(), None);
        changed(&mut state, "new", None, new.as_ref());
        assert_eq!(
            state.queue.next(now).err(),
            Some(None),
            "it names the old one"
        );
        state.queue.set(naming("new"), &state.snapshot, now);
        assert!(state.queue.next(now).is_ok(), "{is_tried}");
        changed(&mut state, "new", new.as_ref(), None);
        state.queue.remove(&Key::new("n", "p"));
    }
}
