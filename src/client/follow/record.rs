//! Events as changes of a record of objects, including what lists no longer have.

use std::collections::HashSet;
use std::hash::Hash;

use futures::{Stream, StreamExt as _};
use kube::Resource;

use super::{Broken, Event};

/// A change for a consumer that keeps a record of objects.
pub enum Told<K, I> {
    /// An object was created or changed, or exists.
    There(K),
    /// An object was deleted, with its last state.
    Gone(K),
    /// These are all objects that exist: others are gone.
    Only(HashSet<I>),
    /// All changes up to this resourceVersion were reported; 0 if the server's versions cannot be compared.
    UpTo(u64),
}

/// Turns the events of [`follow`] into changes of a record, including what is missing in lists. `id` identifies an
/// object. Ends with the events, which is never.
pub async fn record<K: Resource, I: Eq + Hash>(
    kind: &str,
    mut events: impl Stream<Item = Result<Event<K>, Broken>> + Unpin,
    id: impl Fn(&K) -> I,
    mut told: impl FnMut(Told<K, I>),
) {
    let up_to = |version: &str| Told::UpTo(version.parse().unwrap_or(0));
    let version_of = |object: &K| {
        let version = object.meta().resource_version.as_deref();
        up_to(version.unwrap_or_default())
    };
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Listing) => listed.clear(),
            // A list is not in the order of changes: only the complete list tells up to which version everything is
            // known.
            Ok(Event::Listed(object)) => {
                listed.insert(id(&object));
                told(Told::There(object));
            }
            Ok(Event::Complete(version)) => {
                told(Told::Only(std::mem::take(&mut listed)));
                told(up_to(&version));
            }
            Ok(Event::Applied(object)) => {
                let version = version_of(&object);
                told(Told::There(object));
                told(version);
            }
            Ok(Event::Deleted(object)) => {
                let version = version_of(&object);
                told(Told::Gone(object));
                told(version);
            }
            Ok(Event::UpTo(version)) => told(up_to(&version)),
            // A warning, because callers that wait for it do nothing meanwhile.
            Err(error) if !error.is_usual() => {
                tracing::warn!(kind, %error, "a watch was interrupted; it resumes");
            }
            Err(error) => tracing::debug!(kind, %error, "a watch was interrupted; it resumes"),
        }
    }
}
