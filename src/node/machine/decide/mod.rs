//! Decides what to do next for a pod.

mod begins;
mod ends;
mod resizes;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerState, Pod, PodSpec};

use super::allocation::summary;
use super::status::{self, Facts, Waiting, condition, is_hidden, is_over, old_status, restarts};
use super::{Action, Decision, Kind, Memory, ProbeKind, containers, image_of, spec_of};
use crate::zone::{Process, ProcessId, Zone, ZoneState};

/// The pause after a failed resize.
pub const RESIZE_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// This many seconds after `begun`, saturating.
fn end_of(begun: Timestamp, seconds: i64) -> Timestamp {
    let whole = SignedDuration::from_secs(seconds.max(0));
    begun.checked_add(whole).unwrap_or(Timestamp::MAX)
}

/// The context of one decision.
struct Look<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    zone: Option<&'a Zone>,
    memory: &'a mut Memory,
    now: Timestamp,
    waiting: Waiting,
    /// The generation whose resources were just allocated.
    accepted: Option<i64>,
    decision: Decision,
}

/// The state of a container.
enum Standing<'a> {
    /// It was never started, or not in the current zone if that is what counts.
    Fresh,
    Running(&'a Process),
    /// It ended with this exit code, at this time.
    Ended(i32, Timestamp),
}

/// Decides for `pod`, whose zone was seen as `zone`, at `now`. Updates `memory`, which must contain the last reported
/// status.
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
        let ended = is_over(&self.memory.last);
        let terminal = deleted || ended || self.memory.fail.is_some() || self.done();
        if terminal {
            self.end(deleted);
        } else {
            self.accepted = self.memory.resize.accepted.take();
            if self.accepted.is_some() && !self.is_hidden() {
                let message = summary("Pod resize started", self.pod, self.accepted, "");
                self.event(false, "ResizeStarted", None, message);
            }
            self.go_on();
        }
        self.progress(terminal);
        let status = status::status(&Facts {
            pod: self.pod,
            zone: self.zone,
            memory: self.memory,
            waiting: &self.waiting,
            terminal: terminal && !self.is_hidden() && self.running().is_empty(),
            now: self.now,
        });
        let last = &self.memory.last;
        self.decision.status = match status == **last {
            true => last.clone(),
            false => Arc::new(status),
        };
        self.tell_refused_resize();
        if is_over(&self.decision.status) && !terminal {
            // The rest is released by the next decision, which comes at once.
            self.wake(self.now);
        }
    }

    /// Whether a container that ended with `code` is restarted.
    fn restarts(&self, kind: Kind, container: &Container, code: i32) -> bool {
        let latest = self.latest(&container.name);
        let again = latest.is_some_and(|process| self.memory.restarting.contains_key(&process.id));
        again || restarts(self.spec, kind, container, code)
    }

    /// Drops what is remembered of processes that are gone.
    fn remember(&mut self) {
        let there = |id: &ProcessId| {
            self.zone
                .is_some_and(|zone| zone.processes.iter().any(|process| process.id == *id))
        };
        self.memory.starting.clear();
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
        self.memory.messages.retain(|id, _| there(id));
        let list = containers(self.spec);
        let asked: Vec<_> = list
            .iter()
            .map(|(_, container)| image_of(container))
            .collect();
        self.memory.images.retain(|image, _| asked.contains(image));
        let mut restarting = std::mem::take(&mut self.memory.restarting);
        restarting.retain(|id, _| {
            self.latest(&id.name)
                .is_some_and(|process| process.id == *id)
        });
        self.memory.restarting = restarting;
        for (kind, container) in &list {
            self.recall(*kind, container);
        }
        for process in self.zone.into_iter().flat_map(|zone| &zone.processes) {
            if let Some(ending) = &process.ended {
                // Never later than now: it may be from before the clock was set back.
                let at = ending.at.min(self.now);
                self.memory.ends.entry(process.id.clone()).or_insert(at);
            }
        }
        if let Some(zone) = self.zone {
            self.memory.had_zone |= zone.state == ZoneState::Running;
        }
    }

    /// Restores what an earlier agent reported of a running container, until its probes have new results: it has
    /// started, and it is ready if its pod was. Follows `isContainerStarted` and `setReadyStateOnKubeletRestart` of
    /// pkg/kubelet/prober/prober_manager.go.
    fn recall(&mut self, kind: Kind, container: &Container) {
        let Some(process) = self.latest(&container.name) else {
            return;
        };
        let Memory { last, probes, .. } = &mut *self.memory;
        let id = super::container_id(self.pod, &process.id);
        let Some(old) = old_status(last, kind, &container.name)
            .filter(|old| process.ended.is_none() && old.container_id.as_ref() == Some(&id))
        else {
            return;
        };
        let ready = condition(last, "Ready").is_some_and(|ready| ready.status == "True");
        for (kind, passed) in [
            (ProbeKind::Startup, old.started == Some(true)),
            (ProbeKind::Readiness, old.ready && ready),
        ] {
            if passed && kind.of(container).is_some() {
                probes.entry((process.id.clone(), kind)).or_insert(true);
            }
        }
    }

    fn deadline(&mut self) {
        let Some(seconds) = self.spec.active_deadline_seconds else {
            return;
        };
        if is_over(&self.memory.last) {
            return;
        }
        let Some(start) = self.memory.last.start_time.as_ref() else {
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

    /// Whether nothing of the pod will run any more: an init container failed for good, or every ordinary one ended for
    /// good, so that sidecars have nothing left to serve.
    fn done(&self) -> bool {
        let code = |kind, container: &Container| match self.standing(kind, container) {
            Standing::Ended(code, _) if !self.restarts(kind, container, code) => Some(code),
            _ => None,
        };
        let list = containers(self.spec);
        let mut init = list.iter().filter(|(kind, _)| *kind == Kind::Init);
        let mut regular = self.spec.containers.iter();
        !self.is_hidden()
            && (init.any(|(kind, container)| code(*kind, container).is_some_and(|code| code != 0))
                || regular.all(|container| code(Kind::Regular, container).is_some()))
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
        // From an earlier zone: ordinary containers that are not restarted stay ended, init containers have to run
        // again.
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
}
