//! How long a pod that failed on a node is left alone before it is replaced.
//! Follows k8s.io/client-go/util/flowcontrol/backoff.go.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Uid and generation of a set, and the node.
type Place = (String, i64, String);

/// What failed where.
#[derive(Default)]
pub(super) struct Backoff(Mutex<HashMap<Place, (Duration, Instant)>>);

impl Backoff {
    /// How long what fails at a place is still left alone; none where it is not.
    pub(super) fn left(&self, place: &Place, now: Instant) -> Option<Duration> {
        let held = self.0.lock();
        let (delay, since) = held.get(place)?;
        (*since + *delay)
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Takes in that something at a place failed and is replaced.
    pub(super) fn fail(&self, place: Place, now: Instant) {
        let mut held = self.0.lock();
        // What has not failed for long begins anew.
        held.retain(|_, (_, since)| now.saturating_duration_since(*since) <= LONGEST * 2);
        held.entry(place)
            .and_modify(|(delay, since)| (*delay, *since) = ((*delay * 2).min(LONGEST), now))
            .or_insert((FIRST, now));
    }
}
