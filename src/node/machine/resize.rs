//! Applies allocated resources to a running pod. Follows computePodResizeAction, doPodResizeAction and
//! validateMemoryResizeAction of pkg/kubelet/kuberuntime/kuberuntime_manager.go.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde::{Deserialize, Serialize};

use super::status::old_status;
use super::{Kind, containers};
use crate::meta::quantity::{Form, Quantity};
use crate::node::describe;
use crate::zone::{Change, Limits, Of, Process, ProcessId, Zone, ZoneUsage};

/// The label of a process with the resources it was started with, or last changed to: a [`Size`].
pub const SIZE: &str = "size";

/// Requests and limits of a container: millicores and bytes. 0 means none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    cpu_request: i64,
    cpu_limit: i64,
    memory_request: i64,
    memory_limit: i64,
}

type Amounts = Option<BTreeMap<String, Text>>;

fn amount(of: &Amounts, name: &str) -> Option<Quantity> {
    Quantity::parse(&of.as_ref()?.get(name)?.0).ok()
}

impl Size {
    /// The desired size of a container. Without its own limit it has the pod's.
    pub fn of(spec: &PodSpec, container: &Container) -> Size {
        let own = container.resources.clone().unwrap_or_default();
        let mut size = Size::told(&own);
        let whole = spec.resources.as_ref();
        let limit = |name| whole.and_then(|whole| amount(&whole.limits, name));
        if amount(&own.limits, "cpu").is_none() {
            size.cpu_limit = limit("cpu").map_or(0, |limit| limit.milli_value());
        }
        if amount(&own.limits, "memory").is_none() {
            size.memory_limit = limit("memory").map_or(0, |limit| limit.value());
        }
        size
    }

    fn told(own: &ResourceRequirements) -> Size {
        let cpu = |of| amount(of, "cpu").map_or(0, |amount| amount.milli_value());
        let memory = |of| amount(of, "memory").map_or(0, |amount| amount.value());
        Size {
            cpu_request: cpu(&own.requests),
            cpu_limit: cpu(&own.limits),
            memory_request: memory(&own.requests),
            memory_limit: memory(&own.limits),
        }
    }

    /// The value of the label [`SIZE`].
    pub fn label(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// The actual size of a process. Without the label it is the reported one.
    fn having(process: &Process, kind: Kind, last: &PodStatus) -> Size {
        let label = process.labels.get(SIZE);
        label
            .and_then(|label| serde_json::from_str(label).ok())
            .or_else(|| {
                let old = old_status(last, kind, &process.id.name)?;
                old.resources.as_ref().map(Size::told)
            })
            .unwrap_or_default()
    }

    /// The limits of its process, by kubelet's rules for shares.
    pub fn limits(self) -> Limits {
        let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let asked = positive(self.cpu_request).or(positive(self.cpu_limit));
        Limits {
            cpu_shares: Some(asked.map_or(2, |millis| (millis * 1024 / 1000).max(2))),
            cpu_millis: positive(self.cpu_limit),
            memory: positive(self.memory_limit),
            ..Limits::default()
        }
    }

    fn cpu(self) -> [i64; 2] {
        [self.cpu_limit, self.cpu_request]
    }

    fn memory(self) -> [i64; 2] {
        [self.memory_limit, self.memory_request]
    }
}

/// The reported resources of a container with the allocation `given`: CPU and memory are those that its process
/// actually has.
pub fn actual(
    given: &ResourceRequirements,
    process: &Process,
    kind: Kind,
    last: &PodStatus,
) -> ResourceRequirements {
    let size = Size::having(process, kind, last);
    let mut told = given.clone();
    let cpu = |millis| Quantity::milli(millis, Form::Decimal);
    let memory = |bytes| Quantity::units(bytes, Form::Binary);
    for (map, cpu, memory) in [
        (
            &mut told.requests,
            cpu(size.cpu_request),
            memory(size.memory_request),
        ),
        (
            &mut told.limits,
            cpu(size.cpu_limit),
            memory(size.memory_limit),
        ),
    ] {
        for (name, has) in [("cpu", cpu), ("memory", memory)] {
            let Some(said) = amount(map, name).filter(|said| *said != has) else {
                continue;
            };
            let map = map.get_or_insert_default();
            // Below the kernel's minimum the requested value is reported.
            match has.sign() == 0 && said.sign() != 0 {
                true => drop(map.remove(name)),
                false => drop(map.insert(name.to_owned(), Text(has.to_string()))),
            }
        }
    }
    told
}

/// The steps for a running pod until it has its allocated resources.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Containers to restart, by their resize policies. Everything else waits for that.
    pub restart: Vec<ProcessId>,
    /// Changes, in order.
    pub changes: Vec<Change>,
    /// Memory limits that are lowered: the pod's, and those of containers.
    less: (Option<u64>, BTreeMap<ProcessId, u64>),
}

/// Compares the allocated resources of a pod with its running processes.
pub fn plan(pod: &Pod, zone: &Zone, last: &PodStatus) -> Plan {
    let Some(spec) = &pod.spec else {
        return Plan::default();
    };
    let mut plan = Plan::default();
    let mut parts = Vec::new();
    for (kind, container) in containers(spec) {
        // Ephemeral containers have no resources of their own.
        if kind == Kind::Ephemeral {
            continue;
        }
        let mut runs = zone
            .processes
            .iter()
            .filter(|process| process.ended.is_none());
        let Some(process) = runs.rfind(|process| process.id.name == container.name) else {
            continue;
        };
        let (has, wants) = (
            Size::having(process, kind, last),
            Size::of(spec, &container),
        );
        let anew = |name: &str| {
            let mut policies = container.resize_policy.iter().flatten();
            let policy = policies.find(|policy| policy.resource_name == name);
            // Init containers are never restarted for that.
            kind != Kind::Init
                && policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
        };
        if has.cpu() != wants.cpu() && anew("cpu")
            || has.memory() != wants.memory() && anew("memory")
        {
            plan.restart.push(process.id.clone());
        } else if has != wants {
            parts.push((&process.id, has, wants));
        }
    }
    let (had, wanted) = (&zone.spec.limits, describe::limits(pod));
    let memory = parts.iter().map(|(id, has, wants)| {
        let now = Size {
            memory_request: wants.memory_request,
            memory_limit: wants.memory_limit,
            ..*has
        };
        let limits = Limits {
            memory: wants.limits().memory,
            ..Limits::default()
        };
        (has.memory(), wants.memory(), change(id, now, limits))
    });
    let whole = |memory| Limits {
        memory,
        ..Limits::default()
    };
    let memory = ordered(memory.collect());
    around(
        &mut plan.changes,
        memory,
        [(had.memory, wanted.memory, whole(wanted.memory))],
    );
    let cpu = parts.iter().map(|(id, has, wants)| {
        let limits = Limits {
            memory: None,
            ..wants.limits()
        };
        (has.cpu(), wants.cpu(), change(id, *wants, limits))
    });
    let limit = Limits {
        cpu_millis: wanted.cpu_millis,
        ..Limits::default()
    };
    let share = Limits {
        cpu_shares: wanted.cpu_shares,
        ..Limits::default()
    };
    let whole = [
        (had.cpu_millis, wanted.cpu_millis, limit),
        (had.cpu_shares, wanted.cpu_shares, share),
    ];
    around(&mut plan.changes, ordered(cpu.collect()), whole);
    plan.less.0 = wanted
        .memory
        .filter(|wanted| had.memory.is_none_or(|had| *wanted < had));
    for (id, has, wants) in parts {
        let less = wants.memory_limit > 0
            && (has.memory_limit == 0 || wants.memory_limit < has.memory_limit);
        if let Some(limit) = wants.limits().memory.filter(|_| less) {
            plan.less.1.insert(id.clone(), limit);
        }
    }
    plan
}

fn change(id: &ProcessId, size: Size, limits: Limits) -> Change {
    let labels = BTreeMap::from([(SIZE.to_owned(), size.label())]);
    Change {
        of: Of::Process(id.clone(), labels),
        limits,
    }
}

/// Sorts decreases before increases and drops unchanged ones. Limits are compared first, then requests.
fn ordered(parts: Vec<([i64; 2], [i64; 2], Change)>) -> Vec<Change> {
    let (less, more): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .filter(|(has, wants, _)| has != wants)
        .partition(|(has, wants, _)| match wants[0] == has[0] {
            true => wants[1] < has[1],
            false => wants[0] < has[0],
        });
    less.into_iter()
        .rev()
        .chain(more)
        .map(|(.., change)| change)
        .collect()
}

/// The changes of containers, with the pod's own change before them if it is an increase, after them if it is a
/// decrease. A limit that did not exist before is a decrease.
fn around<const N: usize>(
    changes: &mut Vec<Change>,
    parts: Vec<Change>,
    whole: [(Option<u64>, Option<u64>, Limits); N],
) {
    let of_zone = |limits: &Limits| Change {
        of: Of::Zone,
        limits: limits.clone(),
    };
    let grows = |had: Option<u64>, wanted: Option<u64>| had.zip(wanted).is_some_and(|(h, w)| w > h);
    let before = whole.iter().filter(|(had, wanted, _)| grows(*had, *wanted));
    changes.extend(before.map(|(.., limits)| of_zone(limits)));
    changes.extend(parts);
    let after = whole.iter().rev();
    let after =
        after.filter(|(had, wanted, _)| wanted.is_some() && had != wanted && !grows(*had, *wanted));
    changes.extend(after.map(|(.., limits)| of_zone(limits)));
}

impl Plan {
    /// Whether nothing remains to be done.
    pub fn is_empty(&self) -> bool {
        self.restart.is_empty() && self.changes.is_empty()
    }

    /// Whether it lowers a memory limit, so that usage matters.
    pub fn lessens(&self) -> bool {
        self.less.0.is_some() || !self.less.1.is_empty()
    }

    /// Why it cannot be carried out at this `usage`.
    pub fn refusal(&self, usage: &ZoneUsage) -> Option<String> {
        let mut errors = Vec::new();
        let used = usage.total.memory;
        if let Some(limit) = self.less.0.filter(|limit| used >= *limit) {
            errors.push(format!(
                "attempting to set pod memory limit ({limit}) below current usage ({used})"
            ));
        }
        for (id, limit) in &self.less.1 {
            let used = usage.processes.get(id).map_or(0, |usage| usage.memory);
            if used >= *limit {
                let name = &id.name;
                errors.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        let all = match errors.as_slice() {
            [] => return None,
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        Some(format!("cannot decrease memory limits: {all}"))
    }
}
