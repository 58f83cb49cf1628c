//! One node of this process: set up as soon as its host can run it, then run by its agent.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::agent::AgentError;
use super::super::cluster::{Clients, Cluster};
use super::api::NodeApi;
use crate::client::events::Events;
use crate::node::agent::{self, Pods, Setup};
use crate::node::register::{self, Fitness, Registration};
use crate::supervise::Supervisor;

/// Sets up one node, once there is a cluster; called again if the host failed.
pub(super) type Maker =
    Box<dyn Fn(Cluster) -> BoxFuture<'static, Result<Setup, AgentError>> + Send + Sync>;

/// A node to run.
pub(super) struct Node {
    /// The node object to register as long as the host cannot run the node.
    pub(super) registration: Registration,
    pub(super) maker: Maker,
}

/// The pause before the host is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(10);

impl Node {
    /// Sets up the node. If the host fails, reports it by the node's condition and an event, and tries again. Returns
    /// None if `ends` is cancelled first.
    async fn make(&self, cluster: impl Fn() -> Cluster, ends: &CancellationToken) -> Option<Setup> {
        let name = &self.registration.name;
        let mut unfit: Option<(String, Supervisor)> = None;
        loop {
            let (client, recorder, error) = {
                let cluster = cluster();
                let (client, recorder) = (cluster.client.clone(), cluster.recorder.clone());
                match (self.maker)(cluster).await {
                    Ok(setup) => {
                        if let Some((_, telling)) = unfit {
                            telling.end().await;
                        }
                        return Some(setup);
                    }
                    Err(error) => (client, recorder, error.to_string()),
                }
            };
            if unfit.as_ref().is_none_or(|(known, _)| *known != error) {
                tracing::error!(node = name, "the node cannot run: {error}");
                if let Some((_, telling)) = unfit.take() {
                    telling.end().await;
                }
                let telling = Supervisor::new(ends.child_token());
                let (registration, fitness) =
                    (self.registration.clone(), Fitness::Unfit(error.clone()));
                telling.keep(format!("status and lease of node {name}"), move |ends| {
                    let (client, recorder) = (client.clone(), recorder.clone());
                    let (registration, fitness) = (registration.clone(), fitness.clone());
                    let (observed, reach) = (Arc::default(), watch::channel(None).1);
                    register::keep(
                        client,
                        registration,
                        fitness,
                        observed,
                        reach,
                        recorder,
                        ends,
                    )
                });
                unfit = Some((error, telling));
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = ends.cancelled() => return None,
            }
        }
    }
}

impl Node {
    /// Sets up the node and runs its agent until `ends` is cancelled.
    pub(super) async fn run(
        &self,
        clients: &Clients,
        events: &Events,
        api: Option<NodeApi>,
        listener: Option<Arc<TcpListener>>,
        ends: CancellationToken,
    ) {
        let name = &self.registration.name;
        let cluster = || clients.cluster(name, events, &ends);
        let Some(mut setup) = self.make(cluster, &ends).await else {
            return;
        };
        let pods = Pods::default();
        if let Some(api) = api {
            api.serve(name, listener, &mut setup, &pods);
        }
        agent::run(setup, pods, ends).await;
    }
}
