use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::jiff::Timestamp;

use super::claims::{Claims, has, owners};
use super::make_pod;
use super::plan::{Facts, plan, split};
use crate::client::kinds::{Claim, Pod};

struct Known(HashMap<String, Arc<Claim>>);

impl Claims for Known {
    fn get(&self, _: &str, name: &str) -> Option<Arc<Claim>> {
        self.0.get(name).cloned()
    }
}

fn set(replicas: i32, spec: &str) -> StatefulSet {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"web","namespace":"n","uid":"set","generation":2}},
            "spec":{{"replicas":{replicas},"serviceName":"web",{spec}"selector":{{"matchLabels":{{"a":"b"}}}},
                "template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[]}}}}}}}}"#
    ))
    .unwrap()
}

/// `0` ready, `0-` not ready, `0x` being deleted, `0!` failed, `0?` pending, `0~` ready and of the older revision.
fn pod(text: &str) -> Arc<Pod> {
    let ordinal: String = text.chars().take_while(char::is_ascii_digit).collect();
    let mark = &text[ordinal.len()..];
    let phase = match mark {
        "!" => "Failed",
        "?" => "Pending",
        _ => "Running",
    };
    let ready = if matches!(mark, "-" | "?" | "-~") {
        "False"
    } else {
        "True"
    };
    let deleted = if mark == "x" {
        r#""deletionTimestamp":"2026-01-01T00:00:00Z","#
    } else {
        ""
    };
    let revision = if mark.ends_with('~') { "old" } else { "new" };
    let text = format!(
        r#"{{"metadata":{{"name":"web-{ordinal}","uid":"p{ordinal}",{deleted}"labels":{{"a":"b","controller-revision-hash":"{revision}","statefulset.kubernetes.io/pod-name":"web-{ordinal}"}}}},"spec":{{"volumes":[{{"name":"data","persistentVolumeClaim":{{"claimName":"data-web-{ordinal}"}}}}]}},"status":{{"phase":"{phase}","conditions":[{{"type":"Ready","status":"{ready}","lastTransitionTime":"2026-01-01T00:00:00Z"}}]}}}}"#
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

/// Ordinals that are created (`+1` or `+1old`), deleted (`-1`), repaired (`~1`), and get their claims (`c1`).
fn told(set: &StatefulSet, pods: &str, claims: &Known) -> String {
    let pods: Vec<Arc<Pod>> = pods.split_whitespace().map(pod).collect();
    let plan = plan(&Facts {
        set,
        pods: &pods,
        current: "old",
        update: "new",
        collisions: 0,
        claims,
        now: Timestamp::now(),
    });
    let made = plan
        .create
        .iter()
        .map(|(ordinal, newer)| format!("+{ordinal}{}", if *newer { "" } else { "old" }));
    let deleted = [&plan.renew, &plan.delete, &plan.outdated];
    let deleted = deleted
        .into_iter()
        .flatten()
        .map(|name| format!("-{}", split(name).unwrap().1));
    let repaired = plan
        .repair
        .iter()
        .chain(&plan.disown)
        .map(|ordinal| format!("~{ordinal}"));
    let claimed = plan.claims.iter().map(|ordinal| format!("c{ordinal}"));
    made.chain(deleted)
        .chain(repaired)
        .chain(claimed)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn pods_come_and_go_in_order_or_all_at_once() {
    let none = Known(HashMap::new());
    let parallel = r#""podManagementPolicy":"Parallel","#;
    for (why, spec, replicas, pods, wanted) in [
        ("the first", "", 3, "", "+0"),
        ("the next waits for it", "", 3, "0-", ""),
        ("and follows", "", 3, "0", "+1"),
        ("a hole is filled first", "", 3, "0 2", "+1"),
        ("a failed one is replaced", "", 3, "0 1! 2", "-1"),
        ("a pending one gets its claims", "", 3, "0 1?", "c1"),
        ("the highest goes first", "", 1, "0 1 2", "-2"),
        ("and the next waits till it is gone", "", 1, "0 1 2x", ""),
        (
            "nothing goes while a wanted one is not ready",
            "",
            1,
            "0- 1 2",
            "",
        ),
        ("an unready one that is too many goes", "", 1, "0 1-", "-1"),
        ("but waits for an earlier one", "", 1, "0 1- 2-", ""),
        ("all at once", parallel, 3, "", "+0 +1 +2"),
        ("all at once, down", parallel, 1, "0- 1 2 3x", "-2 -1"),
        (
            "ordinals may begin elsewhere",
            r#""ordinals":{"start":5},"#,
            2,
            "4 5",
            "+6",
        ),
        (
            "and what is before goes",
            r#""ordinals":{"start":5},"#,
            1,
            "4 5",
            "-4",
        ),
    ] {
        assert_eq!(told(&set(replicas, spec), pods, &none), wanted, "{why}");
    }
}

#[test]
fn updates_go_from_the_highest_within_their_limits() {
    let none = Known(HashMap::new());
    let rolling = |partition: i32, most: &str| {
        format!(
            r#""updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{{"partition":{partition},"maxUnavailable":{most}}}}},"#
        )
    };
    let parallel = |rest: String| format!(r#""podManagementPolicy":"Parallel",{rest}"#);
    for (why, spec, pods, wanted) in [
        ("one by one", rolling(0, "1"), "0~ 1~ 2~", "-2"),
        ("the next waits", rolling(0, "1"), "0~ 1~ 2-", ""),
        ("and follows", rolling(0, "1"), "0~ 1~ 2", "-1"),
        (
            "a partition keeps older ones",
            rolling(2, "1"),
            "0~ 1~ 2",
            "",
        ),
        (
            "and new ones below it are old",
            rolling(2, "1"),
            "0~ 2~",
            "+1old",
        ),
        ("several at once", rolling(0, "2"), "0~ 1~ 2~", "-2 -1"),
        (
            "a share of them",
            rolling(0, "\"70%\""),
            "0~ 1~ 2~",
            "-2 -1",
        ),
        (
            "not at all",
            r#""updateStrategy":{"type":"OnDelete"},"#.to_owned(),
            "0~ 1~ 2~",
            "",
        ),
        (
            "what does not work is replaced",
            parallel(rolling(0, "1")),
            "0~ 1-~ 2~",
            "-1",
        ),
        (
            "and more where there is room",
            parallel(rolling(0, "2")),
            "0~ 1-~ 2~",
            "-1 -2",
        ),
    ] {
        assert_eq!(told(&set(3, &spec), pods, &none), wanted, "{why}");
    }
}

#[test]
fn the_status_counts_and_an_update_that_is_done_is_the_current_state() {
    let none = Known(HashMap::new());
    let counted = |pods: &str| {
        let pods: Vec<Arc<Pod>> = pods.split_whitespace().map(pod).collect();
        let set = set(3, "");
        let facts = Facts {
            set: &set,
            pods: &pods,
            current: "old",
            update: "new",
            collisions: 0,
            claims: &none,
            now: Timestamp::now(),
        };
        let status = plan(&facts).status;
        (
            status.replicas,
            status.ready_replicas.unwrap(),
            status.current_replicas.unwrap(),
            status.updated_replicas.unwrap(),
            status.current_revision.unwrap(),
        )
    };
    assert_eq!(counted("0~ 1- 2x"), (3, 2, 1, 1, "old".to_owned()));
    assert_eq!(counted("0 1 2"), (3, 3, 3, 3, "new".to_owned()));
}

const TEMPLATE: &str = r#""volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{}}],"#;

#[test]
fn a_pod_has_a_name_an_address_and_its_claims() {
    let set = set(1, TEMPLATE);
    let pod = make_pod(&set, 3, &set.spec.template, "rev");
    assert_eq!(pod.metadata.name.as_deref(), Some("web-3"));
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-3");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "3");
    assert_eq!(labels["controller-revision-hash"], "rev");
    let spec = pod.spec.unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("web-3"), Some("web"))
    );
    let volume = &spec.volumes.unwrap()[0];
    assert_eq!(
        volume.persistent_volume_claim.as_ref().unwrap().claim_name,
        "data-web-3"
    );
}

#[test]
fn claims_end_with_whom_the_policy_says() {
    let claim = |owners: &str| -> Claim {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"data-web-0","ownerReferences":[{owners}]}}}}"#
        ))
        .unwrap()
    };
    let by_set = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"set","controller":true,"blockOwnerDeletion":true}"#;
    let by_pod = r#"{"apiVersion":"v1","kind":"Pod","name":"web-0","uid":"p0","controller":true,"blockOwnerDeletion":true}"#;
    let other = r#"{"apiVersion":"v1","kind":"Other","name":"o","uid":"o","controller":true}"#;
    let policy = |deleted: &str, scaled: &str| {
        format!(
            r#"{TEMPLATE}"persistentVolumeClaimRetentionPolicy":{{"whenDeleted":"{deleted}","whenScaled":"{scaled}"}},"#
        )
    };
    for (deleted, scaled, replicas, had, wanted) in [
        ("Retain", "Retain", 1, "", None),
        ("Retain", "Retain", 1, by_set, Some("")),
        ("Delete", "Retain", 1, "", Some("set")),
        ("Delete", "Retain", 1, by_set, None),
        ("Retain", "Delete", 1, "", None),
        ("Retain", "Delete", 0, "", Some("p0")),
        ("Delete", "Delete", 1, "", Some("set")),
        ("Delete", "Delete", 0, by_set, Some("p0")),
        ("Delete", "Delete", 1, by_pod, Some("set")),
        ("Delete", "Delete", 1, other, None),
    ] {
        let set = set(replicas, &policy(deleted, scaled));
        let made = owners(&claim(had).metadata, &set, Some(&pod("0")), 0);
        let uids = made.map(|owners| {
            owners
                .iter()
                .map(|owner| owner.uid.clone())
                .collect::<Vec<_>>()
                .join(",")
        });
        assert_eq!(
            uids.as_deref(),
            wanted,
            "{deleted} {scaled} {replicas} {had}"
        );
    }
    let set = set(1, &policy("Delete", "Delete"));
    let stale = by_pod.replace("\"p0\"", "\"earlier\"");
    let known = Known(HashMap::from([(
        "data-web-0".to_owned(),
        Arc::new(claim(&stale)),
    )]));
    assert_eq!(
        told(&set, "", &known),
        "",
        "an earlier pod's claim goes first"
    );
    let due = Known(HashMap::from([(
        "data-web-0".to_owned(),
        Arc::new(claim("")),
    )]));
    assert_eq!(told(&set, "0", &due), "~0");
}

#[test]
fn a_pod_that_does_not_use_the_claims_of_the_set_is_repaired() {
    let none = Known(HashMap::new());
    assert_eq!(told(&set(1, TEMPLATE), "0", &none), "");
    let other = TEMPLATE.replace("data", "other");
    assert_eq!(told(&set(1, &other), "0", &none), "~0");
    let known = |claim: &str| has(&set(1, TEMPLATE), claim);
    assert_eq!(
        ["data-web-3", "data-web-x", "data-other-0", "web-0"].map(known),
        [true, false, false, false]
    );
}
