//! The owners of an object, as the API has them.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::super::Shared;
use super::super::graph::{FOREGROUND, Identity, Item, Owner, Seen};
use super::{GarbageError, api_error, get, resource};
use crate::client::discovery::{Bare, Served};
use crate::client::errors::{is_conflict, is_not_found};
use crate::client::queue::Next;

/// The owners of an object, by their state.
#[derive(Default)]
pub(super) struct Owners<'a> {
    /// How many exist (or cannot be checked).
    pub(super) solid: usize,
    /// The uids of those that no longer exist.
    pub(super) dangling: Vec<&'a str>,
    /// Those that wait for their dependents.
    pub(super) waiting: Vec<&'a str>,
}

pub(super) async fn classify<'a>(
    shared: &Shared,
    item: &Identity,
    owners: &'a [Owner],
) -> Result<Owners<'a>, GarbageError> {
    let mut out = Owners::default();
    for owner in owners {
        let known = shared.kinds.get(&owner.api_version, &owner.kind);
        let namespaced = known.as_ref().is_some_and(|served| served.namespaced);
        if namespaced && item.namespace.is_empty() {
            // A namespaced owner of a cluster-scoped object is invalid; such a reference is treated as solid.
            out.solid += 1;
            continue;
        }
        let absent = {
            let graph = shared.graph.lock();
            let absent = |namespace| graph.is_absent(&owner.identity(namespace));
            (!namespaced && absent("")) || absent(&item.namespace)
        };
        if absent {
            out.dangling.push(&owner.uid);
            continue;
        }
        let served = resource(shared, &owner.api_version, &owner.kind)?;
        let namespace = if served.namespaced {
            &*item.namespace
        } else {
            ""
        };
        let identity = owner.identity(namespace);
        match get(shared, &served, &identity).await? {
            None => {
                shared.graph.lock().remember_absent(identity);
                out.dangling.push(&owner.uid);
            }
            Some(found) => {
                let found = Seen::of(&found, &owner.api_version, &owner.kind);
                if found.deleting && found.waits {
                    out.waiting.push(&owner.uid);
                } else {
                    out.solid += 1;
                }
            }
        }
    }
    Ok(out)
}

/// Removes the finalizer of an object that waits for its dependents, once none of them blocks it.
pub(super) async fn release(
    shared: &Shared,
    served: &Served,
    item: &Item,
    latest: &Bare,
) -> Result<Next, GarbageError> {
    if item.blocking.is_empty() {
        return remove_finalizer(shared, served, latest, &item.identity, FOREGROUND).await;
    }
    for (dependent, waits) in &item.blocking {
        if !waits {
            shared.delete.add(dependent.clone());
        }
    }
    Ok(Next::Done)
}

async fn patch(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
    mut metadata: serde_json::Value,
) -> Result<bool, GarbageError> {
    metadata["uid"] = json!(latest.metadata.uid);
    metadata["resourceVersion"] = json!(latest.metadata.resource_version);
    let body = json!({"metadata": metadata});
    let api = served.api(&shared.context.client, &identity.namespace);
    match api
        .patch(&identity.name, &PatchParams::default(), &Patch::Merge(body))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(api_error("cannot change", identity)(error)),
    }
}

pub(super) async fn remove_finalizer(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
    finalizer: &str,
) -> Result<Next, GarbageError> {
    let had = latest.metadata.finalizers.clone().unwrap_or_default();
    let kept: Vec<&String> = had.iter().filter(|known| *known != finalizer).collect();
    if kept.len() == had.len() {
        return Ok(Next::Done);
    }
    let done = patch(
        shared,
        served,
        latest,
        identity,
        json!({"finalizers": kept}),
    )
    .await?;
    Ok(if done { Next::Done } else { Next::Retry })
}

/// Removes owner references from an object. Retries after conflicts.
pub(super) async fn drop_owners(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
    lost: &[&str],
) -> Result<(), GarbageError> {
    change_owners(shared, served, latest, identity, |owners| {
        owners.retain(|owner| !lost.contains(&owner.uid.as_str()));
    })
    .await
}

/// Sets `blockOwnerDeletion` to false in all owner references of an object.
pub(super) async fn unblock(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
) -> Result<(), GarbageError> {
    change_owners(shared, served, latest, identity, |owners| {
        for owner in owners.iter_mut() {
            if owner.block_owner_deletion == Some(true) {
                owner.block_owner_deletion = Some(false);
            }
        }
    })
    .await
}

async fn change_owners(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
    change: impl Fn(&mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>),
) -> Result<(), GarbageError> {
    const TRIES: usize = 5;
    let mut latest = latest.clone();
    for _ in 0..TRIES {
        let had = latest.metadata.owner_references.clone().unwrap_or_default();
        let mut owners = had.clone();
        change(&mut owners);
        if owners == had {
            return Ok(());
        }
        let metadata = json!({"ownerReferences": owners});
        if patch(shared, served, &latest, identity, metadata).await? {
            return Ok(());
        }
        match get(shared, served, identity).await? {
            Some(newer) => latest = newer,
            None => return Ok(()),
        }
    }
    let conflict = kube::core::Status::failure("it changes all the time", "Conflict").boxed();
    Err(api_error("cannot change", identity)(kube::Error::Api(
        conflict,
    )))
}
