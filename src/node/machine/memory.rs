//! What is remembered of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodStatus};

use super::backoff::{Backoff, later};
use super::{Action, Blocked, Hook, ImageOf, ImageState, ProbeKind, Resize, Restart, Stop};
use crate::zone::{ProcessId, Signal};

/// What the agent remembers of a pod. All of it may be lost: the essential state is in the pod's status and its zone.
///
/// A decision is not yet an action: what was done (a signal was sent, a delay begins) is recorded by
/// [`did`](Self::did), so that a failed step is decided again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The last reported status; at first the one in the API.
    pub last: Arc<PodStatus>,
    /// Back-off of containers that ended.
    pub backoffs: BTreeMap<String, Backoff>,
    /// The back-off that takes effect when a decided start is carried out.
    pub starting: BTreeMap<ProcessId, Backoff>,
    /// Images of containers.
    pub images: BTreeMap<ImageOf, ImageState>,
    /// Containers that cannot be started.
    pub blocked: BTreeMap<String, Blocked>,
    /// postStart hooks.
    pub hooks: BTreeMap<ProcessId, Hook>,
    /// Containers that are being ended.
    pub stops: BTreeMap<ProcessId, Stop>,
    /// The newest results of probes.
    pub probes: BTreeMap<(ProcessId, ProbeKind), bool>,
    /// Termination messages of processes that ended.
    pub messages: BTreeMap<ProcessId, String>,
    /// When to try again to create the zone, after a failure.
    pub zone_again: Option<Timestamp>,
    /// Whether a zone of this pod was running.
    pub had_zone: bool,
    /// The pod must fail, with a reason and message: its deadline passed, or it was evicted.
    pub fail: Option<(String, String)>,
    /// The grace period of its containers then, in seconds, if it differs from the pod's own.
    pub grace: Option<i64>,
    /// Why the node evicted the pod.
    pub disrupted: Option<String>,
    /// Resizes that were requested.
    pub resize: Resize,
    /// Processes that are ended to be restarted, regardless of their exit code.
    pub restarting: BTreeMap<ProcessId, Restart>,
    /// Everything that a former zone of the pod needed was released: its address, roots and volumes.
    pub released: bool,
    /// Since when the pod is being ended.
    pub ending: Option<Timestamp>,
    /// This host's addresses.
    pub host_ips: Arc<[String]>,
    /// When processes ended, by the current clock.
    pub ends: BTreeMap<ProcessId, Timestamp>,
}

impl Memory {
    /// Records that an action was carried out at `now`.
    pub fn did(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::Prepare => self.released = false,
            Action::Release { over: true } => self.released = true,
            Action::Start(id) => {
                if let Some(wait) = self.starting.remove(id) {
                    self.backoffs.insert(id.name.clone(), wait);
                }
                // The next start asks the registry again, if the pull policy requires that.
                self.images.retain(|(name, _), _| *name != id.name);
            }
            Action::PreStop(id, _) => {
                if let Some(stop) = self.stops.get_mut(id) {
                    stop.hook = Some(Hook::Running);
                }
            }
            Action::Signal(id, signal) => {
                if let Some(stop) = self.stops.get_mut(id) {
                    stop.asked.get_or_insert(now);
                    stop.killed |= *signal == Signal::KILL;
                }
            }
            _ => {}
        }
    }

    /// Whether the probe of a kind has succeeded for a process of `container`; true if the container has no such probe.
    pub fn passes(&self, id: &ProcessId, kind: ProbeKind, container: &Container) -> bool {
        kind.of(container).is_none() || self.probes.get(&(id.clone(), kind)) == Some(&true)
    }

    /// The clock was set, and is `by` ahead of the elapsed time: everything that waits keeps its remaining time.
    pub fn shift(&mut self, by: SignedDuration) {
        let stops = self.stops.values_mut();
        let stops = stops.flat_map(|stop| [Some(&mut stop.begun), stop.asked.as_mut()]);
        let failed = self.images.values_mut().flat_map(|image| match image {
            ImageState::Failed { told, again, .. } => [Some(told), Some(again)],
            _ => [None, None],
        });
        let failed_resize = self.resize.failed.as_mut().map(|(_, again)| again);
        let times = [
            self.zone_again.as_mut(),
            self.ending.as_mut(),
            failed_resize,
        ]
        .into_iter()
        .chain(stops)
        .flatten()
        .chain(self.blocked.values_mut().map(|blocked| &mut blocked.again))
        .chain(failed.flatten())
        .chain(self.ends.values_mut());
        for at in times {
            *at = later(*at, by);
        }
        for backoff in self.backoffs.values_mut() {
            backoff.shift(by);
        }
    }
}
