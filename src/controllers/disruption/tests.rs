use std::sync::Arc;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::plan::{self, Demand};
use super::*;

fn budget(rest: &str) -> PodDisruptionBudget {
    serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"b","namespace":"n","generation":3}},{rest}}}"#
    ))
    .unwrap()
}

fn pod(name: &str, ready: &str, deleting: bool) -> Arc<Pod> {
    let ends = if deleting {
        r#","deletionTimestamp":"2026-01-01T00:00:00Z""#
    } else {
        ""
    };
    Arc::new(serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"{name}"{ends}}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
    )).unwrap())
}

#[test]
fn budgets_demand_numbers_or_shares() {
    for (spec, scale, expected, healthy) in [
        (r#"{"minAvailable":2}"#, 9, 5, 2),
        (r#"{"minAvailable":"50%"}"#, 7, 7, 4),
        (r#"{"maxUnavailable":1}"#, 7, 7, 6),
        (r#"{"maxUnavailable":"30%"}"#, 7, 7, 4),
        (r#"{"maxUnavailable":9}"#, 7, 7, 0),
        ("{}", 7, 0, 0),
    ] {
        let parsed: PodDisruptionBudgetSpec = serde_json::from_str(spec).unwrap();
        let found = plan::demand(&parsed, 5, scale);
        assert_eq!(found, Demand { expected, healthy }, "{spec}");
        let needs = expected == 7;
        assert_eq!(plan::needs_scale(&parsed), needs, "{spec}");
    }
}

#[test]
fn what_is_not_healthy_may_not_be_disrupted() {
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    let evicted = budget(
        r#""spec":{},"status":{"currentHealthy":0,"desiredHealthy":0,"expectedPods":0,"disruptionsAllowed":0,
        "disruptedPods":{"soon":"2026-01-01T00:09:00Z","spared":"2026-01-01T00:07:59Z","gone":"2026-01-01T00:09:00Z"}}"#,
    );
    let pods = [
        pod("up", "True", false),
        pod("up2", "True", false),
        pod("down", "False", false),
        pod("ends", "True", true),
        pod("soon", "True", false),
        pod("spared", "True", false),
    ];
    let demand = |expected, healthy| Demand { expected, healthy };
    let found = plan::findings(&evicted, &pods, &demand(6, 2), now);
    let status = &found.status;
    assert_eq!(
        (status.current_healthy, status.disruptions_allowed),
        (Some(3), Some(1))
    );
    let left: Vec<&String> = status.disrupted_pods.as_ref().unwrap().keys().collect();
    assert_eq!(left, ["soon"]);
    assert_eq!(found.again.unwrap().as_secs(), 60);
    let spared: Vec<String> = found.spared.iter().map(|pod| pod.name_any()).collect();
    assert_eq!(spared, ["spared"]);
    assert_eq!(status.observed_generation, Some(3));
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (&*condition.status, &*condition.reason),
        ("True", "SufficientPods")
    );

    // Doing it twice changes nothing.
    let again = PodDisruptionBudget {
        status: Some(status.clone()),
        ..evicted.clone()
    };
    let later: Timestamp = "2026-01-01T00:10:01Z".parse().unwrap();
    assert_eq!(
        plan::findings(&again, &pods, &demand(6, 2), later).status,
        *status
    );

    for (expected, healthy, allowed) in [(6, 3, 0), (6, 9, 0), (0, 0, 0), (6, 0, 3)] {
        let found = plan::findings(&evicted, &pods, &demand(expected, healthy), now);
        assert_eq!(
            found.status.disruptions_allowed,
            Some(allowed),
            "{expected} {healthy}"
        );
    }
    let failed = plan::failed(&again, "why", later);
    let condition = &failed.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (&*condition.reason, &*condition.message),
        ("SyncFailed", "why")
    );
    assert_eq!(
        (failed.disruptions_allowed, condition.last_transition_time.0),
        (Some(0), later)
    );
}

#[test]
fn budgets_are_for_what_their_selector_selects() {
    let labels = [("app".to_owned(), "web".to_owned())].into();
    for (spec, covers, told) in [
        ("{}", false, "nil"),
        (
            r#"{"selector":{}}"#,
            true,
            "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{},}",
        ),
        (
            r#"{"selector":{"matchLabels":{"app":"db"},"matchExpressions":[{"key":"a","operator":"In","values":["b","c"]}]}}"#,
            false,
            "&LabelSelector{MatchLabels:map[string]string{app: db,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:a,Operator:In,Values:[b c],},},}",
        ),
    ] {
        let budget = budget(&format!(r#""spec":{spec}"#));
        assert_eq!(plan::covers(&budget, Some(&labels)), covers, "{spec}");
        let selector = budget.spec.unwrap().selector;
        assert_eq!(printed(selector.as_ref()), told);
    }
}

#[test]
fn what_was_said_of_a_pod_gets_stale() {
    let now: Timestamp = "2026-01-01T00:02:30Z".parse().unwrap();
    for (status, phase, reason, left) in [
        ("True", "Running", "EvictionByEvictionAPI", Some(30)),
        ("False", "Running", "EvictionByEvictionAPI", None),
        ("True", "Failed", "EvictionByEvictionAPI", None),
        ("True", "Running", "TerminationByKubelet", None),
    ] {
        let pod: Pod = serde_json::from_str(&format!(
            r#"{{"metadata":{{}},"status":{{"phase":"{phase}","conditions":[{{"type":"DisruptionTarget","status":"{status}","reason":"{reason}","lastTransitionTime":"2026-01-01T00:01:00Z"}}]}}}}"#
        ))
        .unwrap();
        let found = plan::stale_after(&pod, now).map(|left| left.as_secs());
        assert_eq!(found, left, "{status} {phase} {reason}");
    }
}
