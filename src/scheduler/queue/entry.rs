//! A pod in the queue, and where it is.

use std::cmp::Reverse;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::plugin::Plugins;
use super::super::pod::Pod;
use super::reports::Told;
use crate::client::informer::Key;

/// The sort order of pods: higher priority first, then those added or tried longer ago.
pub(super) type Rank = (Reverse<i32>, u64, Key);

pub(super) struct Entry {
    pub(super) pod: Arc<Pod>,
    pub(super) place: Place,
    pub(super) rank: Rank,
    pub(super) failures: u32,
    pub(super) errors: u32,
    pub(super) since: Instant,
    pub(super) rejected: Plugins,
    /// Preemption for it is in progress: it waits for that to end.
    pub(super) is_preempting: bool,
    /// An event that may help it occurred meanwhile.
    pub(super) was_helped: bool,
    /// The number of attempts.
    pub(super) attempts: u32,
    /// When it was first ready to be tried.
    pub(super) open: Option<Instant>,
    /// Whether it is tried because it has waited very long.
    pub(super) is_flushed: bool,
    /// The reports about it.
    pub(super) told: Option<Told>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Ready,
    BackingOff(Instant),
    Erring(Instant),
    Waiting,
    /// It has scheduling gates, or references ResourceClaims that do not exist.
    Gated,
    /// It is being scheduled.
    Busy,
}

impl Entry {
    /// Ends its attempt, and puts it behind all others of its priority. It must not be in any order when this is
    /// called.
    pub(super) fn give_back(&mut self, place: Place, serial: u64, now: Instant) {
        self.place = place;
        self.rank.1 = serial;
        self.since = now;
        self.is_flushed = false;
    }
}

impl Place {
    /// Upstream's name of the queue: gated pods are counted as unschedulable there.
    pub(super) fn name(self) -> &'static str {
        match self {
            Place::Ready | Place::Busy => "active",
            Place::BackingOff(_) | Place::Erring(_) => "backoff",
            Place::Waiting | Place::Gated => "unschedulable",
        }
    }
}
