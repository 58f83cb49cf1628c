//! The listener: TLS, HTTP/2 and HTTP/1.1, and a drain that ends watches and lets requests finish.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::authenticate::{Authentication, Peer};
use super::reply::{self, Body};
use super::server::Server;

/// How long a client may take for its handshake, and then to send the head of a request: as upstream's.
const HEADER: Duration = Duration::from_secs(32);
/// How long requests may go on after the server was told to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 20_000;

/// A body that, if it is a stream of unknown length such as a watch, ends when the server is to end.
fn until(body: Body, ends: CancellationToken) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    let frames = futures::stream::unfold((body, ends), |(mut body, ends)| async move {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame?,
            () = ends.cancelled() => return None,
        };
        Some((frame, (body, ends)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Serves until `ends` is cancelled, then lets what is under way finish.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    server: Arc<Server>,
    authentication: Arc<Authentication>,
    ends: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = match places.clone().acquire_owned().await {
            Ok(place) => place,
            Err(_) => break,
        };
        let accepted = tokio::select! {
            // Cancel-safe: a connection that was not taken stays in the queue.
            accepted = listener.accept() => accepted,
            () = ends.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that went away in the queue: the next may be fine.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let streams_end = ends.clone();
        let (acceptor, server, authentication, ends) = (
            acceptor.clone(),
            server.clone(),
            authentication.clone(),
            ends.clone(),
        );
        connections.spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let stream = match tokio::time::timeout(HEADER, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!("a TLS handshake took too long"),
            };
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().map(|der| der.clone().into_owned());
            let peer = Arc::new(Peer::new(certificates.collect()));
            let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                let (server, authentication, peer) =
                    (server.clone(), authentication.clone(), peer.clone());
                let ends = streams_end.clone();
                async move {
                    let response = match authentication.authenticate(request.headers_mut(), &peer) {
                        Ok((user, warnings)) => {
                            let mut response = server.handle(request, user).await;
                            reply::warn(&mut response, &warnings);
                            response
                        }
                        Err(status) => reply::status(&status, request.headers()),
                    };
                    Ok::<_, Infallible>(response.map(|body| until(body, ends)))
                }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(HEADER);
            builder
                .http2()
                .timer(hyper_util::rt::TokioTimer::new())
                .keep_alive_interval(HEADER)
                .max_concurrent_streams(1000);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
                () = ends.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(DRAIN, connection).await;
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}
