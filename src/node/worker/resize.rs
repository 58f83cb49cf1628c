//! Giving a pod other resources while it runs.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::node::describe;
use crate::node::machine::{Memory, REFUSED, RESIZE_PENDING, Verdict, lowers, tell};
use crate::node::room::Share;
use crate::zone::{Limits, Zone};

/// How long after a failure a resize is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// Remembers what the pod's containers were given when another agent looked after it.
    pub(super) async fn recall(&mut self) {
        let kept = self.shared.supplies.kept(&self.uid).await;
        let recalled = Memory::recalled(self.memory.last.clone(), kept.as_deref());
        self.memory.allocation = recalled.allocation;
        self.memory.resize.progress = recalled.resize.progress;
        let pod = self.wanted.borrow().pod.clone();
        let given = self.memory.given(&pod);
        let share = Share::of(given.as_ref().unwrap_or(&pod));
        self.shared.room.holds(&self.uid, share, &self.changed);
    }

    /// The pod with what its containers are given, which is kept before anything is done by it.
    pub(super) async fn allocate(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
    ) -> Result<Arc<Pod>, String> {
        let shared = self.shared.clone();
        let mut conditions = self.memory.last.conditions.iter().flatten();
        let since = conditions
            .find(|one| one.type_ == RESIZE_PENDING)
            .and_then(|one| one.last_transition_time.as_ref())
            .map_or_else(Timestamp::now, |at| at.0);
        let judge = |wanted: &Pod, allocated: &Pod| match shared.runtime.resizes() {
            false => Verdict::Infeasible(REFUSED.to_owned()),
            true => {
                let (has, wants) = (Share::of(allocated), Share::of(wanted));
                match shared.room.ask(wanted, has, wants, since) {
                    Ok(()) => Verdict::Fits,
                    Err(message) => Verdict::Deferred(message),
                }
            }
        };
        let allocated = self.memory.allocate(pod, zone, judge);
        if self.memory.resize.unsaved {
            let text = serde_json::to_string(&self.memory.allocation);
            let text = text.map_err(|error| error.to_string())?;
            let kept = shared.supplies.keep(&self.uid, text).await;
            kept.map_err(|lack| lack.message)?;
            self.memory.resize.unsaved = false;
        }
        let over = matches!(
            self.memory.last.phase.as_deref(),
            Some("Succeeded" | "Failed")
        );
        if over {
            shared.room.leave(&self.uid);
        } else if self.memory.resize.pending.is_none() && pod.metadata.generation != Some(1) {
            let share = Share::of(&allocated);
            shared.room.holds(&self.uid, share, &self.changed);
        }
        self.allocated.send_replace(allocated.clone());
        Ok(allocated)
    }

    /// Changes the limits of what runs, in upstream's order. A failure is told, and tried again later.
    pub(super) async fn resize(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
    ) -> Result<(), String> {
        let Some((spec, zone)) = pod.spec.as_ref().zip(zone) else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let steps = self.memory.allocation.steps(spec, zone);
        let changed = async {
            if steps.iter().any(|step| step.lowered.is_some()) {
                let told = shared.runtime.usage(&self.zone_name).await;
                let usage = told.map_err(|error| error.to_string())?;
                let usage = shared.supplies.usage(pod, usage);
                lowers(&steps, |process| {
                    let found = usage.processes.iter().find(|(id, _)| **id == *process);
                    found.map(|(_, usage)| usage.memory)
                })?;
            }
            for step in &steps {
                let all = describe::container_limits(&step.resources);
                let limits = match step.resource {
                    "memory" => Limits {
                        memory: all.memory,
                        ..Limits::default()
                    },
                    _ => Limits {
                        memory: None,
                        ..all
                    },
                };
                let process = &step.process;
                match shared
                    .runtime
                    .limit(&self.zone_name, process, &limits)
                    .await
                {
                    Ok(()) => self.memory.allocation.took(process, step.resource),
                    // It ended meanwhile, and is started with what it was given.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok::<_, String>(())
        };
        let changed = changed.await;
        // What was done is done, also where another step failed.
        self.memory.resize.unsaved = true;
        let Err(error) = changed else {
            self.memory.resize.again = None;
            return Ok(());
        };
        self.memory.resize.again = Some(Timestamp::now() + AGAIN);
        let progress = self.memory.resize.progress.get_or_insert_default();
        let generation = progress.generation;
        if progress.error.as_ref() != Some(&error) {
            progress.error = Some(error.clone());
            let message = tell("Pod resize error", pod, generation, Some(&error));
            self.event(pod, true, "ResizeError", None, &message);
        }
        Ok(())
    }
}
