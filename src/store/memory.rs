//! The engine that keeps everything in memory, and the core of the durable one: heads, history and snapshots
//! under one short lock, published as immutable worlds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Batch, Change, Committed, Cursor, Entry, Event, Expect, Interest, Range, ResourcePrefix,
    Revision, Store, StoreError, World,
};

/// How many bytes of bodies the history of replaced and deleted entries may hold before the oldest is compacted.
const HISTORY_BYTES: usize = 64 << 20;

/// One change in the order of revisions.
#[derive(Clone)]
struct Logged {
    resource: ResourcePrefix,
    event: Event,
}

/// A commit at its revision, for the log.
pub(super) type Commit = (Revision, Vec<(Change, Arc<Entry>)>);

/// Where durable engines write a commit before it is published.
pub(super) trait Log: Send + Sync {
    /// Writes commits at their revisions; returns when they are on disk.
    fn append(&self, commits: &[Commit]) -> Result<(), StoreError>;
}

struct State {
    rev: Revision,
    heads: HashMap<Arc<str>, Arc<Entry>>,
    history: VecDeque<Logged>,
    history_bytes: usize,
    /// Everything after this revision is in `history`.
    compacted: Revision,
    closed: bool,
}

/// The store in memory.
pub struct Memory {
    state: Mutex<State>,
    world: ArcSwap<World>,
    published: watch::Sender<Revision>,
    log: Option<Box<dyn Log>>,
}

impl Memory {
    /// An empty store.
    pub(super) fn new(log: Option<Box<dyn Log>>) -> Arc<Memory> {
        Self::restored(1, Vec::new(), log)
    }

    /// A store that begins with what a log holds.
    pub(super) fn restored(
        rev: Revision,
        entries: Vec<(ResourcePrefix, Arc<Entry>)>,
        log: Option<Box<dyn Log>>,
    ) -> Arc<Memory> {
        let mut world = World {
            rev,
            ..World::default()
        };
        let mut heads = HashMap::with_capacity(entries.len());
        for (resource, entry) in entries {
            heads.insert(entry.key.clone(), entry.clone());
            world
                .resources
                .entry(resource)
                .or_default()
                .insert(entry.key.clone(), entry);
        }
        Arc::new(Memory {
            state: Mutex::new(State {
                rev,
                heads,
                history: VecDeque::new(),
                history_bytes: 0,
                compacted: rev,
                closed: false,
            }),
            world: ArcSwap::from_pointee(world),
            published: watch::Sender::new(rev),
            log,
        })
    }

    fn commit_now(&self, changes: Vec<Change>) -> Result<Committed, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        for change in &changes {
            let current = state.heads.get(&change.key);
            let holds = match change.expect {
                Expect::Absent => current.is_none(),
                Expect::Revision(rev) => current.is_some_and(|entry| entry.rev == rev),
            };
            if !holds {
                return Err(StoreError::Conflict {
                    key: change.key.clone(),
                    current: current.cloned(),
                });
            }
        }
        let rev = state.rev + 1;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let written: Vec<(Change, Arc<Entry>)> = changes
            .into_iter()
            .map(|change| {
                let entry = match &change.put {
                    Some(record) => Arc::new(Entry {
                        key: change.key.clone(),
                        rev,
                        record: record.clone(),
                        expires: change.ttl.map(|ttl| now + ttl),
                    }),
                    None => state.heads.get(&change.key).cloned().unwrap_or_else(|| {
                        Arc::new(Entry {
                            key: change.key.clone(),
                            rev,
                            record: super::Record::default(),
                            expires: None,
                        })
                    }),
                };
                (change, entry)
            })
            .collect();
        // The lock is held over the write: commits reach the log in the order of their revisions.
        let batch = [(rev, written)];
        if let Some(log) = &self.log {
            log.append(&batch)?;
        }
        let [(rev, written)] = batch;
        state.rev = rev;
        let mut world = World::clone(&self.world.load());
        world.rev = rev;
        let mut entries = Vec::with_capacity(written.len());
        for (change, entry) in written {
            let old = state.heads.get(&change.key).cloned();
            let map = world.resources.entry(change.resource.clone()).or_default();
            let new = change.put.is_some().then(|| entry.clone());
            match &new {
                Some(new) => {
                    state.heads.insert(change.key.clone(), new.clone());
                    map.insert(change.key.clone(), new.clone());
                }
                None => {
                    state.heads.remove(&change.key);
                    map.remove(&*change.key);
                }
            }
            state.history_bytes += old.as_ref().map_or(0, |old| old.record.body.len()) + 64;
            state.history.push_back(Logged {
                resource: change.resource,
                event: Event { rev, old, new },
            });
            entries.push(entry);
        }
        while state.history_bytes > HISTORY_BYTES {
            let Some(first) = state.history.pop_front() else {
                break;
            };
            state.compacted = first.event.rev;
            state.history_bytes -= first
                .event
                .old
                .as_ref()
                .map_or(0, |old| old.record.body.len())
                + 64;
        }
        self.world.store(Arc::new(world));
        drop(state);
        self.published.send_replace(rev);
        Ok(Committed { rev, entries })
    }

    fn range_now(
        &self,
        resource: &ResourcePrefix,
        keys: &str,
        from: &str,
        limit: usize,
        at: Revision,
    ) -> Result<Range, StoreError> {
        let state = self.state.lock();
        let world = self.world.load_full();
        if at > world.rev {
            return Err(StoreError::Future {
                asked: at,
                current: world.rev,
            });
        }
        if at < state.compacted {
            return Err(StoreError::Compacted {
                asked: at,
                oldest: state.compacted,
            });
        }
        let mut map = world.resources.get(resource).cloned().unwrap_or_default();
        // Undo what happened after `at`, the newest first.
        for logged in state
            .history
            .iter()
            .rev()
            .take_while(|logged| logged.event.rev > at)
        {
            if logged.resource == *resource {
                match (&logged.event.old, &logged.event.new) {
                    (Some(old), _) => {
                        map.insert(old.key.clone(), old.clone());
                    }
                    (None, Some(new)) => {
                        map.remove(&*new.key);
                    }
                    (None, None) => {}
                }
            }
        }
        drop(state);
        let start = if from > keys { from } else { keys };
        let mut rest = map
            .range::<_, str>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(keys))
            .cloned();
        let entries: Vec<_> = if limit == 0 {
            rest.by_ref().collect()
        } else {
            rest.by_ref().take(limit).collect()
        };
        let more = rest.next().is_some();
        Ok(Range {
            rev: at,
            entries,
            more,
        })
    }

    fn events_after(
        &self,
        interest: &Interest,
        after: Revision,
        max: usize,
    ) -> Result<Batch, StoreError> {
        let state = self.state.lock();
        if after < state.compacted {
            return Err(StoreError::Compacted {
                asked: after,
                oldest: state.compacted,
            });
        }
        let start = state
            .history
            .partition_point(|logged| logged.event.rev <= after);
        let mut events = Vec::new();
        for logged in state.history.range(start..) {
            if events.len() >= max
                && events
                    .last()
                    .is_some_and(|last: &Event| last.rev < logged.event.rev)
            {
                let rev = events.last().map_or(after, |last: &Event| last.rev);
                return Ok(Batch {
                    events,
                    rev,
                    more: true,
                });
            }
            if logged.resource == interest.resource && concerns(interest, &logged.event) {
                events.push(logged.event.clone());
            }
        }
        Ok(Batch {
            events,
            rev: state.rev.max(after),
            more: false,
        })
    }
}

/// Whether an event can matter to a watch.
fn concerns(interest: &Interest, event: &Event) -> bool {
    let sides = [event.old.as_ref(), event.new.as_ref()];
    let Some(key) = sides.iter().flatten().next().map(|entry| &entry.key) else {
        return false;
    };
    let keys = if interest.exact {
        **key == *interest.keys
    } else {
        key.starts_with(&*interest.keys)
    };
    keys && interest.field.as_ref().is_none_or(|(name, value)| {
        sides.iter().flatten().any(|entry| {
            entry
                .record
                .fields
                .iter()
                .any(|(n, v)| n == name && v == value)
        })
    })
}

impl Store for Memory {
    fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    fn head(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.lock().heads.get(key).cloned()
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            if self.log.is_some() {
                tokio::task::block_in_place(|| self.commit_now(changes))
            } else {
                self.commit_now(changes)
            }
        })
    }

    fn range_at<'a>(
        &'a self,
        resource: &'a ResourcePrefix,
        keys: &'a str,
        from: &'a str,
        limit: usize,
        at: Revision,
    ) -> BoxFuture<'a, Result<Range, StoreError>> {
        Box::pin(async move { self.range_now(resource, keys, from, limit, at) })
    }

    fn watch(
        self: Arc<Self>,
        interest: Interest,
        after: Revision,
    ) -> Result<Box<dyn Cursor>, StoreError> {
        let compacted = self.state.lock().compacted;
        if after < compacted {
            return Err(StoreError::Compacted {
                asked: after,
                oldest: compacted,
            });
        }
        let published = self.published.subscribe();
        Ok(Box::new(MemoryCursor {
            store: self,
            interest,
            after,
            published,
        }))
    }

    fn compact(&self, rev: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            while state
                .history
                .front()
                .is_some_and(|first| first.event.rev <= rev)
            {
                if let Some(first) = state.history.pop_front() {
                    state.history_bytes -= first
                        .event
                        .old
                        .as_ref()
                        .map_or(0, |old| old.record.body.len())
                        + 64;
                }
            }
            state.compacted = state.compacted.max(rev.min(state.rev));
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.state.lock().closed = true;
        })
    }
}

struct MemoryCursor {
    store: Arc<Memory>,
    interest: Interest,
    after: Revision,
    published: watch::Receiver<Revision>,
}

impl Cursor for MemoryCursor {
    fn next<'a>(&'a mut self, max: usize) -> BoxFuture<'a, Result<Batch, StoreError>> {
        Box::pin(async move {
            self.published.borrow_and_update();
            let batch = self.store.events_after(&self.interest, self.after, max)?;
            self.after = batch.rev;
            Ok(batch)
        })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The sender lives in the store that this cursor holds: an error cannot happen.
            let _ = self.published.changed().await;
        })
    }
}
