//! Maintains the status of CustomResourceDefinitions: accepts names, establishes them, and finally deletes instances.
//! [`conditions`] decides the next step; this module requests it from the API, woken by the store, so that several
//! servers on one store agree, whichever is first.

use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::own_client::put;
use super::reconcile;
use super::server::Server;
use crate::meta::time;
use crate::resources::custom::conditions::{self, Next};
use crate::resources::custom::definition::PREFIX;
use crate::resources::{Resource, forms, record};
use crate::schema::{Key, Value};
use crate::store::{Change, Expect, ResourcePrefix, StoreError};

/// The name of the task.
pub const TASK: &str = "status of custom resource definitions";

/// Takes the next steps for all definitions until `ends` is cancelled.
pub async fn keep(server: Arc<Server>, ends: CancellationToken) {
    let look = |server: Arc<Server>| async move { while ensure(&server).await {} };
    reconcile::keep(server, ends, causes, look).await;
}

/// The changes to wait for: all definitions, and the instances of those that are being deleted.
fn causes(server: &Server) -> Vec<ResourcePrefix> {
    let definitions = server.cluster.definitions();
    let ending = definitions
        .objects
        .iter()
        .filter(|(_, object)| object.at("metadata").get("deletionTimestamp").is_some())
        .filter_map(|(name, _)| Some(definitions.resources.get(name)?.prefix.clone()));
    std::iter::once(PREFIX.into()).chain(ending).collect()
}

/// Takes the next step for every definition; returns whether something changed, so that there may be more to do.
async fn ensure(server: &Arc<Server>) -> bool {
    let names: Vec<Key> = server
        .cluster
        .definitions()
        .objects
        .keys()
        .cloned()
        .collect();
    let mut done = false;
    for name in names {
        // Each decision sees the writes of earlier ones.
        let definitions = server.cluster.definitions();
        let Some(object) = definitions.objects.get(&name) else {
            continue;
        };
        let resource = definitions.resources.get(&name);
        let world = server.cluster.store.world();
        let instances = resource.is_some_and(|resource| world.count(&resource.prefix) > 0);
        let others = definitions
            .objects
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(_, object)| &**object);
        match conditions::next(object, others, instances, &time::print(time::now())) {
            Next::Rest => {}
            Next::Write(changed) => done |= write(server, &name, &changed).await,
            Next::DeleteInstances => {
                if let Some(resource) = resource {
                    done |= delete_instances(server, resource).await;
                }
            }
        }
    }
    done
}

/// Writes the status (and finalizers) of a definition through the API; returns whether it succeeded.
async fn write(server: &Arc<Server>, name: &str, object: &Value) -> bool {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}/status");
    // A concurrent change has woken this task again.
    let tolerate = [StatusCode::CONFLICT];
    let failed = "the status of a definition cannot be written";
    put(&path, object).write(server, &tolerate, failed).await
}

/// Deletes every instance, or marks it as deleted if it has finalizers. Returns whether anything changed.
async fn delete_instances(server: &Server, resource: &Resource) -> bool {
    let Some(custom) = &resource.custom else {
        return false;
    };
    let store = &server.cluster.store;
    let world = store.world();
    let mut done = false;
    for entry in world.range(&resource.prefix, &resource.prefix, "") {
        let mut object = forms::restored(resource, custom, entry);
        let held = !object.at("metadata").list("finalizers").is_empty();
        if held && object.at("metadata").get("deletionTimestamp").is_some() {
            continue;
        }
        let generation = object.at("metadata").int("generation");
        let meta = object.object_mut().object_mut("metadata");
        meta.insert("deletionTimestamp", time::print(time::now()));
        meta.insert("deletionGracePeriodSeconds", 0i64);
        meta.insert("generation", generation + 1);
        let change = Change {
            resource: resource.prefix.clone(),
            key: entry.key.clone(),
            expect: Expect::Revision(entry.rev),
            put: held.then(|| record::encode(resource, &object)),
            ttl: None,
        };
        match store.commit(vec![change]).await {
            Ok(_) => done = true,
            Err(StoreError::Conflict { .. }) => done = true,
            Err(error) => {
                tracing::error!(key = &*entry.key, %error, "an instance cannot be deleted");
                return false;
            }
        }
    }
    done
}
