//! The scheduling queue. Follows k8s.io/kubernetes/pkg/scheduler/backend/queue.
//!
//! A pod is ready (sorted by priority, then by the time since its last attempt), backs off after a failure, or waits
//! for an event that may help it. If no pod is ready, backing-off pods are tried at once, unless they failed with an
//! error.
//!
//! Pods are looked up by name, but results of an attempt refer to one particular pod: another one that meanwhile took
//! its name is left alone.

mod backoff;
mod entry;
mod reports;
mod tally;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::backoff::{Windows, backoff};
use self::entry::{Entry, Place, Rank};
use self::tally::{BACKED_OFF, CAME, FAILED, POPPED, PREEMPTED, TIMED_OUT};
use super::hints::Event;
use super::plugin::Plugins;
use super::pod::Pod;
use super::snapshot::{Quick, Snapshot};
use crate::client::informer::Key;

pub use self::reports::{Telling, Told};
pub use self::tally::{Incoming, Tally};

/// How long a pod waits for an event before it is retried anyway.
const PATIENCE: Duration = Duration::from_secs(300);

/// The queue.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<Key, Entry, Quick>,
    ready: BTreeSet<Rank>,
    backing_off: BTreeSet<(Instant, Rank)>,
    erring: BTreeSet<(Instant, Rank)>,
    /// Waiting pods by the plugins that rejected them.
    waiting: HashMap<Plugins, BTreeSet<Key>, Quick>,
    /// Gated pods by the ResourceClaims that they reference.
    awaiting: HashMap<Key, BTreeSet<Key>, Quick>,
    serial: u64,
    windows: Windows,
    incoming: Incoming,
}

/// A scheduling attempt of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it began.
    pub begun: Instant,
    /// When the pod could first have been tried.
    pub since: Instant,
    /// The number of the attempt.
    pub number: u32,
    /// Whether the pod was retried because it had waited very long.
    pub is_flushed: bool,
}

impl Queue {
    /// Adds an unplaced pod, or updates it.
    pub fn set(&mut self, pod: Arc<Pod>, snapshot: &Snapshot, now: Instant) {
        let key = pod.key.clone();
        let is_other = |entry: &Entry| entry.pod.uid() != pod.uid();
        if self.entries.get(&key).is_some_and(is_other) {
            self.remove(&key);
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return self.insert(pod, snapshot, now);
        };
        let old = std::mem::replace(&mut entry.pod, pod.clone());
        match entry.place {
            Place::Gated | Place::Waiting => {}
            _ => return,
        }
        let event = Event::Own {
            old: &old,
            new: &pod,
        };
        if entry.place == Place::Gated {
            self.awaits(&old, false);
            self.awaits(&pod, true);
            if is_open(&pod, snapshot) {
                self.make_ready(&key, &event.label(), now);
            }
        } else if event.helps(entry.rejected, &pod, snapshot) {
            self.wake(&key, &event.label(), now);
        }
    }

    /// Updates a pod that is being scheduled: if that fails, this version is tried next.
    pub fn refresh(&mut self, pod: &Arc<Pod>) {
        if let Some(entry) = self.entries.get_mut(&pod.key)
            && entry.pod.uid() == pod.uid()
        {
            entry.pod = pod.clone();
        }
    }

    fn insert(&mut self, pod: Arc<Pod>, snapshot: &Snapshot, now: Instant) {
        self.serial += 1;
        let key = pod.key.clone();
        let entry = Entry {
            rank: (Reverse(pod.priority), self.serial, key.clone()),
            place: Place::Gated,
            failures: 0,
            errors: 0,
            since: now,
            rejected: Plugins::default(),
            is_preempting: false,
            was_helped: false,
            attempts: 0,
            open: None,
            is_flushed: false,
            told: None,
            pod,
        };
        let pod = entry.pod.clone();
        self.entries.insert(key.clone(), entry);
        if is_open(&pod, snapshot) {
            return self.make_ready(&key, CAME, now);
        }
        self.awaits(&pod, true);
        self.came(Place::Gated, CAME);
    }

    /// Records whether a gated pod waits for the ResourceClaims that it references.
    fn awaits(&mut self, pod: &Pod, does: bool) {
        let claims = pod.device_claims.iter();
        for name in claims.filter_map(|named| named.claim.as_ref()) {
            let claim = Key::new(&pod.key.namespace, name);
            if does {
                let pods = self.awaiting.entry(claim).or_default();
                pods.insert(pod.key.clone());
            } else if let Some(pods) = self.awaiting.get_mut(&claim) {
                pods.remove(&pod.key);
                if pods.is_empty() {
                    self.awaiting.remove(&claim);
                }
            }
        }
    }

    /// Removes a pod.
    pub fn remove(&mut self, key: &Key) {
        self.take_out(key);
        self.entries.remove(key);
    }

    /// Removes a busy pod that was placed.
    pub fn done(&mut self, pod: &Pod) {
        if self.busy(pod).is_some() {
            self.entries.remove(&pod.key);
        }
    }

    /// A pod returned by [`Queue::next`] whose attempt has not ended.
    fn busy(&mut self, pod: &Pod) -> Option<&mut Entry> {
        self.same(pod).filter(|entry| entry.place == Place::Busy)
    }

    /// A pod in the queue, if it is this one and not another of the same name.
    fn same(&mut self, pod: &Pod) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&pod.key)?;
        (entry.pod.uid() == pod.uid()).then_some(entry)
    }

    /// The next pod to schedule, which is busy from now on; or when to ask again if no event comes first.
    pub fn next(&mut self, now: Instant) -> Result<Arc<Pod>, Option<Instant>> {
        self.fall_due(now);
        loop {
            let key = match self.ready.pop_first() {
                Some((_, _, key)) => key,
                None => match self.backing_off.pop_first() {
                    Some((_, (_, _, key))) => {
                        self.came(Place::Ready, POPPED);
                        key
                    }
                    None => return Err(self.erring.first().map(|(until, _)| *until)),
                },
            };
            match self.entries.get_mut(&key) {
                Some(entry) => {
                    entry.place = Place::Busy;
                    entry.attempts = entry.attempts.saturating_add(1);
                    return Ok(entry.pod.clone());
                }
                None => tracing::error!(pod = ?key, "the next pod to schedule is not in the queue"),
            }
        }
    }

    /// The attempt of a pod that is busy since `begun`.
    pub fn attempt(&self, key: &Key, begun: Instant) -> Attempt {
        let entry = self.entries.get(key);
        Attempt {
            begun,
            since: entry.and_then(|entry| entry.open).unwrap_or(begun),
            number: entry.map_or(1, |entry| entry.attempts),
            is_flushed: entry.is_some_and(|entry| entry.is_flushed),
        }
    }

    /// Ends the attempt of a busy pod that fits no node; `rejected` are the plugins that rejected nodes.
    pub fn fail(&mut self, pod: &Pod, rejected: Plugins, now: Instant) {
        let serial = self.serial + 1;
        let Some(entry) = self.busy(pod) else {
            return;
        };
        entry.rejected = rejected;
        entry.failures = entry.failures.saturating_add(1);
        entry.errors = 0;
        entry.give_back(Place::Waiting, serial, now);
        self.serial = serial;
        self.waiting
            .entry(rejected)
            .or_default()
            .insert(pod.key.clone());
        self.came(Place::Waiting, FAILED);
    }

    /// Ends the attempt of a busy pod that failed with an error: it is retried after a backoff. Returns its latest
    /// version; `None` if it is no longer waiting.
    pub fn err(&mut self, pod: &Pod, now: Instant) -> Option<Arc<Pod>> {
        let (serial, windows) = (self.serial + 1, self.windows);
        let entry = self.busy(pod)?;
        entry.errors = entry.errors.saturating_add(1);
        entry.rejected = Plugins::default();
        let until = windows.end_of(now + backoff(entry.errors));
        entry.give_back(Place::Erring(until), serial, now);
        let (rank, waits) = (entry.rank.clone(), entry.pod.clone());
        self.serial = serial;
        self.erring.insert((until, rank));
        self.came(Place::Erring(until), FAILED);
        Some(waits)
    }

    /// Earlier reports about a pod, to await before it is bound; `None` if there are none.
    pub fn told(&mut self, pod: &Pod) -> Option<Told> {
        self.same(pod)?.told.take()
    }

    /// Reserves the next place in the order of reports about a pod.
    pub fn tell(&mut self, pod: &Pod) -> Telling {
        let (own, told) = oneshot::channel();
        let entry = self.same(pod);
        let before = entry.and_then(|entry| entry.told.replace(Told(told)));
        Telling { before, own }
    }

    /// Handles an event: retries pods that it may help, of those for which `is_meant` holds.
    pub fn on(
        &mut self,
        event: &Event<'_>,
        snapshot: &Snapshot,
        now: Instant,
        is_meant: impl Fn(&Pod) -> bool,
    ) {
        let interests = event.interests();
        let mut helped = Vec::new();
        for (rejected, keys) in &self.waiting {
            let rejected = rejected.and(interests);
            if rejected.is_empty() {
                continue;
            }
            for key in keys {
                let pod = self.entries.get(key).map(|entry| &entry.pod);
                if pod.is_some_and(|pod| is_meant(pod) && event.helps(rejected, pod, snapshot)) {
                    helped.push(key.clone());
                }
            }
        }
        if !helped.is_empty() {
            let why = event.label();
            helped.iter().for_each(|key| self.wake(key, &why, now));
        }
    }

    /// A ResourceClaim changed: retries pods that are gated by it only. `why` is upstream's name of the event.
    pub fn open(&mut self, claim: &Key, why: &str, snapshot: &Snapshot, now: Instant) {
        let Some(keys) = self.awaiting.get(claim) else {
            return;
        };
        let is_open = |key: &&Key| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|entry| is_open(&entry.pod, snapshot))
        };
        let opened: Vec<Key> = keys.iter().filter(is_open).cloned().collect();
        for key in &opened {
            self.make_ready(key, why, now);
        }
    }

    /// Preemption for a pod begins; the pod waits meanwhile.
    pub fn begin_preempting(&mut self, pod: &Pod) {
        if let Some(entry) = self.same(pod) {
            entry.is_preempting = true;
            entry.was_helped = false;
        }
    }

    /// Preemption for a pod ends. If no event will announce the free space (it failed, or the last victim was not bound
    /// yet), the pod is retried at once.
    pub fn end_preempting(&mut self, pod: &Pod, is_silent: bool, now: Instant) {
        let Some(entry) = self.same(pod) else {
            return;
        };
        entry.is_preempting = false;
        if entry.place != Place::Waiting {
            return;
        }
        if is_silent {
            self.make_ready(&pod.key, PREEMPTED, now);
        } else if entry.was_helped {
            self.wake(&pod.key, PREEMPTED, now);
        }
    }

    /// Retries pods that have waited very long, whether or not an event occurred.
    pub fn flush(&mut self, now: Instant) {
        let is_old = |entry: &&Entry| {
            entry.place == Place::Waiting && now.duration_since(entry.since) > PATIENCE
        };
        let old: Vec<Key> = self
            .entries
            .values()
            .filter(is_old)
            .map(|entry| entry.pod.key.clone())
            .collect();
        for key in &old {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.is_flushed = true;
            }
            self.wake(key, TIMED_OUT, now);
        }
    }

    /// The number of pods.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pods.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes a waiting pod ready, after its backoff.
    fn wake(&mut self, key: &Key, why: &str, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.is_preempting {
            entry.was_helped = true;
            return;
        }
        let until = self.windows.end_of(entry.since + backoff(entry.failures));
        let rank = entry.rank.clone();
        if entry.failures == 0 || until <= now {
            return self.make_ready(key, why, now);
        }
        self.take_out(key);
        self.backing_off.insert((until, rank));
        self.put(key, Place::BackingOff(until));
        self.came(Place::BackingOff(until), why);
    }

    fn make_ready(&mut self, key: &Key, why: &str, now: Instant) {
        self.take_out(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.open.get_or_insert(now);
            let rank = entry.rank.clone();
            self.ready.insert(rank);
            self.put(key, Place::Ready);
            self.came(Place::Ready, why);
        }
    }

    fn put(&mut self, key: &Key, place: Place) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = place;
        }
    }

    /// Removes a pod from the order that it is in.
    fn take_out(&mut self, key: &Key) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let rank = entry.rank.clone();
        match entry.place {
            Place::Ready => {
                self.ready.remove(&rank);
            }
            Place::BackingOff(until) => {
                self.backing_off.remove(&(until, rank));
            }
            Place::Erring(until) => {
                self.erring.remove(&(until, rank));
            }
            Place::Waiting => {
                if let Some(keys) = self.waiting.get_mut(&entry.rejected) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.waiting.remove(&entry.rejected);
                    }
                }
            }
            Place::Gated => {
                let pod = entry.pod.clone();
                self.awaits(&pod, false);
            }
            Place::Busy => {}
        }
    }

    fn fall_due(&mut self, now: Instant) {
        type List = fn(&mut Queue) -> &mut BTreeSet<(Instant, Rank)>;
        let lists: [List; 2] = [|queue| &mut queue.backing_off, |queue| &mut queue.erring];
        for list in lists {
            while list(self).first().is_some_and(|(until, _)| *until <= now) {
                if let Some((_, (_, _, key))) = list(self).pop_first() {
                    self.make_ready(&key, BACKED_OFF, now);
                }
            }
        }
    }
}

/// Whether a pod may be scheduled, that is, has no gates.
fn is_open(pod: &Pod, snapshot: &Snapshot) -> bool {
    pod.gates.is_empty() && snapshot.devices.missing(pod).is_none()
}
