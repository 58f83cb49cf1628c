//! The conditions of a pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use super::{Facts, is_over, may_run, time};
use crate::node::machine::{Kind, Memory, containers, spec_of};
use crate::zone::ZoneState;

/// A pod requests resources that its containers do not get.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// A pod was allocated other resources than its containers have.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions that are removed instead of becoming false.
pub const RESIZES: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];

/// A condition in a status.
pub fn condition<'s>(status: &'s PodStatus, type_: &str) -> Option<&'s PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|one| one.type_ == type_)
}

/// A condition about a resize, whose transition time follows its reason.
fn resize_condition(
    type_: &str,
    old: &PodStatus,
    now: Timestamp,
    generation: Option<i64>,
    reason: Option<&str>,
    message: Option<&str>,
) -> PodCondition {
    let old = condition(old, type_).filter(|old| old.reason.as_deref() == reason);
    let same = old
        .filter(|old| old.observed_generation == generation && old.message.as_deref() == message);
    PodCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        observed_generation: generation,
        last_transition_time: old
            .and_then(|old| old.last_transition_time.clone())
            .or_else(|| Some(time(now))),
        last_probe_time: same
            .and_then(|old| old.last_probe_time.clone())
            .or_else(|| Some(time(now))),
    }
}

/// Whether a condition is true, with reason and message.
type Told = (bool, Option<&'static str>, Option<String>);

const FINE: Told = (true, None, None);

/// Conditions that only the agent sets.
const OWN: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// The condition of a pod that is ended for the node's sake; others set it for their own reasons.
const DISRUPTION: &str = "DisruptionTarget";
/// Its reason if the node does so.
const BY_NODE: &str = "TerminationByKubelet";

/// Whether a condition is the agent's own, as opposed to one that others maintain.
pub fn is_own(condition: &PodCondition) -> bool {
    let type_ = condition.type_.as_str();
    OWN.contains(&type_)
        || RESIZES.contains(&type_)
        || (type_ == DISRUPTION && condition.reason.as_deref() == Some(BY_NODE))
}

/// The conditions of the agent, in upstream's order, after those of others.
pub(super) fn conditions(facts: &Facts<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let Facts {
        pod, memory, now, ..
    } = *facts;
    let phase = status.phase.as_deref().unwrap_or_default();
    let others = pod.status.iter();
    let others = others.flat_map(|status| status.conditions.iter().flatten());
    let mut list: Vec<PodCondition> = others
        .filter(|condition| {
            let type_ = condition.type_.as_str();
            !RESIZES.contains(&type_) && !OWN.contains(&type_)
        })
        .cloned()
        .collect();
    if !is_over(status) {
        list.extend(resizes(memory, now));
    }
    let (incomplete, unready) = lacking(pod, status);
    let initialized = match phase {
        "Succeeded" => (true, Some("PodCompleted"), None),
        _ if any_began(status) => FINE,
        _ => unless("incomplete", &incomplete, "ContainersNotInitialized"),
    };
    let containers_ready = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ => unless("unready", &unready, "ContainersNotReady"),
    };
    let ready = ready(pod, &list, &containers_ready);
    let told = [
        sandbox(facts, status),
        initialized,
        ready,
        containers_ready,
        FINE,
    ];
    for (type_, (holds, reason, message)) in OWN.into_iter().zip(told) {
        let value = if holds { "True" } else { "False" };
        let old = condition(&memory.last, type_).filter(|old| old.status == value);
        list.push(PodCondition {
            type_: type_.into(),
            status: value.into(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: pod.metadata.generation,
            last_transition_time: old
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            last_probe_time: None,
        });
    }
    // It is set together with the final phase, which is not reported before everything has ended.
    if is_over(status) && !may_run(facts.zone) {
        disruption(facts, &mut list);
    }
    list
}

/// The conditions about resizes, which are removed when they end.
fn resizes(memory: &Memory, now: Timestamp) -> Vec<PodCondition> {
    let old = &memory.last;
    let pending = memory.resize.pending.as_ref().map(|(pending, _)| {
        let (reason, message) = (pending.reason.as_str(), pending.message.as_str());
        let generation = pending.generation;
        resize_condition(
            RESIZE_PENDING,
            old,
            now,
            generation,
            Some(reason),
            Some(message),
        )
    });
    let progress = memory.resize.progress.as_ref().map(|progress| {
        let message = progress.error.as_deref();
        let reason = message.map(|_| "Error");
        let generation = progress.generation;
        resize_condition(RESIZE_IN_PROGRESS, old, now, generation, reason, message)
    });
    pending.into_iter().chain(progress).collect()
}

/// The containers that a pod's initialization waits for, and those that are not ready.
fn lacking(pod: &Pod, status: &PodStatus) -> (Vec<String>, Vec<String>) {
    let own = status.init_container_statuses.iter();
    let own = own.chain(&status.container_statuses).flatten();
    let own: BTreeMap<&str, &ContainerStatus> =
        own.map(|status| (status.name.as_str(), status)).collect();
    let (mut incomplete, mut unready) = (Vec::new(), Vec::new());
    for (kind, container) in containers(spec_of(pod)) {
        let Some(status) = own.get(container.name.as_str()) else {
            continue;
        };
        let waits = match kind {
            Kind::Init => !status.ready,
            Kind::Sidecar => status.started != Some(true),
            _ => false,
        };
        if waits {
            incomplete.push(container.name.clone());
        }
        if matches!(kind, Kind::Sidecar | Kind::Regular) && !status.ready {
            unready.push(container.name.clone());
        }
    }
    (incomplete, unready)
}

/// A condition that is true unless there are containers for which it is not.
fn unless(what: &str, names: &[String], reason: &'static str) -> Told {
    match names.is_empty() {
        true => FINE,
        false => {
            let names = names.join(" ");
            let message = format!("containers with {what} status: [{names}]");
            (false, Some(reason), Some(message))
        }
    }
}

/// Whether an ordinary container was ever started.
fn any_began(status: &PodStatus) -> bool {
    let mut regular = status.container_statuses.iter().flatten();
    regular.any(|status| {
        let now = status.state.as_ref();
        let before = status.last_state.as_ref();
        now.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || before.is_some_and(|state| state.terminated.is_some())
    })
}

/// Whether the pod is ready: its containers are, and its readiness gates are met by `others`.
fn ready(pod: &Pod, others: &[PodCondition], containers_ready: &Told) -> Told {
    let gates = spec_of(pod).readiness_gates.iter().flatten();
    let gates: Vec<String> = gates
        .filter_map(|gate| {
            let type_ = &gate.condition_type;
            let found = others.iter().find(|condition| condition.type_ == *type_);
            match found {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{type_}\" does not exist."
                )),
                Some(found) if found.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                    found.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    match containers_ready {
        (true, ..) if !gates.is_empty() => (
            false,
            Some("ReadinessGatesNotReady"),
            Some(gates.join(", ")),
        ),
        other => other.clone(),
    }
}

/// Whether there is a zone in which containers can be started.
fn sandbox(facts: &Facts<'_>, status: &PodStatus) -> Told {
    let state = facts.zone.map(|zone| zone.state);
    if matches!(state, Some(ZoneState::Running | ZoneState::Unreachable)) {
        return FINE;
    }
    // A removed zone counts like a halted one: upstream keeps those of ended pods.
    let all = [&status.init_container_statuses, &status.container_statuses];
    let all = all
        .into_iter()
        .chain([&status.ephemeral_container_statuses]);
    let mut all = all.flat_map(|list| list.iter().flatten());
    let had_one = state.is_some()
        || facts.memory.had_zone
        || condition(&facts.memory.last, OWN[0])
            .is_some_and(|old| old.status == "True" || old.message.as_deref() == Some(NOT_READY))
        || all.any(|status| status.container_id.is_some());
    let message = if had_one {
        NOT_READY
    } else {
        "no pod sandbox exists"
    };
    (false, Some("PodSandboxNotReady"), Some(message.into()))
}

const NOT_READY: &str = "pod sandbox is not ready";

/// Adds the condition that the node evicted the pod.
fn disruption(facts: &Facts<'_>, list: &mut Vec<PodCondition>) {
    let Some(message) = &facts.memory.disrupted else {
        return;
    };
    let at = list.iter().position(|known| known.type_ == DISRUPTION);
    let told = at.map(|at| list.remove(at));
    let told = told.or_else(|| condition(&facts.memory.last, DISRUPTION).cloned());
    let since = told.filter(|old| old.status == "True");
    list.push(PodCondition {
        type_: DISRUPTION.into(),
        status: "True".into(),
        reason: Some(BY_NODE.into()),
        message: Some(message.clone()),
        observed_generation: facts.pod.metadata.generation,
        last_transition_time: since
            .and_then(|old| old.last_transition_time)
            .or_else(|| Some(time(facts.now))),
        last_probe_time: None,
    });
}
