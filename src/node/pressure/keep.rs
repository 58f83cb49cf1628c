//! Checks the host every ten seconds, frees space, and evicts pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Met, PodDisk, PodUse, Thresholds, conditions, exceeds, limits_disk, victim};
use crate::client::events::Tone;
use crate::node::agent::Pods;
use crate::node::worker::Shared;
use crate::node::zone_name;
use crate::zone::ZoneName;

/// How often the host is checked.
const PERIOD: Duration = Duration::from_secs(10);
/// How often the disks of all pods are measured; those of pods with a limit every [`PERIOD`].
const MEASURE: Duration = Duration::from_secs(60);
/// How often unused images are looked for.
const IMAGES: Duration = Duration::from_secs(300);
/// How long to wait for an evicted pod to be gone before another one is evicted.
const CLEANUP: Duration = Duration::from_secs(30);

/// The pressure conditions of a node.
#[derive(Default)]
pub struct Observed(Mutex<Vec<&'static str>>);

impl Observed {
    /// Those of `MemoryPressure`, `DiskPressure`, `PIDPressure` that are true.
    pub fn conditions(&self) -> Vec<&'static str> {
        self.0.lock().clone()
    }
}

/// Watches the host until `ends` is cancelled.
pub async fn keep(
    shared: Arc<Shared>,
    node: String,
    pods: Pods,
    thresholds: Thresholds,
    ends: CancellationToken,
) {
    let disks = Disks::default();
    let looking = look(
        shared.clone(),
        node,
        pods.clone(),
        thresholds,
        disks.clone(),
    );
    // However long that takes, the host is checked meanwhile.
    let measuring = measure(shared, pods, disks);
    let both = async { tokio::join!(looking, measuring) };
    // Without a real host nothing runs out and both end at once: there is nothing to do, and nothing to keep in memory.
    let _ = ends.run_until_cancelled(Box::pin(both)).await;
    ends.cancelled().await;
}

/// The last measured disk usage of pods, by uid.
type Disks = Arc<Mutex<HashMap<String, PodDisk>>>;

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Measures the disk usage of pods, and evicts those that exceed their limits.
async fn measure(shared: Arc<Shared>, pods: Pods, disks: Disks) {
    let mut all: Option<Instant> = None;
    while shared.supplies.host().await.is_some() {
        let active = pods.active().unwrap_or_default();
        let every = all.is_none_or(|at| at.elapsed() >= MEASURE);
        if every && !active.is_empty() {
            all = Some(Instant::now());
        }
        disks
            .lock()
            .retain(|known, _| active.iter().any(|pod| uid(pod) == known));
        for pod in active.iter().filter(|pod| every || limits_disk(pod)) {
            let disk = shared.supplies.on_disk(pod).await;
            if let Some(message) = exceeds(pod, &disk) {
                pods.evict(pod, message, false);
            }
            disks.lock().insert(uid(pod).to_owned(), disk);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Checks the host, forever.
async fn look(shared: Arc<Shared>, node: String, pods: Pods, thresholds: Thresholds, disks: Disks) {
    let mut last = BTreeMap::new();
    let mut keeper = Keeper {
        about: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.clone()),
            uid: Some(node),
            ..ObjectReference::default()
        },
        shared: shared.clone(),
        pods: pods.clone(),
        thresholds,
        disks,
        collected: None,
        failed: false,
        going: None,
    };
    // A simulated node has no host that runs out of anything.
    while let Some(host) = shared.supplies.host().await {
        let met = keeper.thresholds.met(&host);
        *shared.observed.0.lock() = conditions(&met, &mut last, Timestamp::now());
        // Before all pods are known, their needs are unknown, too.
        if let Some(active) = pods.active() {
            keeper.look(&met, &active).await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

struct Keeper {
    shared: Arc<Shared>,
    pods: Pods,
    thresholds: Thresholds,
    disks: Disks,
    /// The node, for events.
    about: ObjectReference,
    /// When unused images were last looked for.
    collected: Option<Instant>,
    /// Whether the last look for unused images failed.
    failed: bool,
    /// The last evicted pod, and when that was.
    going: Option<(ZoneName, Instant)>,
}

impl Keeper {
    async fn look(&mut self, met: &[Met], active: &[Arc<Pod>]) {
        if self.collected.is_none_or(|at| at.elapsed() >= IMAGES) {
            self.collected = Some(Instant::now());
            self.collect(active, false).await;
        }
        if self.waits().await {
            return;
        }
        let Some(first) = met.first() else { return };
        let resource = first.signal.resource();
        let message = format!("Attempting to reclaim {resource}");
        self.event("EvictionThresholdMet", &message);
        let on_disk = matches!(resource, "ephemeral-storage" | "inodes");
        if on_disk {
            self.collect(active, true).await;
            let host = self.shared.supplies.host().await;
            if host.is_some_and(|host| self.thresholds.met(&host).is_empty()) {
                return;
            }
        }
        let mut used = Vec::new();
        for pod in active {
            used.push(self.usage(pod, on_disk).await);
        }
        let candidates: Vec<_> = active
            .iter()
            .zip(&used)
            .map(|(pod, used)| (&**pod, used.as_ref()))
            .collect();
        if let Some((chosen, message)) = victim(met, &candidates) {
            let pod = &active[chosen];
            self.pods.evict(pod, message, true);
            self.going = Some((zone_of(pod), Instant::now()));
        }
    }

    fn event(&self, reason: &str, message: &str) {
        let recorder = &self.shared.recorder;
        recorder.tell_of(self.about.clone(), Tone::Warning, reason, message);
    }

    /// Removes unused images. As with upstream's `StartGarbageCollection`, a failure is only told of if the one before it
    /// failed as well, and not if the node tries to get rid of a pressure: then it evicts pods.
    async fn collect(&mut self, active: &[Arc<Pod>], all: bool) {
        let collected = self.shared.supplies.collect(active, all).await;
        let before = match all {
            true => false,
            false => std::mem::replace(&mut self.failed, collected.is_err()),
        };
        if let Err(lack) = collected {
            tracing::warn!(reason = lack.reason, "{}", lack.message);
            if before || (!all && lack.reason != "ImageGCFailed") {
                self.event(lack.reason, &lack.message);
            }
        }
    }

    /// Whether the resources of an evicted pod are not free yet.
    async fn waits(&mut self) -> bool {
        let Some((zone, since)) = &self.going else {
            return false;
        };
        let gone = matches!(self.shared.runtime.get(zone).await, Ok(None));
        if gone || since.elapsed() >= CLEANUP {
            self.going = None;
        }
        self.going.is_some()
    }

    async fn usage(&self, pod: &Pod, on_disk: bool) -> Option<PodUse> {
        let measured = self.shared.runtime.usage(&zone_of(pod)).await.ok()?;
        Some(PodUse {
            memory: measured.total.working_set,
            pids: measured.total.pids,
            containers: measured
                .processes
                .iter()
                .map(|(id, usage)| (id.name.clone(), usage.working_set))
                .collect(),
            disk: match on_disk {
                // A pod that was not measured yet had no time to write much.
                true => self.disks.lock().get(uid(pod)).cloned().unwrap_or_default(),
                false => PodDisk::default(),
            },
        })
    }
}

fn zone_of(pod: &Pod) -> ZoneName {
    zone_name(uid(pod))
}
