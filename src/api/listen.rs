//! The listener: TLS, HTTP/2 and HTTP/1.1, and a shutdown that ends watches and lets requests finish.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::aside::{self, Aside};
use super::authenticate::{Authentication, Peer};
use super::first_line::FirstLine;
use super::flow::Remote;
use super::reply::{self, Body};
use super::server::Server;
use crate::listen::{HEADER, accept};
use crate::meta::names::new_uid;
use crate::meta::url;

/// How long requests may continue after shutdown begins.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS: usize = 20_000;
/// How long the head of a request may be, in bytes, as in Go's server.
const HEAD: usize = 1 << 20;

/// A body of unknown length, such as a watch, ends when the server shuts down.
fn until(body: Body, ends: CancellationToken) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    let ends = Box::pin(ends.cancelled_owned());
    Ending { body, ends }.boxed_unsync()
}

/// A body that ends early. It waits for that all the time: to begin again for each frame takes the lock that all
/// watches share.
struct Ending {
    body: Body,
    ends: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => self.ends.as_mut().poll(context).map(|()| None),
            ready => ready,
        }
    }
}

const AUDIT_ID: header::HeaderName = header::HeaderName::from_static("audit-id");

/// The audit ID of a request: the client's, or a new one.
fn audit_id(headers: &http::HeaderMap) -> HeaderValue {
    let said = headers.get(AUDIT_ID).filter(|said| !said.is_empty());
    said.cloned().unwrap_or_else(|| {
        let own = new_uid();
        HeaderValue::from_str(&own).unwrap_or(HeaderValue::from_static(""))
    })
}

/// The response to a request whose handler panicked: as upstream, and the connection continues.
fn panicked() -> http::Response<Body> {
    const TEXT: &[u8] = b"This request caused apiserver to panic. Look in the logs for details.\n";
    let none = http::HeaderMap::new();
    reply::response(500, "text/plain; charset=utf-8", TEXT.to_vec(), &none)
}

/// Serves until `ends` is cancelled, then lets running requests finish.
pub async fn serve(
    listener: &TcpListener,
    tls: rustls::ServerConfig,
    server: Arc<Server>,
    authentication: Arc<Authentication>,
    ends: CancellationToken,
) {
    let serving = ends.clone();
    let aside = Aside::default();
    let connections = accept(listener, tls, CONNECTIONS, &ends, move |stream, shown| {
        let streams_end = serving.clone();
        let (server, authentication, ends) =
            (server.clone(), authentication.clone(), serving.clone());
        let aside = aside.clone();
        async move {
            let peer = Arc::new(Peer::new(shown));
            let remote = Remote(stream.get_ref().0.peer_addr().ok());
            let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                let (server, authentication, peer) =
                    (server.clone(), authentication.clone(), peer.clone());
                let ends = streams_end.clone();
                let is_large = aside::is_large(&request);
                let answering = async move {
                    if url::path_unescape(request.uri().path()).is_err() {
                        return Ok(super::plain_text::unreadable().map(|body| until(body, ends)));
                    }
                    let audit_id = audit_id(request.headers());
                    let judged = authentication.authenticate(request.headers_mut(), &peer);
                    let (user, warnings) = match judged {
                        Ok((user, warnings)) => (Ok(user), warnings),
                        Err(status) => (Err(status), Vec::new()),
                    };
                    request.extensions_mut().insert(remote);
                    let answering = AssertUnwindSafe(server.handle(request, user));
                    let answered = answering.catch_unwind().await;
                    let mut response = answered.unwrap_or_else(|_| panicked());
                    reply::warn(&mut response, &warnings);
                    response.headers_mut().entry(AUDIT_ID).or_insert(audit_id);
                    Ok::<_, Infallible>(response.map(|body| until(body, ends)))
                };
                aside.answer(is_large, answering)
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .title_case_headers(true)
                .max_buf_size(HEAD)
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(HEADER);
            builder
                .http2()
                .timer(hyper_util::rt::TokioTimer::new())
                .keep_alive_interval(HEADER)
                .max_header_list_size(HEAD as u32)
                .max_concurrent_streams(1000);
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(FirstLine::new(stream)), service);
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
        }
    });
    let connections = connections.await;
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}
