//! Sets of completion indexes in the notation of job statuses: `0,2-4,7`. Follows
//! k8s.io/kubernetes/pkg/controller/job/indexed_job_utils.go.

use std::fmt;

/// Ranges of indexes: ordered, not adjacent, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Parses a set; skips malformed ranges and indexes that are not below `completions`.
    pub fn parse(text: &str, completions: i32) -> Indexes {
        let ranges = text.split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            let last = last.min(completions - 1);
            (0 <= first && first <= last).then_some((first, last))
        });
        Indexes::of(ranges.collect())
    }

    fn of(mut ranges: Vec<(i32, i32)>) -> Indexes {
        ranges.sort_unstable();
        let mut out: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match out.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => out.push((first, last)),
            }
        }
        Indexes(out)
    }

    /// The set with further indexes.
    pub fn with(&self, more: impl IntoIterator<Item = i32>) -> Indexes {
        let more = more.into_iter().map(|index| (index, index));
        Indexes::of(self.0.iter().copied().chain(more).collect())
    }

    /// The union of two sets.
    pub fn union(&self, other: &Indexes) -> Indexes {
        Indexes::of(self.0.iter().chain(&other.0).copied().collect())
    }

    /// The number of indexes.
    pub fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether it contains an index.
    pub fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    /// The size of the intersection.
    pub fn shared(&self, other: &Indexes) -> i32 {
        let (mut a, mut b, mut count) = (self.0.iter().peekable(), other.0.iter().peekable(), 0);
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            count += (left.1.min(right.1) - left.0.max(right.0) + 1).max(0);
            if left.1 < right.1 {
                a.next();
            } else {
                b.next();
            }
        }
        count
    }

    /// The first `count` indexes below `completions` that it does not contain.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut next = 0;
        let mut out = Vec::new();
        let end = std::iter::once((completions, completions));
        for (first, last) in self.0.iter().copied().chain(end) {
            let gap = next..first.min(completions);
            out.extend(gap.take(count - out.len()));
            next = next.max(last.saturating_add(1));
        }
        out
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_in_ranges_and_read_again() {
        let set = Indexes::default().with([7, 3, 1, 4, 2, 9, 10, 2]);
        assert_eq!(set.to_string(), "1-4,7,9,10");
        assert_eq!(Indexes::parse("1-4,7,9,10", 100), set);
        assert_eq!(Indexes::parse("1-4,x,7,9,10", 9).to_string(), "1-4,7");
        assert_eq!(Indexes::parse("", 9), Indexes::default());
        assert_eq!((set.count(), set.has(4), set.has(5)), (7, true, false));
        assert_eq!(set.missing(3, 100), [0, 5, 6]);
        assert_eq!(set.missing(9, 9), [0, 5, 6, 8]);
        assert_eq!(Indexes::default().missing(2, 5), [0, 1]);
        assert_eq!(set.shared(&Indexes::parse("0-2,4-7,10-20", 100)), 5);
        assert_eq!(set.union(&Indexes::parse("5,6,8", 100)).to_string(), "1-10");
    }
}
