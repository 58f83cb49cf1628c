use super::{Stage, bind, count, spares, stage};
use crate::schema::{Value, json};

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).expect("JSON").value
}

#[test]
fn only_a_pod_without_a_node_is_bound() {
    let binding = r#"{"metadata": {"name": "p", "labels": {"x": "y"}, "annotations": {"c": "new"}}, "target": {"name": "n"}}"#;
    for (pod, refusal) in [
        (
            r#"{"metadata": {"name": "p", "deletionTimestamp": "1970-01-01T00:00:00Z"}}"#,
            "pod p is being deleted, cannot be assigned to a host",
        ),
        (
            r#"{"metadata": {"name": "p"}, "spec": {"nodeName": "a"}}"#,
            "pod p is already assigned to node \"a\"",
        ),
        (
            r#"{"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}"#,
            "pod p has non-empty .spec.schedulingGates",
        ),
    ] {
        assert_eq!(
            bind(&mut parsed(pod), &parsed(binding), 0),
            Err(refusal.to_owned())
        );
    }
    let mut pod = parsed(
        r#"{"metadata": {"annotations": {"c": "old"}}, "spec": {}, "status": {"nominatedNodeName": "m", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "r", "lastTransitionTime": "1969-01-01T00:00:00Z"}]}}"#,
    );
    assert_eq!(bind(&mut pod, &parsed(binding), 0), Ok(()));
    let bound = r#"{"metadata": {"annotations": {"c": "new"}, "labels": {"x": "y"}}, "spec": {"nodeName": "n"}, "status": {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}"#;
    assert_eq!(pod, parsed(bound));
}

#[test]
fn budgets_count_disruptions() {
    let budget = |status: &str| {
        parsed(&format!(
            r#"{{"metadata": {{"name": "b", "generation": 2}}, "spec": {{}}, "status": {status}}}"#
        ))
    };
    for (status, code, cause) in [
        (
            r#"{"observedGeneration": 1, "disruptionsAllowed": 1}"#,
            429,
            "The disruption budget b is still being processed by the server.",
        ),
        (
            r#"{"observedGeneration": 2, "disruptionsAllowed": -1}"#,
            403,
            "The disruption budget b does not allow evicting pods currently: pdb disruptions allowed is negative",
        ),
        (
            r#"{"observedGeneration": 2, "disruptionsAllowed": 0, "desiredHealthy": 2, "currentHealthy": 1}"#,
            429,
            "The disruption budget b needs 2 healthy pods and has 1 currently",
        ),
        (
            r#"{"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 1, "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "R", "message": "m"}]}"#,
            429,
            "The disruption budget b does not allow evicting pods currently (R): m",
        ),
        (
            r#"{"observedGeneration": 2, "disruptionsAllowed": 0, "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "m"}]}"#,
            429,
            "The disruption budget b does not allow evicting pods currently because it failed sync: m",
        ),
    ] {
        let refused = count(&mut budget(status), "p", 0, false).expect_err(status);
        let causes = refused
            .details
            .as_ref()
            .map(|details| details.at("causes").clone());
        let expected = format!(r#"[{{"reason": "DisruptionBudget", "message": "{cause}"}}]"#);
        assert_eq!((refused.code, causes), (code, Some(parsed(&expected))));
    }
    let mut last = budget(r#"{"observedGeneration": 2, "disruptionsAllowed": 1}"#);
    assert_eq!(count(&mut last, "p", 0, false), Ok(()));
    let counted = r#"{"observedGeneration": 2, "disruptionsAllowed": 0, "disruptedPods": {"p": "1970-01-01T00:00:00Z"}, "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "", "observedGeneration": 2, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}"#;
    assert_eq!(last.at("status"), &parsed(counted));
}

#[test]
fn pods_that_do_not_run_or_are_not_ready_may_go() {
    for (pod, expected) in [
        (r#"{"status": {"phase": "Failed"}}"#, Stage::Ended),
        (
            r#"{"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}}"#,
            Stage::Ended,
        ),
        (r#"{"status": {"phase": "Pending"}}"#, Stage::Pending),
        (r#"{"status": {"phase": "Running"}}"#, Stage::Running),
    ] {
        assert_eq!(stage(&parsed(pod)), expected, "{pod}");
    }
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
    for (budget, pod, expected) in [
        (
            r#"{"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}"#,
            "{}",
            true,
        ),
        (
            r#"{"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}"#,
            ready,
            false,
        ),
        (
            r#"{"status": {"currentHealthy": 1, "desiredHealthy": 1}}"#,
            "{}",
            true,
        ),
        (
            r#"{"status": {"currentHealthy": 0, "desiredHealthy": 0}}"#,
            "{}",
            false,
        ),
    ] {
        assert_eq!(
            spares(&parsed(budget), &parsed(pod)),
            expected,
            "{budget} {pod}"
        );
    }
}
