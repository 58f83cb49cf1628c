//! The scheduler: assigns pods of `default-scheduler` to nodes. Follows k8s.io/kubernetes/pkg/scheduler.
//!
//! ```text
//! informers ──► State { snapshot, queue } ──► decide (pure) ──► assume, bind      ──► the API
//!                  ▲                             └────────────► preempt, report  ──► the API
//!                  └──────────────── what the API rejects is forgotten and retried
//! ```
//! The state is behind one short lock: informers update it as events arrive, and a decision reads it in place, so
//! nothing is copied for a decision and nothing changes during one. API requests run concurrently.

mod affinity;
mod binding;
mod cycle;
pub mod decide;
pub mod devices;
mod fit;
mod hints;
mod metrics;
pub mod node;
pub mod plugin;
pub mod pod;
pub mod preempt;
pub mod queue;
mod requests;
pub mod snapshot;
mod spread;
mod state;
pub mod storage;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod volumes;
mod wanted;
mod watch;
pub mod workloads;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::requests::Requests;
use self::state::{Scheduler, Step};
use crate::client::Context;

/// Maximum number of concurrent API requests.
const UNDER_WAY: usize = 256;
/// How often pods that have waited very long are retried.
const FLUSH: Duration = Duration::from_secs(30);

/// Runs the scheduler.
pub async fn run(context: Context) {
    let requests = Requests::new(context.client.clone(), &context.events);
    let scheduler = Arc::new(Scheduler::new(requests, context.ends.clone()));
    watch::begin(&scheduler, &context).await;
    let told = Arc::downgrade(&scheduler);
    context.settings.metrics.set("scheduler", move |out| {
        if let Some(scheduler) = told.upgrade() {
            metrics::tell(&scheduler.state, out);
        }
    });
    // Concurrent with scheduling, so that a long queue does not delay it.
    let flush = async {
        let mut ticks = tokio::time::interval(FLUSH);
        loop {
            ticks.tick().await;
            scheduler.flush();
        }
    };
    tokio::select! {
        () = place_all(&scheduler, &context.ends) => {}
        () = flush => {}
    }
}

/// Schedules one pod after the other until `ends` is cancelled, and spawns the resulting work.
async fn place_all(scheduler: &Arc<Scheduler>, ends: &CancellationToken) {
    let tasks = TaskTracker::new();
    let free = Arc::new(Semaphore::new(UNDER_WAY));
    while !ends.is_cancelled() {
        // The semaphore is never closed.
        let Ok(permit) = free.clone().acquire_owned().await else {
            break;
        };
        match scheduler.step() {
            Step::Work(work) => {
                let scheduler = scheduler.clone();
                tasks.spawn(async move { scheduler.carry_out(work, permit).await });
                // Do not block this thread for a long queue.
                tokio::task::yield_now().await;
            }
            Step::Nothing => {}
            Step::Wait(until) => {
                drop(permit);
                let until = until.unwrap_or_else(|| Instant::now() + FLUSH);
                tokio::select! {
                    () = scheduler.changed.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                    () = ends.cancelled() => {}
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}
