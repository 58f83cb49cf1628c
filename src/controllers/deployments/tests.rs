use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt as _;

use super::plan::{Facts, Plan, plan};
use super::sets::fenceposts;

const NOW: &str = "2026-01-01T00:10:00Z";

fn deployment(replicas: i32, image: &str, spec: &str, status: &str) -> Deployment {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"d","namespace":"n","uid":"d","generation":1,"annotations":{{"a":"b"}}}},
            "spec":{{"replicas":{replicas},"progressDeadlineSeconds":600,"revisionHistoryLimit":1,{spec}
                "selector":{{"matchLabels":{{"app":"x"}}}},
                "template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}}},
            "status":{{{status}}}}}"#
    ))
    .unwrap()
}

/// A set with this image: its size, actual and available replicas, its revision, and the desired replicas annotation.
fn set(
    image: &str,
    size: i32,
    there: i32,
    available: i32,
    revision: i32,
    desired: i32,
) -> ReplicaSet {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"{image}","namespace":"n","uid":"{image}","generation":1,
                "creationTimestamp":"2026-01-01T00:0{revision}:00Z",
                "annotations":{{"a":"b","deployment.kubernetes.io/revision":"{revision}","deployment.kubernetes.io/desired-replicas":"{desired}","deployment.kubernetes.io/max-replicas":"{}"}}}},
            "spec":{{"replicas":{size},"selector":{{"matchLabels":{{"app":"x","pod-template-hash":"{image}"}}}},
                "template":{{"metadata":{{"labels":{{"app":"x","pod-template-hash":"{image}"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}}},
            "status":{{"replicas":{there},"readyReplicas":{available},"availableReplicas":{available},"observedGeneration":1,"terminatingReplicas":0}}}}"#,
        desired + (desired + 3) / 4
    ))
    .unwrap()
}

const ROLLING: &str = r#""strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}},"#;
const RECREATE: &str = r#""strategy":{"type":"Recreate"},"#;

fn decided(deployment: &Deployment, sets: &[ReplicaSet], old_pods_run: bool) -> Plan {
    plan(&Facts {
        deployment,
        sets,
        old_pods_run,
        now: NOW.parse().unwrap(),
    })
}

/// The written sizes, the deleted names, and the size of a created set.
fn told(plan: &Plan) -> String {
    let mut out: Vec<String> = plan
        .update
        .iter()
        .map(|set| format!("{}={}", set.name_any(), set.spec.replicas.unwrap()))
        .collect();
    out.extend(
        plan.create
            .iter()
            .map(|set| format!("+{}", set.spec.replicas.unwrap())),
    );
    out.extend(plan.delete.iter().map(|name| format!("-{name}")));
    out.join(" ")
}

fn condition(plan: &Plan, kind: &str) -> String {
    let status = plan
        .status
        .as_ref()
        .and_then(|deployment| deployment.status.as_ref());
    status
        .and_then(|status| super::plan::find(status, kind))
        .map_or_else(String::new, |condition| {
            format!(
                "{} {}",
                condition.status.as_deref().unwrap_or_default(),
                condition.reason.as_deref().unwrap_or_default()
            )
        })
}

#[test]
fn percentages_round_up_above_and_down_below() {
    for (replicas, surge, below, wanted) in [
        (10, "\"25%\"", "\"25%\"", (3, 2)),
        (1, "\"25%\"", "\"25%\"", (1, 0)),
        (3, "0", "\"10%\"", (0, 1)),
        (2, "1", "5", (1, 2)),
        (0, "\"25%\"", "\"25%\"", (0, 0)),
    ] {
        let strategy = format!(
            r#""strategy":{{"rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{below}}}}},"#
        );
        assert_eq!(
            fenceposts(&deployment(replicas, "i", &strategy, "")),
            wanted,
            "{replicas} {surge} {below}"
        );
    }
    assert_eq!(fenceposts(&deployment(4, "i", RECREATE, "")), (0, 0));
}

#[test]
fn a_rolling_update_goes_step_by_step_within_its_bounds() {
    for (why, replicas, sets, wanted) in [
        ("a first set has all", 4, vec![], "+4"),
        (
            "a second one what fits above, and sick old ones go",
            4,
            vec![set("old", 4, 4, 4, 1, 4)],
            "old=3 +1",
        ),
        (
            "old ones that never worked make room",
            4,
            vec![set("old", 4, 4, 0, 1, 4), set("new", 1, 1, 0, 2, 4)],
            "old=3",
        ),
        (
            "old ones go as new ones become available",
            4,
            vec![set("old", 3, 3, 3, 1, 4), set("new", 2, 2, 1, 2, 4)],
            "old=2",
        ),
        (
            "nothing happens while too few are available",
            4,
            vec![set("old", 3, 3, 3, 1, 4), set("new", 2, 2, 0, 2, 4)],
            "",
        ),
        (
            "the new one grows into what is free",
            4,
            vec![set("old", 2, 2, 2, 1, 4), set("new", 2, 2, 2, 2, 4)],
            "new=3",
        ),
        (
            "and the rest goes",
            4,
            vec![set("old", 1, 1, 1, 1, 4), set("new", 4, 4, 4, 2, 4)],
            "old=0",
        ),
        (
            "all is done",
            4,
            vec![set("old", 0, 0, 0, 1, 4), set("new", 4, 4, 4, 2, 4)],
            "",
        ),
    ] {
        let plan = decided(&deployment(replicas, "new", ROLLING, ""), &sets, false);
        assert_eq!(told(&plan), wanted, "{why}");
    }
}

#[test]
fn recreating_waits_until_old_pods_are_gone() {
    let d = deployment(3, "new", RECREATE, "");
    assert_eq!(
        told(&decided(&d, &[set("old", 3, 3, 3, 1, 3)], true)),
        "old=0"
    );
    assert_eq!(told(&decided(&d, &[set("old", 0, 2, 0, 1, 3)], true)), "");
    assert_eq!(
        told(&decided(&d, &[set("old", 0, 0, 0, 1, 3)], true)),
        "",
        "a pod ends still"
    );
    assert_eq!(
        told(&decided(&d, &[set("old", 0, 0, 0, 1, 3)], false)),
        "+3"
    );
    let sets = [set("old", 0, 0, 0, 1, 3), set("new", 0, 0, 0, 2, 3)];
    assert_eq!(told(&decided(&d, &sets, false)), "new=3");
}

#[test]
fn scaling_is_spread_over_the_sets_in_proportion() {
    let d = |replicas| deployment(replicas, "new", ROLLING, r#""replicas":12"#);
    for (replicas, sets, wanted) in [
        (5, vec![set("new", 3, 3, 3, 1, 3)], "new=5"),
        (0, vec![set("new", 3, 3, 3, 1, 3)], "new=0"),
        (
            20,
            vec![set("old", 8, 8, 8, 1, 10), set("new", 4, 4, 0, 2, 10)],
            "old=17 new=8",
        ),
        (
            5,
            vec![set("old", 8, 8, 8, 1, 10), set("new", 5, 5, 0, 2, 10)],
            "old=4 new=3",
        ),
        (
            10,
            vec![set("old", 2, 2, 2, 1, 8), set("new", 10, 10, 10, 2, 10)],
            "old=0",
        ),
    ] {
        assert_eq!(
            told(&decided(&d(replicas), &sets, false)),
            wanted,
            "{replicas}"
        );
    }
    let paused = deployment(6, "other", &format!(r#"{ROLLING}"paused":true,"#), "");
    let plan = decided(&paused, &[set("old", 3, 3, 3, 1, 3)], false);
    assert_eq!(told(&plan), "old=6", "it is scaled but nothing new is made");
    assert_eq!(condition(&plan, "Progressing"), "Unknown DeploymentPaused");
}

#[test]
fn old_sets_go_when_the_history_is_full_and_all_is_done() {
    let done = r#""replicas":2,"updatedReplicas":2,"availableReplicas":2,"observedGeneration":1"#;
    let sets = [
        set("a", 0, 0, 0, 1, 2),
        set("b", 0, 1, 0, 2, 2),
        set("c", 0, 0, 0, 3, 2),
        set("new", 2, 2, 2, 4, 2),
    ];
    assert_eq!(
        told(&decided(&deployment(2, "new", ROLLING, done), &sets, false)),
        "-a"
    );
    assert_eq!(
        told(&decided(&deployment(2, "new", ROLLING, ""), &sets, false)),
        ""
    );
}

#[test]
fn a_paused_deployment_keeps_its_history_until_it_is_rolled_back() {
    let mut paused = deployment(2, "new", &format!(r#"{ROLLING}"paused":true,"#), "");
    let sets = [
        set("a", 0, 0, 0, 1, 2),
        set("b", 0, 0, 0, 2, 2),
        set("new", 2, 2, 2, 3, 2),
    ];
    let deleted = |paused: &Deployment| decided(paused, &sets, false).delete;
    assert_eq!(deleted(&paused), ["a"]);
    paused.metadata.annotations.get_or_insert_default().insert(
        "deprecated.deployment.rollback.to".to_owned(),
        "1".to_owned(),
    );
    assert_eq!(deleted(&paused), [""; 0]);
}

#[test]
fn revisions_rise_and_are_remembered() {
    let sets = [set("old", 0, 0, 0, 1, 1), set("other", 1, 1, 1, 2, 1)];
    let plan = decided(&deployment(1, "old", ROLLING, ""), &sets, false);
    let back = plan
        .update
        .iter()
        .find(|set| set.name_any() == "old")
        .unwrap();
    let revision =
        |key: &str| back.annotations()[&format!("deployment.kubernetes.io/{key}")].clone();
    assert_eq!(
        (revision("revision"), revision("revision-history")),
        ("3".to_owned(), "1".to_owned())
    );
    let written = plan.status.unwrap();
    assert_eq!(
        written.annotations()["deployment.kubernetes.io/revision"],
        "3"
    );

    let made = decided(&deployment(1, "newest", ROLLING, ""), &sets, false)
        .create
        .unwrap();
    assert_eq!(made.annotations()["deployment.kubernetes.io/revision"], "3");
    assert_eq!(made.annotations()["a"], "b");
    let hash = &made.labels()["pod-template-hash"];
    assert_eq!(made.name_any(), format!("d-{hash}"));
    assert_eq!(
        &made.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"],
        hash
    );
    let collided = deployment(1, "newest", ROLLING, r#""collisionCount":1"#);
    assert_ne!(
        decided(&collided, &sets, false).create.unwrap().name_any(),
        made.name_any()
    );
}

#[test]
fn progress_is_told_until_it_is_done_or_takes_too_long() {
    let at = |reason: &str, updated: &str| {
        format!(
            r#""replicas":1,"updatedReplicas":1,"observedGeneration":1,"conditions":[{{"type":"Progressing","status":"True","reason":"{reason}","lastUpdateTime":"{updated}","lastTransitionTime":"2026-01-01T00:00:00Z"}}]"#
        )
    };
    let judged = |status: &str, available: i32| {
        decided(
            &deployment(1, "new", ROLLING, status),
            &[set("new", 1, 1, available, 1, 1)],
            false,
        )
    };
    let fresh = judged(&at("NewReplicaSetCreated", "2026-01-01T00:09:00Z"), 0);
    assert_eq!(
        condition(&fresh, "Available"),
        "False MinimumReplicasUnavailable"
    );
    assert_eq!(
        fresh.again,
        Some(541_000),
        "it is looked at when its ten minutes are over"
    );
    let done = judged(&at("ReplicaSetUpdated", "2026-01-01T00:09:00Z"), 1);
    assert_eq!(
        condition(&done, "Progressing"),
        "True NewReplicaSetAvailable"
    );
    assert_eq!(
        condition(&done, "Available"),
        "True MinimumReplicasAvailable"
    );
    assert_eq!(done.again, None);
    let late = judged(&at("ReplicaSetUpdated", "2025-12-31T23:59:00Z"), 0);
    assert_eq!(
        condition(&late, "Progressing"),
        "False ProgressDeadlineExceeded"
    );
    let first = decided(&deployment(1, "new", ROLLING, ""), &[], false);
    assert_eq!(
        condition(&first, "Progressing"),
        "True NewReplicaSetCreated"
    );
    assert_eq!(
        first.events[0].message,
        format!(
            "Scaled up replica set {} from 0 to 1",
            first.create.as_ref().unwrap().name_any()
        )
    );
}

#[test]
fn a_rollback_brings_an_older_template_back() {
    let mut d = deployment(1, "new", ROLLING, "");
    let sets = [set("old", 0, 0, 0, 1, 1), set("new", 1, 1, 1, 2, 1)];
    for (asked, image, reason) in [
        ("0", "old", "DeploymentRollback"),
        ("1", "old", "DeploymentRollback"),
        ("2", "new", "DeploymentRollbackTemplateUnchanged"),
        ("7", "new", "DeploymentRollbackRevisionNotFound"),
    ] {
        let annotations = d.metadata.annotations.as_mut().unwrap();
        annotations.insert(
            "deprecated.deployment.rollback.to".to_owned(),
            asked.to_owned(),
        );
        let plan = decided(&d, &sets, false);
        let back = plan.rollback.unwrap();
        let containers = &back.spec.template.spec.as_ref().unwrap().containers;
        assert_eq!(containers[0].image.as_deref(), Some(image), "{asked}");
        assert!(
            !back
                .annotations()
                .contains_key("deprecated.deployment.rollback.to")
        );
        assert_eq!(plan.events.last().unwrap().reason, reason);
    }
}
