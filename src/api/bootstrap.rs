//! What a cluster has from the first moment on, made and kept complete through the API's own pipeline. Follows
//! k8s.io/kubernetes pkg/registry/rbac/rest/storage_rbac.go.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};

use super::server::Server;
use crate::auth::bootstrap::{Bootstrap, Reconcile, objects, reconcile};
use crate::auth::{AUTHENTICATED, MASTERS, User};
use crate::resources::Resource;
use crate::schema::{Value, json};

/// Objects written at once: they share the store's commits.
const AT_ONCE: usize = 64;
/// How often a write that lost a race against another server is tried.
const TRIES: usize = 3;

/// Makes what is missing of what a cluster begins with, and gives roles and bindings back what they lack. Several
/// servers may do so at once.
pub async fn objects_of_a_new_cluster(server: &Arc<Server>) {
    let is_namespace = |bootstrap: &&Bootstrap| bootstrap.object.str("kind") == "Namespace";
    for namespaces in [true, false] {
        stream::iter(objects().iter().filter(|b| is_namespace(b) == namespaces))
            .for_each_concurrent(AT_ONCE, |bootstrap| make(server, bootstrap))
            .await;
    }
}

async fn make(server: &Arc<Server>, bootstrap: &Bootstrap) {
    let expected = &bootstrap.object;
    let (api_version, kind) = (expected.str("apiVersion"), expected.str("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let registry = server.cluster.registry();
    let Some(resource) = registry.by_kind(group, kind) else {
        return;
    };
    let meta = expected.at("metadata");
    let (namespace, name) = (meta.str("namespace"), meta.str("name"));
    let collection = path(resource, version, namespace);
    let one = format!("{collection}/{}", name.replace('%', "%25"));
    let manager = &bootstrap.manager;
    let mut answer = (StatusCode::OK, String::new());
    for _ in 0..TRIES {
        let existing = server.cluster.get(group, &resource.plural, namespace, name);
        let todo = match &existing {
            None => {
                answer = send(server, Method::POST, &collection, manager, Some(expected)).await;
                if answer.0 == StatusCode::CONFLICT {
                    continue;
                }
                break;
            }
            Some(existing) => reconcile(existing, expected),
        };
        match todo {
            Reconcile::Nothing => return,
            Reconcile::Update(object) => {
                answer = send(server, Method::PUT, &one, manager, Some(&object)).await;
            }
            Reconcile::Recreate(object) => {
                send(server, Method::DELETE, &one, manager, None).await;
                answer = send(server, Method::POST, &collection, manager, Some(&object)).await;
            }
        }
        if answer.0 != StatusCode::CONFLICT {
            break;
        }
    }
    if !answer.0.is_success() {
        tracing::warn!(
            kind,
            name,
            status = %answer.0,
            message = answer.1,
            "an object that every cluster has cannot be written"
        );
    }
}

/// The path of a collection.
fn path(resource: &Resource, version: &str, namespace: &str) -> String {
    let mut path = if resource.group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{}/{version}", resource.group)
    };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push('/');
    path.push_str(&resource.plural);
    path
}

/// Asks the API as the server itself; answers the code, and the message of a refusal.
pub(super) async fn send(
    server: &Arc<Server>,
    method: Method,
    path: &str,
    manager: &str,
    object: Option<&Value>,
) -> (StatusCode, String) {
    ask(server, method, "application/json", path, manager, object).await
}

/// Applies an object as the server itself.
pub(super) async fn apply(
    server: &Arc<Server>,
    path: &str,
    manager: &str,
    object: &Value,
) -> (StatusCode, String) {
    const APPLY: &str = "application/apply-patch+yaml";
    ask(server, Method::PATCH, APPLY, path, manager, Some(object)).await
}

async fn ask(
    server: &Arc<Server>,
    method: Method,
    content_type: &str,
    path: &str,
    manager: &str,
    object: Option<&Value>,
) -> (StatusCode, String) {
    let user = User::new("system:apiserver", &[MASTERS, AUTHENTICATED]);
    let body = object.map(json::to_string).unwrap_or_default();
    let uri = if method == Method::DELETE {
        path.to_owned()
    } else {
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}fieldManager={manager}")
    };
    let request = match Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(Full::new(Bytes::from(body)))
    {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let response = server.clone().handle(request, user).await;
    let status = response.status();
    if status.is_success() {
        return (status, String::new());
    }
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let message = json::parse(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).into_owned(),
        |parsed| parsed.value.str("message").to_owned(),
    );
    (status, message)
}
