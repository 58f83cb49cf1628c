//! What a pod's containers were given, which is what they run and are restarted with whatever the pod asks for, and how
//! a pod that asks for something else gets it in place. Follows
//! pkg/kubelet/allocation/{allocation_manager,handlers,features_unsupported}.go, pkg/kubelet/events/resize.go and
//! `doPodResizeAction` of pkg/kubelet/kuberuntime/kuberuntime_manager.go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements,
};
use serde::{Deserialize, Serialize};

use super::Memory;
use super::status::RESIZE_IN_PROGRESS;
use crate::meta::quantity::Quantity;
use crate::zone::{ProcessId, Zone};

/// Why a runtime that cannot do it refuses a resize; for people.
pub const REFUSED: &str = "In-place pod resize is not supported on this node";

/// The resources that containers were given. What differs from the pod is kept on the host, so that it outlives the
/// agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// By container.
    given: BTreeMap<String, ResourceRequirements>,
    /// What running processes still have where their containers were given something else since.
    had: BTreeMap<String, Had>,
}

/// What a generation of a container runs with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Had {
    generation: u32,
    resources: ResourceRequirements,
}

/// Whether a pod can have what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is given.
    Fits,
    /// Not now; for people.
    Deferred(String),
    /// Never here; for people.
    Infeasible(String),
}

/// A resize that the pod does not get for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What the event says.
    event: String,
}

/// A resize that was given and that not every process has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The pod's when it was given.
    pub generation: Option<i64>,
    /// Why it does not succeed; for people.
    pub error: Option<String>,
}

/// Where a resize stands.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    /// The pod waits for it.
    pub pending: Option<Pending>,
    /// It is being carried out.
    pub progress: Option<Progress>,
    /// It failed; tried again then.
    pub again: Option<Timestamp>,
    /// Containers that are ended only to be started with other resources.
    pub restarting: BTreeSet<String>,
    /// What was given changed and is not kept on the host yet.
    pub unsaved: bool,
    /// What is to be said of a resize that begins.
    pub(super) begun: Option<String>,
}

impl Memory {
    /// What an agent remembers of a pod that it finds: its status, and what its containers were given if that was kept.
    pub fn recalled(last: PodStatus, kept: Option<&str>) -> Memory {
        let mut conditions = last.conditions.iter().flatten();
        let progress = conditions
            .find(|one| one.type_ == RESIZE_IN_PROGRESS)
            .map(|one| Progress {
                generation: one.observed_generation,
                error: one.message.clone().filter(|text| !text.is_empty()),
            });
        Memory {
            // What cannot be read is as what was never kept: statuses tell most of it.
            allocation: kept
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            resize: Resize {
                progress,
                ..Resize::default()
            },
            last,
            ..Memory::default()
        }
    }

    /// The pod with the resources that its containers were given; none where it asks for the same.
    pub fn given(&mut self, pod: &Pod) -> Option<Arc<Pod>> {
        let changed = pod.metadata.generation != Some(1);
        let wanted = pod.spec.as_ref().filter(|_| changed)?;
        if self.allocation.given.is_empty() {
            self.allocation.given = reported(wanted, &self.last);
        }
        let given = &self.allocation.given;
        let mut spec = wanted.clone();
        let mut differs = false;
        let init = spec.init_containers.iter_mut().flatten();
        for container in spec.containers.iter_mut().chain(init) {
            let wanted = container.resources.clone().unwrap_or_default();
            match given.get(&container.name) {
                Some(given) if amounts(given) != amounts(&wanted) => {
                    container.resources = Some(given.clone());
                    differs = true;
                }
                _ => {}
            }
        }
        differs.then(|| {
            Arc::new(Pod {
                metadata: pod.metadata.clone(),
                spec: Some(spec),
                status: pod.status.clone(),
            })
        })
    }

    /// The pod with the resources that its containers are given. Where it asks for others than they have, `judge` says
    /// whether it gets them.
    pub fn allocate(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        judge: impl FnOnce(&Pod, &Pod) -> Verdict,
    ) -> Arc<Pod> {
        self.resize.pending = None;
        let Some(allocated) = self.given(pod) else {
            return pod.clone();
        };
        let over = matches!(self.last.phase.as_deref(), Some("Succeeded" | "Failed"));
        if over || pod.metadata.deletion_timestamp.is_some() {
            return allocated;
        }
        let (reason, message) = match judge(pod, &allocated) {
            Verdict::Fits => {
                self.give(pod, zone);
                return pod.clone();
            }
            Verdict::Deferred(message) => ("Deferred", message),
            Verdict::Infeasible(message) => ("Infeasible", message),
        };
        let what = format!("Pod resize {reason}");
        self.resize.pending = Some(Pending {
            event: tell(&what, pod, pod.metadata.generation, Some(&message)),
            reason,
            message,
        });
        allocated
    }

    /// Gives containers what the pod asks for; what runs has yet to get it.
    fn give(&mut self, pod: &Pod, zone: Option<&Zone>) {
        let Allocation { given, had } = &mut self.allocation;
        let wanted = reported(
            pod.spec.as_ref().unwrap_or(&PodSpec::default()),
            &PodStatus::default(),
        );
        let processes = zone.into_iter().flat_map(|zone| &zone.processes);
        for process in processes.filter(|process| process.ended.is_none()) {
            let name = &process.id.name;
            let (Some(before), Some(after)) = (given.get(name), wanted.get(name)) else {
                continue;
            };
            let generation = process.id.generation;
            let known = had
                .get(name)
                .is_some_and(|had| had.generation == generation);
            if !known && amounts(before) != amounts(after) {
                let resources = before.clone();
                let before = Had {
                    generation,
                    resources,
                };
                had.insert(name.clone(), before);
            }
        }
        *given = wanted;
        let generation = pod.metadata.generation;
        self.resize = Resize {
            progress: Some(Progress {
                generation,
                error: None,
            }),
            restarting: std::mem::take(&mut self.resize.restarting),
            unsaved: true,
            begun: Some(tell("Pod resize started", pod, generation, None)),
            ..Resize::default()
        };
    }
}

impl Allocation {
    /// What a running process has, where its container was given something else.
    pub fn had(&self, process: &ProcessId) -> Option<&ResourceRequirements> {
        let had = self.had.get(&process.name)?;
        (had.generation == process.generation).then_some(&had.resources)
    }

    /// Forgets what processes had that do not run any more: others are started with what is given.
    pub fn prune(&mut self, runs: impl Fn(&str, u32) -> bool) {
        self.had.retain(|name, had| runs(name, had.generation));
    }

    /// Notes that a process has what its container was given of a resource.
    pub fn took(&mut self, process: &ProcessId, resource: &str) {
        let given = self.given.get(&process.name);
        let (Some(had), Some(given)) = (self.had.get_mut(&process.name), given) else {
            return;
        };
        let of = &mut had.resources;
        for (to, from) in [
            (&mut of.limits, &given.limits),
            (&mut of.requests, &given.requests),
        ] {
            let amount = from.as_ref().and_then(|map| map.get(resource));
            match amount {
                Some(amount) => {
                    let amount = amount.clone();
                    to.get_or_insert_default().insert(resource.into(), amount);
                }
                None => {
                    to.as_mut().map(|map| map.remove(resource));
                }
            }
        }
        if amounts(of) == amounts(given) {
            self.had.remove(&process.name);
        }
    }

    /// The limits of running processes that are to change, in order: memory first, and of each resource what becomes
    /// less before what becomes more.
    pub fn steps(&self, spec: &PodSpec, zone: &Zone) -> Vec<Step> {
        let mut steps = Vec::new();
        for resource in RESIZABLE {
            let mut own = Vec::new();
            for process in zone.processes.iter().filter(|one| one.ended.is_none()) {
                let found = resizable(spec).find(|one| one.name == process.id.name);
                let (Some(had), Some(container)) = (self.had(&process.id), found) else {
                    continue;
                };
                if needs_restart(had, container) != Some(false) {
                    continue;
                }
                let wanted = container.resources.clone().unwrap_or_default();
                let [asked, before] = worth(had, resource);
                let [asks, after] = worth(&wanted, resource);
                if (asked, before) == (asks, after) {
                    continue;
                }
                let lowered = after.filter(|after| before.is_none_or(|before| *after < before));
                own.push(Step {
                    process: process.id.clone(),
                    resource,
                    resources: wanted,
                    lowered: lowered.map(|limit| limit.value()),
                    less: match before == after {
                        true => asks < asked,
                        false => after.unwrap_or_default() < before.unwrap_or_default(),
                    },
                });
            }
            own.sort_by_key(|step| !step.less);
            steps.extend(own);
        }
        steps
    }
}

/// One change of a running process's limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Whose.
    pub process: ProcessId,
    /// `memory` or `cpu`.
    pub resource: &'static str,
    /// All that its container was given.
    pub resources: ResourceRequirements,
    /// The limit, where it becomes lower.
    pub lowered: Option<i64>,
    less: bool,
}

/// What can be changed in place, in the order in which it is.
const RESIZABLE: [&str; 2] = ["memory", "cpu"];

/// Whether memory limits can be lowered, by what processes use.
///
/// # Errors
/// Upstream's text (`validateMemoryResizeAction`).
pub fn lowers(steps: &[Step], usage: impl Fn(&ProcessId) -> Option<u64>) -> Result<(), String> {
    let mut errors = Vec::new();
    for step in steps.iter().filter(|step| step.resource == "memory") {
        let Some(limit) = step.lowered else { continue };
        let name = &step.process.name;
        match usage(&step.process) {
            None => errors.push(format!("missing container {name:?} memory usage")),
            Some(used) if i128::from(used) >= i128::from(limit) => errors.push(format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
            )),
            Some(_) => {}
        }
    }
    let told = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(format!("cannot decrease memory limits: {told}"))
}

/// Containers that can be resized in place.
pub fn resizable(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

/// Whether a process has to end for its container to have what it was given; nothing where it has that.
pub fn needs_restart(had: &ResourceRequirements, container: &Container) -> Option<bool> {
    let wanted = container.resources.clone().unwrap_or_default();
    let changed = |resource: &&&str| worth(had, resource) != worth(&wanted, resource);
    let changed: Vec<&str> = RESIZABLE.iter().filter(changed).copied().collect();
    let mut policies = container.resize_policy.iter().flatten();
    (!changed.is_empty()).then(|| {
        policies.any(|policy| {
            policy.restart_policy == "RestartContainer"
                && changed.contains(&policy.resource_name.as_str())
        })
    })
}

/// What is asked for of a resource, and the limit.
fn worth(of: &ResourceRequirements, resource: &str) -> [Option<Quantity>; 2] {
    [&of.requests, &of.limits].map(|map| {
        let amount = map.as_ref()?.get(resource)?;
        Quantity::parse(&amount.0).ok()
    })
}

/// What containers were given by what was reported of them, or else by what they ask for.
fn reported(spec: &PodSpec, last: &PodStatus) -> BTreeMap<String, ResourceRequirements> {
    let of = |container: &Container, statuses: &Option<Vec<ContainerStatus>>| {
        let mut statuses = statuses.iter().flatten();
        let status = statuses.find(|status| status.name == container.name);
        let own = status.and_then(|status| status.resources.clone());
        let given = own.or_else(|| container.resources.clone());
        (container.name.clone(), given.unwrap_or_default())
    };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|one| of(one, &last.init_container_statuses));
    let regular = spec.containers.iter();
    let regular = regular.map(|one| of(one, &last.container_statuses));
    init.chain(regular).collect()
}

/// Requests and limits by what they are worth.
fn amounts(of: &ResourceRequirements) -> [BTreeMap<&str, Option<Quantity>>; 2] {
    [&of.requests, &of.limits].map(|map| {
        let pairs = map.iter().flatten();
        pairs
            .map(|(name, amount)| (name.as_str(), Quantity::parse(&amount.0).ok()))
            .collect()
    })
}

impl Pending {
    /// What the event says.
    pub fn event(&self) -> String {
        self.event.clone()
    }
}

/// What events say of a resize: `what`, and the resources of the pod.
pub fn tell(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let init = pod.spec.iter().flat_map(|spec| &spec.init_containers);
    let regular = pod.spec.iter().flat_map(|spec| &spec.containers);
    let summary = Summary {
        init_containers: init.flatten().map(Asked::of).collect(),
        containers: regular.map(Asked::of).collect(),
        generation: generation.unwrap_or_default(),
        error,
    };
    let summary = serde_json::to_string(&summary).unwrap_or_default();
    format!("{what}: {summary}")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'p> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Asked<'p>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Asked<'p>>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'p str>,
}

#[derive(Serialize)]
struct Asked<'p> {
    name: &'p str,
    resources: ResourceRequirements,
}

impl<'p> Asked<'p> {
    fn of(container: &'p Container) -> Self {
        Asked {
            name: &container.name,
            resources: container.resources.clone().unwrap_or_default(),
        }
    }
}
