//! Health checks for load balancers of services with `externalTrafficPolicy: Local` (`healthCheckNodePort`): whether
//! the node has endpoints of the service. Follows k8s.io/kubernetes/pkg/proxy/healthcheck/service_health.go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How many connections of one port are served at once.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service with a health check port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The port.
    pub port: u16,
    /// The service's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many ready endpoints it has on the node.
    pub local: usize,
}

/// The open health check ports of a node. They close when this is dropped.
#[derive(Default)]
pub struct Ports(BTreeMap<u16, Port>);

struct Port {
    answers: watch::Sender<Asked>,
    /// The listener's task; it ends with this.
    _listening: JoinSet<()>,
}

impl Ports {
    /// Opens and closes ports so that exactly these are served. A port in use by another program is retried with the
    /// next change.
    pub async fn serve(&mut self, all: Vec<Asked>) {
        self.0
            .retain(|port, _| all.iter().any(|asked| asked.port == *port));
        for asked in all {
            if let Some(port) = self.0.get(&asked.port) {
                port.answers.send_replace(asked);
                continue;
            }
            let number = asked.port;
            match TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).await {
                Ok(listener) => {
                    let (answers, told) = watch::channel(asked);
                    let mut listening = JoinSet::new();
                    listening.spawn(listen(listener, move |_, _| answer(&told.borrow())));
                    let _listening = listening;
                    self.0.insert(
                        number,
                        Port {
                            answers,
                            _listening,
                        },
                    );
                }
                Err(error) => {
                    let Asked {
                        namespace, name, ..
                    } = asked;
                    tracing::warn!(
                        %error,
                        "no health check for service {namespace}/{name}: cannot listen at its healthCheckNodePort {number}"
                    );
                }
            }
        }
    }
}

/// The body of a response.
pub(super) type Body = Full<Bytes>;

/// Serves requests by method and path, forever.
pub(super) async fn listen(
    listener: TcpListener,
    answer: impl Fn(&Method, &str) -> Response<Body> + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let accepted = tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the queue, and a permit is returned.
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((place, Ok((stream, _)))) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let _held = place;
            let answers = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let answer = answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answers);
            if let Err(error) = served.await {
                tracing::debug!(%error, "the connection of a load balancer's health check broke");
            }
        });
    }
}

/// The response, regardless of the request.
fn answer(asked: &Asked) -> Response<Body> {
    let body = serde_json::json!({
        "service": {"namespace": asked.namespace, "name": asked.name},
        "localEndpoints": asked.local,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if asked.local == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    let weight = header::HeaderValue::from(asked.local);
    headers.insert("X-Load-Balancing-Endpoint-Weight", weight);
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn load_balancers_are_told_of_endpoints_here() {
        // A free port, at least for a moment.
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let asked = |local| Asked {
            port,
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            local,
        };
        let mut ports = Ports::default();
        for (local, status) in [(2, "200 OK"), (0, "503 Service Unavailable"), (1, "200 OK")] {
            ports.serve(vec![asked(local)]).await;
            let mut stream = TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("heard");
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n")
                .await
                .expect("asked");
            let mut told = String::new();
            stream.read_to_string(&mut told).await.expect("answered");
            let (head, body) = told.split_once("\r\n\r\n").expect("an answer");
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{head}"
            );
            assert!(
                head.contains(&format!("x-load-balancing-endpoint-weight: {local}\r\n")),
                "{head}"
            );
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(body["localEndpoints"], local);
            assert_eq!(body["service"]["name"], "web");
        }
        ports.serve(Vec::new()).await;
        assert!(ports.0.is_empty());
    }
}
