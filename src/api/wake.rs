//! How tasks wait that keep objects right: they look at all of them, and again when something of them has changed.

use futures::future::select_all;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use crate::store::{Cursor, Interest, ResourcePrefix, Revision};

/// Cursors over all changes of these resources after a revision; none where the store does not know any more what
/// followed it.
pub fn cursors(
    server: &Server,
    resources: impl IntoIterator<Item = ResourcePrefix>,
    after: Revision,
) -> Option<Vec<Box<dyn Cursor>>> {
    let watch = |prefix: ResourcePrefix| {
        let interest = Interest {
            resource: prefix.clone(),
            keys: prefix,
            exact: false,
            field: None,
        };
        server.cluster.store.clone().watch(interest, after).ok()
    };
    resources.into_iter().map(watch).collect()
}

/// Waits until one of the resources changes; whether it did, and not all `ends`.
pub async fn changed(mut cursors: Vec<Box<dyn Cursor>>, ends: &CancellationToken) -> bool {
    let changed = select_all(cursors.iter_mut().map(|cursor| cursor.changed()));
    tokio::select! {
        // Cancel-safe by the cursors' contract.
        _ = changed => true,
        () = ends.cancelled() => false,
    }
}
