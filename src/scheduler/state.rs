//! The scheduler's state, and its steps: one pod is decided about, what follows is carried out.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::decide::{Decision, Diagnosis, Turn, decide};
use super::hints::Event;
use super::pod::Pod;
use super::queue::Queue;
use super::requests::{Outcome, Requests};
use super::snapshot::Snapshot;

/// The scheduler.
pub struct Scheduler {
    /// What is known, and who waits.
    pub state: Mutex<State>,
    /// Woken when there may be something to do.
    pub changed: Notify,
    /// The way to the API.
    pub requests: Requests,
}

/// What is known, and who waits.
pub struct State {
    /// The cluster.
    pub snapshot: Snapshot,
    /// Pods without a place.
    pub queue: Queue,
    turn: Turn,
}

/// What came of a step.
pub enum Step {
    /// Something for the API.
    Work(Work),
    /// Nothing to tell anybody.
    Nothing,
    /// Nothing to do; until then, if at all.
    Wait(Option<Instant>),
}

/// What is to be told to the API.
pub enum Work {
    /// A pod has this place.
    Bind(Arc<Pod>),
    /// A pod has none.
    Report {
        /// The pod.
        pod: Arc<Pod>,
        /// Why.
        diagnosis: Box<Diagnosis>,
        /// The node that room is kept on; none to leave that as it is.
        nominated: Option<String>,
    },
    /// A pod is being deleted and gets none.
    Skip(Arc<Pod>),
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(requests: Requests) -> Scheduler {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = now.as_nanos() as u64 ^ u64::from(std::process::id());
        Scheduler {
            state: Mutex::new(State {
                snapshot: Snapshot::default(),
                queue: Queue::default(),
                turn: Turn::new(seed),
            }),
            changed: Notify::new(),
            requests,
        }
    }

    /// Changes the state; something may be to be done after it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state.lock());
        self.changed.notify_one();
        done
    }

    /// Looks again at what has waited for very long.
    pub fn flush(&self) {
        self.change(|state| {
            state.queue.flush(Instant::now());
            state.snapshot.tidy_up();
        });
    }

    /// Decides about the next pod.
    pub fn step(&self) -> Step {
        self.state.lock().step(Instant::now())
    }

    /// Tells the API, and takes in what it says.
    pub async fn carry_out(&self, work: Work) {
        match work {
            Work::Bind(pod) => match self.requests.bind(&pod).await {
                Outcome::Done => self.change(|state| state.queue.remove(&pod.key)),
                Outcome::Refused(why) => {
                    if let Some(waiting) = self.change(|state| state.give_up(&pod)) {
                        let nominated = Some(String::new());
                        self.requests
                            .report(&waiting, "SchedulerError", &why, nominated)
                            .await;
                    }
                }
            },
            Work::Report {
                pod,
                diagnosis,
                nominated,
            } => {
                let why = diagnosis.to_string();
                self.requests
                    .report(&pod, "Unschedulable", &why, nominated)
                    .await;
            }
            Work::Skip(pod) => self.requests.skip(&pod),
        }
    }
}

impl State {
    fn step(&mut self, now: Instant) -> Step {
        let pod = match self.queue.next(now) {
            Ok(pod) => pod,
            Err(until) => return Step::Wait(until),
        };
        if pod.is_deleting {
            self.queue.remove(&pod.key);
            return Step::Work(Work::Skip(pod));
        }
        if self.snapshot.placed(&pod.key).is_some() {
            self.queue.remove(&pod.key);
            return Step::Nothing;
        }
        self.snapshot.prepare(&pod);
        match decide(&self.snapshot, &pod, &mut self.turn) {
            Decision::Node(slot) => Step::Work(Work::Bind(self.snapshot.assume(&pod, slot))),
            Decision::Nowhere(diagnosis) => {
                self.queue.fail(&pod.key, diagnosis.plugins, now);
                Step::Work(Work::Report {
                    pod,
                    diagnosis,
                    nominated: None,
                })
            }
        }
    }

    /// Forgets that a pod was assumed to have a place, and tries again. Gives the pod as it was last seen, if it still
    /// waits.
    fn give_up(&mut self, assumed: &Arc<Pod>) -> Option<Arc<Pod>> {
        let now = Instant::now();
        self.forget(assumed, now);
        let waiting = self.queue.get(&assumed.key)?.clone();
        if waiting.uid() != assumed.uid() {
            return None;
        }
        self.queue.err(&assumed.key, now);
        Some(waiting)
    }

    /// Forgets that a pod was assumed to have a place.
    pub fn forget(&mut self, pod: &Pod, now: Instant) {
        let is_it = |known: &Arc<Pod>| known.uid() == pod.uid();
        if self.snapshot.is_assumed(&pod.key)
            && self.snapshot.placed(&pod.key).is_some_and(is_it)
            && let Some(gone) = self.snapshot.remove_pod(&pod.key)
        {
            self.happened(&Event::PodGone(&gone), now, |other| other.key != gone.key);
        }
    }

    /// Tells waiting pods of something; `is_meant` says which.
    pub fn happened(&mut self, event: &Event<'_>, now: Instant, is_meant: impl Fn(&Pod) -> bool) {
        self.queue.on(event, &self.snapshot, now, is_meant);
    }
}
