//! What to do next for a pod.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerState, Pod, PodSpec, PodStatus};

use super::allocation::summary;
use super::resize::{Plan, plan};
use super::status::{
    self, RESIZE_IN_PROGRESS, RESIZE_PENDING, Waiting, is_hidden, old_status, restarts,
};
use super::{
    Action, Backoff, Decision, Hook, ImageState, Kind, Memory, ProbeKind, Progress, Stop,
    containers, later, spec_of,
};
use crate::meta::time::go_duration;
use crate::zone::{Process, ProcessId, Signal, Zone, ZoneState};

/// The least that a container gets to end in, once its hook used up its time, in seconds.
const MINIMUM_GRACE: i64 = 2;

/// How long a resize that failed waits.
pub const RESIZE_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// So many seconds after `begun`: never, where a pod asks for more than there are.
fn end_of(begun: Timestamp, seconds: i64) -> Timestamp {
    let whole = SignedDuration::from_secs(seconds.max(0));
    begun.checked_add(whole).unwrap_or(Timestamp::MAX)
}

/// One look at a pod.
struct Look<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    zone: Option<&'a Zone>,
    memory: &'a mut Memory,
    now: Timestamp,
    waiting: Waiting,
    /// The generation whose resources it was given just now.
    accepted: Option<i64>,
    decision: Decision,
}

/// How a container stands.
enum Standing<'a> {
    /// It was never started, or not in this life of the zone where that is what counts.
    Fresh,
    Running(&'a Process),
    /// It ended with this status, at this time.
    Ended(i32, Timestamp),
}

/// What is to be done for `pod`, whose zone was seen as `zone`, at `now`. `memory` is brought up to date with what is
/// decided; it must hold what was reported last.
pub fn decide(pod: &Pod, zone: Option<&Zone>, memory: &mut Memory, now: Timestamp) -> Decision {
    let mut look = Look {
        pod,
        spec: spec_of(pod),
        zone,
        memory,
        now,
        waiting: Waiting::new(),
        accepted: None,
        decision: Decision::default(),
    };
    look.run();
    look.decision
}

impl<'a> Look<'a> {
    fn run(&mut self) {
        self.remember();
        self.deadline();
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        let ended = matches!(
            self.memory.last.phase.as_deref(),
            Some("Succeeded" | "Failed")
        );
        let (initialized, terminal);
        if deleted || ended || self.memory.fail.is_some() || self.done() {
            self.end(deleted);
            (initialized, terminal) = (true, true);
        } else {
            self.accepted = self.memory.resize.accepted.take();
            if self.accepted.is_some() && !self.is_hidden() {
                let message = summary("Pod resize started", self.pod, self.accepted, "");
                self.event(false, "ResizeStarted", None, message);
            }
            (initialized, terminal) = (self.go_on(), false);
        }
        self.progress(terminal);
        self.decision.status = status::status(
            self.pod,
            self.zone,
            self.memory,
            &self.waiting,
            initialized,
            terminal && !self.is_hidden() && self.running().is_empty(),
            self.now,
        );
        self.tell_refused_resize();
        let finished = matches!(
            self.decision.status.phase.as_deref(),
            Some("Succeeded" | "Failed")
        );
        if finished && !terminal {
            // What is left of it ends with the next look, which comes at once.
            self.wake(self.now);
        }
    }

    /// Says once for each generation that a resize is not given, and why.
    fn tell_refused_resize(&mut self) {
        let of = |status: &PodStatus| {
            status::condition(status, RESIZE_PENDING)
                .map(|one| (one.observed_generation, one.reason.clone()))
        };
        let told = of(&self.decision.status);
        if told.is_some()
            && told != of(&self.memory.last)
            && let Some((pending, message)) = self.memory.resize.pending.clone()
        {
            let reason = match pending.reason.as_str() {
                "Infeasible" => "ResizeInfeasible",
                _ => "ResizeDeferred",
            };
            self.event(true, reason, None, message);
        }
    }

    /// What is not yet as it was given.
    fn plan(&self) -> Plan {
        // A pod that never changed has what it was made with.
        let changed = self.pod.metadata.generation != Some(1);
        let zone = self
            .zone
            .filter(|zone| changed && zone.state == ZoneState::Running);
        zone.map_or_else(Plan::default, |zone| {
            plan(self.pod, zone, &self.memory.last)
        })
    }

    /// Notes whether a resize is under way, and says when it begins, fails and ends.
    fn progress(&mut self, terminal: bool) {
        let old = status::condition(&self.memory.last, RESIZE_IN_PROGRESS);
        let mut old = old.map(|old| Progress {
            generation: old.observed_generation,
            error: old.message.clone().filter(|message| !message.is_empty()),
        });
        if terminal || self.is_hidden() {
            // It is said when the zone is heard of.
            self.memory.resize.accepted = self.accepted.take();
            self.memory.resize.progress = old;
            return;
        }
        if self.accepted.is_some() {
            old = Some(Progress {
                generation: self.accepted,
                error: None,
            });
        }
        let generation = match &old {
            Some(old) => old.generation,
            None => self.pod.metadata.generation,
        };
        if self.plan().is_empty() {
            if old.is_some() {
                let message = summary("Pod resize completed", self.pod, generation, "");
                self.event(false, "ResizeCompleted", None, message);
            }
            self.memory.resize.progress = None;
            return;
        }
        let before = old.and_then(|old| old.error);
        let failed = self.memory.resize.failed.as_ref();
        let error = failed
            .map(|(message, _)| message.clone())
            .or(before.clone());
        if let Some(error) = error.as_ref().filter(|_| error != before) {
            let message = summary("Pod resize error", self.pod, generation, error);
            self.event(true, "ResizeError", None, message);
        }
        self.memory.resize.progress = Some(Progress { generation, error });
    }

    /// Takes what runs one step towards what the pod was given.
    fn resize(&mut self, list: &[(Kind, Container)]) {
        let plan = self.plan();
        let measured = self.memory.resize.measured.take();
        if self.accepted.is_some() || plan.is_empty() {
            self.memory.resize.failed = None;
        }
        if plan.is_empty() {
            return;
        }
        for process in self.running() {
            let id = &process.id;
            if !plan.restart.contains(id) || self.memory.stops.contains_key(id) {
                continue;
            }
            self.memory.resize.restarting.insert(id.name.clone());
            let grace = self.spec.termination_grace_period_seconds.unwrap_or(30);
            let message = format!("Container {} resize requires restart", id.name);
            self.stop(process, grace, false, message);
        }
        let ending = |(_, one): &(Kind, Container)| {
            let latest = self.latest(&one.name);
            let runs = latest.is_some_and(|process| process.ended.is_none());
            runs && self.memory.resize.restarting.contains(&one.name)
        };
        if !plan.restart.is_empty() || list.iter().any(ending) {
            return;
        }
        if let Some((_, again)) = self.memory.resize.failed
            && again > self.now
        {
            return self.wake(again);
        }
        if plan.lessens() {
            let refusal = match measured {
                None => return self.decision.actions.push(Action::Measure),
                Some(Ok(usage)) => plan.refusal(&usage),
                Some(Err(error)) => Some(error),
            };
            if let Some(message) = refusal {
                let again = later(self.now, RESIZE_AGAIN);
                self.memory.resize.failed = Some((message, again));
                return self.wake(again);
            }
        }
        let changes = plan.changes.into_iter().map(Action::Resize);
        self.decision.actions.extend(changes);
    }

    /// Whether a container that ended with `code` is to be started again.
    fn restarts(&self, kind: Kind, container: &Container, code: i32) -> bool {
        let resized = self.memory.resize.restarting.contains(&container.name);
        resized || restarts(self.spec, kind, container, code)
    }

    /// Drops what is known of processes that are gone.
    fn remember(&mut self) {
        let there = |id: &ProcessId| {
            self.zone
                .is_some_and(|zone| zone.processes.iter().any(|process| process.id == *id))
        };
        self.memory.hooks.retain(|id, _| there(id));
        self.memory.stops.retain(|id, _| {
            self.zone.is_some_and(|zone| {
                zone.processes
                    .iter()
                    .any(|process| process.id == *id && process.ended.is_none())
            })
        });
        self.memory.probes.retain(|(id, _), _| there(id));
        self.memory.ends.retain(|id, _| there(id));
        for process in self.zone.into_iter().flat_map(|zone| &zone.processes) {
            if let Some(ending) = &process.ended {
                // Never later than now: it may have been noted before the clock was set back.
                let at = ending.at.min(self.now);
                self.memory.ends.entry(process.id.clone()).or_insert(at);
            }
        }
        if let Some(zone) = self.zone {
            self.memory.had_zone |= zone.state == ZoneState::Running;
        }
    }

    fn deadline(&mut self) {
        let Some(seconds) = self.spec.active_deadline_seconds else {
            return;
        };
        let ended = matches!(
            self.memory.last.phase.as_deref(),
            Some("Succeeded" | "Failed")
        );
        let Some(start) = self.memory.last.start_time.as_ref().filter(|_| !ended) else {
            return self.wake(end_of(self.now, seconds));
        };
        let at = end_of(start.0, seconds);
        if at > self.now {
            self.wake(at);
        } else if self.memory.fail.is_none() {
            let message = "Pod was active on the node longer than the specified deadline";
            self.memory.fail = Some(("DeadlineExceeded".into(), message.into()));
            self.event(false, "DeadlineExceeded", None, message.into());
        }
    }

    fn wake(&mut self, at: Timestamp) {
        let wake = &mut self.decision.wake;
        *wake = Some(wake.map_or(at, |other| other.min(at)));
    }

    fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        container: Option<&str>,
        message: String,
    ) {
        self.decision.actions.push(Action::Event {
            warning,
            reason,
            container: container.map(str::to_owned),
            message,
        });
    }

    /// Whether every ordinary container ended for good, so that sidecars have nothing to serve any more.
    fn done(&self) -> bool {
        let mut regular = self.spec.containers.iter();
        let ended = |container: &Container| match self.standing(Kind::Regular, container) {
            Standing::Ended(code, _) => !self.restarts(Kind::Regular, container, code),
            _ => false,
        };
        !self.is_hidden() && regular.all(ended)
    }

    fn is_hidden(&self) -> bool {
        self.zone.is_some_and(is_hidden)
    }

    fn running(&self) -> Vec<&'a Process> {
        self.zone
            .into_iter()
            .flat_map(|zone| &zone.processes)
            .filter(|process| process.ended.is_none())
            .collect()
    }

    fn latest(&self, name: &str) -> Option<&'a Process> {
        self.zone
            .into_iter()
            .flat_map(|zone| &zone.processes)
            .filter(|process| process.id.name == name)
            .max_by_key(|process| process.id.generation)
    }

    /// Ends everything in order: ordinary containers at once, then sidecars, last one first, then the zone.
    fn end(&mut self, deleted: bool) {
        let begun = *self.memory.ending.get_or_insert(self.now);
        let mut grace = self.spec.termination_grace_period_seconds.unwrap_or(30);
        if deleted {
            grace = self
                .pod
                .metadata
                .deletion_grace_period_seconds
                .unwrap_or(grace);
        }
        grace = self.memory.grace.map_or(grace, |own| own.min(grace));
        if self.is_hidden() {
            // Nothing in it can be asked to end. It has its grace to be heard of; then it ends as a whole.
            let last = end_of(begun, grace);
            return match self.now < last {
                true => self.wake(last),
                false => self.decision.actions.push(Action::Halt),
            };
        }
        let running = self.running();
        let list = containers(self.spec);
        let kind = |name: &str| {
            list.iter()
                .find(|(_, container)| container.name == name)
                .map_or(Kind::Regular, |(kind, _)| *kind)
        };
        let first: Vec<&Process> = running
            .iter()
            .copied()
            .filter(|process| kind(&process.id.name) != Kind::Sidecar)
            .collect();
        let sidecars = first.is_empty();
        let turn: Vec<&Process> = match first.is_empty() {
            false => first,
            true => list
                .iter()
                .rev()
                .filter(|(kind, _)| *kind == Kind::Sidecar)
                .find_map(|(_, container)| {
                    running
                        .iter()
                        .copied()
                        .find(|process| process.id.name == container.name)
                })
                .into_iter()
                .collect(),
        };
        let spent = self.now.duration_since(begun).as_secs();
        for process in turn {
            let own = match sidecars && grace > 0 {
                true => (grace - spent).max(MINIMUM_GRACE),
                false => grace,
            };
            let message = format!("Stopping container {}", process.id.name);
            self.stop(process, own, false, message);
        }
        if running.is_empty() {
            match (self.zone, deleted) {
                (Some(_), _) => self.decision.actions.push(Action::Halt),
                (None, true) => self.decision.actions.push(Action::Remove),
                (None, false) => {}
            }
        }
    }

    /// Takes a running container one step towards its end.
    fn stop(&mut self, process: &Process, grace: i64, warning: bool, message: String) {
        let id = &process.id;
        let has_hook = containers(self.spec)
            .iter()
            .find(|(_, container)| container.name == id.name)
            .is_some_and(|(_, container)| {
                container
                    .lifecycle
                    .as_ref()
                    .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
            });
        let fresh = !self.memory.stops.contains_key(id);
        if fresh {
            self.event(warning, "Killing", Some(&id.name), message);
        }
        let now = self.now;
        let stop = self.memory.stops.entry(id.clone()).or_insert(Stop {
            begun: now,
            grace,
            hook: None,
            asked: None,
            killed: false,
        });
        // Grace may become shorter while it runs, never longer.
        stop.grace = stop.grace.min(grace);
        let end = end_of(stop.begun, stop.grace);
        let mut wake = None;
        let mut actions = Vec::new();
        if stop.grace <= 0 {
            if !stop.killed {
                stop.killed = true;
                actions.push(Action::Signal(id.clone(), Signal::KILL));
            }
        } else if has_hook && stop.hook.is_none() && stop.asked.is_none() {
            stop.hook = Some(Hook::Running);
            actions.push(Action::PreStop(id.clone(), stop.grace));
            wake = Some(end);
        } else if stop.hook == Some(Hook::Running) && now < end {
            wake = Some(end);
        } else {
            if stop.asked.is_none() {
                stop.asked = Some(now);
                let named = process.labels.get(super::STOP_SIGNAL);
                let named = named.and_then(|name| Signal::named(name));
                let signal = named.unwrap_or(Signal::TERM);
                actions.push(Action::Signal(id.clone(), signal));
            }
            let asked = stop.asked.unwrap_or(now);
            let last = match stop.hook {
                Some(_) => end.max(end_of(asked, MINIMUM_GRACE)),
                None => end,
            };
            if now < last {
                wake = Some(last);
            } else if !stop.killed {
                stop.killed = true;
                actions.push(Action::Signal(id.clone(), Signal::KILL));
            }
        }
        self.decision.actions.extend(actions);
        if let Some(at) = wake {
            self.wake(at);
        }
    }

    /// Brings the pod on: its zone, its init containers, its containers. Whether it is initialized.
    fn go_on(&mut self) -> bool {
        let list: Vec<(Kind, Container)> = containers(self.spec)
            .into_iter()
            .map(|(kind, container)| (kind, Cow::into_owned(container)))
            .collect();
        match self.zone.map(|zone| zone.state) {
            Some(ZoneState::Running) => {}
            Some(ZoneState::Unreachable) => return true,
            Some(ZoneState::Incomplete) => {
                self.decision.actions.push(Action::Halt);
                return false;
            }
            Some(ZoneState::Installed) | None => {
                self.prepare(&list);
                return false;
            }
        }
        self.forget(&list);
        self.judge(&list);
        self.resize(&list);
        let begun = list.iter().any(|(kind, container)| {
            *kind == Kind::Regular && self.latest(&container.name).is_some()
        });
        for (kind, container) in &list {
            if !matches!(kind, Kind::Init | Kind::Sidecar) {
                continue;
            }
            let standing = self.standing(*kind, container);
            match (kind, standing) {
                (Kind::Init, _) if begun => {}
                (Kind::Init, Standing::Ended(0, _)) => {}
                (Kind::Init, Standing::Running(_)) => return false,
                (Kind::Sidecar, Standing::Running(process)) => {
                    let hook = self.memory.hooks.get(&process.id) == Some(&Hook::Running);
                    let started = container.startup_probe.is_none()
                        || self
                            .memory
                            .probes
                            .get(&(process.id.clone(), ProbeKind::Startup))
                            == Some(&true);
                    if (hook || !started) && !begun {
                        return false;
                    }
                }
                (_, standing) => {
                    self.bring(*kind, container, &standing);
                    if !begun {
                        return false;
                    }
                }
            }
        }
        for (kind, container) in &list {
            if matches!(kind, Kind::Init | Kind::Sidecar) {
                continue;
            }
            let standing = self.standing(*kind, container);
            if let Standing::Running(process) = standing {
                if self.memory.hooks.get(&process.id) == Some(&Hook::Running) {
                    // The next ones wait for its postStart hook.
                    break;
                }
                continue;
            }
            self.bring(*kind, container, &standing);
        }
        true
    }

    /// Makes the zone, unless nothing of the pod would be started in it.
    fn prepare(&mut self, list: &[(Kind, Container)]) {
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

    /// Forgets all but the two newest generations of each container.
    fn forget(&mut self, list: &[(Kind, Container)]) {
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

    /// Ends containers that fail their probes, and goes on with those that are being ended.
    fn judge(&mut self, list: &[(Kind, Container)]) {
        for process in self.running() {
            let Some((_, container)) = list.iter().find(|(_, c)| c.name == process.id.name) else {
                continue;
            };
            let failed = [ProbeKind::Startup, ProbeKind::Liveness]
                .into_iter()
                .find(|kind| self.memory.probes.get(&(process.id.clone(), *kind)) == Some(&false));
            let grace = failed
                .and_then(|kind| kind.of(container))
                .and_then(|probe| probe.termination_grace_period_seconds)
                .or(self.spec.termination_grace_period_seconds)
                .unwrap_or(30);
            if let Some(kind) = failed {
                let message = format!(
                    "Container {} failed {} probe, will be restarted",
                    container.name,
                    kind.name().to_lowercase()
                );
                self.stop(process, grace, false, message);
            } else if self.memory.stops.contains_key(&process.id) {
                // Begun for a reason that is over: it is carried through.
                self.stop(process, grace, false, String::new());
            }
        }
    }

    fn standing(&self, kind: Kind, container: &Container) -> Standing<'a> {
        if let Some(process) = self.latest(&container.name) {
            return match &process.ended {
                None => Standing::Running(process),
                Some(ending) => {
                    let at = self.memory.ends.get(&process.id);
                    Standing::Ended(ending.code, at.copied().unwrap_or(ending.at))
                }
            };
        }
        // What ran in an earlier life of the zone: ordinary containers that are not restarted stay ended, init
        // containers have their work undone.
        let old = old_status(&self.memory.last, kind, &container.name);
        match (kind, old.and_then(|old| old.state.as_ref())) {
            (
                Kind::Regular | Kind::Ephemeral,
                Some(ContainerState {
                    terminated: Some(ended),
                    ..
                }),
            ) => {
                let at = ended.finished_at.as_ref().map_or(self.now, |at| at.0);
                Standing::Ended(ended.exit_code, at)
            }
            (
                Kind::Regular | Kind::Ephemeral,
                Some(ContainerState {
                    running: Some(_), ..
                }),
            ) => Standing::Ended(137, self.now),
            _ => Standing::Fresh,
        }
    }

    /// Starts a container that does not run, if it is to run, may, and can.
    fn bring(&mut self, kind: Kind, container: &Container, standing: &Standing<'a>) {
        let name = &container.name;
        if let Standing::Ended(code, _) = standing
            && !self.restarts(kind, container, *code)
        {
            return;
        }
        let resized = self.memory.resize.restarting.contains(name);
        if let Standing::Ended(_, at) = standing
            && !resized
        {
            let entry = self.memory.backoffs.get(name);
            if let Some(left) = Backoff::left(entry, *at, self.now) {
                let wait = entry.map_or(left, Backoff::wait);
                let metadata = &self.pod.metadata;
                let message = format!(
                    "back-off {} restarting failed container={} pod={}_{}({})",
                    go_duration(wait.as_secs().saturating_mul(1_000_000_000)),
                    name,
                    metadata.name.as_deref().unwrap_or_default(),
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.uid.as_deref().unwrap_or_default(),
                );
                let told = old_status(&self.memory.last, kind, name)
                    .and_then(|old| old.state.as_ref()?.waiting.as_ref()?.message.clone());
                if told.as_deref() != Some(&message) {
                    let text = format!(
                        "Back-off restarting failed container {} in pod {}_{}({})",
                        name,
                        metadata.name.as_deref().unwrap_or_default(),
                        metadata.namespace.as_deref().unwrap_or_default(),
                        metadata.uid.as_deref().unwrap_or_default(),
                    );
                    self.event(true, "BackOff", Some(name), text);
                }
                self.waiting
                    .insert(name.clone(), ("CrashLoopBackOff".into(), Some(message)));
                return self.wake(later(self.now, left));
            }
        }
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
        match self.memory.images.get(name) {
            Some(ImageState::Ready) => {}
            Some(ImageState::Pulling) => return,
            Some(ImageState::Failed {
                reason,
                message,
                again,
            }) => {
                let told = (reason.clone(), Some(message.clone()));
                let again = *again;
                self.waiting.insert(name.clone(), told);
                if again > self.now {
                    return self.wake(again);
                }
                self.memory.images.insert(name.clone(), ImageState::Pulling);
                return self.decision.actions.push(Action::Pull(name.clone()));
            }
            None => {
                self.memory.images.insert(name.clone(), ImageState::Pulling);
                return self.decision.actions.push(Action::Pull(name.clone()));
            }
        }
        if let Standing::Ended(_, at) = standing
            && !resized
        {
            let next = Backoff::next(self.memory.backoffs.get(name), *at, self.now);
            self.memory.backoffs.insert(name.clone(), next);
        }
        let generation = match self.latest(name) {
            Some(process) => process.id.generation + 1,
            None => old_status(&self.memory.last, kind, name)
                .filter(|old| old.container_id.is_some())
                .map_or(0, |old| old.restart_count as u32 + 1),
        };
        // Asked of the registry again next time, as its pull policy says.
        self.memory.images.remove(name);
        self.memory.resize.restarting.remove(name);
        self.decision.actions.push(Action::Start(ProcessId {
            name: name.clone(),
            generation,
        }));
    }
}
