//! Tasks that keep objects up to date: they check all of them, and again whenever something has changed.

use std::sync::Arc;

use futures::future::select_all;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use crate::store::{Cursor, Interest, ResourcePrefix, Revision, StoreError};

/// Calls `look`, and again after each change of the resources that `which` returns, until `ends` is cancelled or the
/// store closes. No change is missed: the cursors are created before `look` begins, and `which` is called again each
/// time.
pub async fn keep<L>(
    server: Arc<Server>,
    ends: CancellationToken,
    which: impl Fn(&Server) -> Vec<ResourcePrefix> + Send,
    look: impl Fn(Arc<Server>) -> L + Send,
) where
    L: Future<Output = ()> + Send,
{
    while let Some(cursors) = cursors(&server, &which) {
        look(server.clone()).await;
        if !changed(cursors, &ends).await {
            return;
        }
    }
}

/// Cursors over all changes from now on; None once the store is closed.
fn cursors(
    server: &Server,
    which: impl Fn(&Server) -> Vec<ResourcePrefix>,
) -> Option<Vec<Box<dyn Cursor>>> {
    loop {
        // Taken first, so that changes while `which` runs are included.
        let now = server.cluster.store.world().rev();
        match which(server)
            .into_iter()
            .map(|prefix| watch(server, prefix, now))
            .collect()
        {
            Ok(cursors) => return Some(cursors),
            // History was compacted past that revision meanwhile.
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => {
                tracing::debug!(%error, "cannot follow changes of the store any more");
                return None;
            }
        }
    }
}

fn watch(
    server: &Server,
    prefix: ResourcePrefix,
    after: Revision,
) -> Result<Box<dyn Cursor>, StoreError> {
    let interest = Interest {
        resource: prefix.clone(),
        keys: prefix,
        exact: false,
        field: None,
    };
    server.cluster.store.clone().watch(interest, after)
}

/// Waits until a cursor has a change; returns false if `ends` was cancelled.
async fn changed(mut cursors: Vec<Box<dyn Cursor>>, ends: &CancellationToken) -> bool {
    let changed = select_all(cursors.iter_mut().map(|cursor| cursor.changed()));
    tokio::select! {
        // Cancel-safe by the cursors' contract.
        _ = changed => true,
        () = ends.cancelled() => false,
    }
}
