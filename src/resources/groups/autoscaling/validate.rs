//! Validation of HorizontalPodAutoscalers. Follows pkg/apis/autoscaling/validation/validation.go.

use crate::meta::{At, Errors, names};
use crate::resources::Cx;
use crate::resources::groups::core::pods::validate::container_resource_name;
use crate::schema::Value;

/// The maximum period of a policy, in seconds.
const LONGEST_PERIOD: i64 = 1800;
/// The maximum stabilization window, in seconds.
const LONGEST_WINDOW: i64 = 3600;

/// What an update may keep because the old object had it.
#[derive(Clone, Copy, Default)]
struct Lenient {
    core_group: bool,
    any_version: bool,
}

/// Validates an autoscaler, new or updated.
pub(super) fn autoscaler(object: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    let number = most.int().unwrap_or_default();
    if least.int().is_some_and(|least| number < least) {
        most.invalid("must be greater than or equal to `minReplicas`", errors);
    }
    let target = spec.field("scaleTargetRef");
    let unchanged = old.is_some_and(|old| {
        let was = old.value.path(&["spec", "scaleTargetRef"]);
        ["apiVersion", "kind"]
            .iter()
            .all(|field| was.str(field) == target.value.str(field))
    });
    let lenient = Lenient {
        core_group: target.value.str("kind") == "ReplicationController",
        any_version: unchanged,
    };
    reference(target, lenient, errors);
    let lenient = Lenient {
        core_group: true,
        any_version: old.is_some_and(|old| names_a_bad_version(old.value)),
    };
    metrics(spec, lenient, errors);
    for direction in ["scaleUp", "scaleDown"] {
        rules(spec.field("behavior").field(direction), errors);
    }
    // Upstream reports declarative validation last.
    if least.int().is_some_and(|least| least < 0) {
        least.invalid("must be greater than or equal to 0", errors);
    }
    match number {
        0 => errors.required(most.path, ""),
        ..0 => most.invalid("must be greater than or equal to 1", errors),
        _ => {}
    }
}

/// Validates the status of an autoscaler.
pub(super) fn status(status: At<'_>, errors: &mut Errors) {
    for condition in status.field("conditions").items() {
        condition.field("observedGeneration").non_negative(errors);
    }
    status.field("currentReplicas").non_negative(errors);
    status.field("desiredReplicas").non_negative(errors);
}

fn reference(at: At<'_>, lenient: Lenient, errors: &mut Errors) {
    at.field("kind")
        .required_checked(names::path_segment, errors);
    at.field("name")
        .required_checked(names::path_segment, errors);
    let version = at.field("apiVersion");
    if let Some(wrong) = bad_version(version.str(), lenient) {
        version.invalid_text(wrong, errors);
    }
}

fn bad_version(version: &str, lenient: Lenient) -> Option<String> {
    if lenient.any_version {
        return None;
    }
    match version.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            Some(format!("unexpected GroupVersion string: {version}"))
        }
        Some((group, _)) if !group.is_empty() => None,
        _ if lenient.core_group => None,
        _ => Some("apiVersion must specify API group".to_owned()),
    }
}

fn names_a_bad_version(object: &Value) -> bool {
    let lenient = Lenient {
        core_group: true,
        any_version: false,
    };
    object.at("spec").list("metrics").iter().any(|metric| {
        let described = metric.path(&["object", "describedObject"]);
        metric.str("type") == "Object"
            && bad_version(described.str("apiVersion"), lenient).is_some()
    })
}

/// The types of metrics in validation order, and their fields.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metrics(spec: At<'_>, lenient: Lenient, errors: &mut Errors) {
    let list = spec.field("metrics");
    for metric in list.items() {
        self::metric(metric, lenient, errors);
    }
    let outside = list
        .list()
        .iter()
        .any(|metric| matches!(metric.str("type"), "Object" | "External"));
    if spec.field("minReplicas").int() == Some(0) && !outside {
        errors.forbidden(
            list.path,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
}

/// The types of metrics.
const KINDS: [&str; 5] = [
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];

fn metric(at: At<'_>, lenient: Lenient, errors: &mut Errors) {
    let kind = at.field("type");
    kind.required("must specify a metric source type", errors);
    kind.one_of(&KINDS, errors);
    let mut there: Vec<&str> = Vec::new();
    for (_, field) in SOURCES {
        let source = at.field(field);
        if source.is_absent() {
            continue;
        }
        if there.is_empty() {
            self::source(field, source, lenient, errors);
        }
        there.push(field);
    }
    let expected = SOURCES
        .iter()
        .find(|(name, _)| *name == kind.str())
        .map(|(_, field)| *field);
    match expected {
        Some(field) if !there.contains(&field) => errors.required(
            at.field(field).path,
            "must populate information for the given metric source",
        ),
        Some(_) => {}
        // Upstream tells it a second time.
        None => kind.one_of(&KINDS, errors),
    }
    if there.len() != 1 {
        there.sort_unstable();
        for field in there.into_iter().filter(|field| Some(*field) != expected) {
            errors.forbidden(
                at.field(field).path,
                "must populate the given metric source only",
            );
        }
    }
}

/// Validates one metric source and its target.
fn source(kind: &str, at: At<'_>, lenient: Lenient, errors: &mut Errors) {
    let target = at.field("target");
    let [value, average, percent] =
        ["value", "averageValue", "averageUtilization"].map(|field| target.field(field));
    let by_resource = matches!(kind, "resource" | "containerResource");
    if kind == "object" {
        reference(at.field("describedObject"), lenient, errors);
    }
    if by_resource {
        let name = at.field("name");
        if name.required("must specify a resource name", errors) && kind == "containerResource" {
            container_resource_name(name.str(), name, errors);
        }
        let container = at.field("container");
        if kind == "containerResource" && container.required("must specify a container", errors) {
            container.checked(names::dns1123_label, errors);
        }
    } else {
        let metric = at.field("metric");
        let name = metric.field("name");
        if name.required("must specify a metric name", errors) {
            name.checked(names::path_segment, errors);
        }
    }
    aim(target, errors);
    let (needs, refusal): (&[At<'_>], _) = match kind {
        "object" => (
            &[value, average],
            "must set either a target value or averageValue",
        ),
        "external" => (
            &[value, average],
            "must set either a target value for metric or a per-pod target",
        ),
        "pods" => (&[average], "must specify a positive target averageValue"),
        _ => (
            &[percent, average],
            "must set either a target raw value or a target utilization",
        ),
    };
    if needs.iter().all(At::is_absent) {
        let missing = if by_resource { percent } else { average };
        errors.required(missing.path, refusal);
    }
    if needs.iter().any(At::is_absent) {
        return;
    }
    match kind {
        "external" => value.forbid(
            "may not set both a target value for metric and a per-pod target",
            errors,
        ),
        _ if by_resource => average.forbid(
            "may not set both a target raw value and a target utilization",
            errors,
        ),
        _ => {}
    }
}

fn aim(target: At<'_>, errors: &mut Errors) {
    let kind = target.field("type");
    kind.required("must specify a metric target type", errors);
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid_text("must be either Utilization, Value, or AverageValue", errors);
    }
    for field in ["value", "averageValue"] {
        let amount = target.field(field);
        if amount
            .quantity()
            .is_some_and(|quantity| quantity.sign() != 1)
        {
            amount.invalid("must be positive", errors);
        }
    }
    let percent = target.field("averageUtilization");
    percent.within(1, i64::MAX, "must be greater than 0", errors);
}

fn rules(at: At<'_>, errors: &mut Errors) {
    if at.is_absent() {
        return;
    }
    let window = at.field("stabilizationWindowSeconds");
    let least = "must be greater than or equal to zero";
    window.within(0, i64::MAX, least, errors);
    window.within(
        i64::MIN,
        LONGEST_WINDOW,
        "must be less than or equal to 3600",
        errors,
    );
    at.field("selectPolicy")
        .one_of_if_there(&["Disabled", "Max", "Min"], errors);
    let policies = at.field("policies");
    policies.required("must specify at least one Policy", errors);
    for policy in policies.items() {
        policy.field("type").one_of(&["Percent", "Pods"], errors);
        policy.field("value").positive(errors);
        let period = policy.field("periodSeconds");
        period.positive(errors);
        period.within(
            i64::MIN,
            LONGEST_PERIOD,
            "must be less than or equal to 1800",
            errors,
        );
    }
    at.field("tolerance").non_negative_quantity(errors);
}
