//! The objects of a new cluster, created and kept complete through the API's own pipeline. Follows k8s.io/kubernetes
//! pkg/registry/rbac/rest/storage_rbac.go.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use http::StatusCode;

use super::own_client::{delete, post, put};
use super::server::Server;
use crate::auth::bootstrap::{Bootstrap, Reconcile, objects, reconcile};
use crate::resources::Resource;

/// Objects written at the same time: they share the store's commits.
const AT_ONCE: usize = 64;
/// How often a write is tried that conflicts with another server.
const TRIES: usize = 3;

/// Creates missing bootstrap objects, and restores missing rules and subjects of roles and bindings. Several servers
/// may do so at once.
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
    let mut refused = None;
    for _ in 0..TRIES {
        let existing = server.cluster.get(group, &resource.plural, namespace, name);
        let answer = match existing.map(|existing| reconcile(&existing, expected)) {
            Some(Reconcile::Nothing) => return,
            None => {
                let created = post(&collection, expected).managed_by(manager);
                created.send(server).await
            }
            Some(Reconcile::Update(object)) => {
                put(&one, &object).managed_by(manager).send(server).await
            }
            Some(Reconcile::Recreate(object)) => {
                // If the deletion fails, the creation reports it.
                delete(&one).send(server).await;
                let created = post(&collection, &object).managed_by(manager);
                created.send(server).await
            }
        };
        if answer.status.is_success() {
            return;
        }
        let lost = answer.status == StatusCode::CONFLICT;
        refused = Some(answer);
        if !lost {
            break;
        }
    }
    if let Some(refused) = refused {
        refused.warn(&one, "an object that every cluster has cannot be written");
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
