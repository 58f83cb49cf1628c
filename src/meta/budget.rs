//! How much is told of one object: errors, warnings and the paths of unknown members.
//!
//! A body of a few megabytes can be wrong in a million places, and each place is told with its whole path, which the body
//! may make a megabyte long: terabytes of text of which nobody reads more than the beginning. So whatever collects such
//! texts has a [`Budget`] and keeps no more once it is spent. It is far beyond what any sensible object needs.

/// How many texts are kept.
const TEXTS: usize = 10_000;
/// How long they may be in all, in bytes, before no more are kept: several times the largest body.
const BYTES: usize = 16 << 20;

/// What was kept so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    texts: usize,
    bytes: usize,
}

impl Budget {
    /// Whether nothing more is kept: who only looks for more to tell may stop.
    pub fn is_spent(&self) -> bool {
        self.texts >= TEXTS || self.bytes >= BYTES
    }

    /// Takes a text of so many bytes; returns whether it is kept. The last one may be of any length.
    pub fn spend(&mut self, bytes: usize) -> bool {
        let kept = !self.is_spent();
        if kept {
            self.texts += 1;
            self.bytes += bytes;
        }
        kept
    }

    /// Gives back a text of so many bytes that was kept.
    pub fn give_back(&mut self, bytes: usize) {
        self.texts = self.texts.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_the_number_and_the_length_are_limited() {
        let mut budget = Budget::default();
        assert_eq!((0..2 * TEXTS).filter(|_| budget.spend(10)).count(), TEXTS);
        budget.give_back(10);
        assert!(budget.spend(usize::MAX / 2) && budget.is_spent());

        let mut budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend(BYTES / 2)).count(), 2);
    }
}
