//! Runs the probes of a pod's containers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{HOLD, Worker};
use crate::node::machine::{ProbeKind, named};
use crate::node::probes;
use crate::zone::{Zone, ZoneState};

impl Worker {
    /// Until when a status is held back for imminent information: containers have just started, and the first result of
    /// an immediate probe will change it.
    pub(super) fn answered_by(
        &self,
        pod: &Pod,
        zone: Option<&Zone>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let zone = zone?;
        let awaited = self.probing.keys().filter(|key| {
            let (id, kind) = key;
            let container = named(pod, &id.name);
            let probe = container.as_ref().and_then(|one| kind.of(one));
            probe.is_some_and(|probe| probes::may_pass_at_once(*kind, probe))
                && !self.memory.probes.contains_key(key)
        });
        let ends = awaited.filter_map(|(id, _)| {
            let process = zone.processes.iter().find(|process| process.id == *id)?;
            process.started.checked_add(HOLD).ok()
        });
        // A process that started in the future started before the clock was set back.
        let shortly = now.checked_add(HOLD).ok()?;
        ends.filter(|end| (now..=shortly).contains(end)).min()
    }

    /// Keeps a task for each probe that has to run now.
    pub(super) fn ask_probes(&mut self, pod: &Arc<Pod>, zone: Option<&Zone>) {
        let Some(zone) = zone.filter(|zone| zone.state == ZoneState::Running) else {
            for (_, task) in self.probing.drain() {
                task.abort();
            }
            return;
        };
        let mut wanted = Vec::new();
        let ending = pod.metadata.deletion_timestamp.is_some();
        for process in zone
            .processes
            .iter()
            .filter(|process| process.ended.is_none())
        {
            let Some(container) = named(pod, &process.id.name) else {
                continue;
            };
            let started = self
                .memory
                .passes(&process.id, ProbeKind::Startup, &container);
            for kind in ProbeKind::ALL {
                let due = match kind {
                    ProbeKind::Startup => !started && !ending,
                    ProbeKind::Liveness => started && !ending,
                    ProbeKind::Readiness => started,
                };
                if due && kind.of(&container).is_some() {
                    wanted.push((process, kind));
                }
            }
        }
        self.probing.retain(|(id, kind), task| {
            let keep = wanted
                .iter()
                .any(|(process, other)| process.id == *id && other == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        for (process, kind) in wanted {
            let key = (process.id.clone(), kind);
            if self.probing.contains_key(&key) {
                continue;
            }
            let age = Timestamp::now().duration_since(process.started);
            let task = self.tasks.spawn(probes::run(Box::new(probes::Probing {
                supplies: self.shared.supplies.clone(),
                zone: zone.spec.clone(),
                pod: self.wanted.clone(),
                id: process.id.clone(),
                kind,
                age: Duration::try_from(age).unwrap_or(Duration::ZERO),
                told: self.told.clone(),
            })));
            self.probing.insert(key, task);
        }
    }
}
