use k8s_openapi::api::core::v1::{NodeStatus, NodeSystemInfo};

use super::report::{Reported, changes, rebooted, schedulable};
use super::*;

#[test]
fn a_change_of_the_node_is_told_once() {
    let status = |conditions: &[(&str, &str)], boot: &str| -> NodeStatus {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status)| serde_json::json!({"type": type_, "status": status}))
            .collect();
        let info = NodeSystemInfo {
            boot_id: boot.to_owned(),
            ..NodeSystemInfo::default()
        };
        let mut status: NodeStatus =
            serde_json::from_value(serde_json::json!({"conditions": conditions}))
                .expect("a status");
        status.node_info = Some(info);
        status
    };
    let good = [
        ("MemoryPressure", "False"),
        ("DiskPressure", "False"),
        ("PIDPressure", "False"),
        ("Ready", "True"),
    ];
    let lost = good.map(|(type_, _)| (type_, "Unknown"));
    let (unready, pressed) = (
        [("Ready", "False")],
        [("DiskPressure", "True"), ("Ready", "True")],
    );
    let all = [
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
        "NodeReady",
    ];
    for (before, now, expected) in [
        (&[][..], &good[..], &all[..]),
        (&[], &unready, &[]),
        (&good, &good, &[]),
        (&unready, &good, &all),
        (&good, &unready, &["NodeNotReady"]),
        (&good, &pressed, &["NodeHasDiskPressure"]),
        (&lost, &[("Ready", "True")], &["NodeReady"]),
    ] {
        let told = changes(&status(before, ""), &status(now, ""));
        assert_eq!(told, expected, "{before:?} {now:?}");
    }
    let mut known = false;
    for (spec, expected) in [
        (serde_json::json!({}), None),
        (
            serde_json::json!({"unschedulable": true}),
            Some("NodeNotSchedulable"),
        ),
        (serde_json::json!({"unschedulable": true}), None),
        (serde_json::json!({}), Some("NodeSchedulable")),
    ] {
        let node = serde_json::json!({"metadata": {}, "spec": spec});
        let node = serde_json::from_value(node).expect("a node");
        assert_eq!(schedulable(&mut known, &node), expected, "{spec}");
    }
    for (before, now, expected) in [("", "b", None), ("b", "b", None), ("a", "b", Some("b"))] {
        assert_eq!(rebooted(&status(&[], before), &status(&[], now)), expected);
    }
}

#[test]
fn a_status_that_others_wrote_over_is_reported_again() {
    let status = |ready: &str, at: &str| -> NodeStatus {
        let condition = serde_json::json!({"type": "Ready", "status": ready, "lastHeartbeatTime": at,
            "lastTransitionTime": at});
        serde_json::from_value(serde_json::json!({"conditions": [condition]})).expect("a status")
    };
    let [then, now] = ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"];
    let reported = Reported {
        status: status("True", then),
        at: std::time::Instant::now(),
        version: 5,
    };
    for (version, theirs, ours, expected) in [
        ("5", "True", "True", true),
        ("5", "True", "False", false),
        // Labels were changed.
        ("7", "True", "True", true),
        // The node's lease had expired.
        ("7", "Unknown", "True", false),
        // The watch is behind.
        ("4", "Unknown", "True", true),
    ] {
        let mut node = Node {
            status: Some(status(theirs, then)),
            ..Node::default()
        };
        node.metadata.resource_version = Some(version.into());
        let covers = reported.covers(&status(ours, now), &node);
        assert_eq!(covers, expected, "{version} {theirs} {ours}");
    }
}
