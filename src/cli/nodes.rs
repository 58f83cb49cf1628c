//! The nodes of an agent: what is prepared before there is a cluster, and how they run.

mod api;
mod illumos;
#[cfg(target_os = "linux")]
mod linux;
mod node;
mod real;
mod simulated;

use std::net;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::node::Node;
use super::agent::{AgentError, Plan, RuntimeName};
use super::cluster::Clients;
use crate::client::events;
use crate::node::sysctls::Sysctls;
use crate::node::volumes::Volumes;
use crate::storage::StorageEngine;
use crate::supervise::{Supervisor, Task};

pub(super) use self::api::NodeApi;
pub(super) use self::real::{RealHost, this_host};

/// The sysctls that pods of these nodes may set: simulated nodes allow those of a new Linux, zones of illumos have
/// none.
fn sysctls(plan: &Plan) -> Result<Sysctls, AgentError> {
    let host = rustix::system::uname();
    let release = host.release().to_string_lossy();
    let kernel = match plan.runtime {
        RuntimeName::Linux => Some(&*release),
        RuntimeName::Simulated => Some("6.0"),
        RuntimeName::Illumos => None,
    };
    Sysctls::new(kernel, &plan.arguments.allowed_unsafe_sysctls)
        .map_err(|error| AgentError::Host(format!("--allowed-unsafe-sysctls: {error}")))
}

/// The nodes of this process.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The storage of their volumes; None for simulated nodes.
    storage: Option<Arc<dyn StorageEngine>>,
    /// Follows the address of the host, if it was not given.
    follows: Option<Task>,
    /// The listener for the API of a real node.
    listener: Option<net::TcpListener>,
}

impl Nodes {
    /// Prepares everything that nodes need before there is a cluster.
    ///
    /// # Errors
    /// Something that this host cannot do.
    pub(super) fn prepare(plan: &Plan) -> Result<Self, AgentError> {
        match plan.runtime {
            RuntimeName::Simulated => Self::simulated(plan),
            #[cfg(target_os = "linux")]
            RuntimeName::Linux => Self::linux(plan),
            #[cfg(not(target_os = "linux"))]
            RuntimeName::Linux => Err(AgentError::Host(format!(
                "--runtime linux needs Linux, and this is {}",
                std::env::consts::OS
            ))),
            RuntimeName::Illumos => Self::illumos(plan),
        }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().map(|node| node.registration.name.clone())
    }

    /// The command for the operator to type next.
    pub(super) fn next_line(&self, kubeconfig: &Path) -> String {
        let what = match self.nodes.as_slice() {
            [node] => format!("node {}", node.registration.name),
            many => format!("{} simulated nodes", many.len()),
        };
        format!(
            "reddwarf runs {what}; now type:\n  export KUBECONFIG={}; kubectl apply -f examples/web.yaml; kubectl get pods -o wide --watch",
            kubeconfig.display()
        )
    }

    /// Runs the nodes, and the tasks `beside` them, until `ends` is cancelled.
    pub(super) async fn run(
        self,
        clients: Clients,
        api: Option<NodeApi>,
        beside: Vec<Task>,
        ends: CancellationToken,
    ) {
        clients.make_class().await;
        let tasks = Supervisor::new(ends.clone());
        let names = self.names().collect();
        for task in beside.into_iter().chain(self.follows) {
            tasks.keep_task(task);
        }
        let volumes = Arc::new(Volumes {
            client: clients.for_volumes(),
            nodes: names,
            storage: self.storage,
        });
        tasks.keep("volumes of this host", move |ends| {
            let volumes = volumes.clone();
            async move { volumes.keep(ends).await }
        });
        let (clients, events) = (Arc::new(clients), events::start(ends.clone()));
        let listener = self.listener.map(TcpListener::from_std).transpose();
        let listener = listener.unwrap_or_else(|error| {
            tracing::error!(%error, "logs, exec and port-forward are not served");
            None
        });
        let mut listener = listener.map(Arc::new);
        for node in self.nodes {
            let name = format!("node {}", node.registration.name);
            let node = Arc::new(node);
            let (clients, events, api) = (clients.clone(), events.clone(), api.clone());
            let listener = listener.take();
            tasks.keep(name, move |ends| {
                let (node, clients, events) = (node.clone(), clients.clone(), events.clone());
                let (api, listener) = (api.clone(), listener.clone());
                async move { node.run(&clients, &events, api, listener, ends).await }
            });
        }
        tasks.ended().await;
    }
}
