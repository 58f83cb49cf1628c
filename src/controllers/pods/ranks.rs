//! The order in which pods are deleted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::status::ready_since;
use crate::client::kinds::Pod;

/// Sorts pods by deletion order, the least costly losses first: not scheduled, pending, not ready, low deletion cost by
/// annotation, on nodes with many related pods (`together` has their numbers), ready for a short time, often restarted,
/// young. Times are compared by magnitude, so that it is not always the newest that go.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], together: &HashMap<String, usize>, now: Timestamp) {
    let magnitude = |time: Option<Timestamp>| {
        let age = time.map_or(0, |time| now.as_nanosecond() - time.as_nanosecond());
        if age > 0 { i64::from(age.ilog2()) } else { -1 }
    };
    let rank = |pod: &Pod| {
        let node = pod.spec.node_name.as_deref().unwrap_or_default();
        let cost: i32 = pod
            .annotations()
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0);
        let crowd = together.get(node).copied().unwrap_or(0);
        (
            (standing(pod), cost, Reverse(crowd)),
            magnitude(ready_since(pod)),
        )
    };
    // Among pods that became ready at different times of one magnitude nothing else counts than their uids.
    let mut times = BTreeMap::new();
    let mut mixed = BTreeSet::new();
    for pod in pods.iter() {
        let since = ready_since(pod);
        if *times.entry(rank(pod)).or_insert(since) != since {
            mixed.insert(rank(pod));
        }
    }
    pods.sort_by_cached_key(|pod| {
        let rank = rank(pod);
        let uid = pod.metadata.uid.clone();
        let by_uid = mixed.contains(&rank).then(|| uid.clone());
        (
            (rank, by_uid),
            Reverse(restarts(pod)),
            magnitude(created(pod)),
            uid,
        )
    });
}

/// Sorts pods of workloads that serve no requests: deletion cost and nodes do not count, and times are compared
/// exactly.
pub fn rank_for_ending(pods: &mut [Arc<Pod>]) {
    pods.sort_by_cached_key(|pod| {
        (
            standing(pod),
            ready_since(pod).map(Reverse),
            Reverse(restarts(pod)),
            created(pod).map(Reverse),
        )
    });
}

/// The progress of a pod: whether it is scheduled, its phase, whether it is ready.
fn standing(pod: &Pod) -> (bool, u8, bool) {
    let is_placed = pod
        .spec
        .node_name
        .as_ref()
        .is_some_and(|node| !node.is_empty());
    let phase = match pod.phase() {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    (is_placed, phase, pod.is_ready())
}

fn created(pod: &Pod) -> Option<Timestamp> {
    let created = pod.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0)
}

/// The highest restart count of its containers, and of its sidecars.
fn restarts(pod: &Pod) -> (i32, i32) {
    let goes_on = |name: &str| {
        let mut init = pod.spec.init_containers.iter();
        init.any(|container| {
            container.name == name && container.restart_policy.as_deref() == Some("Always")
        })
    };
    let most = |statuses: &mut dyn Iterator<Item = &v1::ContainerStatus>| {
        statuses
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    };
    let status = &pod.status;
    (
        most(&mut status.container_statuses.iter()),
        most(
            &mut status
                .init_container_statuses
                .iter()
                .filter(|status| goes_on(&status.name)),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_pods_whose_loss_costs_least_go_first() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let made = |name: &str, rest: &str, annotations: &str| {
            pod(&format!(
                r#"{{"metadata":{{"name":"{name}","uid":"{name}","creationTimestamp":"2026-01-01T00:00:00Z","annotations":{{{annotations}}}}},{rest}}}"#
            ))
        };
        let ready = |since: &str| {
            format!(
                r#""conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"{since}"}}]"#
            )
        };
        let running = |node: &str, rest: &str| {
            format!(r#""spec":{{"nodeName":"{node}"}},"status":{{"phase":"Running",{rest}}}"#)
        };
        let old = ready("2026-01-01T01:00:00Z");
        let mut pods = vec![
            made("z-old", &running("n", &old), ""),
            made("y-young", &running("n", &ready("2026-01-01T11:59:00Z")), ""),
            made(
                "x-restarted",
                &running(
                    "n",
                    &format!(
                        r#"{old},"containerStatuses":[{{"name":"c","restartCount":3,"ready":true,"image":"","imageID":""}}]"#
                    ),
                ),
                "",
            ),
            made("w-crowd", &running("m", &old), ""),
            made(
                "v-cheap",
                &running("n", &old),
                r#""controller.kubernetes.io/pod-deletion-cost":"-5""#,
            ),
            made("u-unready", &running("n", r#""conditions":[]"#), ""),
            made(
                "t-pending",
                r#""spec":{"nodeName":"n"},"status":{"phase":"Pending"}"#,
                "",
            ),
            made("s-nowhere", r#""spec":{},"status":{"phase":"Pending"}"#, ""),
        ];
        let together = HashMap::from([("m".to_owned(), 2), ("n".to_owned(), 1)]);
        rank_for_deletion(&mut pods, &together, now);
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(
            names,
            [
                "s-nowhere",
                "t-pending",
                "u-unready",
                "v-cheap",
                "w-crowd",
                "y-young",
                "x-restarted",
                "z-old"
            ]
        );
        let restarted = r#","containerStatuses":[{"name":"c","restartCount":3,"ready":true,"image":"","imageID":""}]"#;
        let mut alike = [
            made(
                "b",
                &running("n", &(ready("2026-01-01T10:30:00Z") + restarted)),
                "",
            ),
            made("a", &running("n", &ready("2026-01-01T10:00:00Z")), ""),
        ];
        rank_for_deletion(&mut alike, &together, now);
        assert_eq!(alike[0].name_any(), "a", "by uid");
        // An hour more makes no difference in the first order, but does in the second.
        let newer = running("n", &ready("2026-01-01T02:00:00Z"));
        let costly = r#""controller.kubernetes.io/pod-deletion-cost":"5""#;
        pods.push(made("r-newer", &newer, costly));
        rank_for_ending(&mut pods);
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        let first = [
            "s-nowhere",
            "t-pending",
            "u-unready",
            "y-young",
            "r-newer",
            "x-restarted",
        ];
        assert_eq!(names[..6], first);
    }
}
