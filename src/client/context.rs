//! The context of every program that works on the cluster.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::queue::{Next, Queue};
use super::{events, informer};

/// The environment of a controller.
#[derive(Clone)]
pub struct Context {
    /// A client with this controller's identity.
    pub client: kube::Client,
    /// The caches that controllers share.
    pub informers: informer::Informers,
    /// Accepts events to be recorded.
    pub events: events::Events,
    /// Facts about the cluster.
    pub settings: Arc<Settings>,
    /// Cancelled when the controller is to end.
    pub ends: CancellationToken,
}

impl Context {
    /// A recorder of events that come from `component`.
    pub fn recorder(&self, component: &'static str) -> events::Recorder {
        self.events.recorder(self.client.clone(), component)
    }

    /// Resolves when all caches requested by this run are complete, or the run ends: see
    /// [`Informers::synced`](informer::Informers::synced).
    pub async fn synced(&self) {
        self.informers.synced().await;
    }

    /// Processes the keys of a queue, up to `workers` at once, until the run ends. It waits until all caches requested
    /// by this run are complete: a decision based on half of the objects might delete the other half. See
    /// [`Queue::work`].
    pub async fn work<K, F, E>(
        &self,
        queue: &Queue<K>,
        workers: usize,
        look: impl Fn(K) -> F + Sync,
    ) where
        K: Clone + Debug + Eq + Hash,
        F: Future<Output = Result<Next, E>>,
        E: Display,
    {
        self.synced().await;
        queue.work(workers, &self.ends, look).await;
    }

    /// A timer for periodic work. Resolves when all caches requested by this run are complete, like [`Context::work`].
    pub async fn ticks(&self, period: Duration) -> Ticks {
        self.synced().await;
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ticks {
            ticks,
            ends: self.ends.clone(),
        }
    }
}

#[cfg(test)]
impl Context {
    /// The environment of a test; its tasks end with the guard.
    pub fn by_hand(client: kube::Client) -> (Self, tokio_util::sync::DropGuard) {
        let ends = CancellationToken::new();
        let context = Context {
            informers: informer::Informers::new(client.clone(), ends.clone()),
            events: events::start(ends.clone()),
            client,
            settings: Arc::default(),
            ends: ends.clone(),
        };
        (context, ends.drop_guard())
    }
}

/// The ticks of a run's timer: see [`Context::ticks`].
pub struct Ticks {
    ticks: Interval,
    ends: CancellationToken,
}

impl Ticks {
    /// Returns true at the next tick, and false when the run ends. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.ends.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }
}

/// Facts about the cluster that controllers need.
#[derive(Clone, Default)]
pub struct Settings {
    /// The root certificates that clients in the cluster trust, in PEM.
    pub root_ca: String,
    /// Signs certificates, if available.
    pub pki: Option<Arc<crate::auth::pki::Pki>>,
    /// The maximum lifetime of certificates that it signs, in seconds.
    pub signing_seconds: i64,
    /// Signs tokens of service accounts, if available.
    pub tokens: Option<Arc<crate::auth::tokens::Tokens>>,
    /// Where controllers register their metrics.
    pub metrics: crate::meta::prometheus::Sources,
}
