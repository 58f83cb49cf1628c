//! Writes on secrets when their tokens were last used, so that those that nobody uses can be found. Follows
//! k8s.io/kubernetes/pkg/serviceaccount/legacy.go.

use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::merge;
use super::server::Server;
use crate::auth::tokens::claims::{LAST_USED, Use};
use crate::schema::{Object, Value};
use crate::value;

/// The name of the task.
pub const TASK: &str = "uses of secrets' tokens";

/// Writes down what is told, until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    loop {
        let uses = tokio::select! {
            // Cancel-safe: what is taken is returned at once.
            uses = server.tokens.uses.take() => uses,
            () = ends.cancelled() => return,
        };
        for one in &uses {
            write(&server, one).await;
        }
    }
}

async fn write(server: &Arc<Server>, one: &Use) {
    let path = format!(
        "/api/v1/namespaces/{}/secrets/{}",
        one.namespace, one.secret
    );
    let mut labels = Object::new();
    labels.insert(LAST_USED, one.day.as_str());
    // The uid, so that no other secret of that name is written.
    let patch = value!({"metadata": {"uid": (one.uid.as_str()), "labels": (Value::from(labels))}});
    let failed = "a secret cannot be marked as used";
    let tolerate = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    merge(&path, &patch).write(server, &tolerate, failed).await;
}
