//! Resizes: their events, and the steps that carry them out.

use k8s_openapi::api::core::v1::PodStatus;

use super::{Look, RESIZE_AGAIN};
use crate::node::machine::allocation::summary;
use crate::node::machine::resize::{Plan, plan};
use crate::node::machine::status::{self, RESIZE_IN_PROGRESS, RESIZE_PENDING};
use crate::node::machine::{Action, Listed, Progress, Restart, later};
use crate::zone::ZoneState;

impl Look<'_> {
    /// Records an event, once for each generation, that a resize is not granted, and why.
    pub(super) fn tell_refused_resize(&mut self) {
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

    /// What differs from the allocated resources.
    fn plan(&self) -> Plan {
        // A pod that was never changed has what it was created with.
        let changed = self.pod.metadata.generation != Some(1);
        let zone = self
            .zone
            .filter(|zone| changed && zone.state == ZoneState::Running);
        zone.map_or_else(Plan::default, |zone| {
            plan(self.pod, zone, &self.memory.last)
        })
    }

    /// Tracks whether a resize is in progress, and records events when it begins, fails and ends.
    pub(super) fn progress(&mut self, terminal: bool) {
        let old = status::condition(&self.memory.last, RESIZE_IN_PROGRESS);
        let mut old = old.map(|old| Progress {
            generation: old.observed_generation,
            error: old.message.clone().filter(|message| !message.is_empty()),
        });
        if terminal || self.is_hidden() {
            // Recorded once the zone is reachable.
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

    /// Takes a running pod one step towards its allocated resources.
    pub(super) fn resize(&mut self, list: &[Listed<'_>]) {
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
            self.memory.restarting.insert(id.clone(), Restart::Changed);
            let message = format!("Container {} resize requires restart", id.name);
            self.stop(process, self.grace(), message, false);
        }
        let ending = |(_, one): &Listed<'_>| {
            let latest = self.latest(&one.name);
            let runs = latest.filter(|process| process.ended.is_none());
            runs.is_some_and(|process| self.memory.restarting.contains_key(&process.id))
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
}
