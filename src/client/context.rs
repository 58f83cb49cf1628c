//! What every program that works on the cluster gets to work with.

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

    /// Resolves when every cache that this run asked for is complete, or the run ends: see
    /// [`Informers::synced`](informer::Informers::synced).
    pub async fn synced(&self) {
        self.informers.synced().await;
    }

    /// Looks at the keys of a queue, up to `workers` at once, until the run ends. It begins when every cache that the run
    /// asked for is complete: what is decided on half of what there is may delete the other half. See [`Queue::work`].
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

    /// For what is done now and then every `period`. Resolves when every cache that the run asked for is complete, as
    /// [`Context::work`] begins then.
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

/// The moments at which a run does something: see [`Context::ticks`].
pub struct Ticks {
    ticks: Interval,
    ends: CancellationToken,
}

impl Ticks {
    /// Resolves at the next moment, with true; when the run ends, with false. Cancel-safe.
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
    /// Signs certificates; None if nobody does.
    pub pki: Option<Arc<crate::auth::pki::Pki>>,
    /// How long certificates that it signs are valid at most, in seconds.
    pub signing_seconds: i64,
    /// Who signs tokens of service accounts; none where nobody does.
    pub tokens: Option<Arc<crate::auth::tokens::Tokens>>,
    /// Where controllers register their metrics.
    pub metrics: crate::meta::prometheus::Sources,
}
