//! Binding and eviction of pods, the latter within disruption budgets. Pure decisions. Follows
//! pkg/registry/core/pod/storage/storage.go and eviction.go.

use std::sync::Arc;

use super::cluster::Cluster;
use crate::meta::checks::selects;
use crate::meta::status::About;
use crate::meta::{Status, conditions, time};
use crate::schema::{Object, Value};
use crate::value;

/// A budget with more disrupted pods than this that were not processed yet allows no more.
const MOST_DISRUPTED: usize = 2000;
/// Retry-After of a rejected eviction, in seconds.
const RETRY: i64 = 10;

/// Binds a pod to the node in a Binding, and copies the binding's annotations and labels. `now` is in
/// seconds since 1970.
///
/// # Errors
/// Why the pod cannot be bound.
pub fn bind(pod: &mut Value, binding: &Value, now: i64) -> Result<(), String> {
    let name = pod.at("metadata").str("name");
    if pod.at("metadata").get("deletionTimestamp").is_some() {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = pod.at("spec").str("nodeName");
    if !node.is_empty() {
        return Err(format!(
            "pod {name} is already assigned to node {}",
            crate::meta::errors::quoted(node)
        ));
    }
    if !pod.at("spec").list("schedulingGates").is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let members = pod.object_mut();
    let node = binding.at("target").str("name");
    members.object_mut("spec").insert("nodeName", node);
    members.object_mut("status").remove("nominatedNodeName");
    let meta = members.object_mut("metadata");
    for map in ["annotations", "labels"] {
        for (key, value) in binding.at("metadata").entries(map) {
            meta.object_mut(map).insert(key.clone(), value.clone());
        }
    }
    super::groups::drop_old_annotations(meta);
    set_condition(pod, value!({"type": "PodScheduled", "status": "True"}), now);
    Ok(())
}

/// Sets a condition of a pod, with the time of the last change of its status.
pub fn set_condition(pod: &mut Value, mut condition: Value, now: i64) {
    let status = pod.object_mut().object_mut("status");
    let conditions = status.array_mut("conditions");
    let kind = condition.str("type").to_owned();
    let old = conditions.iter_mut().find(|old| old.str("type") == kind);
    let unchanged = old
        .as_ref()
        .filter(|old| old.str("status") == condition.str("status"))
        .map(|old| old.at("lastTransitionTime").clone());
    condition.set(
        "lastTransitionTime",
        unchanged.unwrap_or_else(|| time::print(now).into()),
    );
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Sets the condition of a pod that is being evicted.
pub fn mark_evicted(pod: &mut Value, now: i64) {
    let condition = value!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting"
    });
    set_condition(pod, condition, now);
}

/// How a pod's state affects its eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has finished or is being deleted: budgets do not apply.
    Ended,
    /// It has not started: budgets do not apply, unless it starts meanwhile.
    Pending,
    /// Budgets apply.
    Running,
}

/// The stage of a pod.
pub fn stage(pod: &Value) -> Stage {
    if pod.at("metadata").get("deletionTimestamp").is_some() {
        return Stage::Ended;
    }
    match pod.at("status").str("phase") {
        "Succeeded" | "Failed" => Stage::Ended,
        "Pending" => Stage::Pending,
        _ => Stage::Running,
    }
}

/// The budgets that select a pod.
pub fn budgets(cluster: &Cluster, namespace: &str, pod: &Value) -> Vec<Arc<Value>> {
    let labels = pod.at("metadata").at("labels");
    let mut budgets = cluster.list("policy", "poddisruptionbudgets", namespace);
    budgets.retain(|budget| selects(budget.at("spec").at("selector"), labels) == Some(true));
    budgets
}

/// Whether a budget permits evicting an unready pod without counting it.
pub fn spares(budget: &Value, pod: &Value) -> bool {
    let ready = conditions::holds(pod.at("status").list("conditions"), "Ready");
    let status = budget.at("status");
    let desired = status.int("desiredHealthy");
    !ready
        && (budget.at("spec").str("unhealthyPodEvictionPolicy") == "AlwaysAllow"
            || (desired > 0 && status.int("currentHealthy") >= desired))
}

/// Records the disruption of the pod `name` in a budget. A dry run only decrements the count.
///
/// # Errors
/// 429 if the budget allows no disruption, 403 if it is invalid.
pub fn count(budget: &mut Value, name: &str, now: i64, dry_run: bool) -> Result<(), Status> {
    allows(budget)?;
    let generation = budget.at("status").int("observedGeneration");
    let status = budget.object_mut().object_mut("status");
    let allowed = status
        .get("disruptionsAllowed")
        .and_then(Value::as_int)
        .unwrap_or_default();
    status.insert("disruptionsAllowed", allowed - 1);
    if !dry_run {
        let disrupted = status.object_mut("disruptedPods");
        disrupted.insert(name, time::print(now));
    }
    if allowed == 1 {
        let condition = value!({
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "message": "",
            "observedGeneration": generation
        });
        set_condition(budget, condition, now);
    }
    Ok(())
}

fn allows(budget: &Value) -> Result<(), Status> {
    let (meta, status) = (budget.at("metadata"), budget.at("status"));
    let name = meta.str("name");
    if status.int("observedGeneration") < meta.int("generation") {
        return Err(unsettled(name));
    }
    let about = About {
        group: "policy",
        kind: "poddisruptionbudget",
        name,
    };
    let allowed = status.int("disruptionsAllowed");
    let disrupted = status
        .at("disruptedPods")
        .as_object()
        .map_or(0, Object::len);
    let (why, short) = match (allowed, disrupted) {
        (..0, _) => (
            "pdb disruptions allowed is negative",
            "pdb disruptions allowed is negative",
        ),
        (_, n) if n > MOST_DISRUPTED => (
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        ),
        (0, _) => return Err(too_many(&refusal(name, status), None)),
        _ => return Ok(()),
    };
    let told =
        format!("The disruption budget {name} does not allow evicting pods currently: {short}");
    Err(with_cause(Status::forbidden(about, why), &told))
}

/// Why a budget allows no disruption.
fn refusal(name: &str, status: &Value) -> String {
    let mut conditions = status.list("conditions").iter();
    let none = conditions
        .find(|one| one.str("type") == "DisruptionAllowed")
        .filter(|one| one.str("status") == "False" && !one.str("message").is_empty());
    let head = format!("The disruption budget {name}");
    let (desired, current) = (status.int("desiredHealthy"), status.int("currentHealthy"));
    match none {
        Some(none) if none.str("reason") == "SyncFailed" => format!(
            "{head} does not allow evicting pods currently because it failed sync: {}",
            none.str("message")
        ),
        _ if current <= desired => {
            format!("{head} needs {desired} healthy pods and has {current} currently")
        }
        Some(none) => format!(
            "{head} does not allow evicting pods currently ({}): {}",
            none.str("reason"),
            none.str("message")
        ),
        None => format!("{head} does not allow evicting pods currently"),
    }
}

/// 429: the disruption controller has not processed the latest change of the budget.
pub fn unsettled(name: &str) -> Status {
    let cause = format!("The disruption budget {name} is still being processed by the server.");
    too_many(&cause, Some(RETRY))
}

fn too_many(cause: &str, retry: Option<i64>) -> Status {
    let status = Status::failure(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    let status = with_cause(status, cause);
    match retry {
        Some(seconds) => status.retry_after(seconds),
        None => status,
    }
}

fn with_cause(mut status: Status, message: &str) -> Status {
    let mut details = status
        .details
        .take()
        .map_or_else(|| Object::new().into(), |details| *details);
    details.set(
        "causes",
        vec![value!({"reason": "DisruptionBudget", "message": message})],
    );
    status.with_details(details)
}

#[cfg(test)]
mod tests;
