//! Maintenance of a store: deletes expired entries and compacts history.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{Change, Expect, ResourcePrefix, Revision, Store, StoreError, World};

/// History is compacted this often, to the revision of the previous time, so that one to two intervals are kept, like
/// upstream's `--etcd-compaction-interval`.
const COMPACTION: Duration = Duration::from_secs(300);

/// The longest time between two searches for expired entries.
const LOOK: Duration = Duration::from_secs(60);

/// How many expired entries are deleted at once.
const TOGETHER: usize = 256;

/// The name of the task.
pub const TASK: &str = "upkeep of the store";

/// Maintains a store until `ends`. Several servers on one store may do this: the second finds nothing to do.
pub async fn keep(store: Arc<dyn Store>, ends: CancellationToken) {
    let mut before = store.world().rev();
    let mut compaction =
        tokio::time::interval_at(tokio::time::Instant::now() + COMPACTION, COMPACTION);
    let mut look = Duration::ZERO;
    loop {
        tokio::select! {
            () = ends.cancelled() => return,
            _ = compaction.tick() => {
                if let Err(error) = store.compact(before).await {
                    tracing::warn!(%error, "cannot compact the store's history");
                }
                before = store.world().rev();
            }
            () = tokio::time::sleep(look) => {
                let (due, next) = expired(&store.world(), now());
                // In parallel, so that the deletions share transactions.
                let each = |(resource, key, rev)| expire(&*store, resource, key, rev);
                stream::iter(due).for_each_concurrent(TOGETHER, each).await;
                look = next.map_or(LOOK, |at| Duration::from_secs(at.saturating_sub(now()).max(1)).min(LOOK));
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs())
}

/// An expired entry: its resource, its key, its revision.
type Due = (ResourcePrefix, Arc<str>, Revision);

/// The entries expired at `now` (seconds since 1970), and when the next one expires. The entries of a resource expire
/// all or none (only events do), so a resource is skipped if its first entry never does.
fn expired(world: &World, now: u64) -> (Vec<Due>, Option<u64>) {
    let mut due = Vec::new();
    let mut next: Option<u64> = None;
    for (resource, map) in &world.resources {
        for entry in map.values() {
            match entry.expires {
                None => break,
                Some(at) if at <= now => due.push((resource.clone(), entry.key.clone(), entry.rev)),
                Some(at) => next = Some(next.map_or(at, |known| known.min(at))),
            }
        }
    }
    (due, next)
}

/// Deletes an entry, unless it has been written again.
async fn expire(store: &dyn Store, resource: ResourcePrefix, key: Arc<str>, rev: Revision) {
    let change = Change {
        resource,
        key,
        expect: Expect::Revision(rev),
        put: None,
        ttl: None,
    };
    match store.commit(vec![change]).await {
        Ok(_) | Err(StoreError::Conflict { .. } | StoreError::Closed) => {}
        Err(error) => tracing::warn!(%error, "cannot delete an expired entry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Record, memory};

    fn put(resource: &str, name: &str, ttl: Option<u64>) -> Vec<Change> {
        vec![Change {
            resource: resource.into(),
            key: format!("{resource}{name}").into(),
            expect: Expect::Absent,
            put: Some(Record::default()),
            ttl,
        }]
    }

    #[tokio::test]
    async fn what_has_expired_goes_and_what_was_written_anew_stays() {
        let store = memory();
        for (resource, name, ttl) in [
            ("/registry/events/", "gone", Some(0)),
            ("/registry/events/", "later", Some(100)),
            ("/registry/pods/", "never", None),
        ] {
            store
                .commit(put(resource, name, ttl))
                .await
                .expect("a commit");
        }
        let (due, next) = expired(&store.world(), now());
        let keys: Vec<&str> = due.iter().map(|(_, key, _)| &**key).collect();
        assert_eq!(keys, ["/registry/events/gone"]);
        assert!(next.is_some_and(|at| at > now() + 50));
        let (resource, key, rev) = due.into_iter().next().expect("one entry");
        expire(&*store, resource.clone(), key.clone(), rev - 1).await;
        assert!(
            store.head(&key).is_some(),
            "another revision is another entry"
        );
        expire(&*store, resource, key.clone(), rev).await;
        assert!(store.head(&key).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn history_is_kept_for_one_interval_at_least() {
        let store = memory();
        let ends = CancellationToken::new();
        let kept = tokio::spawn(keep(store.clone(), ends.clone()));
        tokio::task::yield_now().await;
        let made = store
            .commit(put("/registry/pods/", "a", None))
            .await
            .expect("a commit");
        let prefix: ResourcePrefix = "/registry/pods/".into();
        let read = |at| store.range_at(&prefix, "/registry/pods/", "", 0, at);
        tokio::time::sleep(COMPACTION + Duration::from_secs(1)).await;
        store
            .commit(put("/registry/pods/", "b", None))
            .await
            .expect("a commit");
        assert!(
            read(made.rev).await.is_ok(),
            "younger than the compaction before"
        );
        tokio::time::sleep(COMPACTION * 2).await;
        assert!(matches!(
            read(made.rev - 1).await,
            Err(StoreError::Compacted { .. })
        ));
        ends.cancel();
        kept.await.expect("the keeper ends");
    }
}
