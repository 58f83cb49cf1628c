//! The worker of one pod: looks, lets the machine decide, carries out, reports, and waits for a reason to look again.

mod act;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodStatus};
use kube::api::Api;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::allocations::Allocations;
use super::machine::{
    Action, Decision, Hook, ImageState, Memory, ProbeKind, containers, decide, later,
};
use super::pressure::Observed;
use super::supplies::{Lack, Pulled, Supplies};
use super::{probes, report, zone_name};
use crate::controllers::events::{Recorder, Tone};
use crate::zone::{ProcessId, Zone, ZoneName, ZoneRuntime, ZoneState};

/// Answers of tasks that wait for the worker.
const ANSWERS: usize = 64;
/// How long volumes may lag behind what they are made of.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a status may be kept back while a pod begins, and once it has, for one that says more.
const HOLD: Duration = Duration::from_millis(100);
/// The first wait after a failure.
const RETRY: SignedDuration = SignedDuration::from_secs(1);
/// How long the containers of an evicted pod have to end, in seconds.
const EVICTION_GRACE: i64 = 1;

/// What the workers of a node share.
pub struct Shared {
    /// The API, as this node.
    pub client: kube::Client,
    /// The runtime of its zones.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// The host's side of pods.
    pub supplies: Arc<dyn Supplies>,
    /// Where events go.
    pub recorder: Recorder,
    /// This host's addresses.
    pub host_ips: Vec<String>,
    /// What the host runs out of.
    pub observed: Arc<Observed>,
    /// What its pods were given.
    pub allocations: Allocations,
}

/// Why a pod is not begun, as its status and an event tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Upstream's reason: `Evicted`, `OutOfcpu`, `NodePorts`, ...
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What a task of the worker has to tell.
#[derive(Debug)]
pub enum Told {
    /// An image was fetched, or not.
    Pulled(String, Result<Pulled, Lack>),
    /// A probe reached its threshold.
    Probe(ProcessId, ProbeKind, bool),
    /// A probe went such that people are told: the reason and the message of the event.
    Probed(ProcessId, &'static str, String),
    /// A hook ended.
    Hook(ProcessId, bool, Result<(), String>),
    /// The pod has to go.
    Evicted {
        /// For people.
        message: String,
        /// It is the node that needs the room.
        disrupts: bool,
    },
}

/// What a worker is told about its pod.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The pod as the API has it.
    pub pod: Arc<Pod>,
    /// The API does not have it any more.
    pub gone: bool,
}

/// A running worker.
pub struct Handle {
    /// The newest pod.
    pub wanted: watch::Sender<Wanted>,
    /// Something changed in its zone.
    pub changed: Arc<Notify>,
    /// What is to be heard.
    pub told: mpsc::Sender<Told>,
    /// The status as decided last.
    pub status: watch::Receiver<Option<PodStatus>>,
}

struct Worker {
    shared: Arc<Shared>,
    api: Api<Pod>,
    zone_name: ZoneName,
    uid: String,
    wanted: watch::Receiver<Wanted>,
    changed: Arc<Notify>,
    memory: Memory,
    told: mpsc::Sender<Told>,
    answers: mpsc::Receiver<Told>,
    probing: HashMap<(ProcessId, ProbeKind), AbortHandle>,
    pulling: HashMap<String, i64>,
    tasks: tokio::task::JoinSet<()>,
    reported: Option<PodStatus>,
    /// Since when there is a status that was not told.
    owed: Option<Timestamp>,
    publish: watch::Sender<Option<PodStatus>>,
    retry: Option<Timestamp>,
    failures: u32,
    /// How often in a row the zone could not be made.
    sandbox_failures: u32,
    refreshed: Timestamp,
    clock: Clock,
}

/// The clock beside a count of time that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Clock {
    told: Timestamp,
    at: Instant,
}

/// Less than this the clock is adjusted all the time.
const JUMP: SignedDuration = SignedDuration::from_secs(1);

impl Clock {
    fn now() -> Self {
        Clock {
            told: Timestamp::now(),
            at: Instant::now(),
        }
    }

    /// By how much the clock was set between here and `later`; nothing where it only passed.
    fn jumped(&self, later: &Clock) -> Option<SignedDuration> {
        let passed = later.at.saturating_duration_since(self.at);
        let passed = SignedDuration::try_from(passed).ok()?;
        let by = later.told.duration_since(self.told).checked_sub(passed)?;
        (by.abs() > JUMP).then_some(by)
    }
}

/// The end of the worker of a pod, by its uid.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing of the pod is left.
    Removed(String),
    /// It failed at a fault of this program: its pod has no worker any more.
    Broke(String),
}

/// How long a pod has no worker whose last one broke: the next one may break at once, too.
const BROKEN: Duration = Duration::from_secs(10);

/// Starts the worker of a pod, which is not begun if it is `refused`; `ended` is told its end.
pub fn start(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    ended: mpsc::Sender<Ended>,
    refused: Option<Refusal>,
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
    let (wanted, receiver) = watch::channel(Wanted { pod, gone: false });
    let mut worker = Worker {
        api: Api::namespaced(shared.client.clone(), &namespace),
        zone_name: zone_name(&uid),
        uid: uid.clone(),
        wanted: receiver,
        changed: changed.clone(),
        memory: Memory {
            last,
            host_ips: shared.host_ips.clone(),
            ..Memory::default()
        },
        told: told.clone(),
        answers,
        probing: HashMap::new(),
        pulling: HashMap::new(),
        tasks: tokio::task::JoinSet::new(),
        reported: None,
        owed: None,
        publish,
        retry: None,
        failures: 0,
        sandbox_failures: 0,
        refreshed: Timestamp::now(),
        clock: Clock::now(),
        shared,
    };
    if let Some(Refusal { reason, message }) = refused {
        let pod = worker.wanted.borrow().pod.clone();
        worker.event(&pod, true, reason, None, &message);
        worker.memory.fail = Some((reason.into(), format!("Pod was rejected: {message}")));
    }
    tokio::spawn(async move {
        let run = AssertUnwindSafe(worker.run());
        let end = match run.catch_unwind().await {
            Ok(()) => Ended::Removed(uid),
            Err(_) => {
                tracing::error!(
                    pod = uid,
                    "the worker of a pod broke; another one takes over in {BROKEN:?}"
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
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            let changed = self.changed.clone();
            let wake = match self.look().await {
                Look::Removed => return,
                Look::Again => continue,
                Look::Wait(wake) => wake,
            };
            let wait = wake.map_or(REFRESH, |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
            });
            tokio::select! {
                // Cancel-safe, all of them: a change stays marked, an answer stays queued.
                result = self.wanted.changed() => {
                    if result.is_err() {
                        // The agent ends: pods go on.
                        return;
                    }
                }
                () = changed.notified() => {}
                told = self.answers.recv() => {
                    if let Some(told) = told {
                        self.hear(told);
                    }
                }
                () = tokio::time::sleep(wait.min(REFRESH)) => {}
            }
            while let Ok(told) = self.answers.try_recv() {
                self.hear(told);
            }
        }
    }

    fn container(&self, pod: &Pod, name: &str) -> Option<Container> {
        let spec = pod.spec.as_ref()?;
        containers(spec)
            .into_iter()
            .find(|(_, container)| container.name == name)
            .map(|(_, container)| container.into_owned())
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
            Told::Pulled(name, Ok(pulled)) => {
                if let Pulled::Fetched(message) = pulled {
                    self.event(&pod, false, "Pulled", Some(&name), &message);
                }
                self.pulling.remove(&name);
                self.memory.images.insert(name, ImageState::Ready);
            }
            Told::Pulled(name, Err(lack)) => self.not_pulled(&pod, name, lack),
            Told::Evicted { message, disrupts } if self.memory.fail.is_none() => {
                self.event(&pod, true, "Evicted", None, &message);
                self.memory.grace = Some(EVICTION_GRACE);
                self.memory.disrupted = disrupts.then(|| message.clone());
                self.memory.fail = Some(("Evicted".into(), message));
            }
            Told::Evicted { .. } => {}
            Told::Hook(id, post_start, result) => {
                if let Err(error) = result {
                    let (reason, message) = match post_start {
                        true => (
                            "FailedPostStartHook",
                            format!("PostStartHook failed: {error}"),
                        ),
                        false => ("FailedPreStopHook", format!("PreStopHook failed: {error}")),
                    };
                    self.event(&pod, true, reason, Some(&id.name), &message);
                    if post_start {
                        // A container whose hook fails is restarted as one that fails its startup probe.
                        self.memory
                            .probes
                            .insert((id.clone(), ProbeKind::Startup), false);
                    }
                }
                if post_start {
                    self.memory.hooks.insert(id, Hook::Done);
                } else if let Some(stop) = self.memory.stops.get_mut(&id) {
                    stop.hook = Some(Hook::Done);
                }
            }
        }
    }

    /// What time it is. Where the clock was set, all that waits is set with it.
    fn tick(&mut self) -> Timestamp {
        let clock = Clock::now();
        if let Some(by) = std::mem::replace(&mut self.clock, clock).jumped(&clock) {
            tracing::info!(pod = self.uid, %by, "the clock was set");
            self.memory.shift(by);
            self.retry = self.retry.map(|at| later(at, by));
            self.owed = self.owed.map(|at| later(at, by));
            self.refreshed = later(self.refreshed, by);
        }
        clock.told
    }

    async fn look(&mut self) -> Look {
        let Wanted { pod, gone } = self.wanted.borrow_and_update().clone();
        let now = self.tick();
        if let Some(at) = self.retry
            && at > now
        {
            return Look::Wait(Some(at));
        }
        let zone = match self.shared.runtime.get(&self.zone_name).await {
            Ok(zone) => zone,
            Err(error) => return self.failed(&error.to_string()),
        };
        let pod = match gone && pod.metadata.deletion_timestamp.is_none() {
            // Removed by force: what runs of it is ended as if it had been deleted.
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
        self.ask_probes(&pod, zone.as_ref());
        if zone.is_some()
            && pod.metadata.deletion_timestamp.is_none()
            && now.duration_since(self.refreshed).unsigned_abs() >= REFRESH
        {
            self.refreshed = now;
            if let Err(lack) = self.shared.supplies.refresh(&pod).await {
                self.event(&pod, true, lack.reason, None, &lack.message);
            }
        }
        let decision = decide(&pod, zone.as_ref(), &mut self.memory, now);
        let unchanged = self.reported.as_ref() == Some(&decision.status);
        self.memory.last = decision.status.clone();
        self.publish.send_replace(Some(decision.status.clone()));
        if !unchanged {
            self.shared.allocations.told();
        }
        if unchanged || gone {
            self.owed = None;
            return self
                .carry_out(&pod, zone.as_ref(), decision.actions, decision.wake, gone)
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
        let ends = decision.actions.contains(&Action::Remove);
        match self.report(&pod, decision.status, now).await {
            // A pod is not removed before its end is told.
            Some(again) if ends => Look::Wait(Some(again)),
            again => {
                let wake = again.or(decision.wake);
                self.carry_out(&pod, zone.as_ref(), decision.actions, wake, gone)
                    .await
            }
        }
    }

    /// Carries out steps of a pod's beginning. Its status is told only if they take long or lead no further: else the
    /// next one says more.
    async fn begin(&mut self, pod: &Arc<Pod>, zone: Option<&Zone>, decision: Decision) -> Look {
        let (api, status) = (self.api.clone(), decision.status);
        let (look, told) = {
            let steps = self.carry_out(pod, zone, decision.actions, decision.wake, false);
            let mut steps = std::pin::pin!(steps);
            match tokio::time::timeout(HOLD, &mut steps).await {
                Ok(look) => (look, None),
                Err(_) => {
                    let (look, told) = tokio::join!(steps, report::report(&api, pod, &status));
                    (look, Some(told))
                }
            }
        };
        let now = Timestamp::now();
        let again = match (told, &look) {
            (Some(told), _) => self.reported(told, status, now),
            (None, Look::Again) => None,
            (None, _) => self.report(pod, status, now).await,
        };
        match look {
            Look::Wait(wake) => Look::Wait(again.or(wake)),
            look => look,
        }
    }

    /// Tells the API a status; when to look again, where it does not take it.
    async fn report(&mut self, pod: &Pod, status: PodStatus, now: Timestamp) -> Option<Timestamp> {
        let told = report::report(&self.api, pod, &status).await;
        self.reported(told, status, now)
    }

    fn reported(
        &mut self,
        told: kube::Result<bool>,
        status: PodStatus,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.owed = None;
        match told {
            Ok(true) => self.reported = Some(status),
            Ok(false) => {}
            Err(error) => {
                // Pods go on without the API; the newest status is told when it is back.
                tracing::debug!(%error, pod = self.uid, "a status is not taken");
                self.reported = None;
                return Some(now + RETRY);
            }
        }
        None
    }

    /// Reads the termination messages of processes that ended, once each.
    async fn messages(&mut self, pod: &Pod, zone: Option<&Zone>) {
        for process in zone.into_iter().flat_map(|zone| &zone.processes) {
            let Some(ending) = &process.ended else {
                continue;
            };
            if self.memory.messages.contains_key(&process.id) {
                continue;
            }
            let Some(container) = self.container(pod, &process.id.name) else {
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

    /// Until when a status is kept back for what is about to be known: containers just began, and the first answer of
    /// a probe that is asked at once will change it.
    fn answered_by(&self, pod: &Pod, zone: Option<&Zone>, now: Timestamp) -> Option<Timestamp> {
        let zone = zone?;
        let awaited = self.probing.keys().filter(|key| {
            let (id, kind) = key;
            let container = self.container(pod, &id.name);
            let probe = container.as_ref().and_then(|one| kind.of(one));
            probe.is_some_and(|probe| probes::may_pass_at_once(*kind, probe))
                && !self.memory.probes.contains_key(key)
        });
        let ends = awaited.filter_map(|(id, _)| {
            let process = zone.processes.iter().find(|process| process.id == *id)?;
            process.started.checked_add(HOLD).ok()
        });
        // A process that began in the future began before the clock was set back.
        let shortly = now.checked_add(HOLD).ok()?;
        ends.filter(|end| (now..=shortly).contains(end)).min()
    }

    /// Keeps a task for each probe that is to be asked now.
    fn ask_probes(&mut self, pod: &Arc<Pod>, zone: Option<&Zone>) {
        let Some(zone) = zone.filter(|zone| zone.state == ZoneState::Running) else {
            for (_, task) in self.probing.drain() {
                task.abort();
            }
            return;
        };
        let mut wanted = Vec::new();
        let ending = pod.metadata.deletion_timestamp.is_some();
        for process in zone
            .processes
            .iter()
            .filter(|process| process.ended.is_none())
        {
            let Some(container) = self.container(pod, &process.id.name) else {
                continue;
            };
            let started = container.startup_probe.is_none()
                || self
                    .memory
                    .probes
                    .get(&(process.id.clone(), ProbeKind::Startup))
                    == Some(&true);
            for kind in ProbeKind::ALL {
                let due = match kind {
                    ProbeKind::Startup => !started && !ending,
                    ProbeKind::Liveness => started && !ending,
                    ProbeKind::Readiness => started,
                };
                if due && kind.of(&container).is_some() {
                    wanted.push((process, container.clone(), kind));
                }
            }
        }
        self.probing.retain(|(id, kind), task| {
            let keep = wanted
                .iter()
                .any(|(process, _, other)| process.id == *id && other == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        for (process, container, kind) in wanted {
            let key = (process.id.clone(), kind);
            if self.probing.contains_key(&key) {
                continue;
            }
            let age = Timestamp::now().duration_since(process.started);
            let task = self.tasks.spawn(probes::run(probes::Probing {
                supplies: self.shared.supplies.clone(),
                pod: pod.clone(),
                zone: zone.spec.clone(),
                container,
                id: process.id.clone(),
                kind,
                age: Duration::try_from(age).unwrap_or(Duration::ZERO),
                told: self.told.clone(),
            }));
            self.probing.insert(key, task);
        }
    }
}

/// Whether it is a step of a pod's beginning.
fn begins(action: &Action) -> bool {
    matches!(action, Action::Prepare | Action::Pull(_) | Action::Start(_))
}

/// What a look led to.
enum Look {
    /// Nothing of the pod is left.
    Removed,
    /// Something was done: look again at once.
    Again,
    /// Nothing to do until something changes, or then.
    Wait(Option<Timestamp>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed() {
        let (told, at) = (Timestamp::UNIX_EPOCH, Instant::now());
        let begun = Clock { told, at };
        for (passed, shown, by) in [
            (60, 60_000, None),
            (60, 60_900, None),
            (60, 59_100, None),
            (60, 3_660_000, Some(3600)),
            (60, -3_540_000, Some(-3600)),
            (0, 2000, Some(2)),
        ] {
            let later = Clock {
                told: told + SignedDuration::from_millis(shown),
                at: at + Duration::from_secs(passed),
            };
            let expected = by.map(SignedDuration::from_secs);
            assert_eq!(begun.jumped(&later), expected, "{passed} {shown}");
        }
    }
}
