//! The status of a pod: containers, phase and conditions as upstream computes them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::resize::actual;
use super::{IMAGE, IMAGE_ID, Kind, Memory, ProbeKind, container_id, containers, mounts, spec_of};
use crate::meta::quantity::{Form, Quantity};
use crate::node::describe;
use crate::zone::{Ending, Limits, Process, Zone, ZoneNetwork, ZoneState};

/// A moment as the API keeps it: whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether a container that ended with `code` is to be started again.
pub fn restarts(spec: &PodSpec, kind: Kind, container: &Container, code: i32) -> bool {
    if kind == Kind::Ephemeral {
        return false;
    }
    if let Some(own) = container.restart_policy.as_deref() {
        let matching = container
            .restart_policy_rules
            .iter()
            .flatten()
            .find(|rule| {
                rule.exit_codes.as_ref().is_some_and(|codes| {
                    let listed = codes.values.iter().flatten().any(|value| *value == code);
                    match codes.operator.as_str() {
                        "In" => listed,
                        "NotIn" => !listed,
                        _ => false,
                    }
                })
            });
        if matching
            .is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | "RestartAllContainers"))
        {
            return true;
        }
        return match own {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        };
    }
    match spec.restart_policy.as_deref() {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        // An init container that did its work is done.
        _ => kind != Kind::Init || code != 0,
    }
}

/// The waiting reason and message of containers that are not started, by name.
pub type Waiting = BTreeMap<String, (String, Option<String>)>;

fn terminated(
    pod: &Pod,
    process: &Process,
    ending: &Ending,
    memory: &Memory,
) -> ContainerStateTerminated {
    let reason = match ending {
        Ending { error: Some(_), .. } => "StartError",
        Ending {
            out_of_memory: true,
            ..
        } => "OOMKilled",
        Ending { code: 0, .. } => "Completed",
        _ => "Error",
    };
    ContainerStateTerminated {
        container_id: Some(container_id(pod, &process.id)),
        exit_code: ending.code,
        finished_at: Some(time(ending.at)),
        message: ending
            .error
            .clone()
            .or_else(|| memory.messages.get(&process.id).cloned())
            .filter(|message| !message.is_empty()),
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: Some(time(process.started)),
    }
}

/// Whether it is not known what became of a zone's processes: one that is there but was not heard of yet, as each is to
/// an agent that starts again. What was told of them stays told: an end is never concluded from silence.
pub fn is_hidden(zone: &Zone) -> bool {
    zone.state == ZoneState::Unreachable
}

/// The status of one container.
fn container_status(
    pod: &Pod,
    kind: Kind,
    container: &Container,
    zone: Option<&Zone>,
    memory: &Memory,
    waiting: &Waiting,
    initialized: bool,
) -> ContainerStatus {
    let mut seen: Vec<&Process> = zone
        .into_iter()
        .flat_map(|zone| &zone.processes)
        .filter(|process| process.id.name == container.name)
        .collect();
    seen.sort_by_key(|process| process.id.generation);
    let old = old_status(&memory.last, kind, &container.name);
    if let Some(old) = old.filter(|_| zone.is_some_and(is_hidden)) {
        return old.clone();
    }
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let latest = seen.last().copied();
    let mut state = ContainerState::default();
    let mut last = None;
    if let Some(process) = latest {
        status.restart_count = process.id.generation as i32;
        status.container_id = Some(container_id(pod, &process.id));
        if let Some(image) = process.labels.get(IMAGE) {
            status.image = image.clone();
        }
        status.image_id = process.labels.get(IMAGE_ID).cloned().unwrap_or_default();
        match &process.ended {
            None => {
                state.running = Some(ContainerStateRunning {
                    started_at: Some(time(process.started)),
                });
            }
            Some(ending) => state.terminated = Some(terminated(pod, process, ending, memory)),
        }
        last = match seen.len().checked_sub(2).map(|index| seen[index]) {
            Some(previous) => previous
                .ended
                .as_ref()
                .map(|ending| terminated(pod, previous, ending, memory)),
            None => old.and_then(|old| {
                let same = old.container_id == status.container_id;
                let before = old
                    .last_state
                    .as_ref()
                    .and_then(|state| state.terminated.clone());
                match &old.state {
                    Some(ContainerState {
                        terminated: Some(ended),
                        ..
                    }) if !same => Some(ended.clone()),
                    _ => before,
                }
            }),
        };
        last = last.filter(|last| last.container_id != status.container_id);
    } else if let Some(old) = old {
        status.restart_count = old.restart_count;
        status.container_id = old.container_id.clone();
        if !old.image.is_empty() && old.container_id.is_some() {
            status.image = old.image.clone();
        }
        status.image_id = old.image_id.clone();
        last = old
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.clone());
        match &old.state {
            Some(ContainerState {
                terminated: Some(ended),
                ..
            }) => state.terminated = Some(ended.clone()),
            Some(ContainerState {
                running: Some(_), ..
            }) => {
                // It ran, and is not there any more: another end than never having run.
                state.terminated = Some(ContainerStateTerminated {
                    container_id: old.container_id.clone(),
                    exit_code: 137,
                    message: Some(
                        "The container could not be located when the pod was terminated".into(),
                    ),
                    reason: Some("ContainerStatusUnknown".into()),
                    ..ContainerStateTerminated::default()
                });
            }
            _ => {}
        }
    }
    if state.running.is_none() {
        if let Some((reason, message)) = waiting.get(&container.name) {
            if let Some(ended) = state.terminated.take() {
                last = Some(ended);
            }
            state.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            });
        } else if state.terminated.is_none() {
            let inits = pod.spec.as_ref().is_some_and(|spec| {
                spec.init_containers
                    .as_ref()
                    .is_some_and(|list| !list.is_empty())
            });
            let reason = match inits && !initialized && kind != Kind::Ephemeral
                || inits && kind == Kind::Init
            {
                true => "PodInitializing",
                false => "ContainerCreating",
            };
            state.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.into()),
                message: None,
            });
        }
    }
    let running = latest.filter(|process| process.ended.is_none());
    let result = |kind: ProbeKind| {
        running.and_then(|process| memory.probes.get(&(process.id.clone(), kind)).copied())
    };
    let started = running.is_some()
        && (container.startup_probe.is_none() || result(ProbeKind::Startup) == Some(true));
    status.started = (kind != Kind::Ephemeral).then_some(started);
    status.ready = match kind {
        Kind::Init => state
            .terminated
            .as_ref()
            .is_some_and(|ended| ended.exit_code == 0),
        Kind::Ephemeral => false,
        _ => {
            started
                && (container.readiness_probe.is_none()
                    || result(ProbeKind::Readiness) == Some(true))
        }
    };
    status.state = Some(state);
    status.last_state = Some(ContainerState {
        terminated: last,
        ..ContainerState::default()
    });
    if kind != Kind::Ephemeral {
        let requests = container
            .resources
            .as_ref()
            .and_then(|own| own.requests.clone());
        status.allocated_resources = requests.filter(|map| !map.is_empty());
        let given = container.resources.clone();
        status.resources = match running.filter(|_| matches!(kind, Kind::Regular | Kind::Sidecar)) {
            Some(process) => given.map(|given| actual(&given, process, kind, &memory.last)),
            None => given,
        };
    }
    status.volume_mounts = container.volume_mounts.as_ref().map(|mounts| {
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                mount_path: mount.mount_path.clone(),
                name: mount.name.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount
                    .read_only
                    .unwrap_or(false)
                    .then(|| mounts::told(mount, latest).to_owned()),
                ..VolumeMountStatus::default()
            })
            .collect()
    });
    status
}

/// What was reported last of a container.
pub fn old_status<'s>(last: &'s PodStatus, kind: Kind, name: &str) -> Option<&'s ContainerStatus> {
    let list = match kind {
        Kind::Init | Kind::Sidecar => &last.init_container_statuses,
        Kind::Regular => &last.container_statuses,
        Kind::Ephemeral => &last.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

/// What the phase depends on, counted over one kind of container.
#[derive(Default)]
struct Count {
    pending: u32,
    failed: bool,
    running: u32,
    waiting: u32,
    stopped: u32,
    succeeded: u32,
    restarting: u32,
    unknown: u32,
}

/// The phase that follows from the containers. `terminal`: no container is going to be started again.
fn phase(
    spec: &PodSpec,
    statuses: &BTreeMap<&str, &ContainerStatus>,
    terminal: bool,
    restarting: &BTreeSet<String>,
) -> &'static str {
    let mut count = Count::default();
    let mut pending_sidecars = 0;
    let mut any_started = false;
    for (kind, container) in containers(spec) {
        let Some(status) = statuses.get(container.name.as_str()) else {
            count.unknown += u32::from(kind != Kind::Ephemeral);
            continue;
        };
        let state = status.state.clone().unwrap_or_default();
        let ended = |ended: &ContainerStateTerminated| {
            (
                ended.exit_code,
                restarting.contains(&container.name)
                    || restarts(spec, kind, &container, ended.exit_code),
            )
        };
        let before = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        match kind {
            Kind::Init => match (&state.terminated, &state.waiting, before) {
                (Some(now), _, _) => count.failed |= ended(now).0 != 0 && !ended(now).1,
                (_, Some(_), Some(before)) if before.exit_code != 0 => {
                    count.failed |= !ended(before).1
                }
                (_, Some(_), Some(_)) => {}
                _ => count.pending += 1,
            },
            Kind::Sidecar => match (&state.running, &state.terminated, before) {
                (Some(_), _, _) => {
                    pending_sidecars += u32::from(status.started != Some(true));
                    count.running += 1;
                }
                (_, Some(_), _) | (_, _, Some(_)) => {}
                _ => {
                    pending_sidecars += 1;
                    count.waiting += 1;
                }
            },
            Kind::Regular => {
                any_started |=
                    state.running.is_some() || state.terminated.is_some() || before.is_some();
                match (&state.running, &state.terminated, before) {
                    (Some(_), _, _) => count.running += 1,
                    (_, Some(now), _) => {
                        let (code, again) = ended(now);
                        count.stopped += 1;
                        count.restarting += u32::from(again);
                        count.succeeded += u32::from(code == 0);
                    }
                    (_, _, Some(before)) => {
                        count.stopped += 1;
                        count.restarting += u32::from(ended(before).1);
                    }
                    _ => count.waiting += 1,
                }
            }
            Kind::Ephemeral => {}
        }
    }
    if count.failed {
        return "Failed";
    }
    if count.pending > 0 || (pending_sidecars > 0 && !any_started) || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 && count.unknown == 0 {
        return "Running";
    }
    if count.stopped > 0 && count.unknown == 0 {
        if !terminal && count.restarting > 0 {
            return "Running";
        }
        return match count.stopped == count.succeeded {
            true => "Succeeded",
            false => "Failed",
        };
    }
    "Pending"
}

/// Tells that a pod asks for resources that its containers do not get.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// Tells that a pod was given other resources than its containers have.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions that end by not being there.
pub const RESIZES: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];

/// A condition of a status.
pub fn condition<'s>(status: &'s PodStatus, type_: &str) -> Option<&'s PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|one| one.type_ == type_)
}

/// A condition about a resize, whose transitions are those of its reason.
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

/// The conditions that the agent owns, in upstream's order after those of others.
fn conditions(
    pod: &Pod,
    status: &PodStatus,
    memory: &Memory,
    ready_to_start: bool,
    now: Timestamp,
) -> Vec<PodCondition> {
    const OWN: [&str; 5] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let spec = spec_of(pod);
    let phase = status.phase.as_deref().unwrap_or_default();
    let mut list: Vec<PodCondition> = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .filter(|condition| {
            let type_ = condition.type_.as_str();
            !RESIZES.contains(&type_) && !OWN.contains(&type_)
        })
        .cloned()
        .collect();
    if !matches!(phase, "Succeeded" | "Failed") {
        let old = &memory.last;
        if let Some((pending, _)) = &memory.resize.pending {
            let (reason, message) = (&pending.reason, &pending.message);
            let generation = pending.generation;
            let (reason, message) = (Some(reason.as_str()), Some(message.as_str()));
            list.push(resize_condition(
                RESIZE_PENDING,
                old,
                now,
                generation,
                reason,
                message,
            ));
        }
        if let Some(progress) = &memory.resize.progress {
            let message = progress.error.as_deref();
            let reason = message.map(|_| "Error");
            let generation = progress.generation;
            list.push(resize_condition(
                RESIZE_IN_PROGRESS,
                old,
                now,
                generation,
                reason,
                message,
            ));
        }
    }
    let all: BTreeMap<&str, &ContainerStatus> = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .map(|status| (status.name.as_str(), status))
        .collect();
    let quoted = |what: &str, names: &[String]| match names.is_empty() {
        true => None,
        false => Some(format!(
            "containers with {what} status: [{}]",
            names.join(" ")
        )),
    };
    let mut unready = Vec::new();
    let mut incomplete = Vec::new();
    for (kind, container) in containers(spec) {
        let Some(status) = all.get(container.name.as_str()) else {
            continue;
        };
        match kind {
            Kind::Init if !status.ready => incomplete.push(container.name.clone()),
            Kind::Sidecar => {
                if status.started != Some(true) {
                    incomplete.push(container.name.clone());
                }
                if !status.ready {
                    unready.push(container.name.clone());
                }
            }
            Kind::Regular if !status.ready => unready.push(container.name.clone()),
            _ => {}
        }
    }
    let started = status.container_statuses.iter().flatten().any(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status
                .last_state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
    });
    type Told = (bool, Option<&'static str>, Option<String>);
    let fine: Told = (true, None, None);
    let initialized: Told = match phase {
        "Succeeded" => (true, Some("PodCompleted"), None),
        _ if started => fine.clone(),
        _ => match quoted("incomplete", &incomplete) {
            None => fine.clone(),
            message => (false, Some("ContainersNotInitialized"), message),
        },
    };
    let containers_ready: Told = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ => match quoted("unready", &unready) {
            None => fine.clone(),
            message => (false, Some("ContainersNotReady"), message),
        },
    };
    let gates: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let found = list
                .iter()
                .find(|condition| condition.type_ == gate.condition_type);
            match found {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                )),
                Some(found) if found.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                    gate.condition_type, found.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    let ready: Told = match (&containers_ready, gates.is_empty()) {
        ((true, ..), false) => (
            false,
            Some("ReadinessGatesNotReady"),
            Some(gates.join(", ")),
        ),
        (other, _) => other.clone(),
    };
    let sandbox: Told = match ready_to_start {
        true => fine.clone(),
        false => (false, None, None),
    };
    let told = [sandbox, initialized, ready, containers_ready, fine];
    for (type_, (holds, reason, message)) in OWN.into_iter().zip(told) {
        let value = if holds { "True" } else { "False" };
        let old = memory
            .last
            .conditions
            .iter()
            .flatten()
            .find(|old| old.type_ == type_ && old.status == value);
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
    if let Some(message) = &memory.disrupted {
        let old = list
            .iter()
            .position(|known| known.type_ == "DisruptionTarget");
        let since = old
            .map(|at| list.remove(at))
            .filter(|old| old.status == "True");
        list.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("TerminationByKubelet".into()),
            message: Some(message.clone()),
            observed_generation: pod.metadata.generation,
            last_transition_time: since
                .and_then(|old| old.last_transition_time)
                .or_else(|| Some(time(now))),
            last_probe_time: None,
        });
    }
    list
}

/// The longest that the termination messages of a pod may be together, in bytes (`MaxPodTerminationMessageLogLength`).
const MESSAGES: usize = 12 << 10;

/// Cuts the termination message of one of `containers` to its share of what the pod's may be together. Follows
/// `normalizeStatus` of pkg/kubelet/status/status_manager.go.
fn cut_messages(status: &mut ContainerStatus, containers: usize) {
    let share = MESSAGES / containers.max(1);
    for state in [&mut status.state, &mut status.last_state] {
        let ended = state.as_mut().and_then(|state| state.terminated.as_mut());
        if let Some(message) = ended.and_then(|ended| ended.message.as_mut()) {
            message.truncate(message.floor_char_boundary(share));
        }
    }
}

/// What a pod as a whole was given, with the limits that hold.
fn whole_actual(given: &ResourceRequirements, has: Option<&Limits>) -> ResourceRequirements {
    let mut told = given.clone();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for (name, has) in [
        (
            "cpu",
            has.and_then(|has| has.cpu_millis)
                .map(|millis| Quantity::milli(number(millis), Form::Decimal)),
        ),
        (
            "memory",
            has.and_then(|has| has.memory)
                .map(|bytes| Quantity::units(number(bytes), Form::Binary)),
        ),
    ] {
        let said = told.limits.as_mut().and_then(|limits| limits.get_mut(name));
        if let Some((said, has)) = said.zip(has)
            && Quantity::parse(&said.0).ok() != Some(has)
        {
            said.0 = has.to_string();
        }
    }
    told
}

/// The status of a pod. `terminal`: nothing of it is going to be started again.
pub fn status(
    pod: &Pod,
    zone: Option<&Zone>,
    memory: &Memory,
    waiting: &Waiting,
    initialized: bool,
    terminal: bool,
    now: Timestamp,
) -> PodStatus {
    let spec = spec_of(pod);
    let old = &memory.last;
    let mut status = PodStatus {
        qos_class: old
            .qos_class
            .clone()
            .or_else(|| pod.status.as_ref()?.qos_class.clone()),
        start_time: old.start_time.clone().or_else(|| Some(time(now))),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    let (mut init, mut regular, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
    let all = containers(spec);
    let count = all.len();
    for (kind, container) in all {
        let mut one = container_status(pod, kind, &container, zone, memory, waiting, initialized);
        cut_messages(&mut one, count);
        match kind {
            Kind::Init | Kind::Sidecar => init.push(one),
            Kind::Regular => regular.push(one),
            Kind::Ephemeral => ephemeral.push(one),
        }
    }
    let all = init
        .iter()
        .chain(&regular)
        .map(|status| (status.name.as_str(), status))
        .collect();
    let computed = phase(spec, &all, terminal, &memory.resize.restarting);
    let reported = |status: Option<&PodStatus>| {
        status
            .and_then(|status| status.phase.clone())
            .filter(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"))
    };
    // A phase that ends a pod is never left again.
    let fixed = reported(Some(old)).or_else(|| reported(pod.status.as_ref()));
    let phase = fixed.unwrap_or_else(|| computed.to_owned());
    if old.phase.as_deref() == Some(&phase) {
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
    status.phase = Some(phase);
    if let Some((reason, message)) = &memory.fail
        && status.phase.as_deref() != Some("Succeeded")
    {
        status.phase = Some("Failed".into());
        status.reason = Some(reason.clone());
        status.message = Some(message.clone());
    }
    // What the pod as a whole was given, and has: limits are those of its zone.
    if let Some(whole) = &spec.resources {
        status.allocated_resources = describe::requests(pod);
        let has = zone.map(|zone| &zone.spec.limits);
        status.resources = Some(whole_actual(whole, has));
    }
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.container_statuses = Some(regular);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    if let Some(host) = memory.host_ips.first() {
        status.host_ip = Some(host.clone());
        status.host_ips = Some(
            memory
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect(),
        );
    }
    status.pod_ip = match zone.map(|zone| &zone.spec.network) {
        Some(ZoneNetwork::Own { address, .. }) => Some(address.to_string()),
        Some(ZoneNetwork::Host) => memory.host_ips.first().cloned(),
        None if spec.host_network == Some(true) => memory.host_ips.first().cloned(),
        None => old.pod_ip.clone(),
    };
    status.pod_ips = status.pod_ip.clone().map(|ip| vec![PodIP { ip }]);
    let ready_to_start =
        zone.is_some_and(|zone| matches!(zone.state, ZoneState::Running | ZoneState::Unreachable));
    status.conditions = Some(conditions(pod, &status, memory, ready_to_start, now));
    status
}
