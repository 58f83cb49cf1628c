//! What only the node of a pod can answer: logs, exec, attach and port-forward are passed to its agent, answers and
//! upgraded connections passed back. Follows pkg/registry/core/pod/rest/subresources.go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;

use super::Call;
use crate::api::reply::{Body, Reply};
use crate::api::verbs::get;
use crate::auth::pki::Issued;
use crate::meta::Status;
use crate::resources::cluster;
use crate::schema::Value;

/// How long an agent may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to agents, as this server.
pub struct Kubelets(tokio_rustls::TlsConnector);

impl Kubelets {
    /// Connections that show `identity`.
    ///
    /// # Errors
    /// A certificate or key that TLS does not take.
    pub fn new(identity: &Issued) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
            .map_err(|error| text(&error))?;
        let key =
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| text(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| text(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| text(&error))?;
        Ok(Kubelets(tokio_rustls::TlsConnector::from(Arc::new(config))))
    }

    /// Sends a request to the agent at `address` and gives its answer; the connection lives on behind it.
    async fn send(
        &self,
        address: SocketAddr,
        request: Request<Full<bytes::Bytes>>,
    ) -> Result<Response<Incoming>, String> {
        let dialled = |error: &dyn std::fmt::Display| format!("dial tcp {address}: {error}");
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| dialled(&"i/o timeout"))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => dialled(&"connect: connection refused"),
                _ => dialled(&error),
            })?;
        let _ = stream.set_nodelay(true);
        let stream = self
            .0
            .connect(ServerName::from(address.ip()), stream)
            .await
            .map_err(|error| dialled(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection.with_upgrades());
        sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Takes any serving certificate: as upstream unless --kubelet-certificate-authority is given. The agent still asks
/// for ours.
#[derive(Debug)]
struct Unverified;

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &known)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &known)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Answers `pods/log`.
pub fn log(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "containerLogs").boxed()
}

/// Answers `pods/exec`.
pub fn exec(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "exec").boxed()
}

/// Answers `pods/attach`.
pub fn attach(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "attach").boxed()
}

/// Answers `pods/portforward`.
pub fn port_forward(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    pass(call, "portForward").boxed()
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let list = pod.at("spec").list(list).iter();
    list.map(|one| one.str("name").to_owned()).collect()
}

/// The container that is meant: the one that is named, or the only one.
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
        many => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            if !ephemeral.is_empty() {
                text.push_str(&format!(
                    " or one of the ephemeral containers: [{}]",
                    ephemeral.join(" ")
                ));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// Where the agent of a node listens.
fn endpoint(call: &Call<'_>, node: &str) -> Result<SocketAddr, Status> {
    let found = call.target.cluster.get("", "nodes", "", node);
    let found = found
        .ok_or_else(|| Status::failure(404, "NotFound", format!("nodes {node:?} not found")))?;
    let status = found.at("status");
    let addresses = status.list("addresses");
    let address = addresses
        .iter()
        .find(|address| address.str("type") == "InternalIP")
        .and_then(|address| address.str("address").parse().ok())
        .ok_or_else(|| Status::internal("no preferred addresses found; known addresses: []"))?;
    let port = status
        .at("daemonEndpoints")
        .at("kubeletEndpoint")
        .at("Port")
        .as_int()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| {
            Status::internal(&format!(
                "the agent of node {node} serves no logs and no connections: its pods are simulated"
            ))
        })?;
    Ok(SocketAddr::new(address, port))
}

async fn pass(call: Call<'_>, what: &str) -> Result<Reply, Status> {
    let Reply::Entry(_, entry) = get::get(call.target).await? else {
        return Err(Status::internal("a read answered something else"));
    };
    let pod = cluster::object(&entry);
    let (namespace, name) = (call.target.namespace(), &call.target.info.name);
    let mut path = format!("/{what}/{namespace}/{name}");
    if what != "portForward" {
        let asked = call.target.query.get("container").unwrap_or_default();
        path = format!("{path}/{}", container(&pod, asked)?);
    }
    let node = pod.at("spec").str("nodeName").to_owned();
    if node.is_empty() {
        return match what {
            "containerLogs" => Ok(Reply::Stream(plain(200, ""))),
            _ => Err(Status::bad_request(format!(
                "pod {name} does not have a host assigned"
            ))),
        };
    }
    forward(call, &node, path, what == "containerLogs").await
}

/// Answers `nodes/proxy`: what stands behind it in the path is asked of the agent.
pub fn proxy(call: Call<'_>) -> BoxFuture<'_, Result<Reply, Status>> {
    async move {
        let node = call.target.info.name.clone();
        let path = format!("/{}", call.target.info.rest);
        // By convention the port may stand behind the name.
        let node = node.split(':').next().unwrap_or_default().to_owned();
        forward(call, &node, path, false).await
    }
    .boxed()
}

/// Passes a request on to the agent of `node`.
async fn forward(
    call: Call<'_>,
    node: &str,
    mut path: String,
    plain_get: bool,
) -> Result<Reply, Status> {
    let address = endpoint(&call, node)?;
    let kubelets = call
        .server
        .kubelets
        .as_ref()
        .ok_or_else(|| Status::internal("this server does not connect to nodes"))?;
    if let Some(query) = call.parts.uri.query() {
        path = format!("{path}?{query}");
    }
    let mut request = Request::builder()
        .method(call.parts.method.clone())
        .uri(&path);
    if let Some(headers) = request.headers_mut() {
        *headers = forwarded(&call.parts.headers);
        let host = HeaderValue::from_str(&address.to_string());
        headers.insert(
            header::HOST,
            host.map_err(|error| Status::internal(&error.to_string()))?,
        );
    }
    let request = request
        .body(Full::new(bytes::Bytes::new()))
        .map_err(|error| Status::internal(&error.to_string()))?;
    let mut answer = kubelets
        .send(address, request)
        .await
        .map_err(|error| match plain_get {
            true => Status::internal(&format!("Get \"https://{address}{path}\": {error}")),
            false => Status::internal(&format!("error dialing backend: {error}")),
        })?;
    if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        if let Some(client) = call.parts.extensions.remove::<OnUpgrade>() {
            let agent = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                let (Ok(client), Ok(agent)) = tokio::join!(client, agent) else {
                    return;
                };
                let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
            });
        }
        let (parts, _) = answer.into_parts();
        let mut response = plain(101, "");
        *response.headers_mut() = parts.headers;
        return Ok(Reply::Stream(response));
    }
    let code = answer.status().as_u16();
    if code >= 400 {
        // The agent's words, in the form of this API.
        let text = answer
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(match code {
            400 => Status::bad_request(text),
            404 => Status::failure(404, "NotFound", text),
            _ => Status::internal(&text),
        });
    }
    let (parts, body) = answer.into_parts();
    // An answer that breaks off ends: its head was sent long ago.
    let frames = futures::stream::unfold(body, |mut body| async move {
        let frame = body.frame().await?.ok()?;
        Some((Ok::<_, std::convert::Infallible>(frame), body))
    });
    let mut response = Response::new(http_body_util::StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok(Reply::Stream(response))
}

/// The headers that an agent is to see: nothing of who asked.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let upgrade = matches!(*name, header::CONNECTION | header::UPGRADE)
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str().starts_with("x-stream-protocol-version");
        if upgrade {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn plain(code: u16, text: &'static str) -> Response<Body> {
    let mut response =
        Response::new(Full::new(bytes::Bytes::from_static(text.as_bytes())).boxed_unsync());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}
