//! The phase of a pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus};

use super::restarts;
use crate::node::machine::{Kind, containers};

/// Whether a status has a final phase.
pub fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The counts of one kind of container that the phase depends on.
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

/// The phase that follows from the containers. `terminal`: no container will be started again.
pub(super) fn phase(
    spec: &PodSpec,
    statuses: &BTreeMap<&str, &ContainerStatus>,
    terminal: bool,
    restarting: &BTreeSet<&str>,
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
                restarting.contains(container.name.as_str())
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
