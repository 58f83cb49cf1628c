//! Starting a pod: its zone, its init containers, its containers; and restarting them.

use k8s_openapi::api::core::v1::{Container, ContainerState};

use super::{Look, Standing};
use crate::meta::time::go_duration;
use crate::node::machine::status::{old_status, restarts};
use crate::node::machine::{
    Action, Backoff, ERR_IMAGE_PULL, Hook, ImageState, Kind, Listed, ProbeKind, Restart,
    containers, full_name, image_of, later,
};
use crate::zone::{Process, ProcessId, ZoneState};

impl<'a> Look<'a> {
    /// Does the next steps: zone, init containers, containers.
    pub(super) fn go_on(&mut self) {
        let list = containers(self.spec);
        match self.zone.map(|zone| zone.state) {
            Some(ZoneState::Running) => {}
            Some(ZoneState::Unreachable) => return,
            // Nothing of what ran in a zone is used by its successor.
            Some(state) if state == ZoneState::Incomplete || self.has_run() => {
                let steps = [Action::Halt, Action::Release { over: false }];
                self.decision.actions.extend(steps);
                return;
            }
            _ => return self.prepare(&list),
        }
        self.forget(&list);
        self.judge(&list);
        self.resize(&list);
        // Ephemeral containers may be needed to find out why the others do not start.
        for (kind, container) in of_kinds(&list, &[Kind::Ephemeral]) {
            let standing = self.standing(kind, container);
            if !matches!(standing, Standing::Running(_)) {
                self.bring(kind, container, &standing);
            }
        }
        if !self.initialize(&list) {
            return;
        }
        for (kind, container) in of_kinds(&list, &[Kind::Regular]) {
            let standing = self.standing(kind, container);
            match standing {
                // The next ones wait for its postStart hook.
                Standing::Running(process) if self.is_begun(process) => {}
                Standing::Running(_) => break,
                standing => self.bring(kind, container, &standing),
            }
        }
    }

    /// Starts the next init container, and restarts sidecars. Returns whether initialization is complete. Goes from the
    /// last one to the first, like `computeInitContainerActions` of pkg/kubelet/kuberuntime: the progress of a later
    /// one shows that those before it are done, whatever happened to them since.
    fn initialize(&mut self, list: &[Listed<'_>]) -> bool {
        let all: Vec<(Kind, &Container)> = of_kinds(list, &[Kind::Init, Kind::Sidecar]).collect();
        let begun = of_kinds(list, &[Kind::Regular])
            .any(|(_, container)| self.latest(&container.name).is_some());
        let mut initialized = begun || all.is_empty();
        // Whether a later one, or an ordinary container, was started.
        let mut passed = begun;
        let mut next = Vec::new();
        for (index, (kind, container)) in all.iter().enumerate().rev() {
            let done = match (kind, self.standing(*kind, container)) {
                (Kind::Sidecar, Standing::Fresh) if passed => {
                    next.push(index);
                    continue;
                }
                (_, Standing::Fresh) => continue,
                (Kind::Init, _) if passed => continue,
                (Kind::Init, Standing::Ended(0, _)) => true,
                (Kind::Sidecar, Standing::Running(process)) => {
                    self.is_begun(process) && self.has_started(container, process)
                }
                (_, Standing::Running(_)) => false,
                (_, Standing::Ended(..)) => {
                    next.push(index);
                    false
                }
            };
            if done && index + 1 == all.len() {
                initialized = true;
            } else if done && !passed {
                next.push(index + 1);
            }
            passed = true;
        }
        if !passed && !all.is_empty() {
            next.push(0);
        }
        for index in next.into_iter().rev() {
            let (kind, container) = all[index];
            let standing = self.standing(kind, container);
            self.bring(kind, container, &standing);
        }
        initialized
    }

    /// Whether the postStart hook of a process is over, if it has one.
    fn is_begun(&self, process: &Process) -> bool {
        !matches!(
            self.memory.hooks.get(&process.id),
            Some(Hook::Running | Hook::Failed(_))
        )
    }

    /// Whether a process of `container` passed its startup probe.
    pub(super) fn has_started(&self, container: &Container, process: &Process) -> bool {
        self.memory
            .passes(&process.id, ProbeKind::Startup, container)
    }

    /// Whether containers were started in the pod's zone.
    fn has_run(&self) -> bool {
        let last = &self.memory.last;
        let all = [&last.init_container_statuses, &last.container_statuses];
        let mut all = all.into_iter().flat_map(|list| list.iter().flatten());
        self.memory.had_zone || all.any(|status| status.container_id.is_some())
    }

    /// Creates the zone, unless nothing of the pod would be started in it.
    fn prepare(&mut self, list: &[Listed<'_>]) {
        let wanted = list.iter().any(|(kind, container)| {
            *kind == Kind::Regular
                && match old_status(&self.memory.last, *kind, &container.name)
                    .and_then(|old| old.state.as_ref())
                {
                    Some(ContainerState {
                        terminated: Some(ended),
                        ..
                    }) => restarts(self.spec, *kind, container, ended.exit_code),
                    Some(ContainerState {
                        running: Some(_), ..
                    }) => restarts(self.spec, *kind, container, 137),
                    _ => true,
                }
        });
        if !wanted {
            return;
        }
        if let Some(again) = self.memory.zone_again
            && self.now < again
        {
            return self.wake(again);
        }
        if self.memory.had_zone {
            self.memory.had_zone = false;
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.event(false, "SandboxChanged", None, message.into());
        }
        self.decision.actions.push(Action::Prepare);
    }

    /// Removes all but the two newest generations of each container.
    fn forget(&mut self, list: &[Listed<'_>]) {
        for (_, container) in list {
            let mut known: Vec<&ProcessId> = self
                .zone
                .into_iter()
                .flat_map(|zone| &zone.processes)
                .filter(|process| process.id.name == container.name && process.ended.is_some())
                .map(|process| &process.id)
                .collect();
            known.sort();
            let newest = self
                .latest(&container.name)
                .map_or(0, |process| process.id.generation);
            for id in known {
                if id.generation + 1 < newest {
                    self.decision.actions.push(Action::Forget(id.clone()));
                }
            }
        }
    }

    /// Starts a container if it should run and nothing prevents it.
    fn bring(&mut self, kind: Kind, container: &Container, standing: &Standing<'a>) {
        let name = &container.name;
        let latest = self.latest(name);
        let mut wait = None;
        if let Standing::Ended(code, at) = *standing {
            if !self.restarts(kind, container, code) {
                return;
            }
            let again = latest.and_then(|process| self.memory.restarting.get(&process.id));
            if again != Some(&Restart::Changed) {
                // A changed definition has its own back-off.
                let changed =
                    latest.is_some_and(|process| self.is_changed(kind, container, process));
                let entry = self.memory.backoffs.get(name).filter(|_| !changed).copied();
                if let Some(left) = Backoff::left(entry.as_ref(), at, self.now) {
                    self.back_off(kind, container, entry.map_or(left, |entry| entry.wait()));
                    return self.wake(later(self.now, left));
                }
                wait = Some(Backoff::next(entry.as_ref(), at, self.now));
            }
        }
        self.still_waits(kind, container);
        if let Some(blocked) = self.memory.blocked.get(name) {
            let again = blocked.again;
            self.waiting.insert(
                name.clone(),
                (blocked.reason.clone(), Some(blocked.message.clone())),
            );
            if again > self.now {
                return self.wake(again);
            }
        }
        if !self.has_image(kind, container) {
            return;
        }
        if let Some(process) = latest
            && let Some(Hook::Failed(why)) = self.memory.hooks.get(&process.id)
        {
            let told = ("PostStartHookError".into(), Some(why.clone()));
            self.waiting.insert(name.clone(), told);
        }
        let generation = match latest {
            Some(process) => process.id.generation + 1,
            None => old_status(&self.memory.last, kind, name)
                .filter(|old| old.container_id.is_some())
                .map_or(0, |old| old.restart_count as u32 + 1),
        };
        let id = ProcessId {
            name: name.clone(),
            generation,
        };
        if let Some(wait) = wait {
            self.memory.starting.insert(id.clone(), wait);
        }
        self.decision.actions.push(Action::Start(id));
    }

    /// Reports that a container is in back-off.
    fn back_off(&mut self, kind: Kind, container: &Container, wait: jiff::SignedDuration) {
        let (name, pod) = (&container.name, full_name(self.pod));
        let wait = go_duration(wait.as_secs().saturating_mul(1_000_000_000));
        let message = format!("back-off {wait} restarting failed container={name} pod={pod}");
        let told = self.told_waiting(kind, name);
        if told.and_then(|(_, message)| message).as_ref() != Some(&message) {
            let text = format!("Back-off restarting failed container {name} in pod {pod}");
            self.event(true, "BackOff", Some(name), text);
        }
        let told = ("CrashLoopBackOff".into(), Some(message));
        self.waiting.insert(name.clone(), told);
    }

    /// The waiting state that was reported for a container.
    fn told_waiting(&self, kind: Kind, name: &str) -> Option<(String, Option<String>)> {
        let old = old_status(&self.memory.last, kind, name)?;
        let waiting = old.state.as_ref()?.waiting.as_ref()?;
        Some((waiting.reason.clone()?, waiting.message.clone()))
    }

    /// Keeps the reported reason why a container did not start.
    fn still_waits(&mut self, kind: Kind, container: &Container) {
        let told = self.told_waiting(kind, &container.name);
        let usual = ["PodInitializing", "ContainerCreating"];
        if let Some(told) = told.filter(|(reason, _)| !usual.contains(&reason.as_str())) {
            self.waiting.insert(container.name.clone(), told);
        }
    }

    /// Whether the image of a container is ready; otherwise it is pulled, or its pull is waited for.
    fn has_image(&mut self, kind: Kind, container: &Container) -> bool {
        let name = &container.name;
        match self.memory.images.get(&image_of(container)) {
            Some(ImageState::Ready) => return true,
            Some(ImageState::Pulling) => {}
            Some(ImageState::Failed { again, .. }) if *again <= self.now => {
                self.decision.actions.push(Action::Pull(name.clone()));
            }
            Some(ImageState::Failed {
                reason,
                message,
                told,
                again,
            }) => {
                let (told, again) = (*told, *again);
                if reason != ERR_IMAGE_PULL || self.now < told {
                    let why = (reason.clone(), Some(message.clone()));
                    self.waiting.insert(name.clone(), why);
                    if self.now < told {
                        self.wake(told);
                    }
                } else {
                    let why = format!("{reason}: {message}");
                    self.back_off_pull(kind, container, &why);
                }
                self.wake(again);
            }
            None => self.decision.actions.push(Action::Pull(name.clone())),
        }
        false
    }

    /// Reports that a container waits because its image could not be pulled.
    fn back_off_pull(&mut self, kind: Kind, container: &Container, why: &str) {
        const REASON: &str = "ImagePullBackOff";
        let name = &container.name;
        let image = container.image.as_deref().unwrap_or_default();
        let text = format!("Back-off pulling image {image:?}");
        let told = self.told_waiting(kind, name);
        if told.is_none_or(|(reason, _)| reason != REASON) {
            self.event(false, "BackOff", Some(name), text.clone());
            self.event(true, "Failed", Some(name), format!("Error: {REASON}"));
        }
        let told = (REASON.into(), Some(format!("{text}: {why}")));
        self.waiting.insert(name.clone(), told);
    }
}

/// The containers of these kinds, in order.
fn of_kinds<'l>(
    list: &'l [Listed<'_>],
    kinds: &'l [Kind],
) -> impl Iterator<Item = (Kind, &'l Container)> {
    list.iter()
        .filter(|(kind, _)| kinds.contains(kind))
        .map(|(kind, container)| (*kind, &**container))
}
