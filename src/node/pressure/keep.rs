//! Looks at the host every ten seconds, makes room, and evicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Met, PodDisk, PodUse, Thresholds, conditions, exceeds, limits_disk, victim};
use crate::controllers::events::Tone;
use crate::node::agent::Pods;
use crate::node::worker::Shared;
use crate::node::zone_name;
use crate::zone::ZoneName;

/// How often the host is looked at.
const PERIOD: Duration = Duration::from_secs(10);
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
        collected: None,
        going: None,
    };
    // Where there is no real host, nothing runs out.
    while let Some(host) = shared.supplies.host() {
        let met = keeper.thresholds.met(&host);
        *shared.observed.0.lock() = conditions(&met, &mut last, Timestamp::now());
        // What pods need that are not known yet is not known either.
        if let Some(active) = pods.active() {
            keeper.look(&met, &active).await;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = ends.cancelled() => return,
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    pods: Pods,
    thresholds: Thresholds,
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
        if self.local(active).await || self.waits().await {
            return;
        }
        let Some(first) = met.first() else { return };
        let resource = first.signal.resource();
        let message = format!("Attempting to reclaim {resource}");
        self.event("EvictionThresholdMet", &message);
        let on_disk = matches!(resource, "ephemeral-storage" | "inodes");
        if on_disk {
            self.collect(active, true).await;
            let host = self.shared.supplies.host();
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

    /// Evicts pods that have more on disk than they may. Whether there was one.
    async fn local(&self, active: &[Arc<Pod>]) -> bool {
        let mut evicted = false;
        for pod in active.iter().filter(|pod| limits_disk(pod)) {
            let disk = self.shared.supplies.on_disk(pod).await;
            if let Some(message) = exceeds(pod, &disk) {
                self.pods.evict(pod, message, false);
                evicted = true;
            }
        }
        evicted
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
                true => self.shared.supplies.on_disk(pod).await,
                false => PodDisk::default(),
            },
        })
    }
}

fn zone_of(pod: &Pod) -> ZoneName {
    zone_name(pod.metadata.uid.as_deref().unwrap_or_default())
}
