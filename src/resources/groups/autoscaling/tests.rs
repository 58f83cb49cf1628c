use super::conversion::{from_v1, to_v1};
use crate::resources::groups::trial::Trial;
use crate::schema::{Value, json};

fn parsed(text: &str) -> Value {
    json::parse(text.as_bytes()).expect("JSON").value
}

fn body(spec: &str) -> String {
    let target =
        r#""scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}"#;
    format!(
        r#"{{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {{"name": "a"}}, "spec": {{{target}, {spec}}}}}"#
    )
}

#[test]
fn refusals_are_told_in_order() {
    let kind = Trial::of("autoscaling", "horizontalpodautoscalers");
    for (spec, refusals) in [
        (r#""maxReplicas": 1"#, &[][..]),
        (
            r#""maxReplicas": 0, "minReplicas": -1"#,
            &[
                "spec.minReplicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.maxReplicas: Required value",
            ],
        ),
        (
            r#""maxReplicas": 1, "behavior": {"scaleUp": {"policies": []}}"#,
            &["spec.behavior.scaleUp.policies: Required value: must specify at least one Policy"],
        ),
        (
            r#""maxReplicas": 1, "minReplicas": 0, "metrics": [{"type": "Pods", "resource": {"name": "", "target": {"type": "Value", "value": "0"}}}]"#,
            &[
                "spec.metrics[0].resource.name: Required value: must specify a resource name",
                "spec.metrics[0].resource.target.value: Invalid value: \"0\": must be positive",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ],
        ),
        (
            r#""maxReplicas": 1, "metrics": [{"type": "Nope"}]"#,
            &[r#"spec.metrics[0].type: Unsupported value: "Nope": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#;
                2],
        ),
    ] {
        assert_eq!(kind.refusals(&body(spec)), refusals, "{spec}");
    }
}

#[test]
fn the_old_version_keeps_in_annotations_what_it_has_no_fields_for() {
    let kind = Trial::of("autoscaling", "horizontalpodautoscalers");
    let spec = r#""maxReplicas": 3, "metrics": [
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}, "metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "2"}}},
        {"type": "External", "external": {"metric": {"name": "q<"}, "target": {"type": "Value", "value": "2"}}},
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}],
        "behavior": {"scaleUp": {"selectPolicy": "Min"}}"#;
    let stored = kind.defaulted(&body(spec));
    let old = to_v1(stored.clone());
    let annotations = old.path(&["metadata", "annotations"]);
    assert_eq!(
        annotations.str("autoscaling.alpha.kubernetes.io/metrics"),
        r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"m","targetValue":"0","averageValue":"2"}},{"type":"External","external":{"metricName":"q\u003c","targetValue":"2"}}]"#
    );
    assert_eq!(
        annotations.str("autoscaling.alpha.kubernetes.io/behavior"),
        r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Min","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}"#
    );
    assert_eq!(old.at("spec").int("targetCPUUtilizationPercentage"), 60);
    let mut again = from_v1(old);
    again.set("apiVersion", "autoscaling/v2");
    assert_eq!(again, stored);
}

#[test]
fn broken_annotations_are_dropped_and_processors_are_watched() {
    let object = r#"{"metadata": {"name": "a", "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[{\"type\": 1}]", "autoscaling.alpha.kubernetes.io/behavior": "no", "b": "c"}}, "spec": {"maxReplicas": 1}}"#;
    let new = from_v1(parsed(object));
    assert_eq!(
        new.at("metadata"),
        &parsed(r#"{"name": "a", "annotations": {"b": "c"}}"#)
    );
    assert_eq!(
        new.at("spec").at("metrics"),
        &parsed(
            r#"[{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]"#
        )
    );
}
