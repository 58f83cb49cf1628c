//! The worker of one pod: observes, decides, acts, reports, and waits for a reason to do so again.

mod act;
mod hooks;
mod images;
mod probing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodStatus};
use kube::api::Api;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::addresses::Addresses;
use super::allocations::Allocations;
use super::machine::{
    Action, Decision, ImageOf, ImageState, Memory, ProbeKind, decide, is_over, later, named,
};
use super::pressure::Observed;
use super::report::Reporter;
use super::supplies::{Lack, Pulled, Supplies};
use super::zone_name;
use crate::client::events::{Recorder, Tone};
use crate::zone::{ProcessId, Zone, ZoneName, ZoneRuntime};

/// How many results of tasks may wait for the worker.
const ANSWERS: usize = 64;
/// How often volumes from the API are updated.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a status may be held back while a pod starts, and once it has started, for a more complete one.
const HOLD: Duration = Duration::from_millis(100);
/// The first pause after a failure.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// The grace period of the containers of an evicted pod, in seconds.
const EVICTION_GRACE: i64 = 1;

/// Shared by the workers of a node.
pub struct Shared {
    /// A client as this node.
    pub client: kube::Client,
    /// The runtime of its zones.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// The host's side of pods.
    pub supplies: Arc<dyn Supplies>,
    /// Records events.
    pub recorder: Recorder,
    /// This host's addresses.
    pub addresses: Addresses,
    /// The pressure conditions of the node.
    pub observed: Arc<Observed>,
    /// The allocations of its pods.
    pub allocations: Allocations,
}

/// Why a pod is refused, for its status and an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Upstream's reason: `Evicted`, `OutOfcpu`, `NodePorts`, ...
    pub reason: &'static str,
    /// A human-readable message.
    pub message: String,
}

/// A result of one of the worker's tasks.
#[derive(Debug)]
pub enum Told {
    /// An image was pulled, or not.
    Pulled(ImageOf, Result<Pulled, Lack>),
    /// A probe reached its threshold.
    Probe(ProcessId, ProbeKind, bool),
    /// A probe result that needs an event: its reason and message.
    Probed(ProcessId, &'static str, String),
    /// A hook ended; whether it is a postStart hook, and why it failed.
    Hook(ProcessId, bool, Result<(), String>),
    /// Volumes cannot be updated.
    NotRefreshed(Lack),
    /// The pod is evicted.
    Evicted {
        /// A human-readable message.
        message: String,
        /// Whether the node needs the resources.
        disrupts: bool,
    },
}

/// The desired state of a pod.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The pod in the API.
    pub pod: Arc<Pod>,
    /// Whether the API no longer has it.
    pub gone: bool,
}

/// A running worker.
pub struct Handle {
    /// The newest desired state.
    pub wanted: watch::Sender<Wanted>,
    /// Notified when something changed in its zone.
    pub changed: Arc<Notify>,
    /// Where its tasks send results. Boxed, because a channel has space for 32 of them from its beginning.
    pub told: mpsc::Sender<Box<Told>>,
    /// The last computed status.
    pub status: watch::Receiver<Option<Arc<PodStatus>>>,
    /// Why the pod is refused, if it is.
    pub refused: Option<Refusal>,
}

struct Worker {
    shared: Arc<Shared>,
    api: Api<Pod>,
    zone_name: ZoneName,
    uid: String,
    wanted: watch::Receiver<Wanted>,
    changed: Arc<Notify>,
    memory: Memory,
    told: mpsc::Sender<Box<Told>>,
    answers: mpsc::Receiver<Box<Told>>,
    probing: HashMap<(ProcessId, ProbeKind), AbortHandle>,
    pulling: HashMap<ImageOf, i64>,
    tasks: JoinSet<()>,
    reporter: Arc<Reporter>,
    /// The last status handed to the reporter.
    reported: Option<Arc<PodStatus>>,
    /// Since when a newer status is being held back.
    owed: Option<Timestamp>,
    /// The reporter is waited for: with the end of a zone or pod, or to compare what the API shows then.
    untold: bool,
    publish: watch::Sender<Option<Arc<PodStatus>>>,
    /// When to look again at a zone whose state could not be read.
    retry: Option<Timestamp>,
    failures: u32,
    /// Failed steps, until they succeed or are no longer needed.
    failed: Vec<Failed>,
    /// How often in a row the zone could not be created.
    sandbox_failures: u32,
    refreshed: Timestamp,
    /// Marked when the pod's certificates have changed; `None` if it has none.
    certificates: Option<watch::Receiver<()>>,
    /// The task that updates volumes.
    refreshing: Option<AbortHandle>,
    clock: Clock,
}

/// A failed step.
struct Failed {
    action: Action,
    /// Consecutive failures.
    times: u32,
    /// When it is retried.
    again: Timestamp,
}

/// The wall clock together with the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Clock {
    told: Timestamp,
    at: Instant,
}

/// Smaller differences are ordinary clock adjustments.
const JUMP: SignedDuration = SignedDuration::from_secs(1);

impl Clock {
    fn now() -> Self {
        Clock {
            told: Timestamp::now(),
            at: Instant::now(),
        }
    }

    /// By how much the clock was set between this and `later`; None if it was not.
    fn jumped(&self, later: &Clock) -> Option<SignedDuration> {
        let passed = later.at.saturating_duration_since(self.at);
        let passed = SignedDuration::try_from(passed).ok()?;
        let by = later.told.duration_since(self.told).checked_sub(passed)?;
        (by.abs() > JUMP).then_some(by)
    }
}

/// The end of a pod's worker, with the uid.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing of the pod is left.
    Removed(String),
    /// The worker panicked: its pod has none now.
    Broke(String),
}

/// The pause before a worker that panicked is replaced, because the next one may panic at once, too.
const BROKEN: Duration = Duration::from_secs(10);

/// Starts the worker of a pod as one of `workers`; the pod does not start if it is `refused`. The end is sent to
/// `ended`.
pub fn start(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    ended: mpsc::Sender<Ended>,
    refused: Option<Refusal>,
    workers: &mut JoinSet<()>,
) -> Handle {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let last = pod.status.clone().unwrap_or_default();
    let changed = Arc::new(Notify::new());
    let (told, answers) = mpsc::channel(ANSWERS);
    let (publish, status) = watch::channel(None);
    if refused.is_none() {
        let (status, changed) = (status.clone(), changed.clone());
        shared.allocations.take(&uid, &pod, status, changed);
    }
    let api = Api::namespaced(shared.client.clone(), &namespace);
    let mut tasks = JoinSet::new();
    let reporter = Reporter::start(api.clone(), &pod, &mut tasks);
    let (wanted, receiver) = watch::channel(Wanted { pod, gone: false });
    let mut worker = Worker {
        api,
        zone_name: zone_name(&uid),
        uid: uid.clone(),
        wanted: receiver,
        changed: changed.clone(),
        memory: Memory {
            last: Arc::new(last),
            ..Memory::default()
        },
        told: told.clone(),
        answers,
        probing: HashMap::new(),
        pulling: HashMap::new(),
        reporter: Arc::new(reporter),
        tasks,
        reported: None,
        owed: None,
        untold: false,
        publish,
        retry: None,
        failures: 0,
        failed: Vec::new(),
        sandbox_failures: 0,
        refreshed: Timestamp::now(),
        refreshing: None,
        certificates: None,
        clock: Clock::now(),
        shared,
    };
    if let Some(Refusal { reason, message }) = refused.clone() {
        let pod = worker.wanted.borrow().pod.clone();
        worker.event(&pod, true, reason, None, &message);
        worker.memory.fail = Some((reason.into(), format!("Pod was rejected: {message}")));
    } else if !is_over(&worker.memory.last) {
        let pod = worker.wanted.borrow().pod.clone();
        worker.certificates = worker.shared.supplies.certificates(&pod);
    }
    workers.spawn(async move {
        let ran = AssertUnwindSafe(worker.run()).catch_unwind().await;
        // Its tasks end with it.
        drop(worker);
        let end = match ran {
            Ok(()) => Ended::Removed(uid),
            Err(_) => {
                tracing::error!(
                    pod = uid,
                    "the worker of a pod panicked; starting another one in {BROKEN:?}"
                );
                tokio::time::sleep(BROKEN).await;
                Ended::Broke(uid)
            }
        };
        let _ = ended.send(end).await;
    });
    Handle {
        wanted,
        changed,
        told,
        status,
        refused,
    }
}

impl Worker {
    /// Looks after the pod until nothing of it is left, or the agent ends.
    async fn run(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            let changed = self.changed.clone();
            // The following steps see all changes up to now, most of which the last round caused.
            let _ = changed.notified().now_or_never();
            // Boxed, because what it does is large, and most of the time the worker waits.
            let wake = match Box::pin(self.look()).await {
                Look::Removed => return,
                Look::Again => continue,
                Look::Wait(wake) => wake,
            };
            let wait = wake.map_or(REFRESH, |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
            });
            tokio::select! {
                // All of these are cancel-safe: a change stays marked, a result stays queued.
                result = self.wanted.changed() => {
                    if result.is_err() {
                        // The agent ends: pods keep running.
                        return;
                    }
                    self.retry = None;
                }
                () = changed.notified() => {}
                () = marked(&mut self.certificates) => {
                    // Volumes are created or updated at once.
                    self.memory.zone_again = None;
                    self.stop_refreshing();
                    self.refreshed = Timestamp::MIN;
                }
                told = self.answers.recv() => {
                    if let Some(told) = told {
                        self.hear(*told);
                    }
                }
                () = self.reporter.settled(), if self.untold => {}
                () = tokio::time::sleep(wait.min(REFRESH)) => {}
            }
            while let Ok(told) = self.answers.try_recv() {
                self.hear(*told);
            }
        }
    }

    fn event(
        &self,
        pod: &Pod,
        warning: bool,
        reason: &str,
        container: Option<&str>,
        message: &str,
    ) {
        let path = container.map(|name| {
            let spec = pod.spec.as_ref();
            let among = |list: Option<&Vec<Container>>| {
                list.into_iter().flatten().any(|one| one.name == name)
            };
            match spec {
                Some(spec) if among(spec.init_containers.as_ref()) => {
                    format!("spec.initContainers{{{name}}}")
                }
                Some(spec) if among(Some(&spec.containers)) => format!("spec.containers{{{name}}}"),
                _ => format!("spec.ephemeralContainers{{{name}}}"),
            }
        });
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: path,
        };
        let tone = match warning {
            true => Tone::Warning,
            false => Tone::Normal,
        };
        self.shared.recorder.tell_of(about, tone, reason, message);
    }

    fn hear(&mut self, told: Told) {
        let pod = self.wanted.borrow().pod.clone();
        match told {
            Told::Probe(id, kind, good) => {
                self.memory.probes.insert((id, kind), good);
            }
            Told::Probed(id, reason, message) => {
                self.event(&pod, true, reason, Some(&id.name), &message);
            }
            Told::Pulled(image, Ok(pulled)) => {
                if let Pulled::Fetched(message) = pulled {
                    self.event(&pod, false, "Pulled", Some(&image.0), &message);
                }
                self.pulling.remove(&image);
                self.memory.images.insert(image, ImageState::Ready);
            }
            Told::Pulled(image, Err(lack)) => self.not_pulled(&pod, image, lack),
            Told::NotRefreshed(lack) => {
                self.event(&pod, true, lack.reason, None, &lack.message);
            }
            Told::Evicted { message, disrupts } if self.memory.fail.is_none() => {
                self.event(&pod, true, "Evicted", None, &message);
                self.memory.grace = Some(EVICTION_GRACE);
                self.memory.disrupted = disrupts.then(|| message.clone());
                self.memory.fail = Some(("Evicted".into(), message));
            }
            Told::Evicted { .. } => {}
            Told::Hook(id, post_start, result) => self.hooked(&pod, id, post_start, result),
        }
    }

    /// The current time. If the clock was set, all pending times are adjusted.
    fn tick(&mut self) -> Timestamp {
        let clock = Clock::now();
        if let Some(by) = std::mem::replace(&mut self.clock, clock).jumped(&clock) {
            tracing::info!(pod = self.uid, %by, "the clock was set");
            self.memory.shift(by);
            self.retry = self.retry.map(|at| later(at, by));
            for failed in &mut self.failed {
                failed.again = later(failed.again, by);
            }
            self.owed = self.owed.map(|at| later(at, by));
            self.refreshed = later(self.refreshed, by);
        }
        clock.told
    }

    async fn look(&mut self) -> Look {
        let Wanted { pod, gone } = self.wanted.borrow_and_update().clone();
        let now = self.tick();
        self.untold = false;
        if let Some(at) = self.retry
            && at > now
        {
            return Look::Wait(Some(at));
        }
        let zone = match self.shared.runtime.get(&self.zone_name).await {
            Ok(zone) => zone,
            Err(error) => return self.blind(&error.to_string()),
        };
        (self.retry, self.failures) = (None, 0);
        let pod = match gone && pod.metadata.deletion_timestamp.is_none() {
            // Deleted by force: what runs of it is ended as after a normal deletion.
            true => {
                let mut own = Pod::clone(&pod);
                own.metadata.deletion_timestamp = Some(super::machine::status_time(now));
                own.metadata.deletion_grace_period_seconds = own
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.termination_grace_period_seconds);
                Arc::new(own)
            }
            false => pod,
        };
        let given = self.shared.allocations.give(&self.uid, &pod);
        let pod = given.pod;
        self.memory.resize.pending = given.pending;
        if given.accepted.is_some() {
            self.memory.resize.accepted = given.accepted;
        }
        self.messages(&pod, zone.as_ref()).await;
        if zone.is_some()
            && pod.metadata.deletion_timestamp.is_none()
            && now.duration_since(self.refreshed).unsigned_abs() >= REFRESH
        {
            self.refreshed = now;
            self.refresh(&pod);
        }
        self.memory.host_ips = self.shared.addresses.all();
        let decision = decide(&pod, zone.as_ref(), &mut self.memory, now);
        self.ask_probes(&pod, zone.as_ref());
        // Others may have written over what was reported, as when they believed that the node was down.
        let contradicted = self.reporter.is_contradicted(&pod);
        self.untold = contradicted && self.reporter.owes();
        let unchanged =
            self.reported.as_ref() == Some(&decision.status) && (!contradicted || self.untold);
        if !Arc::ptr_eq(&self.memory.last, &decision.status) || self.publish.borrow().is_none() {
            self.memory.last = decision.status.clone();
            self.publish.send_replace(Some(decision.status.clone()));
        }
        if !unchanged {
            self.shared.allocations.told();
        }
        if unchanged || gone {
            self.owed = None;
            return self
                .go(&pod, zone.as_ref(), decision.actions, decision.wake, gone)
                .await;
        }
        let owed = *self.owed.get_or_insert(now);
        if decision.actions.iter().any(begins) && now.duration_since(owed).unsigned_abs() < HOLD {
            return self.begin(&pod, zone.as_ref(), decision).await;
        }
        if decision.actions.is_empty()
            && pod.metadata.deletion_timestamp.is_none()
            && let Some(until) = self.answered_by(&pod, zone.as_ref(), now)
        {
            return Look::Wait(Some(decision.wake.map_or(until, |wake| wake.min(until))));
        }
        self.offer(&pod, decision.status);
        self.go(&pod, zone.as_ref(), decision.actions, decision.wake, gone)
            .await
    }

    /// Carries out a decision. What shows how a pod ended is not removed before its status was reported: its processes,
    /// with the zone, and the pod itself.
    async fn go(
        &mut self,
        pod: &Arc<Pod>,
        zone: Option<&Zone>,
        mut actions: Vec<Action>,
        wake: Option<Timestamp>,
        gone: bool,
    ) -> Look {
        if !gone && self.reporter.owes() {
            let count = actions.len();
            actions.retain(|action| !removes_an_end(action, zone));
            self.untold |= actions.len() < count;
        }
        self.carry_out(pod, zone, actions, wake, gone).await
    }

    /// Carries out the first steps of a pod. The status is only reported if they take long or do not lead further:
    /// otherwise the next one is more complete.
    async fn begin(&mut self, pod: &Arc<Pod>, zone: Option<&Zone>, decision: Decision) -> Look {
        let (reporter, status) = (self.reporter.clone(), decision.status);
        let look = {
            let steps = self.carry_out(pod, zone, decision.actions, decision.wake, false);
            let mut steps = std::pin::pin!(steps);
            match tokio::time::timeout(HOLD, &mut steps).await {
                Ok(Look::Again) => return Look::Again,
                Ok(look) => {
                    reporter.offer(pod, &status);
                    look
                }
                Err(_) => {
                    reporter.offer(pod, &status);
                    steps.await
                }
            }
        };
        self.offered(status);
        look
    }

    /// Hands a status to the reporter.
    fn offer(&mut self, pod: &Pod, status: Arc<PodStatus>) {
        self.reporter.offer(pod, &status);
        self.offered(status);
    }

    fn offered(&mut self, status: Arc<PodStatus>) {
        self.owed = None;
        self.reported = Some(status);
    }

    /// Updates volumes in a separate task: the API server may be slow to return their content.
    fn refresh(&mut self, pod: &Arc<Pod>) {
        let before = self.refreshing.as_ref();
        if before.is_some_and(|before| !before.is_finished()) {
            return;
        }
        let (shared, pod, told) = (self.shared.clone(), pod.clone(), self.told.clone());
        let task = self.tasks.spawn(async move {
            if let Err(lack) = shared.supplies.refresh(&pod).await {
                let _ = told.send(Box::new(Told::NotRefreshed(lack))).await;
            }
        });
        self.refreshing = Some(task);
    }

    /// Volumes are about to be created or removed: an update that waits for the API server must not write to them any
    /// more. A write in progress is finished.
    fn stop_refreshing(&mut self) {
        if let Some(task) = self.refreshing.take() {
            task.abort();
        }
    }

    /// Reads the termination messages of ended processes, once each.
    async fn messages(&mut self, pod: &Pod, zone: Option<&Zone>) {
        for process in zone.into_iter().flat_map(|zone| &zone.processes) {
            let Some(ending) = &process.ended else {
                continue;
            };
            if self.memory.messages.contains_key(&process.id) {
                continue;
            }
            let Some(container) = named(pod, &process.id.name) else {
                continue;
            };
            let message = self
                .shared
                .supplies
                .message(pod, &container, &process.id, ending.code != 0)
                .await;
            self.memory.messages.insert(process.id.clone(), message);
        }
    }
}

/// Resolves when the receiver is marked; never if there is none, or its sender is gone.
async fn marked(receiver: &mut Option<watch::Receiver<()>>) {
    if let Some(marks) = receiver {
        match marks.changed().await {
            Ok(()) => return,
            Err(_) => *receiver = None,
        }
    }
    std::future::pending().await
}

/// Whether a step removes the only record of how a pod ended, which no later agent could report any more.
fn removes_an_end(action: &Action, zone: Option<&Zone>) -> bool {
    match action {
        Action::Remove => true,
        Action::Halt => zone.is_some_and(|zone| {
            let mut processes = zone.processes.iter();
            !zone.processes.is_empty() && processes.all(|process| process.ended.is_some())
        }),
        _ => false,
    }
}

/// Whether it is one of the first steps of a pod.
fn begins(action: &Action) -> bool {
    matches!(action, Action::Prepare | Action::Pull(_) | Action::Start(_))
}

/// The result of a round.
enum Look {
    /// Nothing of the pod is left.
    Removed,
    /// Something was done: do the next round at once.
    Again,
    /// Wait until something changes, or until this time.
    Wait(Option<Timestamp>),
}
