//! Looks at the host every ten seconds, makes room, and evicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{PodDisk, PodUse, Thresholds, conditions, exceeds, limits_disk, victim};
use crate::node::agent::Pods;
use crate::node::worker::Shared;
use crate::node::zone_name;

/// How often the host is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How often images that nobody uses are looked for.
const IMAGES: Duration = Duration::from_secs(300);

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
    let mut collected = Instant::now();
    let about = ObjectReference {
        kind: Some("Node".into()),
        name: Some(node.clone()),
        uid: Some(node),
        ..ObjectReference::default()
    };
    loop {
        let Some(host) = shared.supplies.host() else {
            // Nothing real runs out.
            return;
        };
        let met = thresholds.met(&host);
        *shared.observed.0.lock() = conditions(&met, &mut last, Timestamp::now());
        let active: Vec<Arc<Pod>> = pods.active();
        if collected.elapsed() >= IMAGES {
            collected = Instant::now();
            if let Err(lack) = shared.supplies.collect(&active, false).await {
                shared
                    .recorder
                    .event(about.clone(), true, lack.reason, &lack.message);
            }
        }
        let evicted = local(&shared, &pods, &active).await;
        if let (Some(first), false) = (met.first(), evicted) {
            let resource = first.signal.resource();
            let message = format!("Attempting to reclaim {resource}");
            let recorder = &shared.recorder;
            recorder.event(about.clone(), true, "EvictionThresholdMet", &message);
            let on_disk = matches!(resource, "ephemeral-storage" | "inodes");
            if on_disk && let Err(lack) = shared.supplies.collect(&active, true).await {
                recorder.event(about.clone(), true, lack.reason, &lack.message);
            }
            let still = shared
                .supplies
                .host()
                .map_or(met, |host| thresholds.met(&host));
            let mut used = Vec::new();
            for pod in &active {
                used.push(usage(&shared, pod, on_disk).await);
            }
            let candidates: Vec<_> = active
                .iter()
                .zip(&used)
                .map(|(pod, used)| (&**pod, used.as_ref()))
                .collect();
            if let Some((chosen, message)) = victim(&still, &candidates) {
                pods.evict(&active[chosen], message, true);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = ends.cancelled() => return,
        }
    }
}

/// Evicts pods that have more on disk than they may. Whether there was one.
async fn local(shared: &Shared, pods: &Pods, active: &[Arc<Pod>]) -> bool {
    let mut evicted = false;
    for pod in active.iter().filter(|pod| limits_disk(pod)) {
        let disk = shared.supplies.on_disk(pod).await;
        if let Some(message) = exceeds(pod, &disk) {
            pods.evict(pod, message, false);
            evicted = true;
        }
    }
    evicted
}

async fn usage(shared: &Shared, pod: &Pod, on_disk: bool) -> Option<PodUse> {
    let zone = zone_name(pod.metadata.uid.as_deref().unwrap_or_default());
    let measured = shared.runtime.usage(&zone).await.ok()?;
    Some(PodUse {
        memory: measured.total.working_set,
        pids: measured.total.pids,
        containers: measured
            .processes
            .iter()
            .map(|(id, usage)| (id.name.clone(), usage.working_set))
            .collect(),
        disk: match on_disk {
            true => shared.supplies.on_disk(pod).await,
            false => PodDisk::default(),
        },
    })
}
