//! The scheduler's state, and its steps: one pod is decided about, what follows is carried out.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::decide::{Decision, Diagnosis, Turn, decide};
use super::hints::Event;
use super::metrics::{self, Counts};
use super::pod::Pod;
use super::preempt::{Outcome, preempt};
use super::queue::{Attempt, Queue};
use super::requests::{Asked, Requests};
use super::snapshot::Snapshot;
use super::storage::Plan;
use crate::controllers::informer::Key;

/// The scheduler.
pub struct Scheduler {
    /// What is known, and who waits.
    pub state: Mutex<State>,
    /// Woken when there may be something to do.
    pub changed: Notify,
    /// Changes when volumes or claims do.
    pub stored: watch::Sender<()>,
    /// The way to the API.
    pub requests: Requests,
    /// When it is to end.
    ends: CancellationToken,
}

/// What is known, and who waits.
pub struct State {
    /// The cluster.
    pub snapshot: Snapshot,
    /// Pods without a place.
    pub queue: Queue,
    /// What was done.
    pub counts: Counts,
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
    /// A pod has this place, once its claims are seen to.
    Bind(Arc<Pod>, Plan, Attempt),
    /// A pod has none.
    Report {
        /// The pod.
        pod: Arc<Pod>,
        /// Why.
        diagnosis: Box<Diagnosis>,
        /// The node that room is kept on; none to leave that as it is.
        nominated: Option<String>,
        /// Pods to end, so that there is room.
        victims: Vec<Arc<Pod>>,
        /// Pods that matter less, for which no room is kept there any longer.
        displaced: Vec<Arc<Pod>>,
    },
    /// A pod is being deleted and gets none.
    Skip(Arc<Pod>),
}

impl Scheduler {
    /// A scheduler that knows nothing yet, and waits for nothing any more when `ends` is cancelled.
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

    /// Tells the API, and takes in what it says. A permit is held while requests are under way.
    pub async fn carry_out(self: Arc<Self>, work: Work, permit: OwnedSemaphorePermit) {
        match work {
            Work::Bind(pod, plan, attempt) => {
                let mut permit = Some(permit);
                let ready = match plan.is_empty() {
                    true => Ok(()),
                    false => self.see_to_claims(&pod, &plan, &mut permit).await,
                };
                let ready = match ready {
                    Ok(()) if !pod.device_claims.is_empty() => {
                        let claims = self.change(|state| state.snapshot.devices.to_reserve(&pod));
                        self.requests.reserve(&pod, claims).await
                    }
                    ready => ready,
                };
                let bound = match ready {
                    Ok(()) => self.requests.bind(&pod).await,
                    Err(why) => Err(why),
                };
                match bound {
                    Ok(()) => self.change(|state| {
                        state.counts.bound(&attempt, Instant::now());
                        state.queue.done(&pod);
                    }),
                    Err(why) => {
                        let took = attempt.begun.elapsed();
                        self.change(|state| state.counts.ended(metrics::Outcome::Error, took));
                        // Who is scheduler next decides anew, and nothing is wrong with the pod.
                        if self.ends.is_cancelled() {
                            return;
                        }
                        if let Some(waiting) = self.change(|state| state.give_up(&pod, &plan)) {
                            let mut waiting = (*waiting).clone();
                            if !plan.is_empty() {
                                // So it was said in its status, whether or not that was seen yet.
                                waiting.nominated = pod.node.clone();
                            }
                            let nominated = Some(String::new());
                            self.requests
                                .report(&waiting, "SchedulerError", &why, nominated)
                                .await;
                        }
                    }
                }
            }
            Work::Report {
                pod,
                diagnosis,
                nominated,
                victims,
                displaced,
            } => {
                let why = diagnosis.to_string();
                let node = nominated.clone().unwrap_or_default();
                let report = self.requests.report(&pod, "Unschedulable", &why, nominated);
                let end = async {
                    if victims.is_empty() {
                        return;
                    }
                    let is_done = self.requests.end(&pod, &node, &victims, &displaced).await;
                    let now = Instant::now();
                    self.change(|state| state.queue.end_preempting(&pod, !is_done, now));
                };
                tokio::join!(report, end);
            }
            Work::Skip(pod) => self.requests.skip(&pod),
        }
    }

    /// Tells who binds and makes volumes what the pod's claims are to get, and waits until they have it.
    async fn see_to_claims(
        &self,
        pod: &Arc<Pod>,
        plan: &Plan,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), String> {
        let prefix = |why: String| format!("running PreBind plugin \"VolumeBinding\": {why}");
        let asked = self.change(|state| state.claims_of(plan));
        self.requests.prepare(pod, asked).await.map_err(prefix)?;
        // Others are placed meanwhile.
        permit.take();
        wait_for_volumes(&self.stored, &self.ends, || {
            self.state.lock().are_bound(pod, plan)
        })
        .await
        .map_err(|why| prefix(format!("binding volumes: {why}")))
    }
}

/// Waits until claims `are_bound`, which is asked whenever something of volumes is otherwise.
///
/// # Errors
/// What it says is wrong, or that nothing is waited for any more.
async fn wait_for_volumes(
    stored: &watch::Sender<()>,
    ends: &CancellationToken,
    are_bound: impl Fn() -> Result<bool, String>,
) -> Result<(), String> {
    let mut changes = stored.subscribe();
    let are_bound = async {
        loop {
            changes.borrow_and_update();
            if are_bound()? {
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err("context canceled".to_owned());
            }
        }
    };
    tokio::select! {
        biased;
        // Nobody binds volumes any more either.
        () = ends.cancelled() => Err("context canceled".to_owned()),
        done = are_bound => done,
        () = tokio::time::sleep(BIND_PATIENCE) => Err("context deadline exceeded".to_owned()),
    }
}

/// How long volumes are waited for.
const BIND_PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

impl State {
    /// Nothing is known yet; the seed is for what is left to chance.
    pub fn new(seed: u64) -> State {
        State {
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            counts: Counts::default(),
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
                self.snapshot.storage.promise(&plan, &pod.node);
                let attempt = self.queue.attempt(&pod.key, now);
                Step::Work(Work::Bind(pod, plan, attempt))
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

    /// What is to be told of a pod that no node will do for, and whom to end for it.
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
        Work::Report {
            pod,
            diagnosis,
            nominated,
            victims,
            displaced,
        }
    }

    /// Forgets that a pod was assumed to have a place, and tries again. Gives the pod as it was last seen, if it still
    /// waits.
    fn give_up(&mut self, assumed: &Arc<Pod>, plan: &Plan) -> Option<Arc<Pod>> {
        let now = Instant::now();
        self.snapshot.storage.release(plan);
        self.forget(assumed, now);
        self.queue.err(assumed, now)
    }

    /// What the API is to be asked for of a plan: volumes with their claims, and claims.
    fn claims_of(&self, plan: &Plan) -> Asked {
        let storage = &self.snapshot.storage;
        let claim = |key: &Key| Some((key.clone(), storage.claims.get(key)?.clone()));
        let bind = plan.bind.iter().filter_map(|(name, key)| {
            let volume = storage.volumes.get(name)?.clone();
            let (key, claim) = claim(key)?;
            Some((name.clone(), volume, key, claim))
        });
        Asked {
            bind: bind.collect(),
            provision: plan.provision.iter().filter_map(claim).collect(),
        }
    }

    /// Whether the claims of a plan have their volumes.
    fn are_bound(&self, pod: &Pod, plan: &Plan) -> Result<bool, String> {
        if !self.snapshot.is_assumed(&pod.key) {
            let name = &pod.key.name;
            return Err(format!(
                "pod does not exist any more: pod \"{name}\" not found"
            ));
        }
        let storage = &self.snapshot.storage;
        let mut all = true;
        for key in plan.claims() {
            let name = &key.name;
            let Some(claim) = storage.claims.get(key) else {
                return Err(format!(
                    "failed to check binding: could not find pvc {}/{name}",
                    key.namespace
                ));
            };
            let is_made = plan.provision.contains(key);
            if is_made && storage.is_rejected(key, claim, &pod.node) {
                return Err(format!("provisioning failed for PVC {name:?}"));
            }
            all &= claim.is_bound;
        }
        Ok(all)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn volumes_are_waited_for_until_they_are_bound_or_the_scheduler_ends() {
        let no = |why: &str| Err::<(), _>(why.to_owned());
        let stored = watch::Sender::new(());
        let begun = Instant::now();
        let ends = CancellationToken::new();
        let bound = Mutex::new(Ok(false));
        let wait = || wait_for_volumes(&stored, &ends, || bound.lock().clone());
        let change = async |to: Result<bool, &str>| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            *bound.lock() = to.map_err(str::to_owned);
            stored.send_replace(());
        };
        assert_eq!(tokio::join!(wait(), change(Ok(true))).0, Ok(()));
        assert_eq!(tokio::join!(wait(), change(Ok(true))).0, Ok(()), "at once");
        *bound.lock() = Ok(false);
        assert_eq!(tokio::join!(wait(), change(Err("lost"))).0, no("lost"));
        assert!(begun.elapsed() < BIND_PATIENCE);
        *bound.lock() = Ok(false);
        assert_eq!(wait().await, no("context deadline exceeded"));
        let begun = Instant::now();
        let end = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ends.cancel();
        };
        assert_eq!(tokio::join!(wait(), end).0, no("context canceled"));
        assert!(begun.elapsed() < BIND_PATIENCE);
    }
}
