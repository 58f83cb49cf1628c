//! How long to wait before an ended container is restarted.

use jiff::{SignedDuration, Timestamp};

/// The first delay.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay.
pub const MAXIMUM: SignedDuration = SignedDuration::from_secs(300);

/// A later time, saturating.
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

/// Delays that double: the first restart is immediate, the next ones happen 10 s, 20 s, ... 300 s after the end. A
/// container that ran for ten minutes starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    wait: SignedDuration,
    updated: Timestamp,
}

impl Backoff {
    /// The remaining delay for something that ended at `ended`, or None if it may start at `now`.
    pub fn left(entry: Option<&Self>, ended: Timestamp, now: Timestamp) -> Option<SignedDuration> {
        let entry = entry?;
        if entry.expired(ended) {
            return None;
        }
        let left = entry.wait - now.duration_since(ended);
        (left > SignedDuration::ZERO).then_some(left)
    }
    /// The delay, for messages.
    pub fn wait(&self) -> SignedDuration {
        self.wait
    }
    /// The entry after a start at `now` of something that ended at `ended`.
    pub fn next(entry: Option<&Self>, ended: Timestamp, now: Timestamp) -> Self {
        let wait = match entry {
            Some(entry) if !entry.expired(ended) => (entry.wait * 2).min(MAXIMUM),
            _ => INITIAL,
        };
        Backoff { wait, updated: now }
    }
    /// Moves all times by `by`, after the clock was set.
    pub fn shift(&mut self, by: SignedDuration) {
        self.updated = later(self.updated, by);
    }
    fn expired(&self, ended: Timestamp) -> bool {
        ended.duration_since(self.updated) > MAXIMUM * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_begin_anew() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut entry = None;
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let ended = at(now);
            let left = Backoff::left(entry.as_ref(), ended, ended).map_or(0, |left| left.as_secs());
            waits.push(left);
            now += left;
            entry = Some(Backoff::next(entry.as_ref(), ended, at(now)));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(entry.expect("one").wait(), MAXIMUM);
        let ended = at(now + 601);
        assert_eq!(
            Backoff::left(entry.as_ref(), ended, ended),
            None,
            "it did well"
        );
        assert_eq!(Backoff::next(entry.as_ref(), ended, ended).wait(), INITIAL);
    }
}
