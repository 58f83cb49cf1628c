//! Probes of one container: run periodically, and reported when enough results in a row agree.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::machine::{ProbeKind, named};
use super::supplies::{Outcome, Supplies};
use super::worker::{Told, Wanted};
use crate::zone::{ProcessId, ZoneSpec};

/// The input of a probe task.
pub struct Probing {
    /// The host's side of pods.
    pub supplies: Arc<dyn Supplies>,
    /// Its zone.
    pub zone: ZoneSpec,
    /// The pod, in which the container's ports, variables and probes never change.
    pub pod: watch::Receiver<Wanted>,
    /// Its process.
    pub id: ProcessId,
    /// The kind of the probe.
    pub kind: ProbeKind,
    /// How long the process has been running.
    pub age: Duration,
    /// Where to report.
    pub told: mpsc::Sender<Box<Told>>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.map_or(default, |value| u64::try_from(value).unwrap_or(default)))
}

/// Whether the first result of a probe can change the status of its pod, and comes as soon as the container runs.
pub fn may_pass_at_once(kind: ProbeKind, probe: &Probe) -> bool {
    // A passing liveness probe changes nothing.
    kind != ProbeKind::Liveness
        && probe.initial_delay_seconds.unwrap_or(0) == 0
        && probe.success_threshold.unwrap_or(1) <= 1
}

/// How often in a row a probe is tried that cannot be run (`maxProbeRetries`).
const TRIES: u32 = 3;

/// Runs the probe until the worker drops the task.
pub async fn run(work: Box<Probing>) {
    let pod = work.pod.borrow().pod.clone();
    let container = named(&pod, &work.id.name);
    let Some(probe) = container.and_then(|container| work.kind.of(&container).cloned()) else {
        return;
    };
    drop(pod);
    let delay = seconds(probe.initial_delay_seconds, 0).saturating_sub(work.age);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let enough = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
    let (to_fail, to_succeed) = (
        enough(probe.failure_threshold, 3),
        enough(probe.success_threshold, 1),
    );
    tokio::time::sleep(delay).await;
    // At fixed times, not relative to the last result; if a result took longer, the next probe runs at the next time.
    let mut turns = tokio::time::interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut run = 0;
    let mut last = None;
    loop {
        turns.tick().await;
        // Boxed, because what it holds is large, and most of the time it is not under way.
        let outcome = Box::pin(ask(&work, timeout)).await;
        let good = matches!(outcome, Outcome::Success | Outcome::Warning(_));
        if let Some((reason, what)) = told(&outcome) {
            let message = format!("{} probe {what}", work.kind.name());
            let event = Told::Probed(work.id.clone(), reason, message);
            if work.told.send(Box::new(event)).await.is_err() {
                return;
            }
        }
        if !matches!(outcome, Outcome::Error(_)) {
            run = if last == Some(good) { run + 1 } else { 1 };
            last = Some(good);
            let threshold = if good { to_succeed } else { to_fail };
            if run == threshold {
                let told = Told::Probe(work.id.clone(), work.kind, good);
                if work.told.send(Box::new(told)).await.is_err() {
                    return;
                }
                // A startup probe is done; so is the probe of a container that will be restarted.
                if work.kind == ProbeKind::Startup || (work.kind == ProbeKind::Liveness && !good) {
                    return;
                }
            }
        }
    }
}

/// Runs the probe; again if it cannot be run.
async fn ask(work: &Probing, timeout: Duration) -> Outcome {
    let pod = work.pod.borrow().pod.clone();
    let container = named(&pod, &work.id.name);
    let Some(container) = container.as_deref() else {
        return Outcome::Error(format!("the pod has no container {}", work.id.name));
    };
    let Some(probe) = work.kind.of(container) else {
        return Outcome::Error(format!("container {} has no such probe", work.id.name));
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let asked = work.supplies.probe(container, &work.id, &work.zone, probe);
        match tokio::time::timeout(timeout + Duration::from_millis(500), asked).await {
            Ok(Outcome::Error(_)) if tries < TRIES => {}
            Ok(outcome) => return outcome,
            Err(_) => {
                let text = format!("command timed out after {}s", timeout.as_secs());
                return Outcome::Failure(text);
            }
        }
    }
}

/// The event about a result, if any: its reason, and what the probe did.
fn told(outcome: &Outcome) -> Option<(&'static str, String)> {
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(output) => Some(("ProbeWarning", format!("warning: {output}"))),
        Outcome::Failure(output) => Some(("Unhealthy", format!("failed: {output}"))),
        Outcome::Error(error) => Some((
            "Unhealthy",
            format!("errored and resulted in unknown state: {error}"),
        )),
    }
}
