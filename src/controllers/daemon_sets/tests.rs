use serde_json::json;

use super::plan::{plan, status};
use super::*;
use k8s_openapi::api::apps::v1::DaemonSetStatus;

const NOW: &str = "2026-01-01T00:01:00Z";

/// A set; `strategy` and `template` are merged into its spec and its template's spec.
fn set(strategy: serde_json::Value, template: serde_json::Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "n", "uid": "u", "generation": 4},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": template},
            "updateStrategy": strategy,
            "minReadySeconds": 10,
        },
    }))
    .unwrap()
}

/// `name` or `name:key=NoSchedule` for a node with a taint.
fn node(text: &str) -> Arc<Node> {
    let (name, taint) = text.split_once(':').unwrap_or((text, ""));
    let taints: Vec<_> = taint
        .split_once('=')
        .map(|(key, effect)| json!({"key": key, "effect": effect}))
        .into_iter()
        .collect();
    let node = json!({
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"taints": taints},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

/// `name node hash state`: `up` is available, `young` ready, `down` not ready, `ends` being deleted, `waits` not
/// scheduled; otherwise the phase.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, node, hash, state] = words[..] else {
        panic!("{text}")
    };
    let since = match state {
        "up" | "ends" => "2026-01-01T00:00:00Z",
        _ => "2026-01-01T00:00:59Z",
    };
    let ready = matches!(state, "up" | "young" | "ends");
    let phase = match state {
        "Failed" | "Succeeded" => state,
        _ => "Running",
    };
    let target = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    let pod = json!({
        "metadata": {
            "name": name, "namespace": "n", "labels": {"a": "b", POD_HASH: hash},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": (state == "ends").then_some(NOW),
        },
        "spec": {"nodeName": (state != "waits").then_some(node), "affinity": target},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn decide<T>(set: &DaemonSet, nodes: &str, pods: &[&str], with: impl Fn(&Facts<'_>) -> T) -> T {
    let nodes: Vec<_> = nodes.split(' ').map(node).collect();
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let left = |node: &str| (node == "held").then_some(std::time::Duration::from_secs(7));
    with(&Facts {
        set,
        places: &Places::of(set),
        nodes: &nodes,
        pods: &pods,
        hash: "new",
        left: &left,
        now: NOW.parse().unwrap(),
    })
}

#[test]
fn pods_are_made_and_deleted_node_by_node() {
    let rolling = |missing: i32, surge: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": missing, "maxSurge": surge}});
    let on_delete = json!({"type": "OnDelete"});
    let any = json!({"containers": []});
    for (strategy, template, nodes, pods, made, deleted) in [
        // Missing, surplus, lost and terminated pods.
        (
            rolling(1, 0),
            any.clone(),
            "a b c:x=NoSchedule d:node.kubernetes.io/not-ready=NoExecute",
            &["p a new up"][..],
            "b d",
            "",
        ),
        (rolling(1, 0), any.clone(), "a", &["p a new ends"], "", ""),
        (
            rolling(1, 0),
            any.clone(),
            "a",
            &["p a new up", "q a new up"],
            "",
            "q",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a",
            &["p a new up", "q gone new waits", "r gone new up"],
            "",
            "q",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a b held",
            &["p a new Failed", "q b new Succeeded", "r held new Failed"],
            "",
            "p q",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a:x=NoExecute b:x=NoSchedule",
            &["p a new up", "q b new up"],
            "",
            "p",
        ),
        (
            rolling(1, 0),
            json!({"containers": [], "nodeSelector": {"name": "b"}}),
            "a b",
            &["p a new up"],
            "b",
            "p",
        ),
        (
            rolling(1, 0),
            json!({"containers": [], "nodeName": "a"}),
            "a b",
            &[],
            "a",
            "",
        ),
        (
            rolling(1, 0),
            json!({"containers": [], "tolerations": [{"key": "x", "operator": "Exists"}]}),
            "a:x=NoExecute",
            &[],
            "a",
            "",
        ),
        // Older pods are deleted as others become available.
        (
            rolling(1, 0),
            any.clone(),
            "a b c",
            &["p a old up", "q b old up", "r c new up"],
            "",
            "p",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a b c",
            &["p a old up", "q b old up", "r c new young"],
            "",
            "",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a b c",
            &["p a old up", "q b old down", "r c old down"],
            "",
            "q r",
        ),
        (
            rolling(2, 0),
            any.clone(),
            "a b c",
            &["p a old up", "q b old up", "r c old down"],
            "",
            "r p",
        ),
        (
            rolling(0, 0),
            any.clone(),
            "a b",
            &["p a old up", "q b old up"],
            "",
            "p",
        ),
        (
            rolling(1, 0),
            any.clone(),
            "a b c",
            &["p a old ends", "q b old up", "r c old up"],
            "",
            "",
        ),
        (
            on_delete,
            any.clone(),
            "a b",
            &["p a old up", "q b old down"],
            "",
            "",
        ),
        // Newer pods are first created beside older ones.
        (
            rolling(0, 1),
            any.clone(),
            "a b",
            &["p a old up", "q b old up"],
            "a",
            "",
        ),
        (
            rolling(0, 1),
            any.clone(),
            "a b",
            &["p a old up", "q b old down"],
            "b a",
            "",
        ),
        (
            rolling(0, 1),
            any.clone(),
            "a b",
            &["p a old up", "q a new young", "r b old up"],
            "",
            "",
        ),
        (
            rolling(0, 1),
            any.clone(),
            "a b",
            &["p a old up", "q a new up", "r b old up"],
            "",
            "p",
        ),
        (
            rolling(0, 1),
            any.clone(),
            "a b",
            &["p a old down", "q a new young", "r b old up"],
            "",
            "p",
        ),
        (rolling(0, 1), any.clone(), "a", &["p a old ends"], "a", ""),
        (
            rolling(0, 1),
            any.clone(),
            "a b:x=NoSchedule",
            &["p a new up", "q b old up"],
            "",
            "q",
        ),
        (
            rolling(0, 1),
            any.clone(),
            "a b:x=NoSchedule",
            &["p a new down", "q b old up"],
            "",
            "",
        ),
    ] {
        let found = decide(&set(strategy, template), nodes, pods, plan);
        assert_eq!(found.create.join(" "), made, "{nodes} {pods:?}");
        assert_eq!(found.delete.join(" "), deleted, "{nodes} {pods:?}");
    }
    let held = decide(
        &set(rolling(1, 0), any),
        "held a",
        &["p held new Failed", "q a new Failed"],
        plan,
    );
    assert_eq!(held.again, Some(std::time::Duration::from_secs(7)));
    assert_eq!(held.failed, ["a"]);
    let message = "Found failed daemon pod n/q on node a, will try to kill it".to_owned();
    assert_eq!(held.events, [(Tone::Warning, "FailedDaemonPod", message)]);
}

#[test]
fn the_status_counts_nodes() {
    let set = set(json!({"type": "RollingUpdate"}), json!({"containers": []}));
    let pods = ["p a new up", "q b old young", "r c new up", "s d old up"];
    let said = decide(&set, "a b c:x=NoSchedule d e", &pods, |facts| {
        status(facts, &DaemonSetStatus::default())
    });
    let wanted: DaemonSetStatus = serde_json::from_value(json!({
        "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberMisscheduled": 1, "numberReady": 3,
        "numberAvailable": 2, "numberUnavailable": 2, "updatedNumberScheduled": 1, "observedGeneration": 4,
    }))
    .unwrap();
    assert_eq!(said, wanted);
}

#[test]
fn pods_bear_what_happens_to_nodes_and_name_theirs() {
    let template = json!({"containers": [], "hostNetwork": true, "tolerations": [
        {"key": "own"}, {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]});
    let mut made = place::template(&set(json!({}), template), "h");
    let spec = made.spec.as_mut().unwrap();
    let tolerations = spec.tolerations.clone().unwrap();
    assert_eq!(tolerations.len(), 8);
    assert_eq!(tolerations[1].toleration_seconds, None);
    let last = tolerations[7].key.as_deref();
    assert_eq!(last, Some("node.kubernetes.io/network-unavailable"));
    place::bind_to(spec, "somewhere");
    let read: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    assert_eq!(read.spec.target.as_deref(), Some("somewhere"));
    assert_eq!(made.metadata.unwrap().labels.unwrap()[POD_HASH], "h");
}

#[test]
fn what_fails_again_is_left_alone_longer() {
    let (backoff, start) = (Backoff::default(), Instant::now());
    let place = || ("u".to_owned(), 1, "a".to_owned());
    let seconds = std::time::Duration::from_secs;
    assert_eq!(backoff.left(&place(), start), None);
    for delay in [1, 2, 4, 8] {
        backoff.fail(place(), start);
        assert_eq!(backoff.left(&place(), start), Some(seconds(delay)));
    }
    assert_eq!(backoff.left(&place(), start + seconds(8)), None);
    backoff.fail(place(), start + seconds(8 + 1800));
    assert_eq!(
        backoff.left(&place(), start + seconds(1808)),
        Some(seconds(1))
    );
}
