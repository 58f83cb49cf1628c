//! The scheduler's state and steps: decide about one pod, then carry out the result.

use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::binding::{Preparing, Way, ended};
use super::decide::{Decision, Diagnosis, Turn, decide};
use super::hints::Event;
use super::metrics::{self, Counts};
use super::pod::Pod;
use super::preempt::{Outcome, preempt};
use super::queue::{Attempt, Queue, Telling, Told};
use super::requests::{Asked, Requests};
use super::snapshot::Snapshot;
use super::storage::Plan;
use crate::client::informer::Key;

/// The scheduler.
pub struct Scheduler {
    /// The cluster and the queue.
    pub state: Mutex<State>,
    /// Notified when there may be something to do.
    pub changed: Notify,
    /// Changes with volumes and claims.
    pub stored: watch::Sender<()>,
    /// The API client.
    pub requests: Requests,
    /// Cancelled on shutdown.
    pub ends: CancellationToken,
}

/// The cluster, the queue, and what is in progress.
pub struct State {
    /// The cluster.
    pub snapshot: Snapshot,
    /// Unscheduled pods.
    pub queue: Queue,
    /// Metrics.
    pub counts: Counts,
    /// Pods in the binding cycle.
    pub preparing: Preparing,
    turn: Turn,
}

/// The result of a step.
pub enum Step {
    /// Work for the API.
    Work(Work),
    /// Done; no requests are needed.
    Nothing,
    /// The queue is empty; until then, if given.
    Wait(Option<Instant>),
}

/// Work for the API.
pub enum Work {
    /// Bind a pod, after preparing its claims.
    Bind {
        /// The pod.
        pod: Arc<Pod>,
        /// What its claims get.
        plan: Plan,
        /// The attempt.
        attempt: Attempt,
        /// Resolves when earlier reports about it are done.
        told: Option<Told>,
    },
    /// Report that a pod was not scheduled.
    Report {
        /// The pod.
        pod: Arc<Pod>,
        /// The reason.
        diagnosis: Box<Diagnosis>,
        /// The node to nominate; `None` keeps the nomination.
        nominated: Option<String>,
        /// Pods to preempt.
        victims: Vec<Arc<Pod>>,
        /// Pods of lower priority that lose their nomination for this node.
        displaced: Vec<Arc<Pod>>,
        /// The place of this report in the order of reports.
        telling: Telling,
    },
    /// A pod that is being deleted is not scheduled.
    Skip(Arc<Pod>),
}

impl Scheduler {
    /// A scheduler with an empty state, which stops waiting when `ends` is cancelled.
    pub fn new(requests: Requests, ends: CancellationToken) -> Scheduler {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let seed = now.as_nanos() as u64 ^ u64::from(std::process::id());
        Scheduler {
            state: Mutex::new(State::new(seed)),
            changed: Notify::new(),
            stored: watch::Sender::new(()),
            requests,
            ends,
        }
    }

    /// Changes the state, and wakes the scheduler.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state.lock());
        self.changed.notify_one();
        done
    }

    /// Retries pods that have waited very long.
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

    /// Sends the requests, and records their results. The permit is held while requests are in progress.
    pub async fn carry_out(self: Arc<Self>, work: Work, permit: OwnedSemaphorePermit) {
        match work {
            Work::Bind {
                pod,
                plan,
                attempt,
                told,
            } => self.bind(pod, plan, attempt, told, permit).await,
            Work::Report {
                pod,
                diagnosis,
                nominated,
                victims,
                displaced,
                telling,
            } => {
                let why = diagnosis.to_string();
                let node = nominated.clone().unwrap_or_default();
                let report = async {
                    let told = telling.begin().await;
                    let report = self.requests.report(&pod, "Unschedulable", &why, nominated);
                    report.await;
                    drop(told);
                };
                let end = async {
                    if victims.is_empty() {
                        return;
                    }
                    let mut preempting = Preempting::by(&self, &pod);
                    preempting.is_silent = self.end(&pod, &node, &victims, &displaced).await;
                };
                tokio::join!(report, end);
            }
            Work::Skip(pod) => self.requests.skip(&pod),
        }
    }

    /// Preempts pods to make room for another on a node. Returns whether no event will announce the free space: some
    /// could not be deleted, or the last one was not bound yet and only had to be cancelled.
    async fn end(
        &self,
        pod: &Pod,
        node: &str,
        victims: &[Arc<Pod>],
        displaced: &[Arc<Pod>],
    ) -> bool {
        self.requests.nominate_no_longer(displaced).await;
        let ends = victims.iter().map(|victim| self.end_one(pod, node, victim));
        let ended = join_all(ends).await;
        ended.contains(&None) || ended.last() == Some(&Some(Way::WasMade))
    }

    /// Deletes a pod, or cancels its binding; `None` if that failed.
    async fn end_one(&self, pod: &Pod, node: &str, victim: &Pod) -> Option<Way> {
        let way = self.change(|state| state.make_way(victim));
        match way {
            Way::IsFree => {}
            Way::WasMade => self.requests.tell_preempted(pod, node, victim, true),
            Way::IsTaken if self.requests.end(pod, node, victim).await => {}
            Way::IsTaken => return None,
        }
        Some(way)
    }
}

/// A preemption under way. It ends when this is dropped, also by a panic: otherwise its pod would wait for ever.
pub(super) struct Preempting<'a> {
    scheduler: &'a Scheduler,
    pod: &'a Pod,
    /// Whether no event will announce the free space.
    is_silent: bool,
}

impl<'a> Preempting<'a> {
    /// The preemption that has begun for a pod.
    pub(super) fn by(scheduler: &'a Scheduler, pod: &'a Pod) -> Self {
        Preempting {
            scheduler,
            pod,
            is_silent: true,
        }
    }
}

impl Drop for Preempting<'_> {
    fn drop(&mut self) {
        let (pod, is_silent, now) = (self.pod, self.is_silent, Instant::now());
        self.scheduler
            .change(|state| state.queue.end_preempting(pod, is_silent, now));
    }
}

impl State {
    /// The initial state; the seed is for random choices.
    pub fn new(seed: u64) -> State {
        State {
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            counts: Counts::default(),
            preparing: Preparing::default(),
            turn: Turn::new(seed),
        }
    }

    /// Decides about the next pod.
    pub fn step(&mut self, now: Instant) -> Step {
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
            Decision::Node(slot, plan) => {
                self.counts.decided(now.elapsed());
                let pod = self.snapshot.assume(&pod, slot);
                self.snapshot.storage.promise(&plan, &pod);
                let attempt = self.queue.attempt(&pod.key, now);
                let told = self.queue.told(&pod);
                Step::Work(Work::Bind {
                    pod,
                    plan,
                    attempt,
                    told,
                })
            }
            Decision::Nowhere(diagnosis) => {
                self.queue.fail(&pod, diagnosis.plugins, now);
                let work = self.make_room(pod, diagnosis);
                self.counts.decided(now.elapsed());
                self.counts
                    .ended(metrics::Outcome::Unschedulable, now.elapsed());
                Step::Work(work)
            }
        }
    }

    /// Runs preemption for a pod that fits no node, and returns what to report.
    fn make_room(&mut self, pod: Arc<Pod>, mut diagnosis: Box<Diagnosis>) -> Work {
        let (mut victims, mut displaced) = (Vec::new(), Vec::new());
        let mut nominated = Some(String::new());
        if diagnosis.nodes > 0 {
            self.counts.looked_for_victims();
            let outcome = preempt(&self.snapshot, &pod, &diagnosis, &mut self.turn);
            diagnosis.preemption = outcome.note(&self.snapshot);
            match outcome {
                Outcome::Plan(plan) => {
                    let site = self.snapshot.site(plan.node);
                    nominated = Some(site.name().to_owned());
                    let matters_less = |other: &&Arc<Pod>| other.priority < pod.priority;
                    displaced = site
                        .nominated
                        .iter()
                        .filter(matters_less)
                        .cloned()
                        .collect();
                    victims = plan.victims;
                    victims.retain(|victim| !victim.is_deleting);
                }
                Outcome::None(_) => {}
                Outcome::NotNow(_) => nominated = None,
            }
        }
        if let Some(node) = &nominated {
            self.snapshot.nominate(&pod, node);
        }
        if !victims.is_empty() {
            self.counts.ends(victims.len());
            self.queue.begin_preempting(&pod);
        }
        let telling = self.queue.tell(&pod);
        Work::Report {
            pod,
            diagnosis,
            nominated,
            victims,
            displaced,
            telling,
        }
    }

    /// Removes an assumed pod, and queues it again. Returns its latest version to report about, if it still
    /// waits.
    pub fn give_up(&mut self, assumed: &Arc<Pod>, plan: &Plan) -> Option<(Arc<Pod>, Telling)> {
        let now = Instant::now();
        self.snapshot.storage.release(plan, assumed);
        self.free(assumed, now);
        let waiting = self.queue.err(assumed, now)?;
        Some((waiting, self.queue.tell(assumed)))
    }

    /// The API requests for a plan: volumes with their claims, and claims.
    pub fn claims_of(&self, plan: &Plan) -> Asked {
        let storage = &self.snapshot.storage;
        let claim = |key: &Key| Some((key.clone(), storage.claims.get(key)?.clone()));
        let bind = plan.bind.iter().filter_map(|(name, key)| {
            let volume = storage.volume(name)?.clone();
            let (key, claim) = claim(key)?;
            Some((name.clone(), volume, key, claim))
        });
        Asked {
            bind: bind.collect(),
            provision: plan.provision.iter().filter_map(claim).collect(),
        }
    }

    /// Whether this pod is assumed, not another one of its name.
    pub fn is_assumed(&self, pod: &Pod) -> bool {
        let known = self.snapshot.placed(&pod.key);
        self.snapshot.is_assumed(&pod.key) && known.is_some_and(|known| known.uid() == pod.uid())
    }

    /// Removes an assumed pod that was deleted: its binding cycle is cancelled.
    pub fn forget(&mut self, pod: &Pod, now: Instant) {
        self.preparing.call_off(pod, ended);
        self.free(pod, now);
    }

    /// Frees the place of an assumed pod. Returns whether it was assumed.
    pub fn free(&mut self, pod: &Pod, now: Instant) -> bool {
        if !self.is_assumed(pod) {
            return false;
        }
        if let Some(gone) = self.snapshot.remove_pod(&pod.key) {
            self.happened(&Event::PodGone(&gone), now, |other| other.key != gone.key);
        }
        true
    }

    /// Passes an event to the queue; `is_meant` filters pods.
    pub fn happened(&mut self, event: &Event<'_>, now: Instant, is_meant: impl Fn(&Pod) -> bool) {
        self.queue.on(event, &self.snapshot, now, is_meant);
    }
}
