//! Watches over WebSockets: each event is a message. Follows k8s.io/apiserver/pkg/endpoints/handlers/watch.go
//! `HandleWS` and the handshake of golang.org/x/net/websocket.

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use http::request::Parts;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, BodyStream, Empty, Full};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::reply::Body;
use crate::websocket;

/// The version of the protocol, the only one there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Whether a client requests a watch over a WebSocket.
pub fn asked(headers: &http::HeaderMap) -> bool {
    let upgrades = headers.get_all(header::CONNECTION).iter();
    let upgrades = upgrades.filter_map(|value| value.to_str().ok());
    let mut upgrades = upgrades.flat_map(|value| value.split(','));
    websocket::asked(headers) && upgrades.any(|one| one.trim().eq_ignore_ascii_case("upgrade"))
}

/// Turns the response to a watch into a WebSocket, which ends with the watch, with its client, or when `ends` is
/// cancelled. An error response stays unchanged.
pub fn watch(
    answer: Response<Body>,
    parts: &mut Parts,
    ends: &CancellationToken,
) -> Response<Body> {
    if answer.status() != http::StatusCode::OK {
        return answer;
    }
    let offered = websocket::offered(&parts.headers);
    let refused = |code: u16, why: &str| {
        let mut response = Response::new(Full::new(Bytes::from(why.to_owned())).boxed_unsync());
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    };
    if parts.headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        let mut response = refused(400, "missing or bad WebSocket Version");
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        return response;
    }
    // Browsers send an Origin header, and other clients must send one, too.
    if !parts.headers.contains_key(header::ORIGIN) {
        return refused(403, "");
    }
    let protocol = match offered.as_slice() {
        [] => None,
        [only] => Some(only.as_str()),
        _ => return refused(400, ""),
    };
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return refused(400, "the connection cannot be upgraded");
    };
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let binary = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/vnd"));
    let frames = BodyStream::new(answer.into_body());
    let pieces = frames.map(|Ok(frame)| frame.into_data().unwrap_or_default());
    let messages = messages(pieces.take_until(ends.clone().cancelled_owned()), binary);
    let accepted = websocket::accept(&parts.headers, upgrade, protocol, |socket| {
        websocket::pour(socket, messages)
    });
    match accepted {
        Err(why) => refused(400, &why),
        Ok(headers) => {
            let mut response = Response::new(Empty::new().boxed_unsync());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            response
        }
    }
}

/// The events of a stream, each as a message.
fn messages(pieces: impl Stream<Item = Bytes>, binary: bool) -> impl Stream<Item = Message> {
    let begun = BytesMut::new();
    pieces
        .scan(begun, move |begun, piece| {
            begun.extend_from_slice(&piece);
            let mut whole = Vec::new();
            while let Some(event) = next(begun, binary) {
                whole.push(event);
            }
            std::future::ready(Some(stream::iter(whole)))
        })
        .flatten()
}

/// Takes the next event out of the received bytes, if it is complete.
fn next(begun: &mut BytesMut, binary: bool) -> Option<Message> {
    if binary {
        // A length of four bytes precedes each event, which messages do not need.
        let length = usize::try_from(u32::from_be_bytes(*begun.first_chunk()?)).ok()?;
        if begun.len() - 4 < length {
            return None;
        }
        begun.advance(4);
        return Some(Message::binary(begun.split_to(length).freeze()));
    }
    let end = begun.iter().position(|byte| *byte == b'\n')?;
    let event = begun.split_to(end + 1);
    // The text of events is UTF-8.
    Some(Message::text(String::from_utf8_lossy(&event).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_messages_however_they_come() {
        let text = ["{\"a\"", ":1}\n{}\n", "{\"b\":2}", "\n"].map(Bytes::from);
        let found: Vec<Message> = messages(stream::iter(text), false).collect().await;
        let expected = ["{\"a\":1}\n", "{}\n", "{\"b\":2}\n"].map(Message::text);
        assert_eq!(found, expected);
        let binary = [&[0, 0, 0, 2, 7][..], &[8, 0, 0], &[0, 1, 9, 0]].map(Bytes::from_static);
        let found: Vec<Message> = messages(stream::iter(binary), true).collect().await;
        assert_eq!(
            found,
            [Message::binary(vec![7, 8]), Message::binary(vec![9])]
        );
    }
}
