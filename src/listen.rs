//! Accepts TLS connections: a limited number at once, each with a time limit for its handshake.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time limit for a client's handshake, and then for the head of its request: the same as in upstream's API server.
pub const HEADER: Duration = Duration::from_secs(32);
/// The first and the longest pause after the system failed to accept a connection.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts connections until `ends` is cancelled, `most` at once: others wait in the listener's queue. Each is served
/// by its own task: `serve` with its stream and the client's certificates. Returns the tasks that still run.
pub async fn accept<F, S>(
    listener: &TcpListener,
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
    loop {
        let next = async {
            // Nothing closes the semaphore.
            let place = places.clone().acquire_owned().await.ok();
            (next("TLS", || listener.accept()).await.0, place)
        };
        let (stream, place) = tokio::select! {
            // Cancel-safe: a connection that was not accepted stays in the queue.
            next = next => next,
            () = ends.cancelled() => break,
        };
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

/// The next connection that `accept` returns, however often it fails before: a listener must survive a client that
/// disconnected while queued, and a process that is temporarily out of file descriptors. It pauses between failures,
/// longer each time; the first one is logged as a warning that names `what`. Cancel-safe if `accept` is.
pub(crate) async fn next<T, A>(what: &str, accept: impl Fn() -> A) -> T
where
    A: Future<Output = io::Result<T>>,
{
    let mut pause = PAUSES.0;
    loop {
        match accept().await {
            Ok(connection) => return connection,
            Err(error) if is_of_client(&error) => continue,
            Err(error) if pause == PAUSES.0 => {
                tracing::warn!(%error, "{what} connections cannot be accepted; the limit of open files may be too low");
            }
            Err(_) => {}
        }
        // Most likely out of descriptors, and no event signals when some are free again.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether the client disconnected while it was in the queue, so that the next one may be fine.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_comes_after_any_number_of_failures() {
        // A disconnected client costs no time; after other failures it pauses, up to a second each.
        let emfile = || io::Error::from_raw_os_error(24);
        let failures = std::iter::repeat_with(emfile).take(20);
        let gone = io::Error::from(io::ErrorKind::ConnectionAborted);
        let results = failures.chain([gone]).map(Err).chain([Ok(7)]);
        let results: Mutex<VecDeque<_>> = Mutex::new(results.collect());
        let accept = || std::future::ready(results.lock().pop_front().expect("asked too often"));
        assert_eq!(next("test", accept).await, 7);
        assert!(results.lock().is_empty());
    }
}
