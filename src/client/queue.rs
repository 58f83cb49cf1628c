//! The work queue of a controller: keys of objects to look at. Follows k8s.io/client-go/util/workqueue.
//!
//! A key is in the queue only once however often it is added, and two workers never have the same key at the same time:
//! a key that is added while a worker has it returns when that worker is done. So the queue is bounded by the number of
//! objects, and a burst of changes of one object is one piece of work.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long failed keys are delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// The delay after the first failure; each further one in a row doubles it.
    pub first: Duration,
    /// The longest delay.
    pub longest: Duration,
}

impl Delays {
    /// The delay for a key after this many earlier failures.
    fn after(self, failures: u32) -> Duration {
        self.first
            .checked_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
            .map_or(self.longest, |delay| delay.min(self.longest))
    }
}

/// The delays of DefaultTypedControllerRateLimiter.
impl Default for Delays {
    fn default() -> Self {
        Delays {
            first: Duration::from_millis(5),
            longest: Duration::from_secs(1000),
        }
    }
}

/// A queue of keys.
pub struct Queue<K> {
    delays: Delays,
    state: Mutex<State<K>>,
    ready: Notify,
}

struct State<K> {
    /// Keys for the next free worker, in order.
    order: VecDeque<K>,
    /// Keys that are in `order`, or were added while a worker had them.
    dirty: HashSet<K>,
    /// Keys that workers have.
    busy: HashSet<K>,
    /// Keys to add at a time; the number distinguishes those of the same time.
    later: BTreeMap<(Instant, u64), K>,
    /// Where a key is in `later`.
    due: HashMap<K, (Instant, u64)>,
    /// Consecutive failures of each key.
    failures: HashMap<K, u32>,
    serial: u64,
}

/// What to do with a key after a worker has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until it is added again.
    Done,
    /// Look at it again after this time, even if nothing changes.
    After(Duration),
    /// Look at it again with the delay of a failure, but without logging one.
    Retry,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::with_delays(Delays::default())
    }

    /// An empty queue with these delays after failures.
    pub fn with_delays(delays: Delays) -> Self {
        Queue {
            delays,
            state: Mutex::new(State {
                order: VecDeque::new(),
                dirty: HashSet::new(),
                busy: HashSet::new(),
                later: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                serial: 0,
            }),
            ready: Notify::new(),
        }
    }

    /// Adds a key, unless it is in the queue already.
    pub fn add(&self, key: K) {
        if self.state.lock().add(key) {
            self.ready.notify_one();
        }
    }

    /// Adds a key after a delay. Of several delays for one key the earliest end counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if let Some(known) = state.due.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            state.later.remove(&known);
        }
        state.serial += 1;
        let place = (at, state.serial);
        state.later.insert(place, key.clone());
        state.due.insert(key, place);
        drop(state);
        self.ready.notify_one();
    }

    /// Adds a failed key: later with each consecutive failure.
    pub fn retry(&self, key: K) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = self.delays.after(*failures);
        *failures = failures.saturating_add(1);
        drop(state);
        self.add_after(key, delay);
    }

    /// The number of consecutive failures of a key.
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Resets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// The next key; it belongs to the caller until [`Queue::done`]. Cancel-safe.
    pub async fn next(&self) -> K {
        loop {
            let first = {
                let mut state = self.state.lock();
                state.fall_due(Instant::now());
                if let Some(key) = state.take() {
                    // One notification may stand for several keys: pass it on.
                    if !state.order.is_empty() || !state.later.is_empty() {
                        self.ready.notify_one();
                    }
                    return key;
                }
                state.later.keys().next().map(|(at, _)| *at)
            };
            match first {
                Some(at) => tokio::select! {
                    () = self.ready.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.ready.notified().await,
            }
        }
    }

    /// Returns a key to the queue.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.busy.remove(key);
        if state.dirty.contains(key) {
            state.order.push_back(key.clone());
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Processes keys, up to `workers` at once, until `ends` is cancelled; keys in progress are finished. A failure is
    /// logged, and the key is retried later. Programs call [`Context::work`](super::Context::work), which waits for
    /// their caches first.
    pub(super) async fn work<F, E>(
        &self,
        workers: usize,
        ends: &CancellationToken,
        look: impl Fn(K) -> F + Sync,
    ) where
        K: Debug,
        F: Future<Output = Result<Next, E>>,
        E: Display,
    {
        let worker = || async {
            loop {
                let key = tokio::select! {
                    biased;
                    () = ends.cancelled() => return,
                    key = self.next() => key,
                };
                let result = look(key.clone()).await;
                self.done(&key);
                match result {
                    Ok(Next::Done) => self.forget(&key),
                    Ok(Next::After(delay)) => {
                        self.forget(&key);
                        self.add_after(key, delay);
                    }
                    Ok(Next::Retry) => self.retry(key),
                    Err(error) => {
                        tracing::warn!(?key, %error, "a key failed; retrying");
                        self.retry(key);
                    }
                }
            }
        };
        join_all((0..workers).map(|_| worker())).await;
    }
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Marks a key as dirty; returns whether a worker can take it now.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.busy.contains(&key) {
            return false;
        }
        self.order.push_back(key);
        true
    }

    fn fall_due(&mut self, now: Instant) {
        while let Some(place) = self
            .later
            .keys()
            .next()
            .copied()
            .filter(|(at, _)| *at <= now)
        {
            if let Some(key) = self.later.remove(&place) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.order.pop_front()?;
        self.dirty.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn now<K: Clone + Eq + Hash>(queue: &Queue<K>) -> Option<K> {
        queue.next().now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_there_once_and_comes_again_when_it_was_added_meanwhile() {
        let queue = Queue::new();
        for key in ["a", "b", "a", "a"] {
            queue.add(key);
        }
        assert_eq!(now(&queue), Some("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(now(&queue), Some("b"));
        assert_eq!(now(&queue), None, "a worker has a");
        queue.done(&"a");
        assert_eq!(now(&queue), Some("a"));
        queue.done(&"a");
        assert_eq!(now(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_put_off_comes_at_its_earliest_moment() {
        let queue = Queue::new();
        let start = Instant::now();
        for (key, seconds) in [("a", 9), ("b", 3), ("a", 2), ("a", 5)] {
            queue.add_after(key, Duration::from_secs(seconds));
        }
        let mut came = Vec::new();
        for _ in 0..2 {
            let key = queue.next().await;
            queue.done(&key);
            came.push((key, start.elapsed().as_secs()));
        }
        assert_eq!(came, [("a", 2), ("b", 3)]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(now(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_hold_a_key_back_ever_longer() {
        let queue = Queue::new();
        for (failure, millis) in [(0, 5), (1, 10), (2, 20), (3, 40)] {
            assert_eq!(queue.failures(&"a"), failure);
            let start = Instant::now();
            queue.retry("a");
            assert_eq!(queue.next().await, "a");
            queue.done(&"a");
            assert_eq!(start.elapsed().as_millis(), millis);
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let seconds = |first, longest| Delays {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        };
        let usual = Delays::default();
        for (delays, failures, millis) in [
            (usual, 0, 5),
            (usual, 17, 5 << 17),
            (usual, 18, 1_000_000),
            (usual, 99, 1_000_000),
            (seconds(1, 60), 0, 1_000),
            (seconds(1, 60), 5, 32_000),
            (seconds(1, 60), 6, 60_000),
            (seconds(1, 60), u32::MAX, 60_000),
        ] {
            let found = delays.after(failures).as_millis();
            assert_eq!(found, millis, "{delays:?} after {failures}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn workers_share_what_is_there_and_what_fails_comes_again() {
        let queue = Queue::new();
        let ends = CancellationToken::new();
        let (seen, together) = (Mutex::new(Vec::new()), tokio::sync::Barrier::new(3));
        for key in 0..3 {
            queue.add(key);
        }
        let look = |key: i32| {
            let (seen, together, ends, queue) = (&seen, &together, &ends, &queue);
            async move {
                if queue.failures(&2) == 0 {
                    // Passes only when three workers run at the same time.
                    together.wait().await;
                }
                seen.lock().push(key);
                match (key, queue.failures(&2)) {
                    (2, 0) => Err("once"),
                    (2, _) => {
                        ends.cancel();
                        Ok(Next::Done)
                    }
                    _ => Ok(Next::Done),
                }
            }
        };
        queue.work(3, &ends, look).await;
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 2]);
        assert_eq!(queue.failures(&2), 0);
    }
}
