//! The API of the nodes of this process: what it is served with, and where it listens.

use std::io::ErrorKind;
use std::net;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::super::agent::AgentError;
use super::super::join::Joined;
use super::Nodes;
use super::node::Node;
use crate::api::actions::kubelet::Agents;
use crate::blocking::patiently;
use crate::node::agent::{Pods, Setup};
use crate::node::kubelet::configz::{JoinedBy, Settings};
use crate::node::{Allow, Authenticate};
use crate::supervise::Task;

/// What the nodes' own API needs.
#[derive(Clone)]
pub(in super::super) struct NodeApi {
    /// The registry of nodes without a port, if the API server is in this process.
    pub agents: Option<Arc<Agents>>,
    /// Its TLS configuration.
    pub tls: rustls::ServerConfig,
    /// Authenticates requests.
    pub authenticate: Authenticate,
    /// Authorizes requests.
    pub allow: Allow,
    /// How a node that joined vouches for itself; None if the API server is in this process.
    pub joined: Option<JoinedBy>,
}

impl NodeApi {
    /// Serves the API of a node on `listener` if it is a real one, otherwise within this process.
    pub(super) fn serve(
        self,
        name: &str,
        listener: Option<Arc<TcpListener>>,
        setup: &mut Setup,
        pods: &Pods,
    ) {
        let at = listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        if setup.logs.is_some() {
            setup.registration.port = at.map(|at| at.port());
        }
        let kubelet = crate::node::kubelet::Kubelet {
            pods: pods.clone(),
            runtime: setup.runtime.clone(),
            supplies: setup.supplies.clone(),
            logs: setup.logs.clone(),
            node: name.to_owned(),
            settings: Settings {
                port: setup.registration.port,
                joined: self.joined,
                ..setup.settings.clone()
            },
            authenticate: self.authenticate,
            allow: self.allow,
        };
        if kubelet.logs.is_none() {
            if let Some(agents) = self.agents {
                agents.add(name, Box::new(move || kubelet.dial()));
            }
            return;
        }
        let Some(listener) = listener else { return };
        let tls = self.tls;
        setup.beside.push(Task::new("API of the node", move |ends| {
            let (listener, tls, kubelet) = (listener.clone(), tls.clone(), kubelet.clone());
            async move { crate::node::kubelet::serve(&listener, tls, kubelet, ends).await }
        }));
    }
}

/// Listens on the port of the node's API.
pub(super) fn listen(port: u16) -> Result<net::TcpListener, AgentError> {
    let is_held = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
    let taken = patiently(is_held, || net::TcpListener::bind(("0.0.0.0", port)));
    let listener = taken.and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        AgentError::Host(format!(
            "cannot serve the node's own API on port {port}: {error}; stop what uses it, or choose another --kubelet-port"
        ))
    })
}

impl Nodes {
    /// The API of joined nodes, whose requests the API server authorizes, and the tasks that renew their certificates.
    ///
    /// # Errors
    /// A certificate or file is unusable.
    pub(in super::super) fn joined_api(
        &self,
        joined: &Joined,
        client_ca: Option<PathBuf>,
    ) -> Result<(NodeApi, Vec<Task>), AgentError> {
        use crate::auth::pki::{ClientCertificates, Serving, authorities, of_node};
        use crate::node::kubelet::reviews::Reviews;
        let wrong = |error: &dyn std::fmt::Display| AgentError::Host(error.to_string());
        let told = JoinedBy {
            client_ca: client_ca.clone(),
            ..joined.certificates()
        };
        let (named, trusted) = match client_ca {
            Some(file) => (
                file.clone(),
                authorities(&file).map_err(|error| wrong(&error))?,
            ),
            None => {
                let trusted = joined.authority.iter().cloned().map(Into::into).collect();
                (joined.kubeconfig.clone(), trusted)
            }
        };
        let clients = ClientCertificates::new(&trusted, &named).map_err(|error| wrong(&error))?;
        let mut names = Vec::new();
        for Node { registration, .. } in &self.nodes {
            names.push(registration.name.clone());
            names.extend(registration.addresses.all().iter().cloned());
        }
        let reviews = Reviews::new(joined.client.clone(), clients.clone());
        let serving = Arc::new(Serving::self_signed(&names).map_err(|error| wrong(&error))?);
        // Simulated nodes are reached within their process.
        let shows = match self.nodes.as_slice() {
            [node] if self.listener.is_some() => {
                Some((serving.clone(), node.registration.addresses.clone()))
            }
            _ => None,
        };
        let api = NodeApi {
            agents: None,
            tls: of_node(serving, &clients).map_err(|error| wrong(&error))?,
            authenticate: reviews.authenticate(),
            allow: reviews.allow(),
            joined: Some(told),
        };
        Ok((api, joined.tasks(shows)?))
    }
}
