//! The read half of a connection.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::idle::IDLE;
use super::{
    CHUNK, DICTIONARY, Data, FIN, GOAWAY, HEADERS, NAMES, OVERHEAD, PING, RST_STREAM, STREAMS,
    SYN_STREAM, Stream, WAITING, Writer,
};

/// The client's side of a stream, until it is closed.
struct Open {
    queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    _place: Arc<OwnedSemaphorePermit>,
}

/// Reads a connection, and hands out what it carries.
pub(super) struct Reader<R> {
    from: R,
    writer: Writer,
    opened: mpsc::Sender<Stream>,
    decompress: Decompress,
    streams: HashMap<u32, Open>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    /// Streams that may still be opened.
    places: Arc<Semaphore>,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The number at the beginning of a frame's payload.
fn number(payload: &[u8]) -> io::Result<u32> {
    let four = payload
        .first_chunk()
        .ok_or_else(|| malformed("a frame is too short"))?;
    Ok(u32::from_be_bytes(*four) & 0x7fff_ffff)
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R, writer: Writer, opened: mpsc::Sender<Stream>) -> Self {
        Reader {
            from,
            writer,
            opened,
            decompress: Decompress::new(true),
            streams: HashMap::new(),
            room: Arc::new(Semaphore::new(WAITING as usize)),
            places: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    /// Reads until the client is done, or nobody takes streams any more.
    ///
    /// # Errors
    /// The connection is broken, or the client breaks the protocol.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            let mut head = [0; 8];
            tokio::select! {
                // Not cancel-safe, which does not matter: the connection is abandoned then.
                read = self.from.read_exact(&mut head) => match read {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    other => drop(other?),
                },
                () = self.opened.closed() => return Ok(()),
            }
            let [a, b, c, d, flags, length @ ..] = head;
            let word = u32::from_be_bytes([a, b, c, d]);
            let [high, middle, low] = length;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let next = match word & 0x8000_0000 == 0 {
                true => self.data(word, flags, length).await?,
                false => self.control((word & 0xffff) as u16, flags, length).await?,
            };
            if next.is_break() {
                return Ok(());
            }
        }
    }

    async fn data(&mut self, id: u32, flags: u8, mut left: usize) -> io::Result<ControlFlow<()>> {
        while left > 0 {
            let mut chunk = vec![0; left.min(CHUNK)];
            self.from.read_exact(&mut chunk).await?;
            left -= chunk.len();
            let Some(stream) = self.streams.get(&id) else {
                continue;
            };
            let cost = chunk.len() as u32 + OVERHEAD;
            tokio::select! {
                // In this order, so that a stream that nobody reads takes no room.
                biased;
                () = self.opened.closed() => return Ok(ControlFlow::Break(())),
                () = stream.queue.closed() => {}
                room = tokio::time::timeout(IDLE, self.room.clone().acquire_many_owned(cost)) => {
                    let room = room?.map_err(io::Error::other)?;
                    // If nobody reads it any more, it is dropped.
                    let _ = stream.queue.send((chunk.into(), room));
                }
            }
        }
        if flags & FIN != 0 {
            self.streams.remove(&id);
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn control(
        &mut self,
        kind: u16,
        flags: u8,
        length: usize,
    ) -> io::Result<ControlFlow<()>> {
        if length > HEADERS {
            return Err(malformed("a frame is too large"));
        }
        let mut payload = vec![0; length];
        self.from.read_exact(&mut payload).await?;
        match kind {
            SYN_STREAM => return self.open(flags, &payload).await,
            RST_STREAM => drop(self.streams.remove(&number(&payload)?)),
            PING => {
                let mut out = self.writer.0.lock().await;
                Writer::control(&mut out, PING, 0, &payload).await?;
            }
            GOAWAY => return Ok(ControlFlow::Break(())),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn open(&mut self, flags: u8, payload: &[u8]) -> io::Result<ControlFlow<()>> {
        let id = number(payload)?;
        let block = payload
            .get(10..)
            .ok_or_else(|| malformed("a stream without headers"))?;
        // All blocks share one state: those of refused streams are decompressed, too.
        let headers = headers(&mut self.decompress, block)?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.writer.refuse(id).await?;
            return Ok(ControlFlow::Continue(()));
        };
        let place = Arc::new(place);
        let (queue, data) = mpsc::unbounded_channel();
        if flags & FIN == 0 {
            let open = Open {
                queue,
                _place: place.clone(),
            };
            self.streams.insert(id, open);
        }
        self.writer.accept(id).await?;
        let stream = Stream {
            id,
            headers,
            data: Data(data),
            _place: place,
        };
        Ok(match self.opened.send(stream).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    }
}

/// Those headers of a block that streams are told apart by; all blocks share one compression state.
pub(super) fn headers(
    decompress: &mut Decompress,
    block: &[u8],
) -> io::Result<Vec<(String, String)>> {
    let whole = decompressed(decompress, block)?;
    let mut rest = whole.as_slice();
    let count = length(&mut rest)?;
    let mut list = Vec::new();
    for _ in 0..count {
        let (name, value) = (string(&mut rest)?, string(&mut rest)?);
        let name = String::from_utf8_lossy(name).to_lowercase();
        if NAMES.contains(&name.as_str()) {
            list.push((name, String::from_utf8_lossy(value).into_owned()));
        }
    }
    Ok(list)
}

fn decompressed(decompress: &mut Decompress, block: &[u8]) -> io::Result<Vec<u8>> {
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
            Ok(_) => return Ok(whole),
            Err(error) if error.needs_dictionary().is_some() => {
                decompress
                    .set_dictionary(DICTIONARY)
                    .map_err(|_| malformed("headers of another dictionary"))?;
            }
            Err(_) => return Err(malformed("headers cannot be decompressed")),
        }
    }
}

fn length(rest: &mut &[u8]) -> io::Result<usize> {
    let (four, behind) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("headers end early"))?;
    *rest = behind;
    Ok(u32::from_be_bytes(*four) as usize)
}

fn string<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let length = length(rest)?;
    let (text, behind) = rest
        .split_at_checked(length)
        .ok_or_else(|| malformed("headers end early"))?;
    *rest = behind;
    Ok(text)
}
