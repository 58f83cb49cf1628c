//! The status of a pod: containers, phase and conditions as upstream computes them.

mod conditions;
mod containers;
mod phase;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Kind, Memory, spec_of};
use crate::meta::quantity::{Form, Quantity};
use crate::node::describe;
use crate::zone::{Limits, Zone, ZoneNetwork, ZoneState};

pub use conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING, RESIZES, condition, is_own};
pub use phase::is_over;

/// A time as the API stores it: in whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Whether a container that ended with `code` is restarted.
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
        // An init container that succeeded is done.
        _ => kind != Kind::Init || code != 0,
    }
}

/// The waiting reason and message of containers that are not started, by name.
pub type Waiting = BTreeMap<String, (String, Option<String>)>;

/// Whether the state of a zone's processes is unknown: the zone exists but its supervisor was not reached yet, as after
/// a restart of the agent. What was reported of them is kept: an end is never concluded from silence.
pub fn is_hidden(zone: &Zone) -> bool {
    zone.state == ZoneState::Unreachable
}

/// The last reported status of a container.
pub fn old_status<'s>(last: &'s PodStatus, kind: Kind, name: &str) -> Option<&'s ContainerStatus> {
    let list = match kind {
        Kind::Init | Kind::Sidecar => &last.init_container_statuses,
        Kind::Regular => &last.container_statuses,
        Kind::Ephemeral => &last.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

/// The maximum total length of a pod's termination messages, in bytes (`MaxPodTerminationMessageLogLength`).
const MESSAGES: usize = 12 << 10;

/// Truncates the termination message of one of `containers` to its share of the maximum. Follows `normalizeStatus` of
/// pkg/kubelet/status/status_manager.go.
fn cut_messages(status: &mut ContainerStatus, containers: usize) {
    let share = MESSAGES / containers.max(1);
    for state in [&mut status.state, &mut status.last_state] {
        let ended = state.as_mut().and_then(|state| state.terminated.as_mut());
        if let Some(message) = ended.and_then(|ended| ended.message.as_mut()) {
            message.truncate(message.floor_char_boundary(share));
        }
    }
}

/// The reported pod-level resources: those allocated, with the actual limits.
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

/// The input of a status.
pub struct Facts<'a> {
    /// The desired pod.
    pub pod: &'a Pod,
    /// Its zone as it was seen.
    pub zone: Option<&'a Zone>,
    /// What is remembered of it.
    pub memory: &'a Memory,
    /// Containers that are not started, and why.
    pub waiting: &'a Waiting,
    /// Whether nothing of it will be started again.
    pub terminal: bool,
    /// The current time.
    pub now: Timestamp,
}

/// The status of a pod.
pub fn status(facts: &Facts<'_>) -> PodStatus {
    let Facts {
        pod, zone, memory, ..
    } = *facts;
    let spec = spec_of(pod);
    let old = &memory.last;
    let mut status = PodStatus {
        qos_class: old
            .qos_class
            .clone()
            .or_else(|| pod.status.as_ref()?.qos_class.clone()),
        start_time: old.start_time.clone().or_else(|| Some(time(facts.now))),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    tell_containers(facts, &mut status);
    tell_phase(facts, &mut status);
    // Pod-level resources, allocated and actual: limits are those of its zone.
    if let Some(whole) = &spec.resources {
        status.allocated_resources = describe::requests(pod);
        let has = zone.map(|zone| &zone.spec.limits);
        status.resources = Some(whole_actual(whole, has));
    }
    if let Some(host) = memory.host_ips.first() {
        status.host_ip = Some(host.clone());
        let all = memory.host_ips.iter();
        status.host_ips = Some(all.map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    status.pod_ip = match zone.map(|zone| &zone.spec.network) {
        Some(ZoneNetwork::Own { address, .. }) => Some(address.to_string()),
        Some(ZoneNetwork::Host) => memory.host_ips.first().cloned(),
        None if spec.host_network == Some(true) => memory.host_ips.first().cloned(),
        None => old.pod_ip.clone(),
    };
    status.pod_ips = status.pod_ip.clone().map(|ip| vec![PodIP { ip }]);
    status.conditions = Some(conditions::conditions(facts, &status));
    hold_back(facts, &mut status);
    status
}

/// The statuses of all containers: init containers in the order of the spec, others by name, as upstream sorts them.
fn tell_containers(facts: &Facts<'_>, status: &mut PodStatus) {
    let (mut init, mut regular, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
    let all = super::containers(spec_of(facts.pod));
    let count = all.len();
    for (kind, container) in all {
        let mut one = containers::container_status(facts, kind, &container);
        cut_messages(&mut one, count);
        match kind {
            Kind::Init | Kind::Sidecar => init.push(one),
            Kind::Regular => regular.push(one),
            Kind::Ephemeral => ephemeral.push(one),
        }
    }
    for list in [&mut regular, &mut ephemeral] {
        list.sort_by(|one, other| one.name.cmp(&other.name));
    }
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.container_statuses = Some(regular);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
}

/// The phase, from the containers or from the reason why the pod fails.
fn tell_phase(facts: &Facts<'_>, status: &mut PodStatus) {
    let Facts { pod, memory, .. } = *facts;
    let old = &memory.last;
    let own = status.init_container_statuses.iter().flatten();
    let own = own.chain(status.container_statuses.iter().flatten());
    let own = own.map(|status| (status.name.as_str(), status)).collect();
    let restarting = memory
        .restarting
        .keys()
        .map(|id| id.name.as_str())
        .collect();
    let computed = phase::phase(spec_of(pod), &own, facts.terminal, &restarting);
    // A final phase never changes again.
    let reported = [Some(&**old), pod.status.as_ref()].into_iter().flatten();
    let fixed = reported
        .filter(|status| is_over(status))
        .find_map(|status| status.phase.clone());
    let phase = fixed.clone().unwrap_or_else(|| computed.to_owned());
    if old.phase.as_deref() == Some(&phase) {
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
    status.phase = Some(phase);
    // Regardless of how its containers end then.
    if let Some((reason, message)) = &memory.fail
        && fixed.as_deref() != Some("Succeeded")
    {
        status.phase = Some("Failed".into());
        status.reason = Some(reason.clone());
        status.message = Some(message.clone());
    }
}

/// Whether something of a pod may still run in its zone.
fn may_run(zone: Option<&Zone>) -> bool {
    zone.is_some_and(|zone| {
        is_hidden(zone) || zone.processes.iter().any(|process| process.ended.is_none())
    })
}

/// Keeps the reported phase as long as something of a pod that ends still runs: whoever sees the final phase gives its
/// CPUs, ports and volumes to others. Follows `mergePodStatus` of pkg/kubelet/status/status_manager.go.
fn hold_back(facts: &Facts<'_>, status: &mut PodStatus) {
    let old = &facts.memory.last;
    if is_over(status) && !is_over(old) && may_run(facts.zone) {
        status.phase = old.phase.clone().or_else(|| Some("Pending".into()));
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
}
