//! What pods use.

use super::{is_native, number};
use crate::meta::amounts::{Amounts, Side};
use crate::meta::quantity::Quantity;
use crate::meta::time;
use crate::schema::Value;
use crate::value;

/// Whether a pod has an active deadline.
pub fn is_terminating(pod: &Value) -> bool {
    let seconds = pod.at("spec").at("activeDeadlineSeconds").as_int();
    seconds.is_some_and(|seconds| seconds >= 0)
}

/// The scopes of a quota as requirements.
pub(super) fn scopes(quota: &Value) -> Vec<Value> {
    let spec = quota.at("spec");
    let plain = spec.list("scopes").iter();
    plain
        .map(|scope| value!({"scopeName": scope, "operator": "Exists"}))
        .chain(
            spec.at("scopeSelector")
                .list("matchExpressions")
                .iter()
                .cloned(),
        )
        .collect()
}

/// The usage of a pod that is not finished.
pub(super) fn pod(pod: &Value, now: i64) -> Amounts {
    if matches!(pod.at("status").str("phase"), "Failed" | "Succeeded") || is_overdue(pod, now) {
        return Amounts::default();
    }
    let amounts = |side| Amounts::pod_at_most(pod, side);
    compute(&amounts(Side::Requests), &amounts(Side::Limits))
}

/// Whether a terminating pod has exceeded its grace period.
fn is_overdue(pod: &Value, now: i64) -> bool {
    let meta = pod.at("metadata");
    let deleted = time::parse(meta.str("deletionTimestamp")).ok();
    deleted
        .zip(meta.at("deletionGracePeriodSeconds").as_int())
        .is_some_and(|(deleted, grace)| now > deleted.saturating_add(grace))
}

pub(super) fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut out = Amounts::default();
    let mut set = |name: String, amount: Quantity| {
        out.0.insert(name.into(), amount);
    };
    set("pods".to_owned(), number(1));
    for (name, amount) in &requests.0 {
        let plain = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str())
            || name.starts_with("hugepages-");
        if plain {
            set(name.to_string(), *amount);
        }
        let extended = !is_native(name) || name.starts_with("deviceclass.resource.kubernetes.io/");
        if plain || (extended && !name.starts_with("requests.")) {
            set(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in &limits.0 {
        if ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) {
            set(format!("limits.{name}"), *amount);
        }
    }
    out
}

/// Whether a pod has neither cpu nor memory requests or limits.
pub fn is_best_effort(pod: &Value) -> bool {
    let class = pod.at("status").str("qosClass");
    if !class.is_empty() {
        return class == "BestEffort";
    }
    let spec = pod.at("spec");
    let silent = |holder: &Value| {
        [Side::Requests, Side::Limits].into_iter().all(|side| {
            let said = Amounts::container(holder, side);
            ["cpu", "memory"]
                .iter()
                .all(|name| said.get(name).sign() == 0)
        })
    };
    if !spec.at("resources").is_empty() {
        return silent(spec);
    }
    ["containers", "initContainers"]
        .iter()
        .all(|list| spec.list(list).iter().all(silent))
}

pub(super) fn crosses_namespaces(spec: &Value) -> bool {
    let crosses = |term: &Value| {
        !term.list("namespaces").is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|key| {
        let affinity = spec.at("affinity").at(key);
        affinity
            .list("requiredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .any(crosses)
            || affinity
                .list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(weighted.at("podAffinityTerm")))
    })
}
