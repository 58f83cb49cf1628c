//! Pods that wait for a place. Follows k8s.io/kubernetes/pkg/scheduler/backend/queue.
//!
//! A pod is ready (and comes by priority, then by how long it has not been tried), backs off for a while after it
//! failed, or waits for something that can help it to happen. When nothing is ready, pods that back off come at once,
//! unless it was an error.
//!
//! Pods are found by name, but whoever speaks of one that was busy means a certain pod: another of the same name that
//! came meanwhile is left alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hints::Event;
use super::plugin::{Plugin, Plugins};
use super::pod::Pod;
use super::snapshot::{Quick, Snapshot};
use crate::client::informer::Key;

/// How long a pod backs off after it failed once.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest that a pod backs off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// The longest that a pod waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// Backoffs end together with all others of the same window, so that in it priority decides who comes first.
const WINDOW: Duration = Duration::from_secs(1);

/// The order of pods: what matters more first, then what came or was last tried longer ago.
type Rank = (Reverse<i32>, u64, Key);

/// Pods that wait.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<Key, Entry, Quick>,
    ready: BTreeSet<Rank>,
    backing_off: BTreeSet<(Instant, Rank)>,
    erring: BTreeSet<(Instant, Rank)>,
    /// By what said no.
    waiting: HashMap<Plugins, BTreeSet<Key>, Quick>,
    /// Gated pods by the claims to devices that they name.
    awaiting: HashMap<Key, BTreeSet<Key>, Quick>,
    serial: u64,
    windows: Windows,
    incoming: Incoming,
}

/// When the windows began in which backoffs end.
#[derive(Clone, Copy)]
struct Windows(Instant);

impl Default for Windows {
    fn default() -> Windows {
        Windows(Instant::now())
    }
}

impl Windows {
    /// The end of the window that a moment is in.
    fn end_of(&self, moment: Instant) -> Instant {
        let past = moment.saturating_duration_since(self.0).as_secs();
        self.0 + Duration::from_secs(past) + WINDOW
    }
}

/// How many pods came to wait where, by what upstream calls that and why.
pub type Incoming = BTreeMap<(&'static str, CompactString), u64>;

/// How many wait.
pub struct Tally {
    /// By what upstream calls where.
    pub waiting: [(&'static str, usize); 4],
    /// So far.
    pub incoming: Incoming,
    /// By the rules that said no, also of those that are to be tried again.
    pub rejected: BTreeMap<String, usize>,
}

/// A pod's turn.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it came.
    pub begun: Instant,
    /// When the pod could have been tried first.
    pub since: Instant,
    /// How many it is.
    pub number: u32,
    /// Whether it came because the pod had waited for very long.
    pub is_flushed: bool,
}

/// Resolves when everything that was to be told of a pod before is told.
pub struct Told(oneshot::Receiver<()>);

impl Told {
    /// Waits for that.
    pub async fn heard(self) {
        // Whoever tells it lets go of the other end, and sends nothing.
        let _ = self.0.await;
    }
}

/// The turn to tell something of a pod: after what was told before, and before what is told later, so that its status
/// says what was found last.
pub struct Telling {
    before: Option<Told>,
    own: oneshot::Sender<()>,
}

impl Telling {
    /// Waits until it is time. What is given must be kept until all is told.
    pub async fn begin(self) -> impl Send {
        if let Some(before) = self.before {
            before.heard().await;
        }
        self.own
    }
}

struct Entry {
    pod: Arc<Pod>,
    place: Place,
    rank: Rank,
    failures: u32,
    errors: u32,
    since: Instant,
    rejected: Plugins,
    /// Others are being ended for it: it waits until that is done.
    is_preempting: bool,
    /// Something that can help it happened meanwhile.
    was_helped: bool,
    /// How often it was tried.
    attempts: u32,
    /// When it could be tried first.
    open: Option<Instant>,
    /// Whether it is tried because it has waited for very long.
    is_flushed: bool,
    /// What is told of it.
    told: Option<Told>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    BackingOff(Instant),
    Erring(Instant),
    Waiting,
    /// It has gates, or claims to devices that are not there.
    Gated,
    /// It is being placed.
    Busy,
}

impl Entry {
    /// It is busy no longer, and comes after all others that matter as much. Must be in no order when it is called.
    fn give_back(&mut self, place: Place, serial: u64, now: Instant) {
        self.place = place;
        self.rank.1 = serial;
        self.since = now;
        self.is_flushed = false;
    }
}

impl Place {
    /// What upstream calls it: the gated wait with those that no node will do for.
    fn name(self) -> &'static str {
        match self {
            Place::Ready | Place::Busy => "active",
            Place::BackingOff(_) | Place::Erring(_) => "backoff",
            Place::Waiting | Place::Gated => "unschedulable",
        }
    }
}

/// Why pods come to wait somewhere, beside what happens in the cluster.
const CAME: &str = "UnscheduledPodAdd";
const FAILED: &str = "ScheduleAttemptFailure";
const BACKED_OFF: &str = "BackoffComplete";
const POPPED: &str = "PopFromBackoffQ";
const TIMED_OUT: &str = "UnschedulableTimeout";
const PREEMPTED: &str = "ForceActivate";

impl Queue {
    /// Takes in a pod without a place, new or changed.
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

    /// Takes in what a pod is now that is being placed: should that fail, it is what is tried again.
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

    /// Takes in that a gated pod waits for the claims to devices that it names, or does no longer.
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

    /// Forgets a pod.
    pub fn remove(&mut self, key: &Key) {
        self.take_out(key);
        self.entries.remove(key);
    }

    /// Forgets a busy pod that has its place.
    pub fn done(&mut self, pod: &Pod) {
        if self.busy(pod).is_some() {
            self.entries.remove(&pod.key);
        }
    }

    /// A pod that was given out and not given back since.
    fn busy(&mut self, pod: &Pod) -> Option<&mut Entry> {
        self.same(pod).filter(|entry| entry.place == Place::Busy)
    }

    /// A pod that waits, if it is the same and not another of its name.
    fn same(&mut self, pod: &Pod) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&pod.key)?;
        (entry.pod.uid() == pod.uid()).then_some(entry)
    }

    /// The next pod to place, which is busy from now on; or when to ask again, if nothing happens before.
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
                None => tracing::error!(pod = ?key, "it was next to be placed and does not wait"),
            }
        }
    }

    /// The turn of a pod that is busy since `begun`.
    pub fn attempt(&self, key: &Key, begun: Instant) -> Attempt {
        let entry = self.entries.get(key);
        Attempt {
            begun,
            since: entry.and_then(|entry| entry.open).unwrap_or(begun),
            number: entry.map_or(1, |entry| entry.attempts),
            is_flushed: entry.is_some_and(|entry| entry.is_flushed),
        }
    }

    /// Gives back a busy pod that found no place; `rejected` says by what rules.
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

    /// Gives back a busy pod that could not be placed for some other reason: it is tried again after a while. Gives it
    /// as it was last seen; none where it does not wait for that any longer.
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

    /// What is to be told of a pod before it is bound; none where nothing is.
    pub fn told(&mut self, pod: &Pod) -> Option<Told> {
        self.same(pod)?.told.take()
    }

    /// When to tell something of a pod.
    pub fn tell(&mut self, pod: &Pod) -> Telling {
        let (own, told) = oneshot::channel();
        let entry = self.same(pod);
        let before = entry.and_then(|entry| entry.told.replace(Told(told)));
        Telling { before, own }
    }

    /// Something happened: pods that it can help are tried again. `is_meant` says which others are not to be.
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

    /// A claim to devices is otherwise: pods that wait for it alone are tried. `why` is what upstream calls it.
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

    /// Others are being ended for a pod, which waits meanwhile.
    pub fn begin_preempting(&mut self, pod: &Pod) {
        if let Some(entry) = self.same(pod) {
            entry.is_preempting = true;
            entry.was_helped = false;
        }
    }

    /// Others have been told to end for a pod. Where nothing would say that there is room now (that failed, or the last
    /// of them ended without a word), it is tried again at once.
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

    /// Tries again what has waited for very long, whether or not something happened.
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

    /// How many wait where, and why they came to.
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

    fn came(&mut self, place: Place, why: &str) {
        *self.incoming.entry((place.name(), why.into())).or_default() += 1;
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A waiting pod is to be tried again, when it has backed off.
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

    /// Takes a pod out of where it is.
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

/// Whether a pod may be looked at.
fn is_open(pod: &Pod, snapshot: &Snapshot) -> bool {
    pod.gates.is_empty() && snapshot.devices.missing(pod).is_none()
}

/// How long a pod backs off after so many failures.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_BACKOFF)
}
