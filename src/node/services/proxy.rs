//! The service proxy of a node: what the plan says, into the network.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Services;
use super::plan::{Here, plan};
use crate::net::services::ServiceRouter;

/// How long nothing may change before it is looked whether all is there yet: somebody may have flushed the rules.
const LOOK: Duration = Duration::from_secs(30);
/// How long changes are gathered after some were carried out.
const GATHER: Duration = Duration::from_millis(100);
/// How long it waits after a failure, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Keeps the network as services and their endpoints are, until `ends`. What it did last stays then: pods go on.
pub async fn keep(
    services: Services,
    here: Here,
    router: Arc<dyn ServiceRouter>,
    ends: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let told = changed.clone();
    services.services.subscribe(move |_| told.notify_one());
    let told = changed.clone();
    services.slices.subscribe(move |_| told.notify_one());
    // What is planned on half of what there is would close what pods of an earlier agent use.
    services.services.synced().await;
    services.slices.synced().await;
    let mut wait = AGAIN[0];
    while !ends.is_cancelled() {
        let ports = plan(&services.services.all(), &services.slices.all(), &here);
        let next = async {
            match router.route(&ports).await {
                Ok(()) => {
                    wait = AGAIN[0];
                    if tokio::time::timeout(LOOK, changed.notified()).await.is_ok() {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        "services are not led to their pods; it is tried again"
                    );
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN[1]);
                }
            }
        };
        tokio::select! {
            () = next => {}
            () = ends.cancelled() => return,
        }
    }
}
