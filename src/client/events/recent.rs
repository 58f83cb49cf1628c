//! Values that were used last.

use std::collections::{BTreeMap, HashMap};

/// How many events are remembered for counting, aggregation and rate limits.
pub(super) const MOST_KNOWN: usize = 4096;

/// Values by hash; keeps the [`MOST_KNOWN`] that were used last.
pub(super) struct Recent<V> {
    /// Each with the time of its last use.
    pub(super) values: HashMap<u64, (V, u64)>,
    by_use: BTreeMap<u64, u64>,
    /// Counts uses.
    time: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent {
            values: HashMap::new(),
            by_use: BTreeMap::new(),
            time: 0,
        }
    }
}

impl<V> Recent<V> {
    /// The value for a key. A new one is `first`, and replaces the one that was not used for the longest time.
    pub(super) fn entry(&mut self, key: u64, first: impl FnOnce() -> V) -> &mut V {
        self.time += 1;
        if self.values.len() >= MOST_KNOWN
            && !self.values.contains_key(&key)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.values.remove(&oldest);
        }
        let (value, used) = self.values.entry(key).or_insert_with(|| (first(), 0));
        self.by_use.remove(used);
        self.by_use.insert(self.time, key);
        *used = self.time;
        value
    }

    /// Removes the values for which `keeps` is false.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&V) -> bool) {
        let Recent { values, by_use, .. } = self;
        values.retain(|_, (value, _)| keeps(value));
        by_use.retain(|_, key| values.contains_key(key));
    }
}
