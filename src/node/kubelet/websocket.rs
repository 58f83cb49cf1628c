//! Sessions over WebSockets: `v5.channel.k8s.io` and older protocols. The first byte of a message is its channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::converse::{self, Channel, Work};
use super::{Body, Refusal, text};
use crate::websocket::{self, Socket, close};
pub use crate::websocket::{asked, offered};

/// The byte that precedes the number of a channel to close (version 5).
const CLOSE: u8 = 255;

/// Accepts a WebSocket with one protocol and hands it over once it is open.
///
/// # Errors
/// 400 for a request that is not a WebSocket upgrade.
pub fn accept<F>(
    mut request: Request<Incoming>,
    protocol: Option<&str>,
    work: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal>
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let accepted = websocket::accept(request.headers(), upgrade, protocol, work);
    let mut response = text(101, "");
    *response.headers_mut() = accepted.map_err(|why| (400, why))?;
    Ok(response)
}

/// The protocol to use, and the one to name in the response: the first of `known` that the client offers, or `default`,
/// unnamed, if it offers none.
fn choose(
    headers: &HeaderMap,
    known: &[&'static str],
    default: &'static str,
) -> Result<(&'static str, Option<&'static str>), Refusal> {
    let offered = offered(headers);
    if offered.is_empty() {
        return Ok((default, None));
    }
    let mut fitting = known
        .iter()
        .filter(|known| offered.iter().any(|one| one == *known));
    // Go's library for these sockets returns no message.
    let chosen = *fitting.next().ok_or((403, String::new()))?;
    Ok((chosen, Some(chosen)))
}

/// Handles a request for exec or attach.
///
/// # Errors
/// 403 without a common protocol.
pub fn answer(request: Request<Incoming>, work: Work) -> Result<Response<Body>, Refusal> {
    const KNOWN: [&str; 5] = [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
    ];
    let (chosen, shown) = choose(request.headers(), &KNOWN, "channel.k8s.io")?;
    accept(request, shown, move |socket| talk(socket, work, chosen))
}

/// Sends a body as messages; ignores the client's. The first message is empty, to signal the beginning. Follows
/// k8s.io/streaming/pkg/httpstream/wsstream/stream.go, which upstream's API server puts in front of an agent.
///
/// # Errors
/// 403 without a common protocol.
pub fn stream(request: Request<Incoming>, body: Body) -> Result<Response<Body>, Refusal> {
    const KNOWN: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];
    let (chosen, shown) = choose(request.headers(), &KNOWN, KNOWN[0])?;
    let message = match chosen == KNOWN[1] {
        true => |bytes: Bytes| Message::text(STANDARD.encode(&bytes)),
        false => |bytes| Message::binary(bytes),
    };
    let begun = futures::stream::iter([Bytes::new()]);
    let frames = BodyStream::new(body).map(|Ok(frame)| frame.into_data().unwrap_or_default());
    let messages = begun.chain(frames).map(message);
    accept(request, shown, |socket| websocket::pour(socket, messages))
}

async fn talk(socket: Socket, work: Work, protocol: &'static str) {
    let base64 = protocol.contains("base64");
    let plain_errors = !protocol.starts_with('v');
    let (mut sink, mut source) = socket.split();
    let (to_process, incoming) = mpsc::channel::<(Channel, Option<Bytes>)>(16);
    let (outgoing, mut from_process) = mpsc::channel::<(Channel, Bytes)>(16);
    let conversation = tokio::spawn(converse::run(work, incoming, outgoing));
    let reader = tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            let bytes: Bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
                Message::Close(_) => return,
                _ => continue,
            };
            let Some((&first, rest)) = bytes.split_first() else {
                continue;
            };
            if first == CLOSE && !base64 {
                if let Some(channel) = rest.first().copied().and_then(Channel::of)
                    && to_process.send((channel, None)).await.is_err()
                {
                    return;
                }
                continue;
            }
            let number = if base64 {
                first.wrapping_sub(b'0')
            } else {
                first
            };
            let Some(channel) = Channel::of(number) else {
                continue;
            };
            let payload = match base64 {
                true => STANDARD.decode(rest).map(Bytes::from).unwrap_or_default(),
                false => bytes.slice(1..),
            };
            if to_process.send((channel, Some(payload))).await.is_err() {
                return;
            }
        }
    });
    while let Some((channel, bytes)) = from_process.recv().await {
        if channel == Channel::Error
            && plain_errors
            && bytes.as_ref() == br#"{"metadata":{},"status":"Success"}"#
        {
            continue;
        }
        let message = match base64 {
            true => Message::text(format!("{}{}", channel as u8, STANDARD.encode(&bytes))),
            false => {
                let mut whole = Vec::with_capacity(bytes.len() + 1);
                whole.push(channel as u8);
                whole.extend_from_slice(&bytes);
                Message::binary(whole)
            }
        };
        if sink.send(message).await.is_err() {
            break;
        }
    }
    close(&mut sink).await;
    reader.abort();
    conversation.abort();
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    /// What a client that offers `protocols` receives for a log of two parts: the head of the response, and messages.
    async fn read(protocols: Option<&str>) -> (String, Vec<Message>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let service = hyper::service::service_fn(|request| async {
            let parts = ["one\n", "two\n"].map(|part| Ok(Frame::data(Bytes::from(part))));
            let body = StreamBody::new(futures::stream::iter(parts)).boxed_unsync();
            let answer = stream(request, body).unwrap_or_else(|(code, why)| text(code, why));
            Ok::<_, Infallible>(answer)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades();
        tokio::spawn(connection);
        let offer = protocols.map(|protocols| format!("Sec-WebSocket-Protocol: {protocols}\r\n"));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n{}\r\n",
            offer.unwrap_or_default()
        );
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        if !head.starts_with("http/1.1 101") {
            return (head, Vec::new());
        }
        let mut socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut messages = Vec::new();
        while let Some(message) = socket.next().await {
            match message.expect("a message") {
                Message::Close(frame) => {
                    assert_eq!(frame.map(|frame| frame.code), Some(CloseCode::Normal));
                    break;
                }
                message => messages.push(message),
            }
        }
        (head, messages)
    }

    #[tokio::test]
    async fn logs_are_messages_as_they_are_or_in_base64() {
        let binary = ["", "one\n", "two\n"].map(Message::binary);
        let base64 = ["", "b25lCg==", "dHdvCg=="].map(Message::text);
        for (protocols, told, expected) in [
            (None, None, &binary),
            (Some("binary.k8s.io"), Some("binary.k8s.io"), &binary),
            (
                Some("other, base64.binary.k8s.io"),
                Some("base64.binary.k8s.io"),
                &base64,
            ),
        ] {
            let (head, messages) = read(protocols).await;
            let told = told.map(|told| format!("sec-websocket-protocol: {told}\r\n"));
            match told {
                Some(told) => assert!(head.contains(&told), "{head}"),
                None => assert!(!head.contains("sec-websocket-protocol"), "{head}"),
            }
            assert_eq!(messages, expected, "{protocols:?}");
        }
        let (head, _) = read(Some("v5.channel.k8s.io")).await;
        assert!(head.starts_with("http/1.1 403"), "{head}");
    }
}
