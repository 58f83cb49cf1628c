//! The informers of a process: one for each kind, shared by all who ask.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::follow::follow;
use super::{Cached, Informer, PAUSE, over};

/// The caches that controllers share. A kind is watched from its first request on. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    all: Arc<All>,
    pub(super) run: Option<CancellationToken>,
    /// Whether the cache of each kind that was requested through this value is complete.
    asked: Arc<Mutex<HashMap<TypeId, watch::Receiver<bool>>>>,
}

struct All {
    client: Client,
    pub(super) ends: CancellationToken,
    tasks: TaskTracker,
    known: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

impl Informers {
    /// Caches that `client` fills until `ends` is cancelled.
    pub fn new(client: Client, ends: CancellationToken) -> Self {
        Informers {
            all: Arc::new(All {
                client,
                ends,
                tasks: TaskTracker::new(),
                known: Mutex::new(HashMap::new()),
            }),
            run: None,
            asked: Arc::default(),
        }
    }

    /// The same caches for one run of a program: handlers subscribed through them are not called after `run` is
    /// cancelled, and `run` is cancelled if one of them panics.
    pub fn for_run(&self, run: CancellationToken) -> Self {
        Informers {
            all: self.all.clone(),
            run: Some(run),
            asked: Arc::default(),
        }
    }

    /// Resolves when the caches of all kinds that were requested through this value are complete (see
    /// [`Informer::synced`]); also when the run or the caches end. So a run waits exactly for the kinds that it uses.
    pub async fn synced(&self) {
        let asked: Vec<_> = self.asked.lock().values().cloned().collect();
        let complete = async {
            for mut synced in asked {
                // A cache that ends will never be complete.
                let _ = synced.wait_for(|synced| *synced).await;
            }
        };
        tokio::select! {
            () = complete => {}
            () = over(self.run.as_ref(), &self.all.ends) => {}
        }
    }

    /// The cache of a kind, for which [`Informers::synced`] then waits, too.
    pub fn of<P: Cached>(&self) -> Informer<P> {
        let mut known = self.all.known.lock();
        let informer = known
            .entry(TypeId::of::<P>())
            .or_insert_with(|| Box::new(self.start::<P>()));
        match informer.downcast_ref::<Informer<P>>() {
            Some(informer) => {
                let synced = informer.shared.synced.subscribe();
                self.asked.lock().insert(TypeId::of::<P>(), synced);
                Informer {
                    shared: informer.shared.clone(),
                    run: self.run.clone(),
                }
            }
            None => unreachable!("an informer is kept under the type that it holds"),
        }
    }

    fn start<P: Cached>(&self) -> Informer<P> {
        let informer = Informer::<P>::new(self.all.ends.clone());
        let filled = informer.clone();
        let client = self.all.client.clone();
        let filling = async move {
            loop {
                let api = Api::<P>::all(client.clone());
                let filling = filled.follow(follow(api, P::FIELDS));
                // Without this nobody would notice that a cache no longer changes.
                let _ = AssertUnwindSafe(filling).catch_unwind().await;
                tracing::error!(kind = %P::kind(&()), "a watch task ended unexpectedly; restarting it");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let ends = self.all.ends.clone();
        self.all.tasks.spawn(async move {
            tokio::select! {
                () = filling => {}
                () = ends.cancelled() => {}
            }
        });
        informer
    }

    /// A value derived from the caches, created once for all controllers: it does not end with the run of one
    /// controller.
    pub fn shared<T: Clone + Send + 'static>(&self, make: impl FnOnce(&Self) -> T) -> T {
        let key = TypeId::of::<T>();
        let found = |known: &HashMap<TypeId, Box<dyn Any + Send>>| {
            known
                .get(&key)
                .and_then(|found| found.downcast_ref::<T>())
                .cloned()
        };
        if let Some(found) = found(&self.all.known.lock()) {
            return found;
        }
        let made = make(&Informers {
            all: self.all.clone(),
            run: None,
            asked: Arc::default(),
        });
        let mut known = self.all.known.lock();
        match found(&known) {
            Some(found) => found,
            None => {
                known.insert(key, Box::new(made.clone()));
                made
            }
        }
    }

    /// Resolves when all watches have ended.
    pub async fn ended(&self) {
        self.all.tasks.close();
        self.all.tasks.wait().await;
    }
}
