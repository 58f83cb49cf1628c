//! When pods are tried again after failures.

use std::time::Duration;

use tokio::time::Instant;

/// Backoff after the first failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Maximum backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Backoffs end at multiples of this window, so that priority decides the order within it.
const WINDOW: Duration = Duration::from_secs(1);

/// The start of the windows in which backoffs end.
#[derive(Clone, Copy)]
pub(super) struct Windows(Instant);

impl Default for Windows {
    fn default() -> Windows {
        Windows(Instant::now())
    }
}

impl Windows {
    /// The end of the window that contains a moment.
    pub(super) fn end_of(&self, moment: Instant) -> Instant {
        let past = moment.saturating_duration_since(self.0).as_secs();
        self.0 + Duration::from_secs(past) + WINDOW
    }
}

/// The backoff after `failures` failures.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_BACKOFF)
}
