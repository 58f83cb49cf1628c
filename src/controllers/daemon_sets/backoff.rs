//! How long a node waits for a replacement of a failed pod. Follows k8s.io/client-go/util/flowcontrol/backoff.go.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Uid and generation of a set, and the node.
type Place = (String, i64, String);

/// The back-off of each place.
#[derive(Default)]
pub(super) struct Backoff(Mutex<HashMap<Place, (Duration, Instant)>>);

impl Backoff {
    /// The remaining back-off of a place; None if it is over.
    pub(super) fn left(&self, place: &Place, now: Instant) -> Option<Duration> {
        let held = self.0.lock();
        let (delay, since) = held.get(place)?;
        (*since + *delay)
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Records a failure at a place.
    pub(super) fn fail(&self, place: Place, now: Instant) {
        let mut held = self.0.lock();
        // A place without recent failures starts over.
        held.retain(|_, (_, since)| now.saturating_duration_since(*since) <= LONGEST * 2);
        held.entry(place)
            .and_modify(|(delay, since)| (*delay, *since) = ((*delay * 2).min(LONGEST), now))
            .or_insert((FIRST, now));
    }
}
