//! Carrying out what the machine decided.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Look, RETRY, Told, Worker};
use crate::node::machine::{Action, Blocked, Hook, ImageState, RESIZE_AGAIN, later};
use crate::node::report;
use crate::node::supplies::Lack;
use crate::zone::{ProcessId, Zone, ZoneError};

/// The longest wait for an image.
const PULL_WAIT: i64 = 300;

impl Worker {
    pub(super) async fn carry_out(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        actions: Vec<Action>,
        wake: Option<Timestamp>,
        gone: bool,
    ) -> Look {
        let mut did = false;
        for action in actions {
            did |= !matches!(
                action,
                Action::Event { .. } | Action::Pull(_) | Action::PreStop(..)
            );
            if action == Action::Remove {
                return self.remove(pod, gone).await;
            }
            let pulled = match &action {
                Action::Pull(name) => Some(name.clone()),
                _ => None,
            };
            let resizes = matches!(action, Action::Resize(_));
            if let Err(error) = self.act(pod, zone, action).await {
                if resizes {
                    // It is told, and tried again later; the rest of the pod goes on.
                    self.memory.resize.failed = Some((error, Timestamp::now() + RESIZE_AGAIN));
                    return Look::Again;
                }
                return self.failed(&error);
            }
            let images = &self.memory.images;
            did |= pulled.is_some_and(|name| matches!(images.get(&name), Some(ImageState::Ready)));
        }
        self.failures = 0;
        self.retry = None;
        match did || wake.is_some_and(|at| at <= Timestamp::now()) {
            true => Look::Again,
            false => Look::Wait(wake),
        }
    }

    /// Waits longer after each failure in a row.
    pub(super) fn failed(&mut self, error: &str) -> Look {
        self.failures += 1;
        let wait = RETRY * (1 << self.failures.min(5)).min(20);
        tracing::warn!(
            pod = self.uid,
            error,
            "a step of a pod failed; it is repeated"
        );
        let at = Timestamp::now() + wait;
        self.retry = Some(at);
        Look::Wait(Some(at))
    }

    async fn remove(&mut self, pod: &Pod, gone: bool) -> Look {
        if let Err(lack) = self.shared.supplies.remove(&self.uid).await {
            self.event(
                pod,
                true,
                "FailedKillPod",
                None,
                &format!("error killing pod: {}", lack.message),
            );
            return self.failed(&lack.message);
        }
        if !gone && let Err(error) = report::finish(&self.api, pod).await {
            return self.failed(&error.to_string());
        }
        Look::Removed
    }

    async fn act(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        action: Action,
    ) -> Result<(), String> {
        let shared = self.shared.clone();
        match action {
            Action::Event {
                warning,
                reason,
                container,
                message,
            } => {
                self.event(pod, warning, reason, container.as_deref(), &message);
                Ok(())
            }
            Action::Prepare => {
                self.prepare(pod).await;
                Ok(())
            }
            Action::Pull(name) => self.pull(pod, name).await,
            Action::Start(id) => self.start(pod, zone, id).await,
            Action::PreStop(id, grace) => {
                let Some((container, zone)) = self.container(pod, &id.name).zip(zone.cloned())
                else {
                    return Ok(());
                };
                let Some(hook) = container
                    .lifecycle
                    .clone()
                    .and_then(|lifecycle| lifecycle.pre_stop)
                else {
                    return Ok(());
                };
                let (pod, told) = (pod.clone(), self.told.clone());
                self.tasks.spawn(async move {
                    let run = shared
                        .supplies
                        .hook(&pod, &container, &id, &zone.spec, &hook);
                    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
                    let result = match tokio::time::timeout(grace, run).await {
                        Ok(result) => result,
                        Err(_) => Err("it did not end within the grace period".into()),
                    };
                    let _ = told.send(Told::Hook(id, false, result)).await;
                });
                Ok(())
            }
            Action::Signal(id, signal) => {
                ok_if_gone(shared.runtime.signal(&self.zone_name, &id, signal).await)
            }
            Action::Forget(id) => {
                ok_if_gone(shared.runtime.forget(&self.zone_name, &id).await)?;
                self.memory.messages.remove(&id);
                shared
                    .supplies
                    .forget(&self.uid, &id)
                    .await
                    .map_err(|lack| lack.message)
            }
            Action::Measure => {
                let measured = shared.runtime.usage(&self.zone_name).await;
                let measured = measured.map(|usage| shared.supplies.usage(pod, usage));
                let what = || format!("unable to read memory usage for pod {:?}", full_name(pod));
                self.memory.resize.measured = Some(measured.map_err(|_| what()));
                Ok(())
            }
            Action::Resize(change) => {
                let changed = shared.runtime.limit(&self.zone_name, &change).await;
                changed.map_err(|error| error.to_string())
            }
            Action::Halt => {
                ok_if_gone(shared.runtime.halt(&self.zone_name).await)?;
                ok_if_gone(shared.runtime.delete(&self.zone_name).await)?;
                let phase = self.memory.last.phase.as_deref();
                let over = matches!(phase, Some("Succeeded" | "Failed"));
                shared
                    .supplies
                    .release(&self.uid, over)
                    .await
                    .map_err(|lack| lack.message)
            }
            Action::Remove => Ok(()),
        }
    }

    async fn prepare(&mut self, pod: &Arc<Pod>) {
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

    async fn pull(&mut self, pod: &Arc<Pod>, name: String) -> Result<(), String> {
        let shared = self.shared.clone();
        let Some(container) = self.container(pod, &name) else {
            return Ok(());
        };
        match shared.supplies.present(pod, &container).await {
            Ok(true) => {
                self.memory.images.insert(name.clone(), ImageState::Ready);
                let image = container.image.unwrap_or_default();
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                self.event(pod, false, "Pulled", Some(&name), &message);
            }
            Ok(false) => {
                let image = container.image.clone().unwrap_or_default();
                self.event(
                    pod,
                    false,
                    "Pulling",
                    Some(&name),
                    &format!("Pulling image {image:?}"),
                );
                let (pod, told) = (pod.clone(), self.told.clone());
                self.tasks.spawn(async move {
                    let result = shared.supplies.fetch(&pod, &container).await;
                    let _ = told.send(Told::Pulled(name, result)).await;
                });
            }
            Err(lack) => self.not_pulled(pod, name, lack),
        }
        Ok(())
    }

    async fn start(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        id: ProcessId,
    ) -> Result<(), String> {
        let shared = self.shared.clone();
        let Some((container, zone)) = self.container(pod, &id.name).zip(zone) else {
            return Ok(());
        };
        let block = |worker: &mut Self, lack: Lack| {
            worker.event(
                pod,
                true,
                "Failed",
                Some(&id.name),
                &format!("Error: {}", lack.message),
            );
            let again = Timestamp::now() + SignedDuration::from_secs(10);
            worker.memory.blocked.insert(
                id.name.clone(),
                Blocked {
                    reason: lack.reason.into(),
                    message: lack.message,
                    again,
                },
            );
        };
        let process = match shared
            .supplies
            .process(pod, &container, &id, &zone.spec)
            .await
        {
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
                if let Some(hook) = container
                    .lifecycle
                    .clone()
                    .and_then(|lifecycle| lifecycle.post_start)
                {
                    self.memory.hooks.insert(id.clone(), Hook::Running);
                    let (pod, told, zone) = (pod.clone(), self.told.clone(), zone.spec.clone());
                    self.tasks.spawn(async move {
                        let result = shared
                            .supplies
                            .hook(&pod, &container, &id, &zone, &hook)
                            .await;
                        let _ = told.send(Told::Hook(id, true, result)).await;
                    });
                }
            }
            Err(ZoneError::Start { reason }) => {
                // Noted by the runtime as a generation that ended at once.
                self.event(pod, false, "Created", Some(&id.name), "Container created");
                self.event(
                    pod,
                    true,
                    "Failed",
                    Some(&id.name),
                    &format!("Error: {reason}"),
                );
            }
            Err(error) if error.is_final() => {
                block(self, Lack::new("CreateContainerError", error.to_string()));
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    pub(super) fn not_pulled(&mut self, pod: &Pod, name: String, lack: Lack) {
        let image = self
            .container(pod, &name)
            .and_then(|container| container.image)
            .unwrap_or_default();
        self.event(pod, true, "Failed", Some(&name), &lack.message);
        self.event(
            pod,
            true,
            "Failed",
            Some(&name),
            &format!("Error: {}", lack.reason),
        );
        let wait = self
            .pulling
            .get(&name)
            .map_or(10, |wait| (wait * 2).min(PULL_WAIT));
        self.pulling.insert(name.clone(), wait);
        let again = Timestamp::now() + SignedDuration::from_secs(wait);
        let (reason, message) = match lack.reason {
            "ErrImagePull" => {
                let message = format!(
                    "Back-off pulling image {image:?}: ErrImagePull: {}",
                    lack.message
                );
                let told = format!("Back-off pulling image {image:?}");
                self.event(pod, false, "BackOff", Some(&name), &told);
                ("ImagePullBackOff", message)
            }
            other => (other, lack.message),
        };
        self.memory.images.insert(
            name,
            ImageState::Failed {
                reason: reason.into(),
                message,
                again,
            },
        );
    }
}

/// How long a zone waits that could not be made, after so many failures before: ever longer, up to what upstream's
/// volumes wait (2m2s).
fn sandbox_wait(failures: u32) -> SignedDuration {
    SignedDuration::from_secs((1i64 << failures.min(10)).min(122))
}

/// A pod as upstream writes it: `NAME_NAMESPACE(UID)`.
fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let [name, namespace, uid] = [&metadata.name, &metadata.namespace, &metadata.uid]
        .map(|text| text.as_deref().unwrap_or_default());
    format!("{name}_{namespace}({uid})")
}

/// Asking for the end of something that is not there has succeeded.
fn ok_if_gone(result: Result<(), ZoneError>) -> Result<(), String> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
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
