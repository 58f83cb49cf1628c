//! Shared by the controllers of objects that own others: waking owners, and writing statuses. Follows
//! k8s.io/kubernetes/pkg/controller/controller_utils.go.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;

use crate::client::errors::{is_conflict, is_not_found, text};
use crate::client::informer::{Cached, Informer, Key};
use crate::client::owners::controller_of;
use crate::client::queue::{Delays, Next, Queue};

/// Why an object has to be synced again.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A request to the API failed.
    #[error("{}", text(.0))]
    Api(#[from] kube::Error),
    /// An object could not be created or deleted; the text is the API's.
    #[error("{0}")]
    Refused(String),
}

/// A queue that gets the key of every changed object.
pub fn queue_of<K: Cached>(objects: &Informer<K>) -> Arc<Queue<Key>> {
    queue_with(objects, Delays::default())
}

/// Like [`queue_of`], with other delays after failures.
pub fn queue_with<K: Cached>(objects: &Informer<K>, delays: Delays) -> Arc<Queue<Key>> {
    let queue = Arc::new(Queue::with_delays(delays));
    objects.enqueue(&queue, |change| Some(change.key.clone()));
    queue
}

/// Enqueues the controller of each object that changes; for an orphan, every owner whose selector `fits` it.
pub fn wake_owners<K: Cached, C: Cached>(
    owned: &Informer<C>,
    owners: &Informer<K>,
    queue: &Arc<Queue<Key>>,
    fits: fn(&K, &C) -> bool,
) {
    let (owners, queue) = (owners.clone(), queue.clone());
    owned.subscribe(move |change| {
        let namespace = &change.key.namespace;
        let owner = |object: Option<&Arc<C>>| {
            let owner = controller_of(object?.meta())?;
            (owner.kind == K::kind(&())).then(|| Key::new(namespace, &owner.name))
        };
        let (before, after) = (owner(change.old), owner(change.new));
        if let Some(key) = before.filter(|key| after.as_ref() != Some(key)) {
            queue.add(key);
        }
        if let Some(key) = after {
            return queue.add(key);
        }
        let Some(orphan) = change.new.filter(|object| {
            controller_of(object.meta()).is_none() && object.meta().deletion_timestamp.is_none()
        }) else {
            return;
        };
        let known = change.old.is_some_and(|old| {
            controller_of(old.meta()).is_none() && old.meta().labels == orphan.meta().labels
        });
        if known {
            return;
        }
        for (key, owner) in owners.list(namespace) {
            if fits(&*owner, orphan) {
                queue.add(key);
            }
        }
    });
}

/// Updates the status of an object with `with`, and waits until the cache shows it. If the object changed meanwhile,
/// the status is written onto the new version: other changes do not affect it, except for the generation that it refers
/// to. If the object is gone, nothing is written.
///
/// # Errors
/// The API rejects the update.
pub async fn write_status<K>(
    client: &Client,
    cache: &Informer<K>,
    object: &K,
    with: impl Fn(&K) -> K,
) -> Result<(), kube::Error>
where
    K: Cached + Serialize + Resource<Scope = NamespaceResourceScope>,
{
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let mut new = with(object);
    for last in [false, true] {
        match api
            .replace_status(&name, &PostParams::default(), &new)
            .await
        {
            Ok(written) => {
                cache.reach(written.resource_version().as_deref()).await;
                return Ok(());
            }
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) if is_conflict(&error) && !last => match api.get_opt(&name).await? {
                Some(newer) if newer.meta().uid == object.meta().uid => new = with(&newer),
                _ => return Ok(()),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What follows from a write: nothing if the object is gone, another look if it changed meanwhile.
///
/// # Errors
/// The API rejects the write for another reason.
pub fn written<T>(result: Result<T, kube::Error>) -> Result<Next, kube::Error> {
    match result {
        Ok(_) => Ok(Next::Done),
        Err(error) if is_not_found(&error) => Ok(Next::Done),
        Err(error) if is_conflict(&error) => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

/// The characters of a hash: no vowels, and nothing that looks like one.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template, as names and labels show it. It is FNV-1, as upstream's, but of other bytes: upstream hashes
/// how Go prints the structure.
pub fn hash(parts: &[&[u8]]) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in parts.iter().copied().flatten() {
        hash = hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
    }
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()]))
        .collect()
}

/// Look again after this many milliseconds, if given.
pub fn after_millis(millis: Option<i64>) -> Next {
    match millis.and_then(|millis| u64::try_from(millis).ok()) {
        Some(millis) => Next::After(Duration::from_millis(millis)),
        None => Next::Done,
    }
}

/// An absolute number or a percentage of `total`, rounded up or down.
pub fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let share = if up {
                (product + 99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}
