//! Reports of the node's status, and the events that go with them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::failing::Attempts;
use super::super::pressure::Observed;
use super::super::routes::Reach;
use super::super::shown::shows;
use super::fitness::Fitness;
use super::registration::Registration;
use super::{AGAIN, HEARTBEAT, Pause, register};
use crate::client::events::{Recorder, Tone};

/// How often an unchanged status is reported.
pub(in super::super) const REPORT: Duration = Duration::from_secs(300);

/// The resource version of a node as a number; 0 if it is none.
fn version(node: &Node) -> u64 {
    let version = node.metadata.resource_version.as_ref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A status that was reported.
pub(super) struct Reported {
    pub(super) status: NodeStatus,
    pub(super) at: std::time::Instant,
    /// The version of the node that has it.
    pub(super) version: u64,
}

impl Reported {
    /// Whether `status` needs no report: it is the same, and `node`, as the API has it, has it still. Others write over
    /// it when they believe that the node is down. Follows `tryUpdateNodeStatus` of pkg/kubelet/kubelet_node_status.go.
    pub(super) fn covers(&self, status: &NodeStatus, node: &Node) -> bool {
        let is_there = || version(node) <= self.version || has(node, status);
        alike(&self.status, status) && is_there()
    }
}

/// Whether a node has everything of a status, apart from times.
fn has(node: &Node, status: &NodeStatus) -> bool {
    let pair = (
        serde_json::to_value(&node.status),
        serde_json::to_value(without_times(status)),
    );
    matches!(pair, (Ok(theirs), Ok(ours)) if shows(&theirs, &ours))
}

/// Reports the node's status, forever.
pub(super) async fn report(
    nodes: &Api<Node>,
    mut node: Node,
    (registration, fitness, observed, recorder): (&Registration, &Fitness, &Observed, &Recorder),
    (mut reach, mut seen): (watch::Receiver<Option<Reach>>, watch::Receiver<Node>),
    uid: &Mutex<Option<String>>,
) {
    let name = registration.name.clone();
    let about = ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.clone()),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    match fitness {
        Fitness::Asked(..) => {
            recorder.tell_of(about.clone(), Tone::Normal, "Starting", "Starting kubelet.");
        }
        Fitness::Unfit(reason) => {
            recorder.tell_of(about.clone(), Tone::Warning, "KubeletSetupFailed", reason);
        }
    }
    let mut reported: Option<Reported> = None;
    let mut unschedulable = false;
    let mut addresses = registration.addresses.clone();
    let mut attempts = Attempts::new(format!("the status of node {name} cannot be written"));
    let mut pause = Pause::default();
    loop {
        {
            // What the watch delivers may be older than the last report.
            let seen = seen.borrow_and_update();
            if version(&seen) > version(&node) {
                node = seen.clone();
            }
        }
        if let Some(reason) = schedulable(&mut unschedulable, &node) {
            let message = format!("Node {name} status is now: {reason}");
            recorder.tell_of(about.clone(), Tone::Normal, reason, message);
        }
        let lacks = fitness.lacks().await;
        let old = node.status.clone().unwrap_or_default();
        let reached = reach.borrow_and_update().clone();
        let pressure = observed.conditions();
        let mut status =
            registration.status(&old, &lacks, &pressure, reached.as_ref(), Timestamp::now());
        status.runtime_handlers = Some(fitness.handlers());
        let images = fitness.images().await;
        // If the status had images before, an empty list must be sent.
        let had = old.images.as_ref().is_some_and(|had| !had.is_empty());
        status.images = (had || !images.is_empty()).then_some(images);
        let same = reported
            .as_ref()
            .is_some_and(|last| last.covers(&status, &node) && last.at.elapsed() < REPORT);
        let mut written = Ok(());
        if !same {
            let patch = serde_json::json!({"status": status});
            let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
            match Box::pin(nodes.patch_status(&name, &params, &patch)).await {
                Ok(now) => {
                    for reason in changes(&old, &status) {
                        let message = format!("Node {name} status is now: {reason}");
                        recorder.tell_of(about.clone(), Tone::Normal, reason, message);
                    }
                    if let Some(boot) = rebooted(&old, &status) {
                        let message = format!("Node {name} has been rebooted, boot id: {boot}");
                        recorder.tell_of(about.clone(), Tone::Warning, "Rebooted", message);
                    }
                    node = now;
                    reported = Some(Reported {
                        status,
                        at: std::time::Instant::now(),
                        version: version(&node),
                    });
                }
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    // The node was deleted: it registers again, like upstream's.
                    reported = None;
                    written = Box::pin(register(nodes, registration)).await.map(|made| {
                        *uid.lock() = made.metadata.uid.clone();
                        node = made;
                    });
                }
                Err(error) => written = Err(error),
            }
        }
        attempts.note(&written);
        let wait = match written {
            Ok(()) => {
                pause = Pause::default();
                // After registering again it has no status yet.
                if reported.is_some() { HEARTBEAT } else { AGAIN }
            }
            Err(_) => pause.longer(),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // If nobody maintains routes, the channel is closed and no longer polled. After a failure the pause applies
            // all the same.
            Ok(()) = reach.changed(), if written.is_ok() => {}
            Ok(()) = seen.changed(), if written.is_ok() => {}
            () = addresses.changed(), if written.is_ok() => {}
        }
    }
}

/// The event reasons for a new status: for changed and new conditions, except the first `NodeNotReady` of a new node.
pub(super) fn changes(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let of = |status: &NodeStatus, type_: &str| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|one| one.type_ == type_)?;
        // Unknown is neither.
        (found.status != "Unknown").then(|| found.status == "True")
    };
    let all = [
        (
            "MemoryPressure",
            ["NodeHasSufficientMemory", "NodeHasInsufficientMemory"],
        ),
        (
            "DiskPressure",
            ["NodeHasNoDiskPressure", "NodeHasDiskPressure"],
        ),
        (
            "PIDPressure",
            ["NodeHasSufficientPID", "NodeHasInsufficientPID"],
        ),
        ("Ready", ["NodeNotReady", "NodeReady"]),
    ];
    let changed = all.into_iter().filter_map(|(type_, reasons)| {
        let (before, now) = (of(old, type_), of(new, type_)?);
        let is_new_node = type_ == "Ready" && before.is_none() && !now;
        (before != Some(now) && !is_new_node).then(|| reasons[usize::from(now)])
    });
    changed.collect()
}

/// The host's boot id, if it differs from the last reported one.
pub(super) fn rebooted<'s>(old: &NodeStatus, new: &'s NodeStatus) -> Option<&'s str> {
    let now = new.node_info.as_ref()?.boot_id.as_str();
    let before = old.node_info.as_ref()?.boot_id.as_str();
    (!before.is_empty() && before != now).then_some(now)
}

/// The event reason if pods may now be scheduled to the node, or may no longer; `known` is what was told last. Follows
/// `recordNodeSchedulableEvent` of pkg/kubelet/kubelet_node_status.go.
pub(super) fn schedulable(known: &mut bool, node: &Node) -> Option<&'static str> {
    let spec = node.spec.as_ref();
    let now = spec.is_some_and(|spec| spec.unschedulable == Some(true));
    let changed = std::mem::replace(known, now) != now;
    changed.then_some(match now {
        true => "NodeNotSchedulable",
        false => "NodeSchedulable",
    })
}

/// A status without the times of its conditions.
fn without_times(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    status
}

/// Whether two statuses differ only in the times of their conditions.
fn alike(one: &NodeStatus, other: &NodeStatus) -> bool {
    without_times(one) == without_times(other)
}
