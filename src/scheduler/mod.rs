//! The scheduler: gives pods that ask for `default-scheduler` a node. Follows k8s.io/kubernetes/pkg/scheduler.
//!
//! ```text
//! informers ──► State { snapshot, queue } ──► decide (pure) ──► assume, bind      ──► the API
//!                  ▲                             └────────────► preempt, report  ──► the API
//!                  └──────────────── what the API refuses is forgotten and tried again
//! ```
//! The state is behind one short lock: informers change it as things happen, and a decision reads it where it is, so
//! nothing is copied for a decision and nothing happens during one. What the API is asked for runs beside it.

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

/// Requests to the API under way at most.
const UNDER_WAY: usize = 256;
/// How often what has waited for very long is looked at.
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
    // However much there is to be placed: who waits for something else is not to wait for that to end.
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

/// Decides about one pod after the other until `ends` is cancelled, and has what follows carried out.
async fn place_all(scheduler: &Arc<Scheduler>, ends: &CancellationToken) {
    let tasks = TaskTracker::new();
    let free = Arc::new(Semaphore::new(UNDER_WAY));
    while !ends.is_cancelled() {
        // Never closed.
        let Ok(permit) = free.clone().acquire_owned().await else {
            break;
        };
        match scheduler.step() {
            Step::Work(work) => {
                let scheduler = scheduler.clone();
                tasks.spawn(async move { scheduler.carry_out(work, permit).await });
                // A long queue is not to hold up everything else on this thread.
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
