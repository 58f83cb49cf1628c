//! Resizing in place: what a running container was given, and what its pod says now. Follows
//! pkg/kubelet/allocation/allocation_manager.go and kuberuntime's computePodResizeAction.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus, ResourceRequirements};

use super::status::time;
use super::{Kind, Memory, containers};
use crate::meta::quantity::Quantity;
use crate::zone::{Process, Zone};

/// Whether the node has what a pod is to have now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// It has.
    Enough,
    /// Not while others are there; for people.
    Deferred(String),
    /// Never; for people.
    Infeasible(String),
}

/// How a container gets what its pod says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// While it runs.
    Live,
    /// By a restart, which its `resizePolicy` asks for.
    Restart,
}

/// What can be changed while a container runs.
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// The conditions that tell of it.
pub const CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

fn amounts(of: &ResourceRequirements, resource: &str) -> [Option<Quantity>; 2] {
    [&of.requests, &of.limits].map(|map| Quantity::parse(&map.as_ref()?.get(resource)?.0).ok())
}

/// What is to be changed of a container that was `given` so much.
pub fn change(container: &Container, given: &ResourceRequirements) -> Option<Change> {
    let wanted = container.resources.clone().unwrap_or_default();
    let changed = |resource: &&str| amounts(&wanted, resource) != amounts(given, resource);
    let changed: Vec<&str> = RESOURCES.into_iter().filter(changed).collect();
    let mut policies = container.resize_policy.iter().flatten();
    let restarts = policies.any(|policy| {
        policy.restart_policy == "RestartContainer"
            && changed.contains(&policy.resource_name.as_str())
    });
    match (changed.is_empty(), restarts) {
        (true, _) => None,
        (_, true) => Some(Change::Restart),
        (_, false) => Some(Change::Live),
    }
}

/// What a process was given: what is remembered, else what was reported of it, else what its container says.
pub fn given(
    pod: &Pod,
    container: &Container,
    process: &Process,
    memory: &Memory,
) -> ResourceRequirements {
    let reported = || {
        let id = super::container_id(pod, &process.id);
        let last = &memory.last;
        let lists = [&last.container_statuses, &last.init_container_statuses];
        let mut statuses = lists.into_iter().flat_map(|list| list.iter().flatten());
        let own = statuses.find(|status| status.container_id.as_deref() == Some(&id))?;
        own.resources.clone()
    };
    let known = memory.given.get(&process.id).cloned();
    known
        .or_else(reported)
        .or_else(|| container.resources.clone())
        .unwrap_or_default()
}

/// The running processes of a pod that are to have something else than they were given.
pub fn changes<'z>(
    pod: &Pod,
    zone: Option<&'z Zone>,
    memory: &Memory,
) -> Vec<(&'z Process, Change)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let list = containers(spec);
    let processes = zone.into_iter().flat_map(|zone| &zone.processes);
    let running = processes.filter(|process| process.ended.is_none());
    running
        .filter_map(|process| {
            let named = |(_, container): &&(Kind, std::borrow::Cow<'_, Container>)| {
                container.name == process.id.name
            };
            let (kind, container) = list.iter().find(named)?;
            let resized = matches!(kind, Kind::Regular | Kind::Sidecar);
            let given = given(pod, container, process, memory);
            let change = change(container, &given).filter(|_| resized)?;
            Some((process, change))
        })
        .collect()
}

/// The conditions of a pod whose containers are to be changed, or are being.
pub fn conditions(
    pod: &Pod,
    zone: Option<&Zone>,
    memory: &Memory,
    now: Timestamp,
) -> Vec<PodCondition> {
    if changes(pod, zone, memory).is_empty() {
        return Vec::new();
    }
    let [pending, progress] = CONDITIONS;
    let (kind, reason, message) = match (&memory.room, &memory.resize_failed) {
        (Some(Room::Deferred(message)), _) => (pending, Some("Deferred"), Some(message)),
        (Some(Room::Infeasible(message)), _) => (pending, Some("Infeasible"), Some(message)),
        (_, Some((message, _))) => (progress, Some("Error"), Some(message)),
        (_, None) => (progress, None, None),
    };
    let old = known(&memory.last, kind).filter(|old| old.reason.as_deref() == reason);
    let since = old.and_then(|old| old.last_transition_time.clone());
    vec![PodCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: reason.map(str::to_owned),
        message: message.cloned(),
        observed_generation: pod.metadata.generation,
        last_transition_time: since.or_else(|| Some(time(now))),
        last_probe_time: None,
    }]
}

fn known<'s>(status: &'s PodStatus, kind: &str) -> Option<&'s PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_live_unless_its_policy_says_otherwise() {
        let resources = |cpu: &str, memory: &str| -> ResourceRequirements {
            let map = serde_json::json!({"cpu": cpu, "memory": memory});
            serde_json::from_value(serde_json::json!({"requests": map, "limits": map}))
                .expect("resources")
        };
        let container = |own: ResourceRequirements| -> Container {
            let policy = serde_json::json!([
                {"resourceName": "cpu", "restartPolicy": "NotRequired"},
                {"resourceName": "memory", "restartPolicy": "RestartContainer"},
            ]);
            Container {
                resources: Some(own),
                resize_policy: serde_json::from_value(policy).expect("policies"),
                ..Container::default()
            }
        };
        for (now, before, expected) in [
            (resources("1", "1Gi"), resources("1000m", "1024Mi"), None),
            (
                resources("2", "1Gi"),
                resources("1", "1Gi"),
                Some(Change::Live),
            ),
            (
                resources("1", "2Gi"),
                resources("1", "1Gi"),
                Some(Change::Restart),
            ),
            (
                resources("2", "2Gi"),
                resources("1", "1Gi"),
                Some(Change::Restart),
            ),
            (
                resources("1", "1Gi"),
                ResourceRequirements::default(),
                Some(Change::Restart),
            ),
        ] {
            assert_eq!(
                change(&container(now.clone()), &before),
                expected,
                "{now:?}"
            );
        }
    }
}
