//! The binding cycle, between the decision about a pod and its binding: its claims get volumes, and devices are
//! reserved. Until it ends it can be cancelled. Follows bindingCycle of
//! k8s.io/kubernetes/pkg/scheduler/schedule_one.go, framework/runtime/pods_in_prebind_map.go and
//! framework/plugins/volumebinding/binder.go.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::pod::Pod;
use super::queue::{Attempt, Told};
use super::snapshot::{Quick, Snapshot};
use super::state::{Scheduler, State};
use super::storage::Plan;
use super::wanted::reaches;
use crate::client::informer::Key;

/// How long to wait for volumes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// Pods in the binding cycle by uid, each with a sender that cancels it with a reason.
#[derive(Default)]
pub struct Preparing(HashMap<String, oneshot::Sender<String>, Quick>);

impl Preparing {
    /// Starts the binding cycle of a pod. The receiver gets the reason if it is cancelled.
    pub fn begin(&mut self, pod: &Pod) -> oneshot::Receiver<String> {
        let (call_off, called_off) = oneshot::channel();
        self.0.insert(pod.uid().to_owned(), call_off);
        called_off
    }

    /// Cancels the binding cycle of a pod. Returns whether there was one.
    pub fn call_off(&mut self, pod: &Pod, why: impl FnOnce(&Pod) -> String) -> bool {
        match self.0.remove(pod.uid()) {
            Some(call_off) => {
                // If the receiver is gone, the cycle has ended.
                let _ = call_off.send(why(pod));
                true
            }
            None => false,
        }
    }

    /// Ends the binding cycle of a pod: it can no longer be cancelled. Returns whether it was still active.
    pub fn end(&mut self, pod: &Pod) -> bool {
        self.0.remove(pod.uid()).is_some()
    }
}

/// The resource versions of volumes and claims after the scheduler's writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// By volume name.
    pub volumes: HashMap<CompactString, u64>,
    /// By claim.
    pub claims: HashMap<Key, u64>,
}

/// Whether the claims of a plan are bound, and their volumes can be used at the pod's node.
///
/// # Errors
/// Why they will never be, in upstream's words.
pub fn are_bound(
    snapshot: &Snapshot,
    pod: &Pod,
    plan: &Plan,
    written: &Written,
) -> Result<bool, String> {
    let (storage, name) = (&snapshot.storage, &pod.node);
    let node = snapshot.find(name).map(|slot| snapshot.site(slot));
    let Some(node) = node.and_then(|site| site.node.as_ref()) else {
        return Err(format!(
            "failed to get node {name:?}: node {name:?} not found"
        ));
    };
    let missing = |kind: &str, name: &str| format!("{kind} {name:?} not found");
    let claim = |key: &Key| {
        let claim = storage.claims.get(key);
        claim.ok_or_else(|| {
            let Key { namespace, name } = key;
            missing("persistentvolumeclaims", &format!("{namespace}/{name}"))
        })
    };
    let reached = |volume: &str| match storage.volume(volume) {
        Some(found) if !reaches(found, node) => Err(format!(
            "pv {volume:?} node affinity doesn't match node {name:?}: no matching NodeSelectorTerms"
        )),
        found => Ok(found),
    };
    // Versions older than our own write say nothing.
    let is_old = |version: &str, written: Option<&u64>| {
        let version = version.parse::<u64>().ok();
        version < written.copied()
    };
    for (volume, key) in &plan.bind {
        let failed = |why: String| format!("failed to check binding: {why}");
        let found = storage.volume(volume);
        let found = found.ok_or_else(|| failed(missing("persistentvolumes", volume)))?;
        let claim = claim(key).map_err(failed)?;
        if is_old(&found.version, written.volumes.get(volume)) {
            return Ok(false);
        }
        reached(volume)?;
        if found.claim.as_ref().is_none_or(|(_, uid)| uid.is_empty()) {
            return Err(format!("ClaimRef got reset for pv {volume:?}"));
        }
        if !claim.is_bound {
            return Ok(false);
        }
    }
    for key in &plan.provision {
        let failed = |why: String| format!("failed to check provisioning pvc: {why}");
        let claim = claim(key).map_err(failed)?;
        if is_old(&claim.version, written.claims.get(key)) {
            return Ok(false);
        }
        if !claim.is_annotated {
            return Err(format!(
                "selectedNode annotation reset for PVC {:?}",
                key.name
            ));
        }
        if claim.selected.as_ref() != Some(name) {
            return Err(format!("provisioning failed for PVC {:?}", key.name));
        }
        // Wait for a volume that is not in the cache yet.
        if !claim.volume.is_empty() && reached(&claim.volume)?.is_none() {
            return Ok(false);
        }
        if !claim.is_bound {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Scheduler {
    /// Prepares a pod's claims and binds it, after earlier reports about it (`told`). The permit is held while requests
    /// are in progress.
    pub(super) async fn bind(
        &self,
        pod: Arc<Pod>,
        plan: Plan,
        attempt: Attempt,
        told: Option<Told>,
        permit: OwnedSemaphorePermit,
    ) {
        if let Some(told) = told {
            told.heard().await;
        }
        let mut permit = Some(permit);
        let has_claims = !plan.is_empty() || !pod.device_claims.is_empty();
        let ready = match has_claims {
            true => self.prepare(&pod, &plan, &mut permit).await,
            false => Ok(()),
        };
        let bound = match ready {
            Ok(()) => self.requests.bind(&pod).await,
            Err(why) => Err(why),
        };
        let Err(why) = bound else {
            return self.change(|state| {
                state.counts.bound(&attempt, Instant::now());
                state.queue.done(&pod);
            });
        };
        let took = attempt.begun.elapsed();
        self.change(|state| state.counts.ended(metrics::Outcome::Error, took));
        // On shutdown nothing is wrong with the pod: the next scheduler decides again.
        if self.ends.is_cancelled() {
            return;
        }
        if !pod.device_claims.is_empty() {
            let claims = self.change(|state| state.snapshot.devices.allocated(&pod));
            self.requests.give_back(&pod, claims).await;
        }
        let Some((waiting, telling)) = self.change(|state| state.give_up(&pod, &plan)) else {
            return;
        };
        let mut waiting = (*waiting).clone();
        if has_claims {
            // Its status already says so, even if the change has not been observed yet.
            waiting.nominated = pod.node.clone();
        }
        let nominated = Some(String::new());
        let told = telling.begin().await;
        self.requests
            .report(&waiting, "SchedulerError", &why, nominated)
            .await;
        drop(told);
    }

    /// Prepares a pod's claims.
    ///
    /// # Errors
    /// Why that failed or was cancelled, in upstream's words.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        plan: &Plan,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), String> {
        let mut called_off = self.change(|state| state.begin(pod))?;
        let done = self.see_to_claims(pod, plan, permit, &mut called_off).await;
        match self.change(|state| state.preparing.end(pod)) {
            // Cancelled after the last step.
            false if done.is_ok() => Err(called_off.try_recv().unwrap_or_else(|_| ended(pod))),
            _ => done,
        }
    }

    async fn see_to_claims(
        &self,
        pod: &Arc<Pod>,
        plan: &Plan,
        permit: &mut Option<OwnedSemaphorePermit>,
        called_off: &mut oneshot::Receiver<String>,
    ) -> Result<(), String> {
        // Publish its node now, because this takes a while.
        self.requests.nominate(pod).await;
        if !plan.is_empty() {
            let volumes = self.see_to_volumes(pod, plan, permit);
            unless("VolumeBinding", called_off, volumes).await?;
        }
        if !pod.device_claims.is_empty() {
            let claims = self.change(|state| state.snapshot.devices.to_reserve(pod));
            let reserved = self.requests.reserve(pod, claims);
            unless("DynamicResources", called_off, reserved).await?;
        }
        Ok(())
    }

    /// Asks controllers to bind and provision the volumes of the pod's claims, and waits for them.
    async fn see_to_volumes(
        &self,
        pod: &Arc<Pod>,
        plan: &Plan,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), String> {
        let asked = self.change(|state| state.claims_of(plan));
        let written = self.requests.prepare(pod, asked).await?;
        // Other pods are scheduled meanwhile.
        permit.take();
        wait_for_volumes(&self.stored, &self.ends, || {
            are_bound(&self.state.lock().snapshot, pod, plan, &written)
        })
        .await
        .map_err(|why| format!("binding volumes: {why}"))
    }
}

impl State {
    /// Starts the binding cycle of an assumed pod. The receiver gets the reason if it is cancelled.
    ///
    /// # Errors
    /// If the pod no longer exists.
    fn begin(&mut self, pod: &Pod) -> Result<oneshot::Receiver<String>, String> {
        match self.is_assumed(pod) {
            true => Ok(self.preparing.begin(pod)),
            false => Err(ended(pod)),
        }
    }

    /// Preempts a pod that only the scheduler knows to be placed: cancels its binding cycle, frees its place, and
    /// lets it be scheduled again.
    pub fn make_way(&mut self, pod: &Pod) -> Way {
        let placed = self.snapshot.placed(&pod.key);
        if placed.is_none_or(|placed| placed.uid() != pod.uid()) {
            return Way::IsFree;
        }
        let why = |_: &Pod| "preempted by DefaultPreemption".to_owned();
        if self.preparing.call_off(pod, why) && self.free(pod, Instant::now()) {
            return Way::WasMade;
        }
        Way::IsTaken
    }
}

/// The result of [`State::make_way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pod no longer exists.
    IsFree,
    /// It was not bound yet, and will be scheduled elsewhere.
    WasMade,
    /// It is bound, or being bound: it must be deleted.
    IsTaken,
}

/// Runs a step of the plugin `rule`, unless it is cancelled.
async fn unless(
    rule: &str,
    called_off: &mut oneshot::Receiver<String>,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let done = tokio::select! {
        biased;
        why = called_off => Err(why.unwrap_or_default()),
        done = work => done,
    };
    done.map_err(|why| format!("running PreBind plugin {rule:?}: {why}"))
}

/// The reason for cancelling the binding of a deleted pod.
pub fn ended(pod: &Pod) -> String {
    let name = &pod.key.name;
    format!("pod does not exist any more: pod {name:?} not found")
}

/// Waits until claims `are_bound`, which is checked again whenever volumes or claims change.
///
/// # Errors
/// The error of `are_bound`, or that the wait timed out or was cancelled.
async fn wait_for_volumes(
    stored: &watch::Sender<()>,
    ends: &CancellationToken,
    are_bound: impl Fn() -> Result<bool, String>,
) -> Result<(), String> {
    let mut changes = stored.subscribe();
    let are_bound = async {
        loop {
            changes.borrow_and_update();
            if are_bound()? {
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err("context canceled".to_owned());
            }
        }
    };
    tokio::select! {
        biased;
        // Nobody binds volumes any more.
        () = ends.cancelled() => Err("context canceled".to_owned()),
        done = are_bound => done,
        () = tokio::time::sleep(PATIENCE) => Err("context deadline exceeded".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn volumes_are_waited_for_until_they_are_bound_or_the_scheduler_ends() {
        let no = |why: &str| Err::<(), _>(why.to_owned());
        let stored = watch::Sender::new(());
        let begun = Instant::now();
        let ends = CancellationToken::new();
        let bound = Mutex::new(Ok(false));
        let wait = || wait_for_volumes(&stored, &ends, || bound.lock().clone());
        let change = async |to: Result<bool, &str>| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            *bound.lock() = to.map_err(str::to_owned);
            stored.send_replace(());
        };
        assert_eq!(tokio::join!(wait(), change(Ok(true))).0, Ok(()));
        assert_eq!(tokio::join!(wait(), change(Ok(true))).0, Ok(()), "at once");
        *bound.lock() = Ok(false);
        assert_eq!(tokio::join!(wait(), change(Err("lost"))).0, no("lost"));
        assert!(begun.elapsed() < PATIENCE);
        *bound.lock() = Ok(false);
        assert_eq!(wait().await, no("context deadline exceeded"));
        let begun = Instant::now();
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ends.cancel();
        };
        assert_eq!(tokio::join!(wait(), end).0, no("context canceled"));
        assert!(begun.elapsed() < PATIENCE);
    }
}
