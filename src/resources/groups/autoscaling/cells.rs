//! Cells of tables. Follows printHorizontalPodAutoscaler of pkg/printers/internalversion/printers.go.

use crate::meta::table;
use crate::schema::Value;

/// How many metrics a row shows.
const SHOWN: usize = 2;

/// The row of an autoscaler.
pub(super) fn cells(object: &Value, now: i64) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let target = spec.at("scaleTargetRef");
    let least = match spec.at("minReplicas").as_int() {
        Some(least) => least.to_string(),
        None => "<unset>".to_owned(),
    };
    vec![
        object.at("metadata").str("name").into(),
        format!("{}/{}", target.str("kind"), target.str("name")).into(),
        metrics(spec.list("metrics"), status.list("currentMetrics")).into(),
        least.into(),
        spec.int("maxReplicas").into(),
        status.int("currentReplicas").into(),
        table::age(object, now),
    ]
}

fn metrics(wanted: &[Value], found: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = wanted
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(index, metric)| self::metric(metric, found.get(index).unwrap_or(&Value::Null)))
        .collect();
    match wanted.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn metric(wanted: &Value, found: &Value) -> String {
    let field = match wanted.str("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (source, found) = (wanted.at(field), found.at(field));
    let (target, current) = (source.at("target"), found.at("current"));
    // A missing quantity is a nil pointer in Go.
    let amount = |of: &Value, name: &str| of.at(name).as_str().unwrap_or("<nil>").to_owned();
    let percent = |of: &Value| {
        of.at("averageUtilization")
            .as_int()
            .map(|n| format!("{n}%"))
    };
    let unknown = || "<unknown>".to_owned();
    let known = !found.is_null();
    let has = |of: &Value| of.get("averageValue").is_some();
    match field {
        "pods" => {
            let now = known.then(|| amount(current, "averageValue"));
            format!(
                "{}/{}",
                now.unwrap_or_else(unknown),
                amount(target, "averageValue")
            )
        }
        "resource" | "containerResource" => {
            let (now, aim) = match has(target) {
                true => (
                    known.then(|| amount(current, "averageValue")),
                    amount(target, "averageValue"),
                ),
                false => (
                    percent(current),
                    percent(target).unwrap_or_else(|| "<auto>".to_owned()),
                ),
            };
            format!(
                "{}: {}/{aim}",
                source.str("name"),
                now.unwrap_or_else(unknown)
            )
        }
        _ if has(target) => {
            let now = has(current).then(|| amount(current, "averageValue"));
            format!(
                "{}/{} (avg)",
                now.unwrap_or_else(unknown),
                amount(target, "averageValue")
            )
        }
        _ => {
            let now = known.then(|| amount(current, "value"));
            format!(
                "{}/{}",
                now.unwrap_or_else(unknown),
                amount(target, "value")
            )
        }
    }
}
