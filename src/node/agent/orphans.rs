//! What is left of pods that are gone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::machine::POD_UID;
use super::super::worker::Shared;
use super::super::zone_name;
use super::pods::Pods;
use crate::zone::ZoneName;

/// The pause after a failed removal.
const AGAIN: Duration = Duration::from_secs(10);

/// Removes what is left on the host of pods that the API no longer has, and retries failures until nothing is left.
pub(super) async fn remove_orphans(shared: Arc<Shared>, pods: Pods, known: HashSet<String>) {
    loop {
        let mut failed = false;
        let mut note = |what: &str, error: String| {
            tracing::warn!(error, "{what}; retrying");
            failed = true;
        };
        let mut gone: BTreeSet<String> = BTreeSet::new();
        match shared.runtime.list().await {
            Ok(zones) => gone.extend(
                zones
                    .into_iter()
                    .filter_map(|zone| zone.spec.labels.get(POD_UID).cloned()),
            ),
            Err(error) => note("zones cannot be listed", error.to_string()),
        }
        match shared.supplies.keeps().await {
            Ok(uids) => gone.extend(uids),
            Err(lack) => note("what is kept of pods cannot be listed", lack.message),
        }
        // Pods that arrived meanwhile belong to their workers.
        {
            let here = pods.map.lock();
            gone.retain(|uid| !known.contains(uid) && !here.contains_key(uid));
        }
        for uid in gone {
            tracing::info!(
                uid,
                "removing the remains of a pod that was deleted while no agent was running"
            );
            if let Err(error) = remove_orphan(&shared, &uid).await {
                note("what is left of a pod cannot be removed", error);
            }
        }
        if !failed {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn remove_orphan(shared: &Shared, uid: &str) -> Result<(), String> {
    let zone: ZoneName = zone_name(uid);
    let (runtime, supplies) = (&shared.runtime, &shared.supplies);
    let text = |error: crate::zone::ZoneError| error.to_string();
    runtime.halt(&zone).await.map_err(text)?;
    runtime.delete(&zone).await.map_err(text)?;
    let released = supplies.release(uid, true).await;
    released.map_err(|lack| lack.message)?;
    supplies.remove(uid).await.map_err(|lack| lack.message)
}
