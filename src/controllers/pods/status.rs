//! Whether pods are active and available, and changes of their status.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::client::errors::{is_conflict, is_not_found};
use crate::client::kinds::Pod;

/// Whether a pod is neither terminated nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.is_deleting()
}

/// Whether a pod has been ready for `seconds` at `now`.
pub fn is_available(pod: &Pod, seconds: i32, now: Timestamp) -> bool {
    pod.is_ready() && millis_until_available(pod, seconds, now) == Some(0)
}

/// In how many milliseconds a pod will have been ready for `seconds`; 0 if it has. None if it is not ready.
fn millis_until_available(pod: &Pod, seconds: i32, now: Timestamp) -> Option<i64> {
    if !pod.is_ready() {
        return None;
    }
    if seconds == 0 {
        return Some(0);
    }
    let since = ready_since(pod)?;
    let due = since.as_millisecond() + i64::from(seconds) * 1000;
    Some((due - now.as_millisecond()).max(0))
}

/// In how many milliseconds the next of several pods will have been ready for `seconds`; None if none is waiting for
/// that.
pub fn millis_until_next(pods: &[Arc<Pod>], seconds: i32, now: Timestamp) -> Option<i64> {
    let due = pods
        .iter()
        .filter_map(|pod| millis_until_available(pod, seconds, now));
    due.filter(|due| *due > 0).min()
}

/// Since when a pod has been ready.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod.status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// The patch of a pod's status that announces its disruption; None if it is announced already. `status` are further
/// fields to patch.
pub fn disrupted(
    pod: &Pod,
    reason: &str,
    message: &str,
    mut status: serde_json::Map<String, Value>,
) -> Option<Value> {
    let had = pod.status.conditions.iter();
    let says = had
        .filter(|known| known.type_ == "DisruptionTarget")
        .find(|known| known.status == "True");
    let is_told = says.is_some_and(|known| {
        known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(message)
    });
    if !is_told {
        let since = says.and_then(|known| known.last_transition_time.clone());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
            "observedGeneration": pod.metadata.generation,
        });
        status.insert("conditions".to_owned(), json!([condition]));
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

/// Patches a pod's status. Returns whether the pod still exists.
///
/// # Errors
/// The API rejects the patch, except because the pod is gone or was replaced.
pub async fn patch_status(client: &Client, pod: &Pod, patch: &Value) -> Result<bool, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::default();
    match api
        .patch_status(&pod.name_any(), &params, &Patch::Strategic(patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_available_after_a_while_of_readiness() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod: Pod = serde_json::from_str(
            r#"{"status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:05Z"}]}}"#,
        )
        .unwrap();
        assert!(is_available(&pod, 0, now) && is_available(&pod, 5, now));
        assert!(!is_available(&pod, 6, now));
        assert_eq!(millis_until_available(&pod, 6, now), Some(1000));
        assert!(!is_available(&Pod::default(), 0, now));
    }
}
