//! Table cells of pods. Follows printPod of k8s.io/kubernetes/pkg/printers/internalversion/printers.go.

use crate::meta::{table, time};
use crate::schema::Value;

/// The progress of a pod, as its row shows it.
#[derive(Default)]
struct Progress {
    status: String,
    ready: usize,
    restarts: i64,
    /// When a container last ended, in seconds since 1970.
    last_restart: Option<i64>,
}

impl Progress {
    /// Counts the restarts of a container.
    fn count(&mut self, container: &Value) {
        self.restarts += container.int("restartCount");
        let ended = container
            .path(&["lastState", "terminated"])
            .at("finishedAt")
            .as_str()
            .and_then(|text| time::parse(text).ok());
        self.last_restart = self.last_restart.max(ended);
    }
}

/// The row of a pod: name, ready and total containers, status, restarts, age, and the wide columns.
pub(super) fn pod(pod: &Value, now: i64) -> Vec<Value> {
    let (meta, spec, status) = (pod.at("metadata"), pod.at("spec"), pod.at("status"));
    let sidecars = spec
        .list("initContainers")
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let all = spec.list("containers").len() + sidecars;
    let progress = progress(pod);
    let restarts = match progress.last_restart {
        Some(then) if progress.restarts != 0 => format!(
            "{} ({} ago)",
            progress.restarts,
            table::human_duration(now - then)
        ),
        _ => progress.restarts.to_string(),
    };
    let ip = status
        .list("podIPs")
        .first()
        .map_or("", |address| address.str("ip"));
    vec![
        meta.str("name").into(),
        format!("{}/{all}", progress.ready).into(),
        progress.status.into(),
        restarts.into(),
        table::age(pod, now),
        or_none(ip),
        or_none(spec.str("nodeName")),
        or_none(status.str("nominatedNodeName")),
        readiness_gates(spec, status).into(),
    ]
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

fn is_sidecar(container: &Value) -> bool {
    container.str("restartPolicy") == "Always"
}

/// The first condition of a type.
fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status
        .list("conditions")
        .iter()
        .find(|condition| condition.str("type") == kind)
}

fn progress(pod: &Value) -> Progress {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let phase = status.str("phase");
    let mut progress = Progress {
        status: match status.str("reason") {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        },
        ..Progress::default()
    };
    let gated = |c: &Value| c.str("type") == "PodScheduled" && c.str("reason") == "SchedulingGated";
    if status.list("conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut progress.status);
    }
    let sidecars = initialize(spec, status, &mut progress);
    if let Some(mut sidecars) = sidecars {
        sidecars.status = progress.status;
        sidecars.ready = progress.ready;
        progress = sidecars;
        run(status, &mut progress);
    }
    if meta_deleted(pod) {
        if status.str("reason") == "NodeLost" {
            "Unknown".clone_into(&mut progress.status);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut progress.status);
        }
    }
    progress
}

fn meta_deleted(pod: &Value) -> bool {
    pod.at("metadata").get("deletionTimestamp").is_some()
}

/// Processes the init containers. If initialization is complete, returns the restarts of the sidecars.
fn initialize(spec: &Value, status: &Value, progress: &mut Progress) -> Option<Progress> {
    let init = spec.list("initContainers");
    let mut sidecars = Progress::default();
    let mut initializing = false;
    for (index, container) in status.list("initContainerStatuses").iter().enumerate() {
        progress.count(container);
        let sidecar = init
            .iter()
            .rfind(|spec| spec.str("name") == container.str("name"))
            .is_some_and(is_sidecar);
        if sidecar {
            sidecars.count(container);
        }
        let state = container.at("state");
        let ended = state.get("terminated");
        if ended.is_some_and(|ended| ended.int("exitCode") == 0) {
            continue;
        }
        if sidecar && container.bool("started") {
            progress.ready += usize::from(container.bool("ready"));
            continue;
        }
        let waiting = state.at("waiting").str("reason");
        progress.status = match ended {
            Some(ended) => format!("Init:{}", ending(ended)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", init.len()),
        };
        initializing = true;
        break;
    }
    let initialized =
        condition(status, "Initialized").is_some_and(|condition| condition.str("status") == "True");
    (!initializing || initialized).then_some(sidecars)
}

/// Why a container terminated: the reason, or else the signal or exit code.
fn ending(ended: &Value) -> String {
    match (ended.str("reason"), ended.int("signal")) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Processes the containers, from last to first.
fn run(status: &Value, progress: &mut Progress) {
    let mut running = false;
    let mut failure = String::new();
    for container in status.list("containerStatuses").iter().rev() {
        progress.count(container);
        let state = container.at("state");
        let waiting = state.at("waiting").str("reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut progress.status);
        } else if let Some(ended) = state.get("terminated") {
            progress.status = ending(ended);
            if ended.int("exitCode") != 0 {
                failure.clone_from(&progress.status);
            }
        } else if container.bool("ready") && state.get("running").is_some() {
            running = true;
            progress.ready += 1;
        }
    }
    // A completed container does not complete the pod if others are running.
    if progress.status == "Completed" {
        let is_ready = status
            .list("conditions")
            .iter()
            .any(|c| c.str("type") == "Ready" && c.str("status") == "True");
        if running && is_ready {
            "Running".clone_into(&mut progress.status);
        } else if !failure.is_empty() {
            progress.status = failure;
        } else if running {
            "NotReady".clone_into(&mut progress.status);
        }
    }
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| {
            condition(status, gate.str("conditionType"))
                .is_some_and(|condition| condition.str("status") == "True")
        })
        .count();
    format!("{open}/{}", gates.len())
}

/// The names and images of containers, for the rows of workloads.
pub(in crate::resources::groups) fn containers(spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|key| {
        let texts: Vec<&str> = spec.list("containers").iter().map(|c| c.str(key)).collect();
        texts.join(",").into()
    })
}

/// Labels as `k=v,...`, `<none>` if there are none.
pub(in crate::resources::groups) fn labels(labels: &Value) -> Value {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flat_map(|labels| labels.iter())
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    or_none(&pairs.join(","))
}

/// A LabelSelector as text, `<none>` if it selects everything or nothing.
pub(in crate::resources::groups) fn selector(selector: &Value) -> Value {
    match crate::meta::selector::Selector::from_object(selector) {
        Ok(selector) => or_none(&selector.to_string()),
        Err(_) => "<error>".into(),
    }
}

#[cfg(test)]
mod tests;
