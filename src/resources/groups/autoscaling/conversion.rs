//! Conversion between HorizontalPodAutoscaler v1 and v2; v1 keeps fields that only v2 has in annotations. Follows
//! pkg/apis/autoscaling/v1/conversion.go.

use super::{DEFAULT_PERCENT, fill, processors};
use crate::resources::metadata;
use crate::schema::{Key, Object, Value, builtin, decode, internal, json};
use crate::value;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const ANNOTATIONS: [&str; 6] = [
    METRICS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
    CURRENT_METRICS,
    CONDITIONS,
];

/// A member of a metric: its name in v1, its path in v2, and what v1 shows if it is absent in v2.
type Member = (&'static str, &'static [&'static str], Absent);

#[derive(Clone, Copy, PartialEq)]
enum Absent {
    Omitted,
    Empty,
    Zero,
    Object,
}

const NAME: Member = ("name", &["name"], Absent::Empty);
const CONTAINER: Member = ("container", &["container"], Absent::Empty);
const METRIC: Member = ("metricName", &["metric", "name"], Absent::Empty);
const SELECTOR: Member = ("selector", &["metric", "selector"], Absent::Omitted);
const DESCRIBED: Member = ("target", &["describedObject"], Absent::Object);
const METRIC_SELECTOR: Member = ("metricSelector", &["metric", "selector"], Absent::Omitted);
const PERCENT: Member = (
    "targetAverageUtilization",
    &["target", "averageUtilization"],
    Absent::Omitted,
);
const AVERAGE: Member = (
    "targetAverageValue",
    &["target", "averageValue"],
    Absent::Omitted,
);
const IS_PERCENT: Member = (
    "currentAverageUtilization",
    &["current", "averageUtilization"],
    Absent::Omitted,
);
const IS_AVERAGE: Member = (
    "currentAverageValue",
    &["current", "averageValue"],
    Absent::Zero,
);

/// The metric sources in the spec, in v1's order.
const AIMS: [(&str, &[Member]); 5] = [
    (
        "object",
        &[
            DESCRIBED,
            METRIC,
            ("targetValue", &["target", "value"], Absent::Zero),
            SELECTOR,
            ("averageValue", &["target", "averageValue"], Absent::Omitted),
        ],
    ),
    (
        "pods",
        &[
            METRIC,
            (
                "targetAverageValue",
                &["target", "averageValue"],
                Absent::Zero,
            ),
            SELECTOR,
        ],
    ),
    ("resource", &[NAME, PERCENT, AVERAGE]),
    ("containerResource", &[NAME, PERCENT, AVERAGE, CONTAINER]),
    (
        "external",
        &[
            METRIC,
            METRIC_SELECTOR,
            ("targetValue", &["target", "value"], Absent::Omitted),
            AVERAGE,
        ],
    ),
];

/// The metric sources in the status.
const MEASURED: [(&str, &[Member]); 5] = [
    (
        "object",
        &[
            DESCRIBED,
            METRIC,
            ("currentValue", &["current", "value"], Absent::Zero),
            SELECTOR,
            (
                "averageValue",
                &["current", "averageValue"],
                Absent::Omitted,
            ),
        ],
    ),
    ("pods", &[METRIC, IS_AVERAGE, SELECTOR]),
    ("resource", &[NAME, IS_PERCENT, IS_AVERAGE]),
    (
        "containerResource",
        &[NAME, IS_PERCENT, IS_AVERAGE, CONTAINER],
    ),
    (
        "external",
        &[
            METRIC,
            METRIC_SELECTOR,
            ("currentValue", &["current", "value"], Absent::Zero),
            (
                "currentAverageValue",
                &["current", "averageValue"],
                Absent::Omitted,
            ),
        ],
    ),
];

/// Removes the annotations in which v1 keeps fields of v2.
pub(super) fn drop_annotations(object: &mut Value) {
    metadata::drop_annotations(object, &ANNOTATIONS);
}

/// Converts an autoscaler from v1 to v2.
pub(super) fn from_v1(mut object: Value) -> Value {
    let annotation = |name: &str| {
        let text = object.path(&["metadata", "annotations"]).str(name);
        Some(json::parse(text.as_bytes()).ok()?.value)
    };
    let metrics = annotation(METRICS).and_then(|list| metrics_of(&list, &AIMS, "MetricSpec"));
    let behavior = annotation(BEHAVIOR).and_then(|behavior| behavior_of(&behavior));
    let current =
        annotation(CURRENT_METRICS).and_then(|list| metrics_of(&list, &MEASURED, "MetricStatus"));
    let conditions = annotation(CONDITIONS)
        .and_then(|list| typed_list(list, "HorizontalPodAutoscalerCondition"));
    drop_annotations(&mut object);
    let members = object.object_mut();
    let spec = members.object_mut("spec");
    let percent = spec.remove("targetCPUUtilizationPercentage");
    let mut metrics = metrics.unwrap_or_default();
    metrics.extend(percent.and_then(|n| n.as_int()).map(processors));
    if metrics.is_empty() {
        metrics.push(processors(DEFAULT_PERCENT));
    }
    spec.insert("metrics", metrics);
    if let Some(behavior) = behavior {
        spec.insert("behavior", behavior);
    }
    let status = members.object_mut("status");
    let percent = status.remove("currentCPUUtilizationPercentage");
    let measured = percent.and_then(|n| n.as_int()).map(|percent| {
        vec![value!({
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": percent}}
        })]
    });
    if let Some(current) = current.or(measured) {
        status.insert("currentMetrics", current);
    }
    if let Some(conditions) = conditions {
        status.insert("conditions", conditions);
    }
    decode::tidy(
        &mut object,
        builtin::named("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
    );
    object
}

/// Converts an autoscaler from v2 to v1.
pub(super) fn to_v1(mut object: Value) -> Value {
    drop_annotations(&mut object);
    let mut annotations: Vec<(&str, String)> = Vec::new();
    let members = object.object_mut();
    let spec = members.object_mut("spec");
    let metrics = spec.remove("metrics").unwrap_or_default();
    let (processors, others): (Vec<&Value>, Vec<&Value>) = metrics
        .as_array()
        .unwrap_or_default()
        .iter()
        .partition(|metric| is_processors(metric) && !percent(metric, "target").is_null());
    if let Some(metric) = processors.first() {
        spec.insert(
            "targetCPUUtilizationPercentage",
            percent(metric, "target").clone(),
        );
    }
    let list = |metrics: &[&Value], sources| {
        let metrics = metrics.iter().map(|metric| metric_of_v2(metric, sources));
        html_safe(&Value::Array(metrics.collect()))
    };
    if !others.is_empty() {
        annotations.push((METRICS, list(&others, &AIMS)));
    }
    let behavior = spec
        .remove("behavior")
        .filter(|behavior| !behavior.is_null());
    if let Some(behavior) = behavior {
        let shown = internal::shown(&behavior, "autoscaling.HorizontalPodAutoscalerBehavior");
        annotations.push((BEHAVIOR, escape_html(shown)));
    }
    let status = members.object_mut("status");
    let current = status.remove("currentMetrics").unwrap_or_default();
    let current: Vec<&Value> = current.as_array().unwrap_or_default().iter().collect();
    let measured = current
        .iter()
        .rev()
        .find(|metric| is_processors(metric) && !percent(metric, "current").is_null());
    if let Some(metric) = measured {
        status.insert(
            "currentCPUUtilizationPercentage",
            percent(metric, "current").clone(),
        );
    }
    if !current.is_empty() {
        annotations.push((CURRENT_METRICS, list(&current, &MEASURED)));
    }
    let conditions = status.remove("conditions").unwrap_or_default();
    if !conditions.is_empty() {
        annotations.push((CONDITIONS, html_safe(&conditions)));
    }
    if !annotations.is_empty() {
        let kept = members.object_mut("metadata").object_mut("annotations");
        for (name, text) in annotations {
            kept.insert(name, text);
        }
    }
    decode::tidy(
        &mut object,
        builtin::named("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"),
    );
    object
}

fn is_processors(metric: &Value) -> bool {
    metric.str("type") == "Resource" && metric.at("resource").str("name") == "cpu"
}

fn percent<'a>(metric: &'a Value, part: &str) -> &'a Value {
    metric.path(&["resource", part, "averageUtilization"])
}

/// Finds a member like encoding/json, which ignores case.
fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or_else(|| {
        let mut others = object.entries_of();
        let found = others.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or(&Value::Null, |(_, value)| value)
    })
}

fn typed_list(list: Value, item: &str) -> Option<Vec<Value>> {
    let Value::Array(items) = list else {
        return list.is_null().then(Vec::new);
    };
    let schema = builtin::named(&format!("io.k8s.api.autoscaling.v2.{item}"));
    items
        .into_iter()
        .map(|item| Some(decode::decode(item, schema, "v2.Item").ok()?.value))
        .collect()
}

/// Converts the metrics in an annotation to v2; `None` if they are malformed.
fn metrics_of(list: &Value, sources: &[(&str, &[Member])], item: &str) -> Option<Vec<Value>> {
    let Value::Array(items) = list else {
        return list.is_null().then(Vec::new);
    };
    let items = items.iter().map(|metric| {
        let mut out = Object::new();
        out.insert("type", member(metric, "type").clone());
        for (source, members) in sources {
            let found = member(metric, source);
            if !found.is_null() {
                out.insert(*source, source_of(source, found, members));
            }
        }
        Value::Object(out)
    });
    typed_list(Value::Array(items.collect()), item)
}

fn source_of(source: &str, found: &Value, members: &[Member]) -> Value {
    if found.as_object().is_none() {
        return found.clone();
    }
    let mut out = Object::new();
    let aims = members
        .iter()
        .any(|member| member.1.first() == Some(&"target"));
    for (name, path, absent) in members {
        let mut value = member(found, name).clone();
        if value.is_null() {
            value = match absent {
                Absent::Zero => "0".into(),
                _ => continue,
            };
        }
        match *path {
            [field] => drop(out.insert(*field, value)),
            [part, field] => drop(out.object_mut(part).insert(*field, value)),
            _ => {}
        }
    }
    if aims {
        let target = out.object_mut("target");
        let has =
            |target: &Object, name: &str| target.get(name).is_some_and(|value| !value.is_null());
        let kind = match source {
            "object" if !has(target, "averageValue") => "Value",
            "external" if has(target, "value") => "Value",
            "resource" | "containerResource" if has(target, "averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        // In v1 the target value of an object metric is required; zero stands for none.
        let zero = target.get("value").and_then(Value::as_str) == Some("0");
        if source == "object" && kind == "AverageValue" && zero {
            target.remove("value");
        }
        target.insert("type", kind);
    }
    Value::Object(out)
}

fn metric_of_v2(metric: &Value, sources: &[(&str, &[Member])]) -> Value {
    let mut out = Object::new();
    out.insert("type", metric.str("type"));
    for (source, members) in sources {
        let Some(found) = metric.get(source).filter(|found| !found.is_null()) else {
            continue;
        };
        let mut kept = Object::new();
        for (name, path, absent) in *members {
            let value = match (found.path(path), absent) {
                (Value::Null, Absent::Omitted) => continue,
                (Value::Null, Absent::Empty) => "".into(),
                (Value::Null, Absent::Zero) => "0".into(),
                (Value::Null, Absent::Object) => value!({"kind": "", "name": ""}),
                (value, _) => value.clone(),
            };
            kept.insert(*name, value);
        }
        out.insert(*source, kept);
    }
    Value::Object(out)
}

/// Converts the behavior in an annotation, whose names are those of upstream's internal type.
fn behavior_of(behavior: &Value) -> Option<Value> {
    behavior.as_object()?;
    let mut out = Object::new();
    for (name, direction) in [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")] {
        let rules = member(behavior, name);
        if rules.is_null() {
            continue;
        }
        rules.as_object()?;
        out.insert(direction, named_alike(rules));
    }
    if out.is_empty() {
        return None;
    }
    let mut out = Value::Object(out);
    let schema = builtin::named("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior");
    out = decode::decode(out, schema, "v2.HorizontalPodAutoscalerBehavior")
        .ok()?
        .value;
    // Reading the stored v2 object applies v2's defaults. Rules without policies have been rejected before.
    fill(&mut out, false);
    Some(out)
}

/// Converts scaling rules of the internal type to v2.
fn named_alike(value: &Value) -> Value {
    const NAMES: [&str; 7] = [
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "tolerance",
        "type",
        "value",
        "periodSeconds",
    ];
    match value {
        Value::Array(items) => Value::Array(items.iter().map(named_alike).collect()),
        Value::Object(members) => {
            let known = members.iter().filter_map(|(key, value)| {
                let name = NAMES.iter().find(|name| key.eq_ignore_ascii_case(name))?;
                Some((Key::from(*name), named_alike(value)))
            });
            Value::Object(known.collect())
        }
        value => value.clone(),
    }
}

fn html_safe(value: &Value) -> String {
    escape_html(json::to_string(value))
}

/// JSON as printed by encoding/json, with HTML characters escaped.
fn escape_html(text: String) -> String {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out
}
