//! The writer thread: all waiting commits go into one transaction of the log, together with the removal of some rows
//! that can no longer be read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Accepted, Engine, State};
use super::{Revision, StoreError};

/// How many rows one transaction removes: few enough that waiting commits do not notice.
const ROWS: usize = 500;

/// The file that commits are written to.
pub(super) trait Log: Send + 'static {
    /// Writes commits, each change at its revision, and removes rows, in one durable transaction: when it returns,
    /// either all of it is on disk or nothing.
    ///
    /// # Errors
    /// [`StoreError::Engine`].
    fn write(&mut self, commits: &[Accepted], forget: Option<&Forget>) -> Result<(), StoreError>;
}

/// A row of the log that can no longer be read.
pub(super) struct Forgotten {
    /// The compacted change that replaced or deleted it.
    pub(super) by: Revision,
    /// Its revision and key.
    pub(super) row: (Revision, Arc<str>),
}

/// The rows to remove from the log.
pub(super) struct Forget {
    pub(super) rows: Vec<Forgotten>,
    /// After this, every row made unreadable by changes up to here is gone.
    pub(super) compacted: Revision,
}

impl Forget {
    /// Takes the next rows from `owed`, which is in the order of the changes, all up to `compacted`. The rows of a
    /// change go together, and not before those of an earlier change: if a deletion were removed before the entry it
    /// deleted, the entry would be back when the log is next opened.
    fn next(owed: &mut VecDeque<Forgotten>, compacted: Revision) -> Option<Forget> {
        let mut rows = Vec::new();
        while let Some(next) = owed.front() {
            if rows.len() >= ROWS
                && rows
                    .last()
                    .is_some_and(|last: &Forgotten| last.by != next.by)
            {
                break;
            }
            rows.extend(owed.pop_front());
        }
        if rows.is_empty() {
            return None;
        }
        let compacted = owed.front().map_or(compacted, |next| next.by - 1);
        Some(Forget { rows, compacted })
    }
}

impl Engine {
    /// Starts the thread that writes commits to `log`. It ends with `close`; until then it holds the engine, and so the
    /// file.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn write_to(self: &Arc<Self>, log: Box<dyn Log>) -> std::io::Result<()> {
        let engine = self.clone();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || engine.write_behind(log))
            .map(drop)
    }

    fn write_behind(&self, mut log: Box<dyn Log>) {
        // Dropped after `_end`: callers waiting for one of them find the store closed.
        let mut commits: Vec<Accepted>;
        let _end = End(self);
        let mut owed = VecDeque::new();
        // The removal failed: it is retried with the next commits.
        let mut refused = false;
        loop {
            let mut state = self.state.lock();
            loop {
                owed.extend(state.forgotten.iter_mut().flat_map(|rows| rows.drain(..)));
                let forgets = !owed.is_empty() && !refused;
                if !state.pending.is_empty() || forgets || state.closed {
                    break;
                }
                self.work.wait(&mut state);
            }
            if state.pending.is_empty() && state.closed {
                return;
            }
            commits = std::mem::take(&mut state.pending);
            let compacted = state.compacted;
            drop(state);
            let forget = Forget::next(&mut owed, compacted);
            let result = match commits.iter().all(|commit| commit.steps.is_empty()) {
                true if forget.is_none() => Ok(()),
                _ => log.write(&commits, forget.as_ref()),
            };
            refused = result.is_err();
            if let (Err(error), Some(forget)) = (&result, forget) {
                tracing::warn!(%error, "cannot remove compacted history from the store; retrying with the next commit");
                for row in forget.rows.into_iter().rev() {
                    owed.push_front(row);
                }
            }
            if commits.is_empty() {
                continue;
            }
            let mut state = self.state.lock();
            match result {
                Ok(()) => {
                    state.broken = None;
                    let woken = self.publish(&mut state, std::mem::take(&mut commits));
                    drop(state);
                    woken.iter().for_each(|signal| signal.wake());
                }
                Err(error) => {
                    self.fail(&mut state, std::mem::take(&mut commits), &error);
                    state.broken = Some(error);
                }
            }
        }
    }

    /// Nothing of a failed batch is on disk, so everything accepted on top of it fails, too.
    fn fail(&self, state: &mut State, commits: Vec<Accepted>, error: &StoreError) {
        let world = self.world.load();
        state.heads = world
            .resources
            .values()
            .flat_map(|map| map.iter().map(|(key, entry)| (key.clone(), entry.clone())))
            .collect();
        // Revisions are not reused: a reader may have seen them in a failed answer.
        for commit in commits
            .into_iter()
            .chain(std::mem::take(&mut state.pending))
        {
            if let Some(ack) = commit.ack {
                let _ = ack.send(Err(StoreError::Engine {
                    attempted: "write",
                    cause: error.to_string(),
                }));
            }
        }
    }
}

/// Guards the writer thread. If it panics, nobody would answer waiting and later commits: the store is closed instead,
/// and says why.
struct End<'e>(&'e Engine);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(
            "the store's writer thread panicked; the store accepts no more writes until a restart"
        );
        let mut state = self.0.state.lock();
        state.closed = true;
        state.broken = Some(StoreError::Engine {
            attempted: "write",
            cause: "its thread panicked; start the server again".to_owned(),
        });
        // Callers waiting for one of them learn that the store is closed.
        state.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Beginning;
    use crate::store::{Change, Expect, Record, Store as _};

    #[tokio::test]
    async fn a_thread_that_panics_leaves_nobody_waiting() {
        struct Panics;
        impl Log for Panics {
            fn write(&mut self, _: &[Accepted], _: Option<&Forget>) -> Result<(), StoreError> {
                panic!("a mistake");
            }
        }
        let engine = Beginning::new(1, 0).engine(1, true);
        engine.write_to(Box::new(Panics)).expect("a thread");
        for _ in 0..2 {
            let change = Change {
                resource: "/registry/pods/".into(),
                key: "/registry/pods/a".into(),
                expect: Expect::Absent,
                put: Some(Record::default()),
                ttl: None,
            };
            let patience = std::time::Duration::from_secs(60);
            let answer = tokio::time::timeout(patience, engine.commit(vec![change])).await;
            let answer = answer.expect("an answer");
            assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
        }
        let health = engine.health().expect_err("it cannot write").to_string();
        assert!(health.contains("its thread panicked"), "{health}");
        engine.close().await;
    }

    #[test]
    fn rows_go_in_the_order_of_the_changes_that_left_them() {
        let row = |by: Revision, rev: Revision| Forgotten {
            by,
            row: (rev, "k".into()),
        };
        let count = Revision::try_from(ROWS).unwrap();
        // The last change of the first turn leaves two rows: they are removed together.
        let mut owed: VecDeque<Forgotten> = (1..=count).map(|by| row(by + 10, by)).collect();
        owed.push_back(row(count + 10, count + 10));
        owed.push_back(row(count + 20, count + 1));
        let first = Forget::next(&mut owed, 10_000).unwrap();
        assert_eq!((first.rows.len(), first.compacted), (ROWS + 1, count + 19));
        let second = Forget::next(&mut owed, 10_000).unwrap();
        assert_eq!((second.rows.len(), second.compacted), (1, 10_000));
        assert!(Forget::next(&mut owed, 10_000).is_none());
    }
}
