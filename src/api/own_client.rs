//! The server as a client of its own API: its own writes go through the same pipeline as everybody's.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use super::server::Server;
use crate::auth::{AUTHENTICATED, MASTERS, User};
use crate::resources::owners;
use crate::schema::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";

/// A request of the server itself.
pub(super) struct Ask<'a> {
    method: Method,
    content_type: &'static str,
    path: &'a str,
    manager: &'a str,
    object: Option<&'a Value>,
}

/// The response: the status code, and the message of an error.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// Creates an object in the collection at `path`.
pub(super) fn post<'a>(path: &'a str, object: &'a Value) -> Ask<'a> {
    Ask::new(Method::POST, "application/json", path, Some(object))
}

/// Replaces the object at `path`.
pub(super) fn put<'a>(path: &'a str, object: &'a Value) -> Ask<'a> {
    Ask::new(Method::PUT, "application/json", path, Some(object))
}

/// Applies an object at `path`, with force.
pub(super) fn apply<'a>(path: &'a str, object: &'a Value) -> Ask<'a> {
    Ask::new(Method::PATCH, APPLY, path, Some(object))
}

/// Changes the object at `path` by a merge patch.
pub(super) fn merge<'a>(path: &'a str, patch: &'a Value) -> Ask<'a> {
    const MERGE: &str = "application/merge-patch+json";
    Ask::new(Method::PATCH, MERGE, path, Some(patch))
}

/// Deletes the object at `path`.
pub(super) fn delete(path: &str) -> Ask<'_> {
    Ask::new(Method::DELETE, "application/json", path, None)
}

impl<'a> Ask<'a> {
    fn new(
        method: Method,
        content_type: &'static str,
        path: &'a str,
        object: Option<&'a Value>,
    ) -> Self {
        Ask {
            method,
            content_type,
            path,
            manager: owners::SERVER,
            object,
        }
    }

    /// Adds a body to one that has none: the options of a deletion.
    pub(super) fn with(self, options: &'a Value) -> Self {
        Ask {
            object: Some(options),
            ..self
        }
    }

    /// Sets a field manager other than the API server.
    pub(super) fn managed_by(self, manager: &'a str) -> Self {
        Ask { manager, ..self }
    }

    /// Sends it.
    pub(super) async fn send(self, server: &Arc<Server>) -> Answer {
        let user = User::new("system:apiserver", &[MASTERS, AUTHENTICATED]);
        let body = self.object.map(json::to_string).unwrap_or_default();
        let (path, manager) = (self.path, self.manager);
        let uri = match self.method {
            Method::DELETE => path.to_owned(),
            Method::PATCH if self.content_type == APPLY => {
                format!("{path}?fieldManager={manager}&force=true")
            }
            _ => format!("{path}?fieldManager={manager}"),
        };
        let request = Request::builder()
            .method(self.method)
            .uri(uri)
            .header(header::CONTENT_TYPE, self.content_type)
            .body(Full::new(Bytes::from(body)));
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                return Answer {
                    status: StatusCode::BAD_REQUEST,
                    message: error.to_string(),
                };
            }
        };
        let response = server.clone().handle(request, Ok(user)).await;
        let status = response.status();
        if status.is_success() {
            let message = String::new();
            return Answer { status, message };
        }
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let message = json::parse(&body).map_or_else(
            |_| String::from_utf8_lossy(&body).into_owned(),
            |parsed| parsed.value.str("message").to_owned(),
        );
        Answer { status, message }
    }

    /// Sends it; returns whether it succeeded. A failure is logged as a warning that begins with `failed`, unless its
    /// code is in `tolerate`: a conflict is usually another server's success.
    pub(super) async fn write(
        self,
        server: &Arc<Server>,
        tolerate: &[StatusCode],
        failed: &str,
    ) -> bool {
        let path = self.path;
        let answer = self.send(server).await;
        let taken = answer.status.is_success();
        if !taken && !tolerate.contains(&answer.status) {
            answer.warn(path, failed);
        }
        taken
    }
}

impl Answer {
    /// Logs a warning about the failed request at `path`.
    pub(super) fn warn(&self, path: &str, failed: &str) {
        tracing::warn!(path, status = %self.status, message = self.message, "{failed}");
    }
}
