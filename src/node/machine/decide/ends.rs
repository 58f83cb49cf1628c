//! Ending containers and pods.

use k8s_openapi::api::core::v1::Container;

use super::{Look, end_of};
use crate::node::machine::{
    ASKED_IMAGE, Action, Hook, Kind, Listed, ProbeKind, Restart, STOP_SIGNAL, Stop, containers,
};
use crate::zone::{Process, ProcessId, Signal};

/// The shortest time between the stop signal and KILL, in seconds (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE: i64 = 2;

impl Look<'_> {
    /// Ends everything: preStop hooks run at once, and ordinary containers get their signal after them; sidecars when
    /// those have ended, the last one first; then the zone. Follows `killContainersWithSyncResult` of
    /// pkg/kubelet/kuberuntime.
    pub(super) fn end(&mut self, deleted: bool) {
        let begun = *self.memory.ending.get_or_insert(self.now);
        let own = self.pod.metadata.deletion_grace_period_seconds;
        let grace = own.filter(|_| deleted).unwrap_or(self.grace());
        let grace = self.memory.grace.map_or(grace, |own| own.min(grace));
        // As `calculateEffectiveGracePeriod` of pkg/kubelet/pod_workers.go.
        let grace = grace.max(1);
        if self.is_hidden() {
            // Nothing in it can be signalled. It has its grace period to become reachable; then the zone is halted.
            let last = end_of(begun, grace);
            return match self.now < last {
                true => self.wake(last),
                false => self.decision.actions.push(Action::Halt),
            };
        }
        let running = self.running();
        let runs = |name: &str| running.iter().any(|process| process.id.name == name);
        let order = containers(self.spec);
        // The containers that must end before this one gets its signal.
        let awaited = |name: &str| {
            let at = order
                .iter()
                .position(|(_, container)| container.name == name)?;
            let mut rest = order.iter().skip(at + 1);
            let awaited = rest.any(|(kind, container)| {
                matches!(kind, Kind::Sidecar | Kind::Regular) && runs(&container.name)
            });
            (order[at].0 == Kind::Sidecar).then_some(awaited)
        };
        let turns: Vec<bool> = running
            .iter()
            .map(|process| awaited(&process.id.name) == Some(true))
            .collect();
        for (process, waits) in running.iter().zip(turns) {
            let message = format!("Stopping container {}", process.id.name);
            self.stop(process, grace, message, waits);
        }
        if running.is_empty() {
            let released = self.memory.released;
            self.decision.actions.extend(match (self.zone, deleted) {
                (Some(_), _) => Some(Action::Halt),
                (None, true) => Some(Action::Remove),
                (None, false) if !released => Some(Action::Release { over: true }),
                (None, false) => None,
            });
        }
    }

    /// The grace period of the pod's containers, in seconds.
    pub(super) fn grace(&self) -> i64 {
        self.spec.termination_grace_period_seconds.unwrap_or(30)
    }

    /// Takes a running container one step towards its end: preStop hook, stop signal, KILL. One that `waits` for others
    /// gets no signal before its grace period is over.
    pub(super) fn stop(&mut self, process: &Process, grace: i64, message: String, waits: bool) {
        let id = &process.id;
        let has_hook = containers(self.spec)
            .iter()
            .find(|(_, container)| container.name == id.name)
            .and_then(|(_, container)| container.lifecycle.as_ref())
            .is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        if !self.memory.stops.contains_key(id) {
            self.event(false, "Killing", Some(&id.name), message);
        }
        let now = self.now;
        let stop = self.memory.stops.entry(id.clone()).or_insert(Stop {
            begun: now,
            grace,
            hook: None,
            asked: None,
            killed: false,
        });
        // The grace period may become shorter while it runs, never longer.
        stop.grace = stop.grace.min(grace);
        let end = end_of(stop.begun, stop.grace);
        let step = match stop.asked {
            None if has_hook && stop.hook.is_none() && stop.grace > 0 => {
                Ok(Action::PreStop(id.clone(), stop.grace))
            }
            None if now < end && (waits || stop.hook == Some(Hook::Running)) => Err(end),
            None => {
                let named = process.labels.get(STOP_SIGNAL);
                let named = named.and_then(|name| Signal::named(name));
                Ok(Action::Signal(id.clone(), named.unwrap_or(Signal::TERM)))
            }
            Some(asked) => {
                let last = end.max(end_of(asked, MINIMUM_GRACE));
                match now < last {
                    true => Err(last),
                    false if stop.killed => return,
                    false => Ok(Action::Signal(id.clone(), Signal::KILL)),
                }
            }
        };
        match step {
            Ok(action) => self.decision.actions.push(action),
            Err(at) => self.wake(at),
        }
    }

    /// Ends containers that fail their probes or hooks or were changed, and continues with those that are being ended.
    pub(super) fn judge(&mut self, list: &[Listed<'_>]) {
        for process in self.running() {
            let Some((kind, container)) = list.iter().find(|(_, c)| c.name == process.id.name)
            else {
                continue;
            };
            if let Some((message, grace)) = self.fault(*kind, container, process) {
                let id = &process.id;
                if self.is_changed(*kind, container, process) {
                    // Whatever its restart policy.
                    self.memory.restarting.insert(id.clone(), Restart::Changed);
                } else if self.failed_probe(id).is_some() && self.begins_again(container) {
                    // However it ends: one that ends with 0 now was still found not to work.
                    let restarting = self.memory.restarting.entry(id.clone());
                    restarting.or_insert(Restart::Failed);
                }
                self.stop(process, grace, message, false);
            } else if self.memory.stops.contains_key(&process.id) {
                // The reason is gone, but the end is carried through.
                self.stop(process, self.grace(), String::new(), false);
            }
        }
    }

    /// Whether the definition of a container changed since it was started.
    pub(super) fn is_changed(&self, kind: Kind, container: &Container, process: &Process) -> bool {
        let asked = process.labels.get(ASKED_IMAGE);
        matches!(kind, Kind::Regular | Kind::Sidecar)
            && asked.is_some_and(|asked| container.image.as_ref() != Some(asked))
    }

    /// Why a running container has to end, and its grace period in seconds.
    fn fault(&self, kind: Kind, container: &Container, process: &Process) -> Option<(String, i64)> {
        let id = &process.id;
        if let Some(Hook::Failed(_)) = self.memory.hooks.get(id) {
            return Some(("FailedPostStartHook".into(), self.grace()));
        }
        let failed = self.failed_probe(id);
        // Sidecars are only compared with their definition once they have started.
        let compared = kind == Kind::Regular || self.has_started(container, process);
        let changed = compared && self.is_changed(kind, container, process);
        let grace = failed
            .filter(|_| !changed)
            .and_then(|probe| probe.of(container)?.termination_grace_period_seconds);
        let what = match (changed, failed) {
            (true, _) => "definition changed".to_owned(),
            (false, Some(probe)) => format!("failed {} probe", probe.name().to_lowercase()),
            (false, None) => return None,
        };
        let name = &container.name;
        let message = match kind {
            Kind::Sidecar => format!("Init container {name} {what}"),
            _ if changed || self.begins_again(container) => {
                format!("Container {name} {what}, will be restarted")
            }
            _ => format!("Container {name} {what}"),
        };
        Some((message, grace.unwrap_or(self.grace())))
    }

    /// The probe for which a process is ended, if it failed one.
    fn failed_probe(&self, id: &ProcessId) -> Option<ProbeKind> {
        let mut probes = [ProbeKind::Startup, ProbeKind::Liveness].into_iter();
        probes.find(|probe| self.memory.probes.get(&(id.clone(), *probe)) == Some(&false))
    }

    /// Whether the restart policy allows restarting a container that is ended for a fault.
    fn begins_again(&self, container: &Container) -> bool {
        let own = container.restart_policy.as_ref();
        own.or(self.spec.restart_policy.as_ref())
            .is_none_or(|policy| policy != "Never")
    }
}
