//! garbage-collector-controller: deletes what has lost all its owners, and holds owners back that wait for their
//! dependents. Follows k8s.io/kubernetes/pkg/controller/garbagecollector.

mod graph;
#[cfg(test)]
mod graph_tests;
mod monitors;
mod worker;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use self::graph::{Graph, Uid, Work};
use super::Context;
use super::queue::Queue;

const WORKERS: usize = 10;

/// What monitors and workers share.
struct Shared {
    context: Context,
    graph: Mutex<Graph>,
    delete: Queue<Uid>,
    orphan: Queue<Uid>,
    kinds: monitors::Kinds,
    /// Whether every watch has told what there is.
    complete: watch::Sender<bool>,
}

impl Shared {
    fn add(&self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::Delete(uid) => self.delete.add(uid),
                Work::Orphan(uid) => self.orphan.add(uid),
            }
        }
    }

    /// Resolves when the graph is complete.
    async fn completed(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as `self`.
        let _ = complete.wait_for(|complete| *complete).await;
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    let ends = context.ends.clone();
    let shared = Arc::new(Shared {
        context,
        graph: Mutex::new(Graph::default()),
        delete: Queue::new(),
        orphan: Queue::new(),
        kinds: monitors::Kinds::default(),
        complete: watch::Sender::new(false),
    });
    let delete = shared.delete.work(WORKERS, &ends, |uid| {
        let shared = shared.clone();
        async move {
            shared.completed().await;
            worker::delete(&shared, &uid).await
        }
    });
    let orphan = shared.orphan.work(WORKERS, &ends, |uid| {
        let shared = shared.clone();
        async move {
            shared.completed().await;
            worker::orphan(&shared, &uid).await
        }
    });
    tokio::join!(monitors::keep(&shared), delete, orphan);
}
