//! The watches that fill the graph: one for each resource that can be listed, watched and deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::discovery::ApiResource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::graph::Seen;
use crate::client::discovery::{self, Bare, Served};
use crate::client::follow::{self, Told, Watches, record};
use crate::client::kinds::CustomResourceDefinition;

/// Resources that the graph ignores: their objects expire by themselves.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// The pause before a failed discovery is retried.
const AGAIN: Duration = Duration::from_secs(5);
/// How long to wait for the initial lists of all resources: upstream's initialSyncTimeout.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long changes of definitions and API services are collected before discovery is repeated.
const SETTLE: Duration = Duration::from_millis(100);

/// Maps the kind in an owner reference to its resource.
#[derive(Default)]
pub struct Kinds(Mutex<HashMap<(String, String), Served>>);

impl Kinds {
    /// The resource of a kind in a version.
    pub fn get(&self, api_version: &str, kind: &str) -> Option<Served> {
        let kinds = self.0.lock();
        kinds
            .get(&(api_version.to_owned(), kind.to_owned()))
            .cloned()
    }

    /// Replaces what is known of the resources, of which the preferred versions come first.
    pub fn set(&self, served: &[Served]) {
        let mut kinds = HashMap::new();
        for served in served {
            let resource = &served.resource;
            kinds
                .entry((resource.api_version.clone(), resource.kind.clone()))
                .or_insert_with(|| served.clone());
        }
        *self.0.lock() = kinds;
    }
}

/// A running watch.
struct Monitor {
    ends: CancellationToken,
    synced: watch::Receiver<bool>,
}

/// Watches every resource, including those defined later, until the controller ends.
pub async fn keep(shared: &Arc<Shared>) {
    let mut tasks = Watches::default();
    let changed = Arc::new(Notify::new());
    let wakes = changed.clone();
    let definitions = shared.context.informers.of::<CustomResourceDefinition>();
    definitions.subscribe(move |_| wakes.notify_one());
    let ends = &shared.context.ends;
    let mut monitors: HashMap<ApiResource, Monitor> = HashMap::new();
    loop {
        let pause = match discovery::all(&shared.context.client).await {
            Ok(served) => {
                shared.kinds.set(&served);
                update(shared, &served, &mut monitors, &mut tasks);
                let complete = async {
                    for monitor in monitors.values() {
                        let mut synced = monitor.synced.clone();
                        // A watch that ended before its list was complete is not waited for.
                        let _ = synced.wait_for(|synced| *synced).await;
                    }
                };
                tokio::select! {
                    () = complete => {}
                    never = tasks.broken() => match never {},
                    () = tokio::time::sleep(PATIENCE) => {
                        // A resource that can never be watched must not stop all garbage collection.
                        tracing::warn!("garbage collection begins before all resources were listed");
                    }
                    // A resource that is no longer served would never deliver its list.
                    () = changed.notified() => {
                        tokio::time::sleep(SETTLE).await;
                        continue;
                    }
                    () = ends.cancelled() => break,
                }
                shared.complete.send_replace(true);
                None
            }
            Err(error) => {
                tracing::warn!(%error, "discovery failed for garbage collection; retrying");
                Some(AGAIN)
            }
        };
        let wait = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => changed.notified().await,
            }
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            () = wait => {}
            never = tasks.broken() => match never {},
            () = ends.cancelled() => break,
        }
    }
}

/// Starts watches of new resources, and ends those of removed ones.
fn update(
    shared: &Arc<Shared>,
    served: &[Served],
    monitors: &mut HashMap<ApiResource, Monitor>,
    tasks: &mut Watches,
) {
    let mut known = HashSet::new();
    let wanted: Vec<&Served> = served
        .iter()
        .filter(|served| served.can(&["delete", "list", "watch"]))
        .filter(|served| {
            let name = (&*served.resource.group, &*served.resource.plural);
            // The preferred version comes first.
            !IGNORED.contains(&name) && known.insert(name)
        })
        .collect();
    monitors.retain(|resource, monitor| {
        let keep = wanted.iter().any(|served| served.resource == *resource);
        if !keep {
            monitor.ends.cancel();
        }
        keep
    });
    for served in wanted {
        if monitors.contains_key(&served.resource) {
            continue;
        }
        shared.complete.send_replace(false);
        let (tell, synced) = watch::channel(false);
        let ends = CancellationToken::new();
        let monitor = Monitor {
            ends: ends.clone(),
            synced,
        };
        monitors.insert(served.resource.clone(), monitor);
        let (shared, served) = (shared.clone(), served.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = follow(&shared, &served, &tell) => {}
                () = ends.cancelled() => {}
            }
        });
    }
}

/// Applies the events of a watch to the graph.
async fn follow(shared: &Shared, served: &Served, synced: &watch::Sender<bool>) {
    let (version, kind) = (&*served.resource.api_version, &*served.resource.kind);
    let api = served.api(&shared.context.client, "");
    let id = |object: &Bare| object.metadata.uid.clone().unwrap_or_default();
    record(kind, follow::follow(api, ""), id, |told| {
        let mut graph = shared.graph.lock();
        let work = match told {
            Told::There(object) => graph.saw(Seen::of(&object, version, kind)),
            Told::Gone(object) => graph.gone(&id(&object)),
            Told::Only(uids) => {
                synced.send_replace(true);
                graph.listed(version, kind, |uid| uids.contains(uid))
            }
            Told::UpTo(_) => return,
        };
        drop(graph);
        shared.add(work);
    })
    .await;
}
