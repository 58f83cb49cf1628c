//! Hooks of containers: postStart and preStop.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::{Told, Worker};
use crate::node::machine::{Hook, full_name};
use crate::node::supplies::HookFailure;
use crate::zone::{ProcessId, ZoneSpec};

impl Worker {
    /// Runs the postStart hook of a started container, if it has one.
    pub(super) fn post_start(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        id: ProcessId,
        zone: &ZoneSpec,
    ) {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.clone()) else {
            return;
        };
        let container = container.clone();
        self.memory.hooks.insert(id.clone(), Hook::Running);
        let (shared, told) = (self.shared.clone(), self.told.clone());
        let (pod, zone) = (pod.clone(), zone.clone());
        self.tasks.spawn(async move {
            let run = shared.supplies.hook(&pod, &container, &id, &zone, &hook);
            let result = run.await;
            let result = result.map_err(|failure| describe(&pod, &container, &hook, &failure));
            let _ = told.send(Box::new(Told::Hook(id, true, result))).await;
        });
    }

    /// Runs the preStop hook of a container, with a timeout of `grace` seconds.
    pub(super) fn pre_stop(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        id: ProcessId,
        zone: &ZoneSpec,
        grace: i64,
    ) {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.clone()) else {
            return;
        };
        let container = container.clone();
        let (shared, told) = (self.shared.clone(), self.told.clone());
        let (pod, zone) = (pod.clone(), zone.clone());
        self.tasks.spawn(async move {
            let run = shared.supplies.hook(&pod, &container, &id, &zone, &hook);
            let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            // A timeout does not count as failure.
            let result = tokio::time::timeout(grace, run).await.unwrap_or(Ok(()));
            let result = result.map_err(|failure| describe(&pod, &container, &hook, &failure));
            let _ = told.send(Box::new(Told::Hook(id, false, result))).await;
        });
    }

    /// Handles the end of a hook. Events do not say why it failed: its output may be confidential.
    pub(super) fn hooked(
        &mut self,
        pod: &Pod,
        id: ProcessId,
        post_start: bool,
        result: Result<(), String>,
    ) {
        if let Err(why) = &result {
            let (reason, message) = match post_start {
                true => ("FailedPostStartHook", "PostStartHook failed"),
                false => ("FailedPreStopHook", "PreStopHook failed"),
            };
            tracing::debug!(pod = self.uid, %id, why, message);
            self.event(pod, true, reason, Some(&id.name), message);
        }
        if post_start {
            let hook = match result {
                Ok(()) => Hook::Done,
                Err(why) => Hook::Failed(why),
            };
            self.memory.hooks.insert(id, hook);
        } else if let Some(stop) = self.memory.stops.get_mut(&id) {
            stop.hook = Some(Hook::Done);
        }
    }
}

/// Why a hook failed, for the status of its container. Follows pkg/kubelet/lifecycle/handlers.go.
fn describe(
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    failure: &HookFailure,
) -> String {
    let HookFailure { error, output } = failure;
    let of = format!(
        "for Container {:?} in Pod {:?} failed",
        container.name,
        full_name(pod)
    );
    match hook {
        LifecycleHandler {
            exec: Some(exec), ..
        } => {
            let command = exec.command.as_deref().unwrap_or_default().join(" ");
            format!("Exec lifecycle hook ([{command}]) {of} - error: {error}, message: {output:?}")
        }
        LifecycleHandler {
            http_get: Some(get),
            ..
        } => {
            let path = get.path.as_deref().unwrap_or_default();
            format!("HTTP lifecycle hook ({path}) {of} - error: {error}")
        }
        LifecycleHandler {
            sleep: Some(sleep), ..
        } => format!(
            "Sleep lifecycle hook ({}) {of} - error: {error}",
            sleep.seconds
        ),
        _ => format!("Cannot run handler: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_hook_is_described_as_upstream_does() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let container = Container {
            name: "c".into(),
            ..Container::default()
        };
        for (hook, expected) in [
            (
                json!({"exec": {"command": ["sh", "-c", "exit 3"]}}),
                r#"Exec lifecycle hook ([sh -c exit 3]) for Container "c" in Pod "p_n(u)" failed - error: no, message: "it said\n""#,
            ),
            (
                json!({"httpGet": {"path": "/x", "port": 1}}),
                r#"HTTP lifecycle hook (/x) for Container "c" in Pod "p_n(u)" failed - error: no"#,
            ),
            (
                json!({"sleep": {"seconds": 2}}),
                r#"Sleep lifecycle hook (2) for Container "c" in Pod "p_n(u)" failed - error: no"#,
            ),
            (json!({}), "Cannot run handler: no"),
        ] {
            let hook: LifecycleHandler = serde_json::from_value(hook).expect("a hook");
            let failure = HookFailure {
                error: "no".into(),
                output: "it said\n".into(),
            };
            assert_eq!(describe(&pod, &container, &hook, &failure), expected);
        }
    }
}
