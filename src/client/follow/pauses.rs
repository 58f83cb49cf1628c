//! Pauses between attempts.

use std::time::Duration;

use tokio::time::Instant;

/// A watch that ends sooner without an event counts as broken.
pub(super) const SHORT: Duration = Duration::from_secs(1);
/// How long a server may take to respond, and to end a watch when its time is over. A connection whose peer vanished
/// silently is only noticed by this.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Pauses after failures: growing, and reset after a long success. The durations are client-go's.
#[derive(Default)]
pub(super) struct Pauses {
    pub(super) next: Duration,
    last: Option<Instant>,
}

impl Pauses {
    pub(super) const FIRST: Duration = Duration::from_millis(800);
    const LONGEST: Duration = Duration::from_secs(30);
    pub(super) const GOOD_WHILE: Duration = Duration::from_secs(120);

    /// The pause after a failure at `now`, up to doubled by `chance` (from 0 to 1), so that clients that lost one
    /// server do not all return at the same time.
    pub(super) fn next(&mut self, now: Instant, chance: f64) -> Duration {
        let recent = |last: Instant| now.duration_since(last) < Self::GOOD_WHILE;
        let pause = match self.last.is_some_and(recent) {
            true => self.next,
            false => Self::FIRST,
        };
        self.last = Some(now);
        self.next = (pause * 2).min(Self::LONGEST);
        pause.mul_f64(1.0 + chance)
    }
}
