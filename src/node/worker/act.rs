//! Carries out the machine's decisions.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Failed, Look, RETRY, Worker};
use crate::node::machine::{
    Action, Blocked, ImageState, RESIZE_AGAIN, full_name, image_of, later, named,
};
use crate::node::report;
use crate::node::supplies::Lack;
use crate::zone::{ProcessId, Zone, ZoneError};

impl Worker {
    /// Carries out a decision. A failed step is retried later; steps that do not depend on it continue.
    pub(super) async fn carry_out(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        actions: Vec<Action>,
        mut wake: Option<Timestamp>,
        gone: bool,
    ) -> Look {
        self.failed
            .retain(|failed| actions.contains(&failed.action));
        let (mut did, mut stuck) = (false, false);
        for action in actions {
            if stuck && depends(&action) {
                continue;
            }
            let failed = self.failed.iter().find(|failed| failed.action == action);
            if let Some(failed) = failed.filter(|failed| failed.again > Timestamp::now()) {
                stuck = true;
                wake = earliest(wake, failed.again);
                continue;
            }
            match self.act(pod, zone, &action, gone).await {
                Ok(()) if action == Action::Remove => return Look::Removed,
                Ok(()) => {
                    self.memory.did(&action, Timestamp::now());
                    self.failed.retain(|failed| failed.action != action);
                    did |= self.leads_on(pod, &action);
                }
                Err(failure) if matches!(action, Action::Resize(_)) => {
                    // It is reported, and retried later; the rest of the pod continues.
                    let again = later(Timestamp::now(), RESIZE_AGAIN);
                    self.memory.resize.failed = Some((failure.text, again));
                    (did, stuck) = (true, true);
                }
                Err(failure) => {
                    stuck = true;
                    wake = earliest(wake, self.repeat(action, &failure));
                }
            }
        }
        match did || wake.is_some_and(|at| at <= Timestamp::now()) {
            true => Look::Again,
            false => Look::Wait(wake),
        }
    }

    /// Whether there is more to do right after a step.
    fn leads_on(&self, pod: &Pod, action: &Action) -> bool {
        match action {
            Action::Event { .. } => false,
            Action::Pull(name) => {
                let image = named(pod, name).map(|one| image_of(&one));
                let state = image.and_then(|image| self.memory.images.get(&image));
                state != Some(&ImageState::Pulling)
            }
            _ => true,
        }
    }

    /// Records that a step failed; returns when it is retried.
    fn repeat(&mut self, action: Action, failure: &Failure) -> Timestamp {
        tracing::warn!(
            pod = self.uid,
            error = failure.text,
            "a step of a pod failed; retrying"
        );
        let known = self
            .failed
            .iter_mut()
            .find(|failed| failed.action == action);
        let times = known.as_ref().map_or(1, |failed| failed.times + 1);
        let wait = match failure.is_final {
            true => REFUSED,
            false => wait_after(times),
        };
        let again = later(Timestamp::now(), wait);
        match known {
            Some(failed) => (failed.times, failed.again) = (times, again),
            None => self.failed.push(Failed {
                action,
                times,
                again,
            }),
        }
        again
    }

    /// The zone's state could not be read: it is tried again after a growing pause.
    pub(super) fn blind(&mut self, error: &str) -> Look {
        self.failures += 1;
        tracing::warn!(
            pod = self.uid,
            error,
            "the state of a pod's zone cannot be read; retrying"
        );
        let at = later(Timestamp::now(), wait_after(self.failures));
        self.retry = Some(at);
        Look::Wait(Some(at))
    }

    /// Records an event about a pod that cannot be ended.
    fn not_killed(&self, pod: &Pod, failure: Failure) -> Failure {
        let message = format!("error killing pod: {}", failure.text);
        self.event(pod, true, "FailedKillPod", None, &message);
        failure
    }

    async fn remove(&mut self, pod: &Pod, gone: bool) -> Result<(), Failure> {
        self.stop_refreshing();
        let removed = self.shared.supplies.remove(&self.uid).await;
        removed.map_err(|lack| self.not_killed(pod, lack.into()))?;
        match gone {
            true => Ok(()),
            false => Ok(report::finish(&self.api, pod).await?),
        }
    }

    /// Halts the zone, and removes it.
    async fn halt(&self) -> Result<(), Failure> {
        ok_if_gone(self.shared.runtime.halt(&self.zone_name).await)?;
        ok_if_gone(self.shared.runtime.delete(&self.zone_name).await)
    }

    async fn act(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        action: &Action,
        gone: bool,
    ) -> Result<(), Failure> {
        let shared = self.shared.clone();
        match action {
            Action::Event {
                warning,
                reason,
                container,
                message,
            } => {
                self.event(pod, *warning, reason, container.as_deref(), message);
                Ok(())
            }
            Action::Prepare => {
                self.prepare(pod).await;
                Ok(())
            }
            Action::Pull(name) => {
                self.pull(pod, name).await;
                Ok(())
            }
            Action::Start(id) => self.start(pod, zone, id.clone()).await,
            Action::PreStop(id, grace) => {
                if let Some((container, zone)) = named(pod, &id.name).zip(zone) {
                    self.pre_stop(pod, &container, id.clone(), &zone.spec, *grace);
                }
                Ok(())
            }
            Action::Signal(id, signal) => {
                ok_if_gone(shared.runtime.signal(&self.zone_name, id, *signal).await)
            }
            Action::Forget(id) => {
                ok_if_gone(shared.runtime.forget(&self.zone_name, id).await)?;
                self.memory.messages.remove(id);
                Ok(shared.supplies.forget(&self.uid, id).await?)
            }
            Action::Measure => {
                let measured = shared.runtime.usage(&self.zone_name).await;
                let measured = measured.map(|usage| shared.supplies.usage(pod, usage));
                let what = || format!("unable to read memory usage for pod {:?}", full_name(pod));
                self.memory.resize.measured = Some(measured.map_err(|_| what()));
                Ok(())
            }
            Action::Resize(change) => Ok(shared.runtime.limit(&self.zone_name, change).await?),
            Action::Halt => {
                let halted = self.halt().await;
                halted.map_err(|failure| self.not_killed(pod, failure))
            }
            Action::Release { over } => {
                self.stop_refreshing();
                let released = shared.supplies.release(&self.uid, *over).await;
                released.map_err(|lack| self.not_killed(pod, lack.into()))
            }
            Action::Remove => self.remove(pod, gone).await,
        }
    }

    async fn prepare(&mut self, pod: &Arc<Pod>) {
        self.stop_refreshing();
        let shared = self.shared.clone();
        let made = async {
            let spec = shared.supplies.prepare(pod).await?;
            let sandbox = |error: ZoneError| {
                Lack::new(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                )
            };
            shared.runtime.create(&spec).await.map_err(sandbox)?;
            shared.runtime.boot(&spec.name).await.map_err(sandbox)
        };
        match made.await {
            Ok(()) => {
                self.memory.zone_again = None;
                self.sandbox_failures = 0;
                self.refreshed = Timestamp::now();
            }
            Err(lack) => {
                self.event(pod, true, lack.reason, None, &lack.message);
                let wait = sandbox_wait(self.sandbox_failures);
                self.sandbox_failures = self.sandbox_failures.saturating_add(1);
                self.memory.zone_again = Some(later(Timestamp::now(), wait));
            }
        }
    }

    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        id: ProcessId,
    ) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let Some((container, found)) = named(pod, &id.name).zip(zone) else {
            return Ok(());
        };
        let zone = &found.spec;
        let block = |worker: &mut Self, lack: Lack| {
            worker.event(
                pod,
                true,
                "Failed",
                Some(&id.name),
                &format!("Error: {}", lack.message),
            );
            let again = later(Timestamp::now(), SignedDuration::from_secs(10));
            worker.memory.blocked.insert(
                id.name.clone(),
                Blocked {
                    reason: lack.reason.into(),
                    message: lack.message,
                    again,
                },
            );
        };
        let process = shared.supplies.process(pod, &container, &id, zone).await;
        let process = process.and_then(|process| match &process.beside {
            Some(target) if !runs(found, target) => Err(Lack::new(
                "CreateContainerConfigError",
                format!("unable to find target container {target}"),
            )),
            _ => Ok(process),
        });
        let process = match process {
            Ok(process) => process,
            Err(lack) => {
                block(self, lack);
                return Ok(());
            }
        };
        match shared.runtime.start(&self.zone_name, &process).await {
            Ok(()) => {
                self.memory.blocked.remove(&id.name);
                self.event(pod, false, "Created", Some(&id.name), "Container created");
                self.event(pod, false, "Started", Some(&id.name), "Container started");
                self.post_start(pod, &container, id, zone);
            }
            Err(ZoneError::Start { reason }) => {
                // The runtime records it as a generation that ended at once.
                self.event(pod, false, "Created", Some(&id.name), "Container created");
                self.event(
                    pod,
                    true,
                    "Failed",
                    Some(&id.name),
                    &format!("Error: {reason}"),
                );
            }
            // It is retried soon: the zone may become reachable meanwhile.
            Err(error @ (ZoneError::State { .. } | ZoneError::NotFound { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                block(self, Lack::new("CreateContainerError", error.to_string()));
            }
        }
        Ok(())
    }
}

/// Whether a step is pointless without those before it.
fn depends(action: &Action) -> bool {
    matches!(
        action,
        Action::Resize(_) | Action::Halt | Action::Release { .. } | Action::Remove
    )
}

fn earliest(wake: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    Some(wake.map_or(at, |wake| wake.min(at)))
}

/// Whether a container with this name runs in a zone.
fn runs(zone: &Zone, name: &str) -> bool {
    let mut processes = zone.processes.iter();
    processes.any(|process| process.id.name == name && process.ended.is_none())
}

/// The pause after a rejected step, which only succeeds after a change by somebody.
const REFUSED: SignedDuration = SignedDuration::from_secs(300);

/// The pause after this many failures in a row.
fn wait_after(times: u32) -> SignedDuration {
    RETRY * (1 << times.min(5)).min(20)
}

/// The pause after failures to create a zone: growing, up to upstream's maximum for volumes (2m2s).
fn sandbox_wait(failures: u32) -> SignedDuration {
    SignedDuration::from_secs((1i64 << failures.min(10)).min(122))
}

/// Ending something that does not exist counts as success.
fn ok_if_gone(result: Result<(), ZoneError>) -> Result<(), Failure> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Why a step failed.
struct Failure {
    /// A human-readable message.
    text: String,
    /// Whether it would fail again, unless somebody changes something.
    is_final: bool,
}

impl From<ZoneError> for Failure {
    fn from(error: ZoneError) -> Self {
        Failure {
            is_final: error.is_final(),
            text: error.to_string(),
        }
    }
}

impl From<Lack> for Failure {
    fn from(lack: Lack) -> Self {
        Failure {
            text: lack.message,
            is_final: false,
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        // Even if it is forbidden: permissions change.
        Failure {
            text: error.to_string(),
            is_final: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_that_cannot_be_made_wait_ever_longer() {
        let waits = [0, 1, 2, 6, 7, 100].map(|failures| sandbox_wait(failures).as_secs());
        assert_eq!(waits, [1, 2, 4, 64, 122, 122]);
    }
}
