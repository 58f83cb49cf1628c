//! The statuses of containers.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, Pod,
    VolumeMountStatus,
};

use super::{Facts, is_hidden, old_status, time};
use crate::node::machine::resize::actual;
use crate::node::machine::{
    IMAGE, IMAGE_ID, Kind, Memory, ProbeKind, container_id, mounts, spec_of,
};
use crate::zone::{Ending, Identity, Process};

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

/// A container, and what is known of it.
struct About<'a> {
    facts: &'a Facts<'a>,
    kind: Kind,
    container: &'a Container,
    /// Its processes in the zone, the newest last.
    seen: Vec<&'a Process>,
    /// The last reported status.
    old: Option<&'a ContainerStatus>,
}

/// The status of one container.
pub(super) fn container_status(
    facts: &Facts<'_>,
    kind: Kind,
    container: &Container,
) -> ContainerStatus {
    let mut seen: Vec<&Process> = facts
        .zone
        .into_iter()
        .flat_map(|zone| &zone.processes)
        .filter(|process| process.id.name == container.name)
        .collect();
    seen.sort_by_key(|process| process.id.generation);
    let old = old_status(&facts.memory.last, kind, &container.name);
    if let Some(old) = old.filter(|_| facts.zone.is_some_and(is_hidden)) {
        return old.clone();
    }
    let about = About {
        facts,
        kind,
        container,
        seen,
        old,
    };
    about.status()
}

impl About<'_> {
    fn status(&self) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: self.container.name.clone(),
            image: self.container.image.clone().unwrap_or_default(),
            ..ContainerStatus::default()
        };
        let (mut state, mut last) = match (self.seen.last(), self.old) {
            (Some(process), _) => self.by_process(process, &mut status),
            (None, Some(old)) => before(old, &mut status),
            (None, None) => (ContainerState::default(), None),
        };
        if state.running.is_none() {
            self.wait(&mut state, &mut last);
        }
        self.flags(&mut status, &state);
        status.state = Some(state);
        status.last_state = Some(ContainerState {
            terminated: last,
            ..ContainerState::default()
        });
        self.resources(&mut status);
        self.mounts(&mut status);
        status
    }

    fn running(&self) -> Option<&Process> {
        let latest = self.seen.last().copied();
        latest.filter(|process| process.ended.is_none())
    }

    /// The state from its newest process, and the last state from the one before it.
    fn by_process(
        &self,
        process: &Process,
        status: &mut ContainerStatus,
    ) -> (ContainerState, Option<ContainerStateTerminated>) {
        let Facts { pod, memory, .. } = *self.facts;
        status.restart_count = process.id.generation as i32;
        status.container_id = Some(container_id(pod, &process.id));
        if let Some(image) = process.labels.get(IMAGE) {
            status.image = image.clone();
        }
        status.image_id = process.labels.get(IMAGE_ID).cloned().unwrap_or_default();
        status.user = process.identity.as_ref().map(user);
        let mut state = ContainerState::default();
        match &process.ended {
            None => {
                state.running = Some(ContainerStateRunning {
                    started_at: Some(time(process.started)),
                });
            }
            Some(ending) => state.terminated = Some(terminated(pod, process, ending, memory)),
        }
        let last = match self.seen.iter().nth_back(1) {
            Some(previous) => previous
                .ended
                .as_ref()
                .map(|ending| terminated(pod, previous, ending, memory)),
            None => self.old.and_then(|old| {
                let same = old.container_id == status.container_id;
                match &old.state {
                    Some(ContainerState {
                        terminated: Some(ended),
                        ..
                    }) if !same => Some(ended.clone()),
                    _ => ended_before(old),
                }
            }),
        };
        let last = last.filter(|last| last.container_id != status.container_id);
        (state, last)
    }

    /// The waiting state of a container that does not run, if it has one.
    fn wait(&self, state: &mut ContainerState, last: &mut Option<ContainerStateTerminated>) {
        if let Some((reason, message)) = self.facts.waiting.get(&self.container.name) {
            if let Some(ended) = state.terminated.take() {
                *last = Some(ended);
            }
            state.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            });
        } else if state.terminated.is_none() {
            let spec = spec_of(self.facts.pod);
            // As `convertToAPIContainerStatuses` of pkg/kubelet: this includes containers whose pod is initialized or
            // has failed.
            let inits = spec.init_containers.as_ref();
            let reason = match inits.is_some_and(|list| !list.is_empty()) {
                true => "PodInitializing",
                false => "ContainerCreating",
            };
            state.waiting = Some(ContainerStateWaiting {
                reason: Some(reason.into()),
                message: None,
            });
        }
    }

    /// Sets `started` and `ready`.
    fn flags(&self, status: &mut ContainerStatus, state: &ContainerState) {
        let passes = |kind: ProbeKind| {
            let running = self.running();
            running
                .is_some_and(|process| self.facts.memory.passes(&process.id, kind, self.container))
        };
        let started = passes(ProbeKind::Startup);
        status.started = (self.kind != Kind::Ephemeral).then_some(started);
        status.ready = match self.kind {
            Kind::Init => {
                let ended = state.terminated.as_ref();
                ended.is_some_and(|ended| ended.exit_code == 0)
            }
            Kind::Ephemeral => false,
            _ => started && passes(ProbeKind::Readiness),
        };
    }

    fn resources(&self, status: &mut ContainerStatus) {
        if self.kind == Kind::Ephemeral {
            return;
        }
        let given = self.container.resources.clone();
        let requests = given.as_ref().and_then(|own| own.requests.clone());
        status.allocated_resources = requests.filter(|map| !map.is_empty());
        status.resources = match self.running() {
            Some(process) => {
                let last = &self.facts.memory.last;
                given.map(|given| actual(&given, process, self.kind, last))
            }
            None => given,
        };
    }

    fn mounts(&self, status: &mut ContainerStatus) {
        let latest = self.seen.last().copied();
        let mounts = self.container.volume_mounts.as_ref();
        status.volume_mounts = mounts.map(|mounts| {
            let told = mounts.iter().map(|mount| VolumeMountStatus {
                mount_path: mount.mount_path.clone(),
                name: mount.name.clone(),
                read_only: mount.read_only,
                recursive_read_only: mount
                    .read_only
                    .unwrap_or(false)
                    .then(|| mounts::told(mount, latest).to_owned()),
                ..VolumeMountStatus::default()
            });
            told.collect()
        });
    }
}

/// The user that a container runs as.
fn user(identity: &Identity) -> ContainerUser {
    let groups = identity.groups.iter().map(|group| i64::from(*group));
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: identity.uid.into(),
            gid: identity.gid.into(),
            supplemental_groups: Some(groups.collect()),
        }),
    }
}

/// The reported end before the last one.
fn ended_before(old: &ContainerStatus) -> Option<ContainerStateTerminated> {
    old.last_state.as_ref()?.terminated.clone()
}

/// The state of a container that the zone does not know, from its last report.
fn before(
    old: &ContainerStatus,
    status: &mut ContainerStatus,
) -> (ContainerState, Option<ContainerStateTerminated>) {
    status.restart_count = old.restart_count;
    status.container_id = old.container_id.clone();
    if !old.image.is_empty() && old.container_id.is_some() {
        status.image = old.image.clone();
    }
    status.image_id = old.image_id.clone();
    status.user = old.user.clone();
    let terminated = match &old.state {
        Some(ContainerState {
            terminated: Some(ended),
            ..
        }) => Some(ended.clone()),
        // It ran, and is gone: this differs from never having run.
        Some(ContainerState {
            running: Some(_), ..
        }) => Some(ContainerStateTerminated {
            container_id: old.container_id.clone(),
            exit_code: 137,
            message: Some("The container could not be located when the pod was terminated".into()),
            reason: Some("ContainerStatusUnknown".into()),
            ..ContainerStateTerminated::default()
        }),
        _ => None,
    };
    let state = ContainerState {
        terminated,
        ..ContainerState::default()
    };
    (state, ended_before(old))
}
