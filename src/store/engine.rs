//! The core of the engines: heads, history and snapshots under one short lock, published as immutable worlds.

mod beginning;
mod cursor;
mod history;

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use self::cursor::EngineCursor;
use self::history::{HISTORY_BYTES, Logged, weight};
use super::watching::{Signal, Signals, concerns};
use super::{
    Batch, Change, Committed, Cursor, Entry, Event, Expect, Interest, Range, ResourcePrefix,
    Revision, Store, StoreError, World,
};

pub(super) use self::beginning::Beginning;
pub(super) use self::history::State;

/// How many commits may wait for the disk; further ones wait for a slot.
const IN_FLIGHT: usize = 4096;

/// How many changes a read of an old revision goes through before it releases the lock.
const PIECE: usize = 1000;

/// A change as stored in a log; without an entry for a deletion.
pub(super) struct Row {
    pub(super) resource: ResourcePrefix,
    pub(super) rev: Revision,
    pub(super) key: Arc<str>,
    pub(super) new: Option<Arc<Entry>>,
}

/// One change of an accepted commit.
pub(super) struct Step {
    pub(super) rev: Revision,
    pub(super) resource: ResourcePrefix,
    pub(super) old: Option<Arc<Entry>>,
    pub(super) new: Option<Arc<Entry>>,
}

/// A commit whose preconditions held, not yet published.
pub(super) struct Accepted {
    pub(super) steps: Vec<Step>,
    pub(super) ack: Option<oneshot::Sender<Result<Committed, StoreError>>>,
}

/// The core of both engines: preconditions, heads, history and snapshots under one short lock. With a log, one thread
/// takes all waiting commits, writes them in one transaction, publishes and acknowledges them; without one, a commit
/// is published at once.
pub struct Engine {
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    durable: bool,
    pub(super) world: ArcSwap<World>,
    places: Semaphore,
}

impl Engine {
    /// An empty store in memory.
    pub(super) fn memory() -> Arc<Engine> {
        Beginning::new(1, 0).engine(1, false)
    }

    /// Checks the preconditions and accepts the changes.
    fn accept(&self, state: &mut State, changes: Vec<Change>) -> Result<Accepted, StoreError> {
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
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let steps = changes
            .into_iter()
            .map(|change| {
                state.rev += 1;
                let rev = state.rev;
                let expires = change.ttl.map(|ttl| now + ttl);
                let new = change.put.map(|record| {
                    Arc::new(Entry {
                        key: change.key.clone(),
                        rev,
                        record,
                        expires,
                    })
                });
                let old = match &new {
                    Some(new) => state.heads.insert(change.key, new.clone()),
                    None => state.heads.remove(&change.key),
                };
                Step {
                    rev,
                    resource: change.resource,
                    old,
                    new,
                }
            })
            .collect();
        Ok(Accepted { steps, ack: None })
    }

    /// Makes accepted commits visible, in order. Returns the cursors to wake after the lock is released, because all of
    /// them will take it.
    #[must_use]
    pub(super) fn publish(&self, state: &mut State, commits: Vec<Accepted>) -> Signals {
        let mut woken = Signals::new();
        let mut world = World::clone(&self.world.load());
        let mut done = Vec::with_capacity(commits.len());
        for commit in commits {
            let mut entries = Vec::with_capacity(commit.steps.len());
            for Step {
                rev,
                resource,
                old,
                new,
            } in commit.steps
            {
                world.rev = rev;
                let map = world.resources.entry(resource.clone()).or_default();
                match (&new, &old) {
                    (Some(new), _) => drop(map.insert(new.key.clone(), new.clone())),
                    (None, Some(old)) => drop(map.remove(&*old.key)),
                    (None, None) => {}
                }
                entries.extend(new.as_ref().or(old.as_ref()).cloned());
                let logged = Logged {
                    resource,
                    event: Event { rev, old, new },
                };
                let (resource, event) = (&logged.resource, &logged.event);
                state.watching.tell(resource, event, &mut woken);
                state.history_bytes += weight(&logged);
                state.history.push_back(logged);
            }
            done.push((
                commit.ack,
                Committed {
                    rev: world.rev,
                    entries,
                },
            ));
        }
        while state.history_bytes > HISTORY_BYTES {
            state.forget_oldest();
        }
        self.world.store(Arc::new(world));
        for (ack, committed) in done {
            if let Some(ack) = ack {
                // The client may have gone away.
                let _ = ack.send(Ok(committed));
            }
        }
        woken
    }

    fn range_now(
        &self,
        resource: &ResourcePrefix,
        keys: &str,
        from: &str,
        limit: usize,
        at: Revision,
    ) -> Result<Range, StoreError> {
        let world = self.world.load_full();
        if at > world.rev {
            return Err(StoreError::Future {
                asked: at,
                current: world.rev,
            });
        }
        // In pieces: writers wait for this lock.
        let (mut since, mut newest) = (Vec::new(), world.rev);
        loop {
            let state = self.state.lock();
            if at < state.compacted {
                return Err(StoreError::Compacted {
                    asked: at,
                    oldest: state.compacted,
                });
            }
            let (first, end) = (state.place_of(at + 1), state.place_of(newest + 1));
            let piece = first.max(end.saturating_sub(PIECE))..end;
            let Some(oldest) = state.history.get(piece.start).filter(|_| first < end) else {
                break;
            };
            newest = oldest.event.rev - 1;
            let piece = state.history.range(piece).rev();
            let of_it = piece.filter(|logged| logged.resource == *resource);
            since.extend(of_it.map(|logged| logged.event.clone()));
        }
        let mut map = world.resources.get(resource).cloned().unwrap_or_default();
        // Undo what happened after `at`, newest first.
        for event in since {
            match (event.old, event.new) {
                (Some(old), _) => {
                    map.insert(old.key.clone(), old);
                }
                (None, Some(new)) => {
                    map.remove(&*new.key);
                }
                (None, None) => {}
            }
        }
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
        signal: &Signal,
        after: Revision,
        max: usize,
    ) -> Result<Batch, StoreError> {
        let interest = signal.interest();
        let state = self.state.lock();
        let mut events: Vec<Event> = Vec::new();
        let untold = signal.take();
        if let Some(first) = untold.first()
            // Changes passed over before do not match this cursor, and may be compacted.
            && first.max(after + 1) <= state.compacted
        {
            return Err(StoreError::Compacted {
                asked: after,
                oldest: state.compacted,
            });
        }
        let known = untold.revs.iter().filter(|rev| **rev > after);
        let known = known.filter_map(|rev| state.logged(*rev));
        let rest = untold.rest.map(|rest| {
            let is_meant = |logged: &&Logged| {
                (interest.resource.is_empty() || logged.resource == interest.resource)
                    && concerns(interest, &logged.event)
            };
            let start = state.place_of(rest.max(after + 1));
            state.history.range(start..).filter(is_meant)
        });
        for logged in known.chain(rest.into_iter().flatten()) {
            if events.len() >= max {
                let rev = events.last().map_or(after, |last| last.rev);
                signal.look_from(rev + 1);
                return Ok(Batch {
                    events,
                    rev,
                    more: true,
                });
            }
            events.push(logged.event.clone());
        }
        Ok(Batch {
            events,
            rev: self.world.load().rev.max(after),
            more: false,
        })
    }
}

impl Store for Engine {
    fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    fn head(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.lock().heads.get(key).cloned()
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Committed, StoreError>> {
        Box::pin(async move {
            if !self.durable {
                let (ack, answer) = oneshot::channel();
                let woken = {
                    let mut state = self.state.lock();
                    let mut commit = self.accept(&mut state, changes)?;
                    commit.ack = Some(ack);
                    self.publish(&mut state, vec![commit])
                };
                woken.iter().for_each(|signal| signal.wake());
                return answer.await.unwrap_or(Err(StoreError::Closed));
            }
            let _place = self
                .places
                .acquire()
                .await
                .map_err(|_| StoreError::Closed)?;
            let (ack, answer) = oneshot::channel();
            {
                let mut state = self.state.lock();
                let mut commit = self.accept(&mut state, changes)?;
                commit.ack = Some(ack);
                state.pending.push(commit);
                self.work.notify_one();
            }
            answer.await.unwrap_or(Err(StoreError::Closed))
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
        let mut state = self.state.lock();
        if after < state.compacted {
            return Err(StoreError::Compacted {
                asked: after,
                oldest: state.compacted,
            });
        }
        let signal = state.watching.add(interest);
        if self.world.load().rev > after {
            signal.look_from(after + 1);
        }
        drop(state);
        Ok(Box::new(EngineCursor {
            store: self,
            signal,
            after,
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
                state.forget_oldest();
            }
            state.compacted = state.compacted.max(rev.min(self.world.load().rev));
            self.work.notify_one();
            Ok(())
        })
    }

    fn health(&self) -> Result<(), StoreError> {
        let state = self.state.lock();
        match &state.broken {
            Some(error) => Err(error.clone()),
            None if state.closed => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.state.lock().closed = true;
            self.work.notify_one();
            // The thread writes all pending commits before it ends; when all slots are free, they are answered.
            let _ = self
                .places
                .acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX))
                .await;
        })
    }
}
