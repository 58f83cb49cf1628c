//! Port forwarding: over SPDY, SPDY in a WebSocket, and the older WebSocket channels.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{self, Stream, Writer};
use super::{Body, Query, Refusal, websocket};
use crate::zone::{Duplex, ZoneName, ZoneRuntime};

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Handles a request.
///
/// # Errors
/// 400 and 403 for requests that cannot be upgraded.
pub fn answer(
    runtime: Arc<dyn ZoneRuntime>,
    zone: ZoneName,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    if !websocket::asked(request.headers()) {
        return spdy::accept(request, &[PROTOCOL], move |writer, streams| {
            forward(runtime, zone, writer, streams)
        });
    }
    let offered = websocket::offered(request.headers());
    if offered.iter().any(|one| one == TUNNEL) {
        return websocket::accept(request, Some(TUNNEL), move |socket| async move {
            let (writer, streams) = spdy::serve(tunnel(socket));
            forward(runtime, zone, writer, streams).await;
        });
    }
    let ports: Vec<u16> = Query::of(&request)
        .all("ports")
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    if ports.is_empty() {
        return Err((400, "query parameter \"ports\" is required".into()));
    }
    let chosen = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"]
        .into_iter()
        .find(|known| offered.iter().any(|one| one == known));
    if chosen == Some("v4.base64.channel.k8s.io") || (chosen.is_none() && !offered.is_empty()) {
        return Err((
            400,
            format!("requested protocols {offered:?} are not supported"),
        ));
    }
    websocket::accept(request, chosen, move |socket| {
        channels(runtime, zone, socket, ports)
    })
}

/// A WebSocket whose binary messages form one byte stream.
fn tunnel(socket: Socket) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let (mut sink, mut source) = socket.split();
    let (mut from, mut to) = tokio::io::split(ours);
    tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => match to.write_all(&bytes).await {
                    Ok(()) => {}
                    Err(_) => return,
                },
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = to.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            let message = Message::binary(buffer[..count].to_vec());
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    theirs
}

/// Pairs data and error streams by request ID, and connects each pair.
async fn forward(
    runtime: Arc<dyn ZoneRuntime>,
    zone: ZoneName,
    writer: Writer,
    mut streams: mpsc::Receiver<Stream>,
) {
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    while let Some(stream) = streams.recv().await {
        let request = match stream.header("requestid") {
            // Old clients send no request ID: their pairs have adjacent stream IDs.
            "" => (stream.id / 4).to_string(),
            request => request.to_owned(),
        };
        let Some(other) = waiting.remove(&request) else {
            if waiting.len() < 1000 {
                waiting.insert(request, stream);
            }
            continue;
        };
        let (data, error) = match stream.header("streamtype") {
            "data" => (stream, other),
            _ => (other, stream),
        };
        let (runtime, zone, writer) = (runtime.clone(), zone.clone(), writer.clone());
        tokio::spawn(async move {
            let port: u16 = data.header("port").parse().unwrap_or(0);
            let error_id = error.id;
            // Clients send nothing on it.
            drop(error);
            match runtime.dial(&zone, port).await {
                Ok(target) => copy(target, data, &writer).await,
                Err(why) => {
                    let text = format!("error forwarding port {port} to pod, uid : {why}");
                    let _ = writer.data(error_id, text.as_bytes()).await;
                    let _ = writer.end(data.id).await;
                }
            }
            let _ = writer.end(error_id).await;
        });
    }
}

async fn copy(target: Box<dyn Duplex>, stream: Stream, writer: &Writer) {
    let (mut from, mut to) = tokio::io::split(target);
    // The rest of the stream, among it its place in the connection, is kept until both directions are done.
    let Stream { id, mut data, .. } = stream;
    let out = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || writer.data(id, &buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ = writer.end(id).await;
    };
    let back = async move {
        while let Some(bytes) = data.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // What the client still sends is thrown away: it must not fill the room of the connection's other streams.
        drop(data);
        let _ = to.shutdown().await;
    };
    tokio::join!(out, back);
}

/// The older protocol: two channels per port, whose first message is the port.
async fn channels(runtime: Arc<dyn ZoneRuntime>, zone: ZoneName, socket: Socket, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<Vec<u8>>(32);
    let mut inputs: Vec<mpsc::Sender<Bytes>> = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Ok(number) = u8::try_from(index * 2) else {
            break;
        };
        let (sender, mut input) = mpsc::channel::<Bytes>(32);
        inputs.push(sender);
        let (runtime, zone, out) = (runtime.clone(), zone.clone(), out.clone());
        tokio::spawn(async move {
            let [low, high] = port.to_le_bytes();
            for channel in [number, number + 1] {
                if out.send(vec![channel, low, high]).await.is_err() {
                    return;
                }
            }
            let target = match runtime.dial(&zone, port).await {
                Ok(target) => target,
                Err(why) => {
                    let mut text = vec![number + 1];
                    text.extend_from_slice(
                        format!("error forwarding port {port} to pod: {why}").as_bytes(),
                    );
                    let _ = out.send(text).await;
                    return;
                }
            };
            let (mut from, mut to) = tokio::io::split(target);
            let reading = async {
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(count) = from.read(&mut buffer).await {
                    if count == 0 {
                        return;
                    }
                    let mut message = Vec::with_capacity(count + 1);
                    message.push(number);
                    message.extend_from_slice(&buffer[..count]);
                    if out.send(message).await.is_err() {
                        return;
                    }
                }
            };
            let writing = async {
                while let Some(bytes) = input.recv().await {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                let _ = to.shutdown().await;
                // The other direction may still be open.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
            }
        });
    }
    drop(out);
    let reader = tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(bytes) = message else {
                if matches!(message, Message::Close(_)) {
                    return;
                }
                continue;
            };
            let Some((&channel, _)) = bytes.split_first() else {
                continue;
            };
            if channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
    });
    while let Some(message) = queue.recv().await {
        if sink.send(Message::binary(message)).await.is_err() {
            break;
        }
    }
    let _ = sink.close().await;
    reader.abort();
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use flate2::{Compress, Compression, FlushCompress};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::time::timeout;

    use super::*;

    /// A connection that takes nothing and says nothing.
    struct Deaf;

    impl AsyncRead for Deaf {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_target_does_not_take_holds_up_no_other_stream() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (writer, mut streams) = spdy::serve(server);
        let mut headers = Vec::with_capacity(128);
        Compress::new(Compression::default(), true)
            .compress_vec(&[0; 4], &mut headers, FlushCompress::Sync)
            .expect("packed");
        let (kind, id) = (0x8003_0001u32.to_be_bytes(), 1u32.to_be_bytes());
        let length = (headers.len() as u32 + 10).to_be_bytes();
        let open = [&kind[..], &length[..], &id[..], &[0u8; 6][..], &headers[..]].concat();
        client.write_all(&open).await.expect("opened");
        let stream = streams.recv().await.expect("a stream");
        let copying = tokio::spawn(async move { copy(Box::new(Deaf), stream, &writer).await });
        let chunk = vec![7u8; 1 << 14];
        let length = (chunk.len() as u32).to_be_bytes();
        let frame = [&id[..], &length[..], &chunk[..]].concat();
        // Twice as much as may wait in a connection. The clock only goes on when everybody waits.
        for _ in 0..128 {
            let sent = timeout(Duration::from_secs(1), client.write_all(&frame)).await;
            sent.expect("read").expect("sent");
        }
        assert!(!copying.is_finished(), "the target may still say something");
    }
}
