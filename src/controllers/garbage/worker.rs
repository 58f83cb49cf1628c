//! Handles one object of the graph. All decisions are based on the current state in the API; the graph only shows where
//! to look.

mod owners;

use futures::{StreamExt as _, stream};
use kube::api::{DeleteParams, ListParams, Preconditions, PropagationPolicy};

use self::owners::{classify, drop_owners, release, remove_finalizer, unblock};
use super::graph::{Identity, ORPHAN, Seen};
use super::{Shared, WORKERS};
use crate::client::discovery::{Bare, Served};
use crate::client::errors::{FirstFailure, is_conflict, is_not_found, text};
use crate::client::queue::Next;

/// Why an object has to be looked at again.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// The kind of an owner is not served (any more, or yet).
    #[error("{api_version} {kind} is not served")]
    Unknown {
        /// The version in the reference.
        api_version: String,
        /// The kind in the reference.
        kind: String,
    },
    /// The API rejected a request.
    #[error("{attempted} {kind} {namespace}/{name}: {}", text(.cause))]
    Api {
        /// What was attempted.
        attempted: &'static str,
        /// On which kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The error.
        cause: Box<kube::Error>,
    },
}

fn api_error<'a>(
    attempted: &'static str,
    identity: &'a Identity,
) -> impl FnOnce(kube::Error) -> GarbageError + 'a {
    move |cause| GarbageError::Api {
        attempted,
        kind: identity.kind.to_string(),
        namespace: identity.namespace.to_string(),
        name: identity.name.to_string(),
        cause: Box::new(cause),
    }
}

/// Retries quietly if the kind is not served: it may still come, and cannot be distinguished from a reference to
/// something that never existed.
pub fn patient(result: Result<Next, GarbageError>) -> Result<Next, GarbageError> {
    match result {
        Err(error @ GarbageError::Unknown { .. }) => {
            tracing::debug!(%error, "cannot check an object's owners yet");
            Ok(Next::Retry)
        }
        other => other,
    }
}

/// Finds out whether an object has to be deleted, and deletes it; removes the finalizer of an object that waited for
/// its dependents.
pub async fn delete(shared: &Shared, uid: &str) -> Result<Next, GarbageError> {
    let Some(item) = shared.graph.lock().item(uid) else {
        return Ok(Next::Done);
    };
    if item.deleting && !item.waiting {
        return Ok(Next::Done);
    }
    let served = resource(shared, &item.identity.api_version, &item.identity.kind)?;
    if served.namespaced && item.identity.namespace.is_empty() {
        // Only a cluster-scoped object refers to it, which cannot be right. Nothing can be found out about it.
        return Ok(Next::Done);
    }
    let seen = |found: &Bare| {
        let resource = &served.resource;
        Seen::of(found, &resource.api_version, &resource.kind)
    };
    let confirm = |seen: Seen| {
        let work = shared.graph.lock().confirm(seen, item.serial);
        shared.add(work);
    };
    let Some(latest) = get(shared, &served, &item.identity).await? else {
        if !item.observed
            && let Some(found) = elsewhere(shared, &served, &item.identity).await?
        {
            // Now those know better that refer to it from other namespaces.
            confirm(seen(&found));
            return Ok(Next::Done);
        }
        return Ok(missing(shared, &item.identity));
    };
    let seen = seen(&latest);
    if !item.observed {
        confirm(seen.clone());
    }
    if item.waiting {
        return release(shared, &served, &item, &latest).await;
    }
    if seen.owners.is_empty() {
        return Ok(Next::Done);
    }
    let owners = classify(shared, &item.identity, &seen.owners).await?;
    if owners.solid > 0 {
        let lost: Vec<&str> = owners
            .dangling
            .iter()
            .chain(&owners.waiting)
            .map(|uid| &**uid)
            .collect();
        if !lost.is_empty() {
            drop_owners(shared, &served, &latest, &item.identity, &lost).await?;
        }
        return Ok(Next::Done);
    }
    let policy = if !owners.waiting.is_empty() && !item.dependents.is_empty() {
        if item.dependent_waits {
            // Both its owner and its dependents wait: a cycle, unless it stops blocking.
            unblock(shared, &served, &latest, &item.identity).await?;
        }
        PropagationPolicy::Foreground
    } else if seen.orphans {
        PropagationPolicy::Orphan
    } else if seen.waits {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    erase(shared, &served, &latest, &item.identity, policy).await
}

/// Deletes an object unless its owners are no longer those of `latest`. Other changes do not count: an object that
/// changes all the time would never be deleted.
async fn erase(
    shared: &Shared,
    served: &Served,
    latest: &Bare,
    identity: &Identity,
    policy: PropagationPolicy,
) -> Result<Next, GarbageError> {
    let api = served.api(&shared.context.client, &identity.namespace);
    let mut version = latest.metadata.resource_version.clone();
    loop {
        let params = DeleteParams {
            propagation_policy: Some(policy.clone()),
            preconditions: Some(Preconditions {
                uid: latest.metadata.uid.clone(),
                resource_version: version.clone(),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&identity.name, &params).await {
            Ok(_) => return Ok(Next::Done),
            Err(error) if is_not_found(&error) => return Ok(missing(shared, identity)),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(api_error("cannot delete", identity)(error)),
        }
        if version.take().is_none() {
            return Ok(Next::Retry);
        }
        let Some(now) = get(shared, served, identity).await? else {
            return Ok(missing(shared, identity));
        };
        if now.metadata.owner_references != latest.metadata.owner_references {
            return Ok(Next::Retry);
        }
    }
}

/// Records that an object does not exist, and returns whether to look again.
fn missing(shared: &Shared, identity: &Identity) -> Next {
    let (work, elsewhere) = shared.graph.lock().missing(identity);
    shared.add(work);
    match elsewhere {
        true => Next::Retry,
        false => Next::Done,
    }
}

/// Orphans the dependents of an object, and then removes its finalizer.
pub async fn orphan(shared: &Shared, uid: &str) -> Result<Next, GarbageError> {
    let Some(item) = shared.graph.lock().item(uid) else {
        return Ok(Next::Done);
    };
    let each = item.dependents.iter();
    let each: Vec<_> = each
        .map(|dependent| disown(shared, dependent, uid))
        .collect();
    let mut each = stream::iter(each).buffer_unordered(WORKERS);
    let mut failed = FirstFailure::default();
    while let Some(disowned) = each.next().await {
        failed.note(disowned);
    }
    failed.or(())?;
    let served = resource(shared, &item.identity.api_version, &item.identity.kind)?;
    match get(shared, &served, &item.identity).await? {
        Some(latest) => remove_finalizer(shared, &served, &latest, &item.identity, ORPHAN).await,
        None => Ok(Next::Done),
    }
}

/// Removes the reference to an owner from one of its dependents.
async fn disown(shared: &Shared, dependent: &Identity, owner: &str) -> Result<(), GarbageError> {
    let served = resource(shared, &dependent.api_version, &dependent.kind)?;
    match get(shared, &served, dependent).await? {
        Some(latest) => drop_owners(shared, &served, &latest, dependent, &[owner]).await,
        None => Ok(()),
    }
}

fn resource(shared: &Shared, api_version: &str, kind: &str) -> Result<Served, GarbageError> {
    shared
        .kinds
        .get(api_version, kind)
        .ok_or_else(|| GarbageError::Unknown {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        })
}

/// The object, if it exists with this uid.
async fn get(
    shared: &Shared,
    served: &Served,
    identity: &Identity,
) -> Result<Option<Bare>, GarbageError> {
    let api = served.api(&shared.context.client, &identity.namespace);
    let found = api
        .get_opt(&identity.name)
        .await
        .map_err(api_error("cannot read", identity))?;
    Ok(found.filter(|found| found.metadata.uid.as_deref() == Some(&*identity.uid)))
}

/// The object that somebody refers to from a wrong namespace, if there is one. The graph does not know it as long as
/// nobody refers to it as it should be.
async fn elsewhere(
    shared: &Shared,
    served: &Served,
    identity: &Identity,
) -> Result<Option<Bare>, GarbageError> {
    if !served.namespaced || !served.can(&["list"]) {
        return Ok(None);
    }
    let named = ListParams::default().fields(&format!("metadata.name={}", identity.name));
    let found = served.api(&shared.context.client, "").list(&named).await;
    let found = found.map_err(api_error("cannot look for", identity))?.items;
    let mut found = found.into_iter();
    Ok(found.find(|found| found.metadata.uid.as_deref() == Some(&*identity.uid)))
}

#[cfg(test)]
mod tests;
