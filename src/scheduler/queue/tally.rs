//! The lengths of the queues, and how pods came into them.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::super::plugin::{Plugin, Plugins};
use super::Queue;
use super::entry::Place;

/// How many pods entered each queue, by upstream's names for queue and event.
pub type Incoming = BTreeMap<(&'static str, CompactString), u64>;

/// Queue lengths.
pub struct Tally {
    /// By upstream's name of the queue.
    pub waiting: [(&'static str, usize); 4],
    /// Entries so far.
    pub incoming: Incoming,
    /// By the plugins that rejected pods, including pods about to be retried.
    pub rejected: BTreeMap<String, usize>,
}

/// Events other than those of the cluster.
pub(super) const CAME: &str = "UnscheduledPodAdd";
pub(super) const FAILED: &str = "ScheduleAttemptFailure";
pub(super) const BACKED_OFF: &str = "BackoffComplete";
pub(super) const POPPED: &str = "PopFromBackoffQ";
pub(super) const TIMED_OUT: &str = "UnschedulableTimeout";
pub(super) const PREEMPTED: &str = "ForceActivate";

impl Queue {
    /// The queue lengths, and why pods entered the queues.
    pub fn tally(&self) -> Tally {
        let mut waiting = [
            ("active", 0),
            ("backoff", 0),
            ("gated", 0),
            ("unschedulable", 0),
        ];
        let mut sets = BTreeMap::<Plugins, usize>::new();
        let mut gates = 0;
        for entry in self.entries.values() {
            let name = match entry.place {
                // It is in no queue.
                Place::Busy => continue,
                Place::Gated => "gated",
                place => place.name(),
            };
            let known = waiting.iter_mut().filter(|(known, _)| *known == name);
            known.for_each(|(_, count)| *count += 1);
            let is_gated = entry.place == Place::Gated;
            let rejected = match is_gated && entry.pod.gates.is_empty() {
                true => Plugins::from_iter([Plugin::DynamicResources]),
                false => entry.rejected,
            };
            gates += usize::from(is_gated && !entry.pod.gates.is_empty());
            *sets.entry(rejected).or_default() += 1;
        }
        let mut rejected = BTreeMap::from([("SchedulingGates".to_owned(), gates)]);
        for (set, count) in sets {
            for plugin in set.iter() {
                *rejected.entry(format!("{plugin:?}")).or_default() += count;
            }
        }
        rejected.retain(|_, count| *count > 0);
        Tally {
            waiting,
            incoming: self.incoming.clone(),
            rejected,
        }
    }

    pub(super) fn came(&mut self, place: Place, why: &str) {
        *self.incoming.entry((place.name(), why.into())).or_default() += 1;
    }
}
