//! Computes the status of a disruption budget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::client::kinds::Pod;
use crate::client::selector;
use crate::controllers::workload;

/// For how many seconds an evicted pod may still look as if it was not evicted.
const EXPECTED: i64 = 120;
const CONDITION: &str = "DisruptionAllowed";
/// The condition of a pod that is about to be disrupted.
pub(super) const TARGET: &str = "DisruptionTarget";

/// Whether a budget selects these labels. A budget without a selector selects nothing.
pub(super) fn covers(
    budget: &PodDisruptionBudget,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let chosen = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    chosen.is_some_and(|chosen| selector::selects(chosen, labels).unwrap_or(false))
}

/// The numbers that a budget requires.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The expected number of pods.
    pub(super) expected: i32,
    /// How many of them must be healthy.
    pub(super) healthy: i32,
}

/// Whether the required numbers depend on the scale of the owners.
pub(super) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The numbers required by a budget for this many pods, whose owners want `scale` together.
pub(super) fn demand(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> Demand {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => Demand {
            expected: scale,
            healthy: (scale - workload::scaled(Some(most), scale, true)).max(0),
        },
        (None, Some(IntOrString::Int(least))) => Demand {
            expected: i32::try_from(pods).unwrap_or(i32::MAX),
            healthy: *least,
        },
        (None, Some(least)) => Demand {
            expected: scale,
            healthy: workload::scaled(Some(least), scale, true),
        },
        (None, None) => Demand {
            expected: 0,
            healthy: 0,
        },
    }
}

/// The result for the pods of a budget.
pub(super) struct Findings {
    /// The new status.
    pub(super) status: PodDisruptionBudgetStatus,
    /// Pods whose `DisruptionTarget` condition is stale.
    pub(super) spared: Vec<Arc<Pod>>,
    /// When further ones become stale.
    pub(super) again: Option<Duration>,
}

/// Computes the result for the pods of a budget at `now`.
pub(super) fn findings(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    demand: &Demand,
    now: Timestamp,
) -> Findings {
    let had = budget.status.clone().unwrap_or_default();
    let mut disrupted = BTreeMap::new();
    let (mut spared, mut again) = (Vec::new(), None);
    let mut healthy = 0;
    for pod in pods.iter().filter(|pod| !pod.is_deleting()) {
        let name = pod.name_any();
        let evicted = had.disrupted_pods.as_ref().and_then(|pods| pods.get(&name));
        match evicted.map(|at| at.0.as_millisecond() + EXPECTED * 1000 - now.as_millisecond()) {
            Some(left) if left >= 0 => {
                let left = Duration::from_millis(left.unsigned_abs());
                again = Some(again.map_or(left, |known: Duration| known.min(left)));
                disrupted.extend(evicted.map(|at| (name, at.clone())));
                continue;
            }
            Some(_) => spared.push(pod.clone()),
            None => {}
        }
        healthy += i32::from(pod.is_ready());
    }
    let allowed = match demand.expected {
        ..=0 => 0,
        _ => (healthy - demand.healthy).max(0),
    };
    let generation = budget.metadata.generation;
    let mut conditions = had.conditions.unwrap_or_default();
    let (state, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let up_to_date = had.observed_generation == generation
        && conditions.iter().any(|condition| {
            condition.type_ == CONDITION && condition.status == state && condition.reason == reason
        });
    if !up_to_date {
        set_condition(&mut conditions, state, reason, "", generation, now);
    }
    Findings {
        status: PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(demand.healthy),
            expected_pods: Some(demand.expected),
            disruptions_allowed: Some(allowed),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: generation,
            conditions: Some(conditions),
        },
        spared,
        again,
    }
}

/// The status of a budget whose pods could not be counted: nothing may be disrupted.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    let generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    set_condition(conditions, "False", "SyncFailed", why, generation, now);
    status
}

fn set_condition(
    conditions: &mut Vec<Condition>,
    state: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let known = conditions.iter().position(|known| known.type_ == CONDITION);
    let unchanged = known
        .map(|at| &conditions[at])
        .filter(|known| known.status == state)
        .map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: unchanged.unwrap_or(Time(now)),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// How long until a pod's `DisruptionTarget` condition is stale because the announced deletion did not come. `None` if the
/// pod has no such condition, or if it never becomes stale.
pub(super) fn stale_after(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.is_deleting() || pod.is_terminal() {
        return None;
    }
    let mut conditions = pod.status.conditions.iter();
    let condition = conditions.find(|condition| condition.type_ == TARGET)?;
    if condition.status != "True" || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = condition.last_transition_time.as_ref();
    let since = since.map_or(Timestamp::UNIX_EPOCH, |since| since.0);
    let left = since.as_millisecond() + EXPECTED * 1000 - now.as_millisecond();
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}
