//! Plain text responses of upstream's handlers before the API, and of Go's net/http.

use http::Response;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;

use super::reply::{self, Body};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::schema::{Object, json};

/// An error in plain text, with Go's header that forbids clients to guess another type.
fn error(code: u16, text: &str, request: &http::HeaderMap) -> Response<Body> {
    let text = text.as_bytes().to_vec();
    let mut response = reply::response(code, "text/plain; charset=utf-8", text, request);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        http::HeaderValue::from_static("nosniff"),
    );
    response
}

/// Upstream's response if too many requests are running; the client may retry after so many seconds.
pub(super) fn too_many(seconds: i64, request: &http::HeaderMap) -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = error(429, text, request);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, http::HeaderValue::from(seconds));
    response
}

/// Upstream's response to a request that was not answered in time: a status that names neither its type nor its format.
pub(super) fn too_late(request: &http::HeaderMap) -> Response<Body> {
    let why = "Timeout: request did not complete within the allotted timeout";
    let status = Status::failure(504, "Timeout", why).with_details(Object::new());
    let mut status = status.to_value();
    status.remove("kind");
    status.remove("apiVersion");
    let text = json::to_string(&status) + "\n";
    reply::response(504, "text/plain; charset=utf-8", text, request)
}

/// Upstream's response to an unknown path.
pub(super) fn not_found(request: &http::HeaderMap) -> Response<Body> {
    error(404, "404 page not found\n", request)
}

/// The response of Go's net/http to an unparsable path, before any handler sees the request.
pub(super) fn unreadable() -> Response<Body> {
    let mut response = Response::new(http_body_util::Full::from("400 Bad Request").boxed_unsync());
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    let close = http::HeaderValue::from_static("close");
    headers.insert(header::CONNECTION, close);
    response
}

/// Upstream's response to a path of an old form that ends too early.
pub(super) fn undetermined(request: &Parts) -> Response<Body> {
    let uri = request
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let text = format!(
        "Internal Server Error: {}: failed to create RequestInfo: unable to determine kind and namespace from url, {uri}\n",
        quoted(uri)
    )
    .replace('&', "&amp;")
    .replace('<', "&lt;")
    .replace('>', "&gt;");
    error(500, &text, &request.headers)
}
