//! Forwards requests to a backend, and its responses to the client: headers, bodies, upgraded connections. Follows
//! k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go.

use std::borrow::Cow;
use std::convert::Infallible;

use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Call;
use super::kubelet::{Backend, connector};
use super::links::Page;
use crate::api::flow::Remote;
use crate::api::reply::{Body, Reply};
use crate::meta::Status;

/// What is forwarded, and how responses are returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A request for a log: errors are returned as `Status`.
    Logs,
    /// A connection into a pod.
    Connect,
    /// A proxied request: everything is passed through.
    Proxy,
}

/// The path of a proxy and the path behind it, as they were sent: with escapes and trailing slash. The path behind it
/// begins with a slash, even if that was sent encoded; it is empty if there is none.
fn behind<'a>(path: &'a str, namespace: &str) -> (&'a str, Cow<'a, str>) {
    // api/v1/nodes/NAME/proxy, api/v1/namespaces/NAMESPACE/pods/NAME/proxy
    let depth = if namespace.is_empty() { 5 } else { 7 };
    let is_encoded = |at: usize| {
        let escape = path.get(at..at + 3);
        escape.is_some_and(|escape| escape.eq_ignore_ascii_case("%2f"))
    };
    let is_slash = |(at, sign): &(usize, char)| *sign == '/' || is_encoded(*at);
    let Some((end, sign)) = path.char_indices().filter(is_slash).nth(depth) else {
        return (path, Cow::Borrowed(""));
    };
    let (own, rest) = path.split_at(end);
    (
        own,
        match sign {
            '/' => Cow::Borrowed(rest),
            _ => Cow::Owned(format!("/{}", &rest[3..])),
        },
    )
}

/// Handles a request to a proxy.
pub(super) async fn pass_on(call: Call<'_>, backend: Backend) -> Result<Reply, Status> {
    let (own, path) = behind(call.parts.uri.path(), call.target.namespace());
    let is_read = matches!(call.parts.method, Method::GET | Method::HEAD);
    if path.is_empty() && is_read && !call.parts.headers.contains_key(header::UPGRADE) {
        // Relative links in the first page require that the root path ends with a slash.
        let query = call.parts.uri.query();
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let mut response = plain(301, "");
        let root = header_value(&format!("{own}/{query}"))?;
        response.headers_mut().insert(header::LOCATION, root);
        return Ok(Reply::Stream(response));
    }
    let path = match &*path {
        "" => "/".to_owned(),
        _ => path.into_owned(),
    };
    forward(call, backend, path, How::Proxy).await
}

/// Forwards a request.
///
/// # Errors
/// Upstream's errors if the backend cannot be reached, or rejects the request.
pub(super) async fn forward(
    call: Call<'_>,
    backend: Backend,
    mut path: String,
    how: How,
) -> Result<Reply, Status> {
    let address = backend.address;
    let kubelets = connector(&call)?;
    let own = call.parts.uri.path().to_owned();
    let prefix = own.strip_suffix(&path).unwrap_or(&own);
    if let Some(query) = call.parts.uri.query() {
        path = format!("{path}?{query}");
    }
    let mut request = Request::builder()
        .method(call.parts.method.clone())
        .uri(&path);
    if let Some(headers) = request.headers_mut() {
        *headers = forwarded(&call.parts.headers, how);
        headers.insert(header::HOST, header_value(&address.to_string())?);
        if how == How::Proxy {
            headers.insert("x-forwarded-uri", header_value(&own)?);
            if let Some(Remote(Some(client))) = call.parts.extensions.get() {
                let through = through(&call.parts.headers, &client.ip().to_string());
                headers.insert(FORWARDED_FOR, header_value(&through)?);
            }
        }
    }
    let body = match call.stream.into_inner() {
        Some(body) if how == How::Proxy => body,
        _ => Full::default()
            .map_err(|never| match never {})
            .boxed_unsync(),
    };
    let request = request
        .body(body)
        .map_err(|error| Status::internal(&error.to_string()))?;
    let mut answer = kubelets
        .send(backend, request)
        .await
        .map_err(|error| match how {
            How::Logs => Status::internal(&format!("Get \"https://{address}{path}\": {error}")),
            How::Connect => Status::internal(&format!("error dialing backend: {error}")),
            How::Proxy => unreached(&error),
        })?;
    if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        if let Some(client) = call.parts.extensions.remove::<OnUpgrade>() {
            let agent = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                let (Ok(client), Ok(agent)) = tokio::join!(client, agent) else {
                    return;
                };
                let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
            });
        }
        let (parts, _) = answer.into_parts();
        let mut response = plain(101, "");
        *response.headers_mut() = parts.headers;
        return Ok(Reply::Stream(response));
    }
    let code = answer.status().as_u16();
    if code >= 400 && how != How::Proxy {
        // The agent's error message, as a `Status`.
        let text = answer
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(match code {
            // An unknown WebSocket protocol: upstream returns only the status code.
            403 if text.is_empty() => return Ok(Reply::Stream(plain(403, ""))),
            400 => Status::bad_request(text),
            404 => Status::failure(404, "NotFound", text),
            _ => Status::internal(&text),
        });
    }
    let (mut parts, body) = answer.into_parts();
    let body = match how {
        How::Proxy => {
            let page = Page {
                prefix,
                backend: &address.to_string(),
                asked: &asked_host(call.parts),
            };
            led(page, &mut parts.headers, body).await?
        }
        _ => streamed(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if *name == header::CONTENT_TYPE || (how == How::Proxy && !of_connection(name)) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(Reply::Stream(response))
}

/// A body that is streamed through. If the response breaks off, it just ends: its head was sent long ago.
fn streamed(body: Incoming) -> Body {
    let frames = stream::unfold(body, |mut body| async move {
        let frame = body.frame().await?.ok()?;
        Some((Ok::<_, Infallible>(frame), body))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The longest page, in bytes, whose links are rewritten; longer ones pass unchanged.
const LONGEST_PAGE: usize = 4 << 20;

/// The body for the client of a proxy: redirects and links in pages are rewritten to lead through the proxy.
async fn led(page: Page<'_>, headers: &mut HeaderMap, body: Incoming) -> Result<Body, Status> {
    let text = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (location, kind) = (text(header::LOCATION), text(header::CONTENT_TYPE));
    if !location.is_empty() {
        if let Some(link) = page.link(&location) {
            headers.insert(header::LOCATION, header_value(&link)?);
        }
        return Ok(streamed(body));
    }
    if kind.split(';').next().map(str::trim) != Some("text/html") {
        return Ok(streamed(body));
    }
    let mut body = body;
    let mut begun = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreached(&error))?;
        begun.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if begun.len() > LONGEST_PAGE {
            let begun = stream::iter([Ok::<_, Infallible>(Frame::data(begun.freeze()))]);
            let rest = BodyStream::new(streamed(body));
            return Ok(StreamBody::new(begun.chain(rest)).boxed_unsync());
        }
    }
    let whole = begun.freeze();
    // An unreadable body is passed on unchanged.
    let changed = page.body(&text(header::CONTENT_ENCODING), &whole);
    let changed = changed.ok().flatten().map_or(whole, bytes::Bytes::from);
    Ok(Full::new(changed).boxed_unsync())
}

/// The host that the client requested.
fn asked_host(parts: &http::request::Parts) -> String {
    let host = parts.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    authority.or(host).unwrap_or_default().to_owned()
}

fn header_value(text: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(text).map_err(|error| Status::internal(&error.to_string()))
}

fn unreached(error: &dyn std::fmt::Display) -> Status {
    let why = format!("error trying to reach service: {error}");
    Status::failure(503, "ServiceUnavailable", why)
}

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The value of X-Forwarded-For, with this server's client appended.
fn through(headers: &HeaderMap, client: &str) -> String {
    let before = headers.get_all(FORWARDED_FOR).iter();
    let before = before.filter_map(|value| value.to_str().ok());
    before.chain([client]).collect::<Vec<_>>().join(", ")
}

/// Headers that belong to a single connection, as in net/http/httputil.
fn of_connection(name: &header::HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::UPGRADE
            | header::TRANSFER_ENCODING
            | header::CONTENT_LENGTH
            | header::TE
            | header::TRAILER
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// The headers for a backend: without those that identify the user, or are meant for this server alone.
fn forwarded(headers: &HeaderMap, how: How) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let upgrades = headers.contains_key(header::UPGRADE);
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let upgrade = upgrades
            && (matches!(*name, header::CONNECTION | header::UPGRADE)
                || name.as_str().starts_with("sec-websocket-")
                || name.as_str().starts_with("x-stream-protocol-version"));
        let theirs = how == How::Proxy
            && !of_connection(name)
            && !named
                .iter()
                .any(|named| name.as_str().eq_ignore_ascii_case(named))
            && *name != header::AUTHORIZATION
            && *name != header::HOST
            && !name.as_str().starts_with("impersonate-");
        if upgrade || theirs {
            kept.append(name.clone(), value.clone());
        }
    }
    // `TE: trailers` says something about the client, and is passed on.
    let trailers = headers.get_all(header::TE).iter();
    if how == How::Proxy && trailers.into_iter().any(|value| value == "trailers") {
        kept.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    kept
}

/// A short text response.
pub(super) fn plain(code: u16, text: &'static str) -> Response<Body> {
    let mut response =
        Response::new(Full::new(bytes::Bytes::from_static(text.as_bytes())).boxed_unsync());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_see_what_is_for_them_and_through_whom_it_came() {
        let fields = |of: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in of {
                fields.append(*name, HeaderValue::from_static(value));
            }
            fields
        };
        let shown = |headers: &HeaderMap| {
            let mut shown: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            shown.sort();
            shown.join(" ")
        };
        let asked = fields(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "jane"),
            ("proxy-authorization", "Basic x"),
            ("connection", "keep-alive, X-Own"),
            ("keep-alive", "5"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("accept", "text/html"),
            ("x-forwarded-for", "10.0.0.1"),
        ]);
        let kept = forwarded(&asked, How::Proxy);
        assert_eq!(
            shown(&kept),
            "accept=text/html te=trailers x-forwarded-for=10.0.0.1"
        );
        assert_eq!(shown(&forwarded(&asked, How::Connect)), "");
        assert_eq!(through(&asked, "10.0.0.2"), "10.0.0.1, 10.0.0.2");
        let upgrade = fields(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        for how in [How::Proxy, How::Connect] {
            assert_eq!(
                shown(&forwarded(&upgrade, how)),
                "connection=Upgrade sec-websocket-key=k upgrade=websocket"
            );
        }
    }

    #[test]
    fn paths_behind_proxies_are_passed_on_as_they_were_sent() {
        for (path, namespace, own, rest) in [
            (
                "/api/v1/nodes/n:10250/proxy",
                "",
                "/api/v1/nodes/n:10250/proxy",
                "",
            ),
            (
                "/api/v1/nodes/n/proxy/a/b/",
                "",
                "/api/v1/nodes/n/proxy",
                "/a/b/",
            ),
            (
                "/api/v1/namespaces/x/pods/p/proxy/%20/proxy//",
                "x",
                "/api/v1/namespaces/x/pods/p/proxy",
                "/%20/proxy//",
            ),
            (
                "/api/v1/namespaces/x/services/s/proxy/",
                "x",
                "/api/v1/namespaces/x/services/s/proxy",
                "/",
            ),
            (
                "/api/v1/namespaces/x/services/s%2Fproxy%2fa/b%2Fc",
                "x",
                "/api/v1/namespaces/x/services/s%2Fproxy",
                "/a/b%2Fc",
            ),
        ] {
            assert_eq!(behind(path, namespace), (own, rest.into()), "{path}");
        }
    }
}
