//! The part of SPDY/3.1 that streaming clients use: streams with compressed headers, data, half-closing, pings. There
//! is no flow control, as in the library of those clients.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, mpsc};

use super::converse::{self, Channel, Work};
use super::{Body, Refusal, text};

/// The initial dictionary of header compression (section 2.6.10.1 of the protocol).
const DICTIONARY: &[u8] = include_bytes!("spdy-dictionary.bin");
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// The largest data frame that is written, and how much of a received one is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// The largest header block, in bytes.
const HEADERS: usize = 1 << 20;
/// How many chunks of one stream may wait to be taken.
const WAITING: usize = 64;
/// The most streams that may be open at once: two for each forwarded connection.
const STREAMS: usize = 2_000;

/// A stream opened by the client.
pub struct Stream {
    /// Its number.
    pub id: u32,
    headers: Vec<(String, String)>,
    /// Its data, until the client closes its side.
    pub data: mpsc::Receiver<Bytes>,
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

    /// Sends data.
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
        if let Err(error) = read(from, own, opened).await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    });
    (writer, streams)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

async fn read<R: AsyncRead + Unpin>(
    mut from: R,
    writer: Writer,
    opened: mpsc::Sender<Stream>,
) -> io::Result<()> {
    let mut decompress = Decompress::new(true);
    let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    loop {
        let mut head = [0; 8];
        tokio::select! {
            // Not cancel-safe, which does not matter: the connection is abandoned then.
            read = from.read_exact(&mut head) => match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => drop(other?),
            },
            () = opened.closed() => return Ok(()),
        }
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if word & 0x8000_0000 == 0 {
            let id = word;
            let mut left = length;
            while left > 0 {
                let mut chunk = vec![0; left.min(CHUNK)];
                from.read_exact(&mut chunk).await?;
                left -= chunk.len();
                if let Some(stream) = streams.get(&id) {
                    // Data for a stream that nobody reads any more is dropped.
                    let _ = stream.send(chunk.into()).await;
                }
            }
            if flags & FIN != 0 {
                streams.remove(&id);
            }
            continue;
        }
        if length > HEADERS {
            return Err(malformed("a frame is too large"));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        let number = || {
            payload
                .get(..4)
                .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]) & 0x7fff_ffff)
        };
        match (word & 0xffff) as u16 {
            SYN_STREAM => {
                let id = number().ok_or_else(|| malformed("a stream without number"))?;
                let block = payload
                    .get(10..)
                    .ok_or_else(|| malformed("a stream without headers"))?;
                let headers = headers(&mut decompress, block)?;
                if streams.len() >= STREAMS {
                    return Err(malformed("too many streams"));
                }
                let (sender, data) = mpsc::channel(WAITING);
                if flags & FIN == 0 {
                    streams.insert(id, sender);
                }
                writer.accept(id).await?;
                if opened.send(Stream { id, headers, data }).await.is_err() {
                    return Ok(());
                }
            }
            RST_STREAM => {
                if let Some(id) = number() {
                    streams.remove(&id);
                }
            }
            PING => {
                let mut out = writer.0.lock().await;
                Writer::control(&mut out, PING, 0, &payload).await?;
            }
            GOAWAY => return Ok(()),
            _ => {}
        }
    }
}

/// The headers in a block; all blocks share one compression state.
fn headers(decompress: &mut Decompress, block: &[u8]) -> io::Result<Vec<(String, String)>> {
    let mut whole = Vec::with_capacity(1024);
    let mut taken = 0;
    loop {
        if whole.len() == whole.capacity() {
            whole.reserve(4096);
        }
        if whole.len() > HEADERS {
            return Err(malformed("headers are too large"));
        }
        let before = decompress.total_in();
        let result = decompress.decompress_vec(&block[taken..], &mut whole, FlushDecompress::Sync);
        taken += (decompress.total_in() - before) as usize;
        match result {
            Ok(Status::Ok | Status::BufError)
                if taken < block.len() || whole.len() == whole.capacity() => {}
            Ok(_) => break,
            Err(error) if error.needs_dictionary().is_some() => {
                decompress
                    .set_dictionary(DICTIONARY)
                    .map_err(|_| malformed("headers of another dictionary"))?;
            }
            Err(_) => return Err(malformed("headers cannot be decompressed")),
        }
    }
    let mut rest = whole.as_slice();
    let number = |rest: &mut &[u8]| -> io::Result<usize> {
        let (four, behind) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| malformed("headers end early"))?;
        *rest = behind;
        Ok(u32::from_be_bytes(*four) as usize)
    };
    let string = |rest: &mut &[u8]| -> io::Result<String> {
        let length = number(rest)?;
        let (text, behind) = rest
            .split_at_checked(length)
            .ok_or_else(|| malformed("headers end early"))?;
        *rest = behind;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let (four, behind) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("headers end early"))?;
    let count = u32::from_be_bytes(*four);
    rest = behind;
    let mut list = Vec::new();
    for _ in 0..count {
        let name = string(&mut rest)?.to_lowercase();
        list.push((name, string(&mut rest)?));
    }
    Ok(list)
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
mod tests {
    use super::*;

    #[test]
    fn header_blocks_share_one_compression() {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(DICTIONARY).expect("fresh");
        let mut decompress = Decompress::new(true);
        for round in 0..3 {
            let value = format!("stdout-{round}");
            let mut block = 2u32.to_be_bytes().to_vec();
            for text in ["Streamtype", &value, "port", "80"] {
                block.extend_from_slice(&(text.len() as u32).to_be_bytes());
                block.extend_from_slice(text.as_bytes());
            }
            let mut packed = Vec::with_capacity(1024);
            compress
                .compress_vec(&block, &mut packed, FlushCompress::Sync)
                .expect("packed");
            let list = headers(&mut decompress, &packed).expect("read");
            assert_eq!(
                list,
                [
                    ("streamtype".into(), value),
                    ("port".into(), "80".to_owned())
                ]
            );
        }
        assert!(headers(&mut Decompress::new(true), b"nonsense").is_err());
    }

    #[tokio::test]
    async fn streams_are_accepted_and_carry_data_both_ways() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (writer, mut streams) = serve(server);
        let (mut from, mut to) = tokio::io::split(client);
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(DICTIONARY).expect("fresh");
        let mut packed = Vec::with_capacity(256);
        compress
            .compress_vec(&[0; 4], &mut packed, FlushCompress::Sync)
            .expect("packed");
        let mut frame = 0x8003_0001u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&(packed.len() as u32 + 10).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&packed);
        frame.extend_from_slice(&[0, 0, 0, 1, FIN, 0, 0, 2, b'h', b'i']);
        to.write_all(&frame).await.expect("sent");
        let mut stream = streams.recv().await.expect("a stream");
        assert_eq!(stream.data.recv().await.as_deref(), Some(&b"hi"[..]));
        assert_eq!(stream.data.recv().await, None);
        let mut head = [0; 8];
        from.read_exact(&mut head).await.expect("a reply");
        assert_eq!(&head[..4], &[0x80, 3, 0, 2]);
        let mut rest = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        from.read_exact(&mut rest).await.expect("its payload");
        writer.data(1, b"ho").await.expect("sent");
        writer.end(1).await.expect("sent");
        let mut all = [0; 18];
        from.read_exact(&mut all).await.expect("data");
        assert_eq!(
            all,
            [0, 0, 0, 1, 0, 0, 0, 2, b'h', b'o', 0, 0, 0, 1, FIN, 0, 0, 0]
        );
    }
}
