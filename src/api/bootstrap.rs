//! What a cluster has from the first moment on, made through the API's own pipeline.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::server::Server;
use crate::auth::User;

/// Namespaces that upstream makes at its start.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes the system namespaces that are missing.
pub async fn namespaces(server: &Arc<Server>) {
    let user = User {
        name: "system:apiserver".into(),
        groups: vec!["system:masters".into()],
        ..User::default()
    };
    for name in NAMESPACES {
        let body =
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        let request = Request::post("/api/v1/namespaces?fieldManager=kube-apiserver")
            .body(Full::new(Bytes::from(body)));
        let Ok(request) = request else { continue };
        let response = server.clone().handle(request, user.clone()).await;
        if !response.status().is_success() && response.status() != http::StatusCode::CONFLICT {
            tracing::error!(namespace = name, status = %response.status(), "a system namespace cannot be made");
        }
    }
}
