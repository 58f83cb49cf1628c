//! Keeps the status of CustomResourceDefinitions right: accepts names, establishes, and at the end deletes instances.
//! What is next is decided by [`conditions`]; this asks and does it, woken by the store, so that several servers over
//! one store agree whoever comes first.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::wake;
use crate::auth::User;
use crate::meta::time;
use crate::resources::custom::conditions::{self, Next};
use crate::resources::custom::definition::PREFIX;
use crate::resources::{Resource, forms, record};
use crate::schema::{Key, Value, json};
use crate::store::{Change, Cursor, Expect, StoreError};

/// Runs until `ends`.
pub async fn run(server: Arc<Server>, ends: CancellationToken) {
    loop {
        let Some(cursors) = wake_by(&server) else {
            return;
        };
        while pass(&server).await {}
        if !wake::changed(cursors, &ends).await {
            return;
        }
    }
}

/// Cursors over what can make a difference: all definitions, and the instances of those that end.
fn wake_by(server: &Server) -> Option<Vec<Box<dyn Cursor>>> {
    let rev = server.cluster.store.world().rev();
    let definitions = server.cluster.definitions();
    let ending = definitions
        .objects
        .iter()
        .filter(|(_, object)| object.at("metadata").get("deletionTimestamp").is_some())
        .filter_map(|(name, _)| Some(definitions.resources.get(name)?.prefix.clone()));
    wake::cursors(server, std::iter::once(PREFIX.into()).chain(ending), rev)
}

/// Does what is next about every definition; whether anything was done that may make more to do.
async fn pass(server: &Arc<Server>) -> bool {
    let names: Vec<Key> = server
        .cluster
        .definitions()
        .objects
        .keys()
        .cloned()
        .collect();
    let mut done = false;
    for name in names {
        // Each decision sees what the ones before have written.
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

/// Writes the status (and finalizers) of a definition through the API; whether it was taken.
async fn write(server: &Arc<Server>, name: &str, object: &Value) -> bool {
    let user = User {
        name: "system:apiserver".into(),
        groups: vec!["system:masters".into()],
        ..User::default()
    };
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}/status");
    let request = Request::put(path)
        .header(header::USER_AGENT, "kube-apiserver")
        .body(Full::new(Bytes::from(json::to_string(object))));
    let Ok(request) = request else { return false };
    let response = server.clone().handle(request, user).await;
    let status = response.status();
    if !status.is_success() && status != http::StatusCode::CONFLICT {
        tracing::error!(definition = name, %status, "the status of a definition cannot be written");
    }
    status.is_success()
}

/// Deletes every instance: at once, or marked where finalizers hold it. Whether anything was changed.
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
