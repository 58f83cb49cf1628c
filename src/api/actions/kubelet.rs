//! Requests that only a pod's node can handle: logs, exec, attach and port-forward are forwarded to its agent,
//! responses and upgraded connections are passed back. Follows pkg/registry/core/pod/rest/subresources.go.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::forward::{How, forward, pass_on, plain};
use super::{Call, options};
use crate::api::BoxError;
use crate::api::negotiate::Shape;
use crate::api::reply::{Reply, not_a_list};
use crate::api::verbs::get;
use crate::auth::pki::Issued;
use crate::auth::{Attributes, Authorizer as _, Decision};
use crate::dial::ask;
use crate::meta::Status;
use crate::resources::cluster;
use crate::schema::Value;

/// How long an agent may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Opens a connection to an agent in this process.
pub type Dial = Box<dyn Fn() -> DuplexStream + Send + Sync>;

/// Agents in this process that have no port, by node: they are reached without a network.
#[derive(Default)]
pub struct Agents(Mutex<HashMap<String, Dial>>);

impl Agents {
    /// Connects to the agent of `node` with `dial` from now on.
    pub fn add(&self, node: &str, dial: Dial) {
        self.0.lock().insert(node.to_owned(), dial);
    }

    fn dial(&self, node: &str) -> Option<DuplexStream> {
        self.0.lock().get(node).map(|dial| dial())
    }
}

/// Connects to agents, as this server.
pub struct Kubelets {
    /// The connector with this server's certificate.
    identity: ArcSwap<TlsConnector>,
    /// The connector without a certificate.
    anonymous: TlsConnector,
    agents: Arc<Agents>,
}

/// A connector that presents a certificate.
fn showing(identity: &Issued) -> Result<TlsConnector, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .map_err(|error| text(&error))?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| text(&error))?;
    let builder = crate::dial::trusting().map_err(|error| text(&error))?;
    let config = builder
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| text(&error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Kubelets {
    /// Connects to agents with the certificate `identity`, and to `agents` in this process.
    ///
    /// # Errors
    /// The certificate or key is invalid.
    pub fn new(identity: &Issued, agents: Arc<Agents>) -> Result<Self, String> {
        // Accept any serving certificate, like upstream without --kubelet-certificate-authority. The agent still
        // requests ours.
        let builder = crate::dial::trusting().map_err(|error| error.to_string())?;
        Ok(Kubelets {
            identity: ArcSwap::from_pointee(showing(identity)?),
            anonymous: TlsConnector::from(Arc::new(builder.with_no_client_auth())),
            agents,
        })
    }

    /// Presents another certificate on new connections.
    ///
    /// # Errors
    /// The certificate or key is invalid; the old one stays.
    pub fn identify(&self, identity: &Issued) -> Result<(), String> {
        self.identity.store(Arc::new(showing(identity)?));
        Ok(())
    }

    /// Sends a request to `backend` and returns the response. The connection lives as long as the response's body.
    pub(in crate::api) async fn send<B>(
        &self,
        backend: Backend,
        request: Request<B>,
    ) -> Result<Response<Incoming>, String>
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let address = backend.address;
        let told = |error: hyper::Error| error.to_string();
        if let Some(stream) = backend.within {
            return ask(stream, request).await.map_err(told);
        }
        let dialled = |error: &dyn std::fmt::Display| format!("dial tcp {address}: {error}");
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| dialled(&"i/o timeout"))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => dialled(&"connect: connection refused"),
                _ => dialled(&error),
            })?;
        let _ = stream.set_nodelay(true);
        let identity = self.identity.load_full();
        let connector = match backend.tls {
            Tls::No => {
                return ask(stream, request).await.map_err(told);
            }
            Tls::Anonymous => &self.anonymous,
            Tls::Identity => &identity,
        };
        let stream = connector
            .connect(ServerName::from(address.ip()), stream)
            .await
            .map_err(|error| dialled(&error))?;
        ask(stream, request).await.map_err(told)
    }
}

/// The target of a forwarded request.
#[derive(Debug)]
pub(in crate::api) struct Backend {
    /// Its address.
    pub address: SocketAddr,
    /// Whether to use TLS, and with which client certificate.
    pub tls: Tls,
    /// An in-process connection to it, used instead of the address.
    pub within: Option<DuplexStream>,
}

/// Whether a backend is contacted over TLS, and with which client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Tls {
    /// Plain HTTP.
    No,
    /// No certificate: users who may choose the backend must not be able to act as this server.
    Anonymous,
    /// This server's certificate, which grants all rights: for agents only.
    Identity,
}

impl Tls {
    /// The TLS mode for a backend other than an agent, by the scheme of its URL.
    pub fn of(scheme: &str) -> Tls {
        match scheme {
            "https" => Tls::Anonymous,
            _ => Tls::No,
        }
    }
}

/// Handles `pods/log`.
pub fn log(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "containerLogs").boxed()
}

/// Handles `pods/exec`.
pub fn exec(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "exec").boxed()
}

/// Handles `pods/attach`.
pub fn attach(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "attach").boxed()
}

/// Handles `pods/portforward`.
pub fn port_forward(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "portForward").boxed()
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let list = pod.at("spec").list(list).iter();
    list.map(|one| one.str("name").to_owned()).collect()
}

/// The requested container: the one that is named, or the only one.
fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = pod.at("metadata").str("name").to_owned();
    let regular = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    if !asked.is_empty() {
        let known = regular
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|one| one == asked);
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    match regular.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let all: Vec<String> = [init, regular, ephemeral].concat();
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
    }
}

impl Kubelets {
    /// The agent of a node, as a backend.
    ///
    /// # Errors
    /// The node has no address: upstream's text. Its agent has no port: reddwarf's own.
    pub(in crate::api) fn backend(&self, node: &Value) -> Result<Backend, Status> {
        let status = node.at("status");
        let address = status
            .list("addresses")
            .iter()
            .find(|address| address.str("type") == "InternalIP")
            .and_then(|address| address.str("address").parse().ok());
        let endpoint = status.at("daemonEndpoints").at("kubeletEndpoint");
        let port = endpoint.at("Port").as_int();
        let port = port.and_then(|port| u16::try_from(port).ok());
        let name = node.at("metadata").str("name");
        let nowhere = || Status::unclassified("no preferred addresses found; known addresses: []");
        if let Some(port) = port.filter(|port| *port > 0) {
            let address = address.ok_or_else(nowhere)?;
            return Ok(Backend {
                address: SocketAddr::new(address, port),
                tls: Tls::Identity,
                within: None,
            });
        }
        let within = self.agents.dial(name).ok_or_else(|| match address {
            None => nowhere(),
            Some(_) => Status::internal(&format!(
                "the agent of node {name} serves no logs and no connections"
            )),
        })?;
        Ok(Backend {
            address: SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0),
            tls: Tls::No,
            within: Some(within),
        })
    }
}

/// The agent of a node, as a backend.
fn endpoint(call: &Call<'_>, node: &str) -> Result<Backend, Status> {
    let found = call.target.cluster.get("", "nodes", "", node);
    let found = found.ok_or_else(|| Status::not_found(call.target.about(node)))?;
    connector(call)?.backend(&found)
}

pub(super) fn connector<'a>(call: &Call<'a>) -> Result<&'a Kubelets, Status> {
    let kubelets = call.server.kubelets.as_ref();
    kubelets.ok_or_else(|| Status::internal("this server does not connect to nodes"))
}

/// Rejects metadata-only formats, because a log is not an object.
fn only_itself(shape: Shape) -> Result<(), Status> {
    match shape {
        Shape::Partial { .. } => Err(Status::unclassified(
            "object does not implement the Object interfaces",
        )),
        Shape::PartialList { .. } => Err(not_a_list("*rest.LocationStreamer")),
        _ => Ok(()),
    }
}

/// Opening a connection into a pod requires the verb `create`: a WebSocket is opened by a `get`, so users with read
/// access only would get a shell. Follows pkg/registry/core/pod/rest/authorize.go.
fn may_connect(call: &Call<'_>) -> Result<(), Status> {
    let target = call.target;
    let wants = Attributes {
        verb: "create",
        ..target.info.attributes(&target.query)
    };
    match call.server.authorizer.authorize(&target.user, &wants) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(why) | Decision::Deny(why) => {
            Err(Status::forbidden(target.about(&target.info.name), &why))
        }
    }
}

async fn pass(call: Call<'_>, what: &str) -> Result<Reply, Status> {
    if what != "containerLogs" {
        may_connect(&call)?;
    }
    match what {
        "containerLogs" => options::log(&call.target.query, &call.target.info.name)?,
        "portForward" => options::ports(&call.target.query)?,
        _ => {}
    }
    // The current version: connections and logs have no resourceVersion.
    let entry = get::present(call.target)?;
    let pod = cluster::object(&entry);
    let (namespace, name) = (call.target.namespace(), &call.target.info.name);
    let mut path = format!("/{what}/{namespace}/{name}");
    if what != "portForward" {
        let asked = call.target.query.get("container").unwrap_or_default();
        path = format!("{path}/{}", container(&pod, asked)?);
    }
    if what == "containerLogs" {
        only_itself(call.accepted.shape)?;
    }
    let node = pod.at("spec").str("nodeName").to_owned();
    if node.is_empty() {
        return match what {
            "containerLogs" => Ok(Reply::Stream(plain(204, ""))),
            _ => Err(Status::bad_request(format!(
                "pod {name} does not have a host assigned"
            ))),
        };
    }
    let backend = endpoint(&call, &node)?;
    let how = match what {
        "containerLogs" => How::Logs,
        _ => How::Connect,
    };
    forward(call, backend, path, how).await
}

/// Handles `nodes/proxy`: forwards the rest of the path to the agent.
pub fn proxy(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let asked = super::proxy::Asked::read("node", &call.target.info.name)?;
        let mut backend = endpoint(&call, asked.name)?;
        // The agent itself is contacted with this server's certificate, whatever scheme is requested.
        let port = match asked.port {
            "" => backend.address.port(),
            port => super::proxy::number(port)?,
        };
        if port != backend.address.port() {
            backend = Backend {
                address: SocketAddr::new(super::proxy::proxyable(backend.address.ip())?, port),
                tls: Tls::of(asked.scheme),
                within: None,
            };
        }
        pass_on(call, backend).await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::pki::Pki;
    use crate::listen::accept;
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::AsyncWriteExt as _;
    use tokio_util::sync::CancellationToken;

    /// The client certificates that a backend sees for each TLS mode.
    #[tokio::test]
    async fn only_agents_are_shown_who_this_server_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(directory.path(), ["127.0.0.1"]).expect("keys");
        let identity = pki.issue_client("me", "system:masters", crate::meta::time::now(), 1);
        let identity = identity.expect("a certificate");
        let kubelets = Kubelets::new(&identity, Arc::default()).expect("connectors");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let tls = pki.server_config(None).expect("a configuration");
        let ends = CancellationToken::new();
        let serving = ends.clone();
        let server = tokio::spawn(async move {
            let answer = |mut stream: tokio_rustls::server::TlsStream<TcpStream>,
                          shown: Vec<CertificateDer<'static>>| async move {
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n";
                let text = format!("{head}{}", shown.len());
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            };
            accept(&listener, tls, 10, &serving, answer).await
        });
        for (tls, certificates) in [(Tls::Anonymous, "0"), (Tls::Identity, "1")] {
            let backend = Backend {
                address,
                tls,
                within: None,
            };
            let request = Request::new(Full::<bytes::Bytes>::default());
            let answer = kubelets.send(backend, request).await.expect("an answer");
            let body = answer.into_body().collect().await.expect("its body");
            assert_eq!(body.to_bytes(), certificates, "{tls:?}");
        }
        for (scheme, tls) in [("", Tls::No), ("http", Tls::No), ("https", Tls::Anonymous)] {
            assert_eq!(Tls::of(scheme), tls);
        }
        ends.cancel();
        server.await.expect("the server ends");
    }
}
