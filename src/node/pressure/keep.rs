//! Looks at the host every ten seconds, makes room, and evicts.

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

/// How often the host is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How often all pods' disks are measured; of those that may have so much and no more, each [`PERIOD`].
const MEASURE: Duration = Duration::from_secs(60);
/// How often images that nobody uses are looked for.
const IMAGES: Duration = Duration::from_secs(300);
/// How long an evicted pod is waited for before another one has to go.
const CLEANUP: Duration = Duration::from_secs(30);

/// The conditions that a node has from what its host runs out of.
#[derive(Default)]
pub struct Observed(Mutex<Vec<&'static str>>);

impl Observed {
    /// `MemoryPressure`, `DiskPressure`, `PIDPressure`: those that hold.
    pub fn conditions(&self) -> Vec<&'static str> {
        self.0.lock().clone()
    }
}

/// Looks after the host until `ends`.
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
    // However long that takes, the host is looked at meanwhile.
    let measuring = measure(shared, pods, disks);
    let both = async { tokio::join!(looking, measuring) };
    // Where there is no host, nothing runs out and both are done at once: there is nothing to do until the end.
    let _ = ends.run_until_cancelled(both).await;
    ends.cancelled().await;
}

/// What pods have on disk, by uid, as it was measured last.
type Disks = Arc<Mutex<HashMap<String, PodDisk>>>;

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Measures what pods have on disk, and evicts those that have more than they may.
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

/// Looks at the host, for ever.
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
        going: None,
    };
    // Where there is no real host, nothing runs out.
    while let Some(host) = shared.supplies.host().await {
        let met = keeper.thresholds.met(&host);
        *shared.observed.0.lock() = conditions(&met, &mut last, Timestamp::now());
        // What pods need that are not known yet is not known either.
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
    /// When images were looked for.
    collected: Option<Instant>,
    /// Who was evicted last, and when.
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

    async fn collect(&self, active: &[Arc<Pod>], all: bool) {
        if let Err(lack) = self.shared.supplies.collect(active, all).await {
            self.event(lack.reason, &lack.message);
        }
    }

    /// Whether what an evicted pod has is still to come back.
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
                // What was not measured yet has not had the time to write much.
                true => self.disks.lock().get(uid(pod)).cloned().unwrap_or_default(),
                false => PodDisk::default(),
            },
        })
    }
}

fn zone_of(pod: &Pod) -> ZoneName {
    zone_name(uid(pod))
}
