//! The server side of WebSockets (RFC 6455), for the API server and for nodes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::SplitSink;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The suffix that the server appends to the client's key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A connection that has become a WebSocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a client requests a WebSocket.
pub fn asked(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// The protocols that a client offers.
pub fn offered(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect()
}

/// Accepts a WebSocket with one protocol and passes it to `work` once it is open. Returns the headers of the response,
/// whose status is 101.
///
/// # Errors
/// The reason why the request is invalid, for a 400.
pub fn accept<F>(
    asked: &HeaderMap,
    upgrade: OnUpgrade,
    protocol: Option<&str>,
    work: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<HeaderMap, String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = asked
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or("mismatch challenge/response")?;
    let mut joined = key.as_bytes().to_vec();
    joined.extend_from_slice(GUID.as_bytes());
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &joined);
    let wrong = |error: header::InvalidHeaderValue| error.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let answer = HeaderValue::from_str(&STANDARD.encode(digest.as_ref())).map_err(wrong)?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, answer);
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_str(protocol).map_err(wrong)?;
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let stream = TokioIo::new(upgraded);
            work(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
        }
    });
    Ok(headers)
}

/// Sends messages to a client until there are no more, then closes. Ignores what the client sends; ends early when it
/// disconnects.
pub async fn pour(socket: Socket, messages: impl futures::Stream<Item = Message>) {
    let (mut sink, mut source) = socket.split();
    let left = async { while let Some(Ok(_)) = source.next().await {} };
    let pouring = async {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        close(&mut sink).await;
    };
    tokio::select! {
        () = pouring => {}
        () = left => {}
    }
}

/// Sends a close frame.
pub async fn close(sink: &mut SplitSink<Socket, Message>) {
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(close))).await;
    let _ = sink.close().await;
}
