//! The state of an engine, and its history of changes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::watching::Watching;
use super::super::writer::Forgotten;
use super::super::{Entry, Event, ResourcePrefix, Revision, StoreError};
use super::Accepted;

/// Limit in bytes for the bodies of replaced and deleted entries in history; beyond it the oldest are compacted.
pub(super) const HISTORY_BYTES: usize = 64 << 20;

/// One change, in order of revision.
#[derive(Clone)]
pub(super) struct Logged {
    pub(super) resource: ResourcePrefix,
    pub(super) event: Event,
}

pub(in super::super) struct State {
    /// The revision of the newest accepted change.
    pub(super) rev: Revision,
    /// The newest accepted entry of every key.
    pub(in super::super) heads: HashMap<Arc<str>, Arc<Entry>>,
    /// Accepted commits that wait for the disk.
    pub(in super::super) pending: Vec<Accepted>,
    /// Published changes, the oldest first.
    pub(super) history: VecDeque<Logged>,
    pub(super) history_bytes: usize,
    /// The watches to notify of them.
    pub(super) watching: Watching,
    /// Everything after this revision is in `history`.
    pub(in super::super) compacted: Revision,
    /// Log rows that no one can read after a compaction; `None` without a log.
    pub(in super::super) forgotten: Option<Vec<Forgotten>>,
    pub(in super::super) closed: bool,
    /// Why the newest batch is not on disk; `None` while batches succeed.
    pub(in super::super) broken: Option<StoreError>,
}

/// The memory that a change takes in history besides the live entries, in bytes.
pub(super) fn weight(logged: &Logged) -> usize {
    logged
        .event
        .old
        .as_ref()
        .map_or(0, |old| old.record.body.len())
        + 64
}

impl State {
    /// The index in history of this revision, or of the first later one.
    pub(super) fn place_of(&self, rev: Revision) -> usize {
        self.history
            .partition_point(|logged| logged.event.rev < rev)
    }

    /// The change at a revision.
    pub(super) fn logged(&self, rev: Revision) -> Option<&Logged> {
        let logged = self.history.get(self.place_of(rev))?;
        (logged.event.rev == rev).then_some(logged)
    }

    /// Compacts the oldest change: what it replaced can no longer be read.
    pub(super) fn forget_oldest(&mut self) {
        let Some(first) = self.history.pop_front() else {
            return;
        };
        self.history_bytes -= weight(&first);
        self.compacted = first.event.rev;
        let (Some(forgotten), Some(old)) = (&mut self.forgotten, &first.event.old) else {
            return;
        };
        let row = |rev| Forgotten {
            by: first.event.rev,
            row: (rev, old.key.clone()),
        };
        forgotten.push(row(old.rev));
        if first.event.new.is_none() {
            forgotten.push(row(first.event.rev));
        }
    }
}
