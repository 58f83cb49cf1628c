//! The node's own API: logs, exec, attach and port-forward for the API server, pods and usage for monitoring. Follows
//! pkg/kubelet/server/server.go and k8s.io/cri-streaming.

mod access;
pub mod configz;
mod converse;
mod idle;
mod logs;
mod portforward;
pub mod reviews;
mod spdy;
mod stats;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::idle::Idle;
use super::agent::Pods;
use super::host::Logs;
use super::machine::{IMAGE, POD_NAME, POD_NAMESPACE, POD_UID};
use super::supplies::Supplies;
use super::{Allow, Authenticate, Who, zone_name};
use crate::auth::{AUTHENTICATED, MASTERS, User};
use crate::listen::{HEADER, accept};
use crate::meta::url;
use crate::zone::{ExecSpec, Process, ProcessId, Zone, ZoneRuntime, ZoneState};

/// The body of a response.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The parts behind the API of a node.
#[derive(Clone)]
pub struct Kubelet {
    /// The pods of the node.
    pub pods: Pods,
    /// The runtime of their zones.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// The host's side of pods.
    pub supplies: Arc<dyn Supplies>,
    /// Where logs are; None if containers write none.
    pub logs: Option<Logs>,
    /// The node's name.
    pub node: String,
    /// Its configuration.
    pub settings: configz::Settings,
    /// Authenticates requests.
    pub authenticate: Authenticate,
    /// Authorizes requests.
    pub allow: Allow,
}

/// Serves until `ends` is cancelled.
pub async fn serve(
    listener: &TcpListener,
    tls: rustls::ServerConfig,
    kubelet: Kubelet,
    ends: CancellationToken,
) {
    let mut tls = tls;
    // Connections are upgraded in HTTP/1.1.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connections = accept(listener, tls, CONNECTIONS, &ends, move |stream, shown| {
        let kubelet = kubelet.clone();
        async move {
            let who = (kubelet.authenticate)(shown);
            kubelet.converse(stream, who).await;
        }
    });
    // Followed logs and open sessions do not delay the agent's end.
    drop(connections.await);
}

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 2_000;
/// How many unread bytes a connection within this process buffers.
const BUFFER: usize = 64 * 1024;

impl Kubelet {
    /// A connection to this API within the process, with the API server's identity.
    ///
    /// Must be called within a runtime.
    pub fn dial(&self) -> tokio::io::DuplexStream {
        let (own, other) = tokio::io::duplex(BUFFER);
        let kubelet = self.clone();
        let server = User::new("kube-apiserver-kubelet-client", &[MASTERS, AUTHENTICATED]);
        let who: Who = Box::new(move |_| std::future::ready(Some(server.clone())).boxed());
        tokio::spawn(async move { kubelet.converse(other, who).await });
        own
    }

    async fn converse<S>(&self, stream: S, who: Who)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let who = Arc::new(who);
        let service = service_fn(move |request| {
            let (kubelet, who) = (self.clone(), who.clone());
            async move {
                let answer = kubelet.answer(request, who.as_ref()).await;
                let answer = answer.unwrap_or_else(|(code, why)| text(code, why));
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER)
            .serve_connection(TokioIo::new(Idle::new(stream)), service)
            .with_upgrades();
        // A disconnected client is no error.
        let _ = connection.await;
    }
}

fn text(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    let mut response = text(200, serde_json::to_vec(value).unwrap_or_default());
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An error response: status code and message.
type Refusal = (u16, String);

/// The decoded parameters of a query.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        Query(url::parse_query(request.uri().query().unwrap_or_default()))
    }
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
    fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }
    /// Whether one of the parameters is true; clients of agents use `input=1`, those of the API `stdin=true`.
    fn on(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| matches!(self.get(name), Some("1" | "true")))
    }
}

/// The allowed methods of a path, and the error for others; `None` if all are allowed.
fn methods(path: &[&str]) -> Option<(&'static [&'static Method], &'static str)> {
    const GET: &[&Method] = &[&Method::GET];
    const STREAMS: &[&Method] = &[&Method::GET, &Method::POST];
    match path {
        ["pods"] | ["runningpods"] => Some((GET, "Method Not Allowed")),
        ["stats", "summary"] | ["containerLogs", _, _, _] => Some((GET, "405: Method Not Allowed")),
        ["exec" | "attach" | "portForward", ..] => Some((STREAMS, "405: Method Not Allowed")),
        _ => None,
    }
}

fn pod_list(items: &[Pod]) -> serde_json::Value {
    serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// A running zone in the form of its pod: names, and what runs in it. Follows `ToAPIPod` of
/// pkg/kubelet/container/runtime.go.
fn running_pod(zone: &Zone) -> Option<Pod> {
    let runs = |process: &&Process| process.ended.is_none();
    let of = |name: &str| zone.spec.labels.get(name).cloned();
    let containers = zone.processes.iter().filter(runs).map(|process| Container {
        name: process.id.name.clone(),
        image: process.labels.get(IMAGE).cloned(),
        ..Container::default()
    });
    (zone.state == ZoneState::Running).then(|| Pod {
        metadata: ObjectMeta {
            name: of(POD_NAME),
            namespace: of(POD_NAMESPACE),
            uid: of(POD_UID),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: containers.collect(),
            ..PodSpec::default()
        }),
        status: None,
    })
}

impl Kubelet {
    async fn answer(
        &self,
        request: Request<Incoming>,
        who: &Who,
    ) -> Result<Response<Body>, Refusal> {
        let user = who(request.headers()).await;
        let (method, path) = (request.method(), request.uri().path());
        access::check(&self.allow, &self.node, user.as_ref(), method, path).await?;
        let path: Vec<String> = request
            .uri()
            .path()
            .trim_matches('/')
            .split('/')
            .map(url::path_unescape)
            .collect::<Result<_, _>>()
            .map_err(|_| (400, "400 Bad Request".to_owned()))?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let query = Query::of(&request);
        if let Some((allowed, message)) = methods(&path)
            && !allowed.contains(&request.method())
        {
            let names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
            let mut response = text(405, message);
            if let Ok(names) = header::HeaderValue::from_str(&names.join(", ")) {
                response.headers_mut().insert(header::ALLOW, names);
            }
            return Ok(response);
        }
        match path.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(text(200, "ok")),
            ["configz"] => Ok(self.configz()),
            ["pods"] => Ok(json(&self.list())),
            ["runningpods"] => Ok(json(&self.running_pods().await?)),
            ["stats", "summary"] => Ok(json(&self.summary().await)),
            ["metrics"] => Ok(text(200, self.own_metrics().await)),
            ["metrics", "resource"] => Ok(text(200, self.resource_metrics().await)),
            ["containerLogs", namespace, name, container] => {
                let log = self
                    .container_log(namespace, name, container, &query)
                    .await?;
                match websocket::asked(request.headers()) {
                    true => websocket::stream(request, log.into_body()),
                    false => Ok(log),
                }
            }
            ["exec", namespace, name, rest @ ..] if matches!(rest.len(), 1 | 2) => {
                let exec = ExecSpec {
                    command: query.all("command"),
                    stdin: query.on(&["stdin", "input"]),
                    stdout: query.on(&["stdout", "output"]),
                    stderr: query.on(&["stderr", "error"]) && !query.on(&["tty"]),
                    tty: query.on(&["tty"]),
                    ends_with_session: false,
                };
                if exec.command.is_empty() {
                    return Err((
                        400,
                        "you must specify at least 1 of stdin, stdout, stderr and a command".into(),
                    ));
                }
                self.stream(request, namespace, name, rest, Some(exec), &query)
                    .await
            }
            ["attach", namespace, name, rest @ ..] if matches!(rest.len(), 1 | 2) => {
                self.stream(request, namespace, name, rest, None, &query)
                    .await
            }
            ["portForward", namespace, name, uid @ ..] if uid.len() <= 1 => {
                let pod = self.pod(namespace, name, uid.first().copied())?;
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                portforward::answer(self.runtime.clone(), zone_name(&uid), request)
            }
            _ => Err((404, "404 page not found".into())),
        }
    }

    fn configz(&self) -> Response<Body> {
        let mut response = json(&self.settings.told());
        let plain = header::HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, plain);
        response
    }

    fn list(&self) -> serde_json::Value {
        let items: Vec<Pod> = self
            .pods
            .known()
            .into_iter()
            .map(|(pod, status)| {
                let mut pod = Pod::clone(&pod);
                if let Some(status) = status {
                    pod.status = Some(Arc::unwrap_or_clone(status));
                }
                pod
            })
            .collect();
        pod_list(&items)
    }

    /// The pods that actually run, according to the runtime.
    async fn running_pods(&self) -> Result<serde_json::Value, Refusal> {
        let zones = self.runtime.list().await;
        let zones = zones.map_err(|error| (500, error.to_string()))?;
        let items: Vec<Pod> = zones.iter().filter_map(running_pod).collect();
        Ok(pod_list(&items))
    }

    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Refusal> {
        self.pods
            .find(namespace, name, uid)
            .map(|(pod, _)| pod)
            .ok_or_else(|| {
                (
                    404,
                    format!("pod \"{name}\" not found in namespace \"{namespace}\""),
                )
            })
    }

    /// The running process of a container.
    async fn running(&self, pod: &Pod, container: &str) -> Result<ProcessId, String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let zone = self
            .runtime
            .get(&zone_name(uid))
            .await
            .map_err(|error| error.to_string())?;
        zone.into_iter()
            .flat_map(|zone| zone.processes)
            .filter(|process| process.id.name == container && process.ended.is_none())
            .map(|process| process.id)
            .max()
            .ok_or_else(|| format!("container not found ({container:?})"))
    }

    async fn stream(
        &self,
        request: Request<Incoming>,
        namespace: &str,
        name: &str,
        rest: &[&str],
        exec: Option<ExecSpec>,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let (uid, container) = match rest {
            [uid, container] => (Some(*uid), *container),
            [container] => (None, *container),
            _ => return Err((404, "404 page not found".into())),
        };
        let pod = self.pod(namespace, name, uid)?;
        let id = self
            .running(&pod, container)
            .await
            .map_err(|why| (500, why))?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let tty = match &exec {
            Some(exec) => exec.tty,
            None => query.on(&["tty"]),
        };
        let work = converse::Work {
            runtime: self.runtime.clone(),
            zone: zone_name(&uid),
            id,
            stdin: query.on(&["stdin", "input"]),
            stdout: query.on(&["stdout", "output"]),
            stderr: query.on(&["stderr", "error"]) && !tty,
            tty,
            exec,
        };
        match websocket::asked(request.headers()) {
            true => websocket::answer(request, work),
            false => spdy::answer(request, work),
        }
    }
}

#[cfg(test)]
mod tests;
