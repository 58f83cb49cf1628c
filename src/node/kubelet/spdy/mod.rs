//! The part of SPDY/3.1 that streaming clients use: streams with compressed headers, data, half-closing, pings. As in
//! the library of those clients (github.com/moby/spdystream), there are no windows: what holds back a fast sender is the
//! connection itself. What was received and not yet taken is bounded per connection ([`WAITING`]).

mod read;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};

use self::read::Reader;
use super::converse::{self, Channel, Work};
use super::{Body, Refusal, text};

/// The initial dictionary of header compression (section 2.6.10.1 of the protocol).
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// The reason of RST_STREAM for a stream that was not looked at.
const REFUSED_STREAM: u32 = 3;
/// The largest data frame that is written, and how much of a received one is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// The largest frame other than data, and the largest decompressed block of headers, in bytes.
const HEADERS: usize = 16 * 1024;
/// How many received bytes of all streams of a connection may wait to be taken. Then nothing more is read.
const WAITING: u32 = 1 << 20;
/// What a waiting chunk costs besides its bytes.
const OVERHEAD: u32 = 256;
/// The most streams that may be open at once: two for each forwarded connection. More are refused.
const STREAMS: usize = 2_000;
/// The headers that streams are told apart by.
const NAMES: [&str; 3] = ["streamtype", "port", "requestid"];

/// A stream opened by the client.
pub struct Stream {
    /// Its number.
    pub id: u32,
    headers: Vec<(String, String)>,
    /// Its data, until the client closes its side. Data that comes after this is dropped is dropped, too.
    pub data: Data,
    /// Its place among [`STREAMS`], which it shares with the client's side.
    _place: Arc<OwnedSemaphorePermit>,
}

/// The data of a stream.
pub struct Data(mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>);

impl Data {
    /// The next bytes; None after the client closed its side. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.0.recv().await.map(|(bytes, _)| bytes)
    }
}

impl Stream {
    /// The value of a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

type Half = Box<dyn AsyncWrite + Send + Unpin>;

struct Out {
    to: Half,
    compress: Compress,
}

/// The write half of a connection. Clones share it.
#[derive(Clone)]
pub struct Writer(Arc<Mutex<Out>>);

impl Writer {
    async fn control(out: &mut Out, kind: u16, flags: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 8);
        frame.extend_from_slice(&0x8003u16.to_be_bytes());
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&(u32::from(flags) << 24 | payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        out.to.write_all(&frame).await?;
        out.to.flush().await
    }

    /// Accepts a stream.
    async fn accept(&self, id: u32) -> io::Result<()> {
        let mut out = self.0.lock().await;
        // No headers: a count of zero.
        let block = [0; 4];
        let mut packed = Vec::with_capacity(128);
        out.compress
            .compress_vec(&block, &mut packed, FlushCompress::Sync)?;
        let payload = [&id.to_be_bytes()[..], &packed].concat();
        Self::control(&mut out, SYN_REPLY, 0, &payload).await
    }

    /// Refuses a stream.
    async fn refuse(&self, id: u32) -> io::Result<()> {
        let mut out = self.0.lock().await;
        let payload = [id.to_be_bytes(), REFUSED_STREAM.to_be_bytes()].concat();
        Self::control(&mut out, RST_STREAM, 0, &payload).await
    }

    /// Sends data, once the client reads.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn data(&self, id: u32, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.frame(id, 0, chunk).await?;
        }
        Ok(())
    }

    /// Closes our side of a stream.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn end(&self, id: u32) -> io::Result<()> {
        self.frame(id, FIN, &[]).await
    }

    async fn frame(&self, id: u32, flags: u8, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.0.lock().await;
        let mut frame = Vec::with_capacity(bytes.len() + 8);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&(u32::from(flags) << 24 | bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        out.to.write_all(&frame).await?;
        out.to.flush().await
    }

    /// Sends GOAWAY, and closes our side of the connection.
    pub async fn close(&self) {
        let mut out = self.0.lock().await;
        let _ = Self::control(&mut out, GOAWAY, 0, &[0; 8]).await;
        let _ = out.to.shutdown().await;
    }
}

/// Serves a connection: returns its write half, and the streams that clients open. It is read until it breaks or
/// `streams` is dropped.
pub fn serve<S>(stream: S) -> (Writer, mpsc::Receiver<Stream>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(stream);
    let mut compress = Compress::new(Compression::default(), true);
    // Fails only during compression.
    let _ = compress.set_dictionary(DICTIONARY);
    let writer = Writer(Arc::new(Mutex::new(Out {
        to: Box::new(to),
        compress,
    })));
    let (opened, streams) = mpsc::channel(32);
    let own = writer.clone();
    tokio::spawn(async move {
        if let Err(error) = Reader::new(from, own, opened).run().await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    });
    (writer, streams)
}

/// Whether a client requests SPDY.
pub fn asked(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("SPDY/3.1"))
}

/// Accepts a SPDY connection that supports one of the `known` protocols, best first, and hands it over.
///
/// # Errors
/// 400 for a request that is not an upgrade, 403 without a common protocol.
pub fn accept<F>(
    mut request: Request<Incoming>,
    known: &[&'static str],
    work: impl FnOnce(Writer, mpsc::Receiver<Stream>) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal>
where
    F: Future<Output = ()> + Send + 'static,
{
    if !asked(request.headers()) {
        return Err((
            400,
            "unable to upgrade: missing upgrade headers in request".into(),
        ));
    }
    let offered: Vec<String> = request
        .headers()
        .get_all("x-stream-protocol-version")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_owned())
        .collect();
    let chosen = known
        .iter()
        .copied()
        .find(|one| offered.iter().any(|other| other == one));
    if chosen.is_none() && !offered.is_empty() {
        return Err((
            403,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
            ),
        ));
    }
    let mut response = text(101, "");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(chosen) = chosen {
        headers.insert(
            "x-stream-protocol-version",
            HeaderValue::from_static(chosen),
        );
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (writer, streams) = serve(TokioIo::new(upgraded));
            work(writer, streams).await;
        }
    });
    Ok(response)
}

/// Handles a request for exec or attach.
///
/// # Errors
/// As [`accept`].
pub fn answer(request: Request<Incoming>, work: Work) -> Result<Response<Body>, Refusal> {
    accept(
        request,
        &[
            "v4.channel.k8s.io",
            "v3.channel.k8s.io",
            "v2.channel.k8s.io",
            "channel.k8s.io",
        ],
        move |writer, streams| talk(writer, streams, work),
    )
}

async fn talk(writer: Writer, mut streams: mpsc::Receiver<Stream>, work: Work) {
    let mut expected = vec![Channel::Error];
    for (wanted, channel) in [
        (work.stdin, Channel::Stdin),
        (work.stdout, Channel::Stdout),
        (work.stderr, Channel::Stderr),
        (work.tty, Channel::Resize),
    ] {
        if wanted {
            expected.push(channel);
        }
    }
    let (to_process, incoming) = mpsc::channel::<(Channel, Option<Bytes>)>(16);
    let (outgoing, mut from_process) = mpsc::channel::<(Channel, Bytes)>(16);
    let mut ids: HashMap<Channel, u32> = HashMap::new();
    let gathering = async {
        while !expected.iter().all(|channel| ids.contains_key(channel)) {
            let mut stream = streams.recv().await?;
            let channel = match stream.header("streamtype") {
                "stdin" => Channel::Stdin,
                "stdout" => Channel::Stdout,
                "stderr" => Channel::Stderr,
                "resize" => Channel::Resize,
                _ => Channel::Error,
            };
            ids.insert(channel, stream.id);
            if matches!(channel, Channel::Stdin | Channel::Resize) {
                let to_process = to_process.clone();
                tokio::spawn(async move {
                    while let Some(bytes) = stream.data.recv().await {
                        if to_process.send((channel, Some(bytes))).await.is_err() {
                            return;
                        }
                    }
                    let _ = to_process.send((channel, None)).await;
                });
            }
        }
        Some(())
    };
    let patience = std::time::Duration::from_secs(30);
    if !matches!(
        tokio::time::timeout(patience, gathering).await,
        Ok(Some(()))
    ) {
        return writer.close().await;
    }
    let conversation = tokio::spawn(converse::run(work, incoming, outgoing));
    loop {
        tokio::select! {
            // Both are cancel-safe: what was not taken stays queued.
            chunk = from_process.recv() => {
                let Some((channel, bytes)) = chunk else {
                    break;
                };
                if let Some(id) = ids.get(&channel)
                    && writer.data(*id, &bytes).await.is_err()
                {
                    break;
                }
            }
            // No more streams are expected: this signals that the client disconnected.
            stream = streams.recv() => {
                if stream.is_none() {
                    break;
                }
            }
        }
    }
    drop(to_process);
    conversation.abort();
    for id in ids.values() {
        let _ = writer.end(*id).await;
    }
    writer.close().await;
}

#[cfg(test)]
mod tests;
