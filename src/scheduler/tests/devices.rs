//! What claims to devices do to a pod.

use serde_json::{Value, json};

use super::super::devices::{Claim, RawClaim};
use super::super::hints::How;
use super::{Event, Instant, Key, Queue, decided, pod, three};

fn claim(metadata: Value, status: Value) -> Option<Claim> {
    let asks = json!({"devices": {"requests": [
        {"name": "one", "exactly": {"deviceClassName": "known"}},
        {"name": "any", "firstAvailable": [{"name": "best", "deviceClassName": "known"}]},
    ]}});
    let raw = json!({"metadata": metadata, "spec": asks, "status": status});
    let raw: RawClaim = serde_json::from_value(raw).unwrap();
    Some(Claim::from(&raw))
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
        // It needs none after all.
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
        let mut snapshot = three();
        let pod = pod("p", json!({}), json!({"resourceClaims": claims}), status);
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.set(pod.clone(), &snapshot, now);
        if let Some(found) = found {
            snapshot.devices.claims.insert(Key::new("n", "c"), found);
        }
        if has_class {
            snapshot.devices.classes.insert("known".into());
        }
        let event = Event::Devices(("resource.k8s.io/ResourceClaim", How::Add));
        queue.open(&event, &snapshot);
        queue.on(&event, &snapshot, now, |_| true);
        assert_eq!(queue.next(now).is_ok(), wanted.is_some(), "{what}");
        let Some(wanted) = wanted else { continue };
        let told = decided(&mut snapshot, &pod);
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
