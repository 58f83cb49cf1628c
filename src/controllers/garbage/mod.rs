//! garbage-collector-controller: deletes objects that have lost all their owners, and delays owners that wait for their
//! dependents. Follows k8s.io/kubernetes/pkg/controller/garbagecollector.

mod graph;
#[cfg(test)]
mod graph_tests;
mod monitors;
mod worker;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::graph::{Graph, Misplaced, Uid, Work};
use crate::client::Context;
use crate::client::events::{Recorder, Tone};
use crate::client::queue::{self, Queue};

const WORKERS: usize = 10;

/// Shared by monitors and workers.
struct Shared {
    context: Context,
    recorder: Recorder,
    graph: Mutex<Graph>,
    delete: Queue<Uid>,
    orphan: Queue<Uid>,
    kinds: monitors::Kinds,
    /// Whether every watch has delivered its initial list, or the timeout has passed.
    complete: watch::Sender<bool>,
}

impl Shared {
    fn new(context: Context) -> Self {
        Shared {
            recorder: context.recorder("garbage-collector-controller"),
            context,
            graph: Mutex::new(Graph::default()),
            delete: Queue::new(),
            orphan: Queue::new(),
            kinds: monitors::Kinds::default(),
            complete: watch::Sender::new(false),
        }
    }

    fn add(&self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::Delete(uid) => self.delete.add(uid),
                Work::Orphan(uid) => self.orphan.add(uid),
                Work::Tell(misplaced) => self.tell(&misplaced),
            }
        }
    }

    fn tell(&self, Misplaced { dependent, owner }: &Misplaced) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let about = ObjectReference {
            api_version: some(&dependent.api_version),
            kind: some(&dependent.kind),
            namespace: some(&dependent.namespace),
            name: some(&dependent.name),
            uid: some(&dependent.uid),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version,
            owner.kind,
            owner.namespace,
            owner.name,
            owner.uid,
            dependent.namespace
        );
        self.recorder
            .tell_of(about, Tone::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Waits until the graph is complete; returns false if the controller ends before.
    async fn completed(&self) -> bool {
        let mut complete = self.complete.subscribe();
        tokio::select! {
            complete = complete.wait_for(|complete| *complete) => complete.is_ok(),
            () = self.context.ends.cancelled() => false,
        }
    }
}

/// Runs the controller.
pub async fn run(context: Context) {
    let shared = Arc::new(Shared::new(context));
    let delete = shared.context.work(&shared.delete, WORKERS, |uid| {
        let shared = shared.clone();
        async move {
            match shared.completed().await {
                true => worker::patient(worker::delete(&shared, &uid).await),
                false => Ok(queue::Next::Done),
            }
        }
    });
    let orphan = shared.context.work(&shared.orphan, WORKERS, |uid| {
        let shared = shared.clone();
        async move {
            match shared.completed().await {
                true => worker::patient(worker::orphan(&shared, &uid).await),
                false => Ok(queue::Next::Done),
            }
        }
    });
    tokio::join!(monitors::keep(&shared), delete, orphan);
}
