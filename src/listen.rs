//! Accepting TLS connections: so many at once, each with a bounded time for its handshake.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for its handshake, and then to send the head of a request: as upstream's API server.
pub const HEADER: Duration = Duration::from_secs(32);
/// How long to wait before asking the system again after its first refusal, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts connections until `ends` is cancelled, `most` at once: more wait in the listener's queue. Each becomes a task
/// that `serve` makes of its stream and of the certificates that its client showed. Gives those that are still there.
pub async fn accept<F, S>(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    most: usize,
    ends: &CancellationToken,
    serve: F,
) -> TaskTracker
where
    F: Fn(TlsStream<TcpStream>, Vec<CertificateDer<'static>>) -> S,
    F: Clone + Send + Sync + 'static,
    S: Future<Output = ()> + Send,
{
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(most));
    let connections = TaskTracker::new();
    let mut pause = PAUSES.0;
    loop {
        let next = async {
            // Nobody closes the semaphore.
            let place = places.clone().acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            // Cancel-safe: a connection that was not taken stays in the queue.
            next = next => next,
            () = ends.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_client(&error) => continue,
            Err(error) => {
                // Out of descriptors, most likely. Nothing tells when there are some again.
                if pause == PAUSES.0 {
                    tracing::warn!(%error, "connections cannot be accepted; the limit of open files may be too low");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
        };
        pause = PAUSES.0;
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        connections.spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let stream = match tokio::time::timeout(HEADER, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!("a TLS handshake took too long"),
            };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let shown = shown.iter().map(|der| der.clone().into_owned()).collect();
            serve(stream, shown).await;
        });
    }
    connections.close();
    connections
}

/// Whether a client went away while it was in the queue: the next one may be fine.
fn is_of_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
