//! Reports a pod's status: only the parts that the node owns, and only changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::Request;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::failing::Attempts;
use super::machine::{RESIZES, condition, is_own};
use super::shown::shows;
use crate::client::errors::is_refused;
use crate::client::write_for_version;

/// The node's parts of a pod's status, with null for what the status must not have. Conditions and other parts that
/// others maintain are left out: the node saw them at some time before, and they may have changed since.
fn told(status: &PodStatus) -> Map<String, Value> {
    let mut own = status.clone();
    own.qos_class = None;
    own.nominated_node_name = None;
    own.resource_claim_statuses = None;
    if let Some(conditions) = &mut own.conditions {
        conditions.retain(is_own);
    }
    let mut told = match serde_json::to_value(own) {
        Ok(Value::Object(told)) => told,
        _ => Map::new(),
    };
    for key in ["reason", "message", "podIP", "hostIP"] {
        told.entry(key).or_insert(Value::Null);
    }
    let conditions = told.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        for key in ["reason", "message"] {
            if let Some(condition) = condition.as_object_mut() {
                condition.entry(key).or_insert(Value::Null);
            }
        }
    }
    told
}

/// Conditions of the node that a status does not have any more.
fn ended(generation: Option<i64>, status: &PodStatus) -> impl Iterator<Item = &'static str> {
    // A pod that was never changed cannot have had them.
    let may_have = generation != Some(1);
    let had = RESIZES.into_iter().filter(move |_| may_have);
    had.filter(|type_| condition(status, type_).is_none())
}

/// The strategic merge patch that changes the status of a pod, in this generation, to `new`. Keyed lists that only the
/// node owns are replaced; conditions are merged by type.
fn patch(uid: &str, generation: Option<i64>, new: &PodStatus) -> Value {
    let mut status = told(new);
    for key in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(list)) = status.get_mut(key) {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions
            .extend(ended(generation, new).map(|type_| json!({"type": type_, "$patch": "delete"})));
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Whether the pod in the API has the node's parts of `status`.
fn has(pod: &Pod, status: &PodStatus) -> bool {
    let Some(theirs) = &pod.status else {
        return false;
    };
    let left =
        ended(pod.metadata.generation, status).any(|type_| condition(theirs, type_).is_some());
    !left
        && serde_json::to_value(theirs)
            .is_ok_and(|theirs| shows(&theirs, &Value::Object(told(status))))
}

/// The resource version of a pod as a number; 0 if it is none.
fn version(pod: &Pod) -> u64 {
    let version = pod.metadata.resource_version.as_ref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The first pause after a failed report.
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a status was rejected, because it would be rejected again.
const REFUSED: Duration = Duration::from_secs(30);

/// A status with its sequence number, and the generation of the pod that it is about.
#[derive(Clone, Default)]
struct Offer {
    number: u64,
    generation: Option<i64>,
    status: Option<Arc<PodStatus>>,
}

/// The pod of a reporter. Only its names: the reporter would keep a whole pod as it was at the last report, beside the
/// one that the worker has.
struct Whose {
    namespace: String,
    name: String,
    uid: String,
}

/// Reports the statuses of one pod to the API, beside its worker, so that an API server that does not respond delays
/// nothing else of the pod. Only the newest status counts; older ones are skipped.
pub struct Reporter {
    newest: watch::Sender<Offer>,
    settled: watch::Receiver<Settled>,
    /// The newest version of the pod that is known to have the newest status.
    shown: AtomicU64,
}

/// The last status that was reported, or whose pod is gone.
#[derive(Clone, Copy, Default)]
struct Settled {
    number: u64,
    /// The version of the pod that has it; `None` if that is unknown.
    version: Option<u64>,
}

impl Reporter {
    /// A reporter for this pod that runs as one of `tasks`.
    pub fn start(api: Api<Pod>, pod: &Pod, tasks: &mut JoinSet<()>) -> Self {
        let metadata = &pod.metadata;
        let whose = Whose {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        let (newest, offers) = watch::channel(Offer::default());
        let (settles, settled) = watch::channel(Settled::default());
        tasks.spawn(tell(api, whose, offers, settles));
        Reporter {
            newest,
            settled,
            shown: AtomicU64::new(0),
        }
    }

    /// Hands over a newer status.
    pub fn offer(&self, pod: &Pod, status: &Arc<PodStatus>) {
        self.newest.send_modify(|newest| {
            newest.number += 1;
            newest.generation = pod.metadata.generation;
            newest.status = Some(status.clone());
        });
        self.shown.store(version(pod), Ordering::Relaxed);
    }

    /// Whether the newest status was not reported yet.
    pub fn owes(&self) -> bool {
        self.settled.borrow().number < self.newest.borrow().number
    }

    /// Waits until the newest status was reported. Cancel-safe.
    pub async fn settled(&self) {
        let number = self.newest.borrow().number;
        let _ = self
            .settled
            .clone()
            .wait_for(|told| told.number >= number)
            .await;
    }

    /// Whether the pod in the API has another status than the newest one although it is newer, so that somebody wrote
    /// over it; or seems to have been, while the reporter [owes](Self::owes) it. Follows `needsReconcile` of
    /// pkg/kubelet/status/status_manager.go.
    pub fn is_contradicted(&self, pod: &Pod) -> bool {
        let seen = version(pod);
        if seen <= self.shown.load(Ordering::Relaxed) {
            return false;
        }
        let settled = *self.settled.borrow();
        let newest = self.newest.borrow();
        let Some(status) = &newest.status else {
            return false;
        };
        // What the watch delivers may be older than the report.
        if settled.number == newest.number && settled.version.is_none_or(|told| seen <= told) {
            return false;
        }
        let contradicted = !has(pod, status);
        if !contradicted {
            self.shown.store(seen, Ordering::Relaxed);
        }
        contradicted
    }
}

async fn tell(
    api: Api<Pod>,
    whose: Whose,
    mut offers: watch::Receiver<Offer>,
    settles: watch::Sender<Settled>,
) {
    let Whose {
        namespace,
        name,
        uid,
    } = &whose;
    let (mut attempts, mut wait) = (None, RETRY);
    while offers.changed().await.is_ok() {
        loop {
            let offer = offers.borrow_and_update().clone();
            let Some(status) = offer.status else {
                break;
            };
            let patch = patch(uid, offer.generation, &status);
            // Boxed, because a request is large, and most of the time there is none.
            let told = Box::pin(report(&api, name, patch)).await;
            // An unreachable API server is logged once for the node, not for each of its pods.
            if attempts.is_some() || told.as_ref().is_err_and(is_refused) {
                let what =
                    || Attempts::new(format!("the status of pod {namespace}/{name} is refused"));
                attempts.get_or_insert_with(what).note(&told);
            }
            match told {
                Ok(version) => {
                    (attempts, wait) = (None, RETRY);
                    settles.send_replace(Settled {
                        number: offer.number,
                        version,
                    });
                    break;
                }
                Err(error) => {
                    // Pods run on without the API server; the newest status is reported when it is back.
                    tracing::debug!(%error, pod = uid, "a pod status could not be reported");
                    let refused = is_refused(&error);
                    wait = match refused {
                        true => (wait * 2).min(REFUSED),
                        false => RETRY,
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        // Cancel-safe. Another status may be accepted.
                        newer = offers.changed(), if refused => match newer {
                            Ok(()) => wait = RETRY,
                            Err(_) => return,
                        },
                    }
                }
            }
        }
    }
}

/// Writes the status. Returns the version of the pod that has it; `None` if the pod no longer exists.
async fn report(api: &Api<Pod>, name: &str, patch: Value) -> kube::Result<Option<u64>> {
    let patch = Patch::Strategic(patch);
    let params = PatchParams::default();
    let request =
        Request::new(api.resource_url()).patch_subresource("status", name, &params, &patch);
    // The watch delivers the result.
    match write_for_version(&api.clone().into_client(), request).await {
        Err(kube::Error::Api(status)) if status.code == 404 || is_other(&status) => Ok(None),
        written => written,
    }
}

/// Whether a conflict means that another pod has the name now.
fn is_other(status: &kube::core::Status) -> bool {
    status.code == 409 && status.message.contains("uid")
}

/// Deletes a pod in the API: nothing of it is left on this node.
///
/// # Errors
/// Errors of the API; a missing pod is not an error.
pub async fn finish(api: &Api<Pod>, pod: &Pod) -> kube::Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(generation: i64, status: &Value) -> Pod {
        let metadata = json!({"uid": "u", "generation": generation});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("a pod")
    }

    #[test]
    fn what_others_maintain_is_neither_written_nor_compared() {
        let own = json!({"phase": "Running", "qosClass": "Burstable", "nominatedNodeName": "n",
            "resourceClaimStatuses": [{"name": "claim"}], "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "gate", "status": "False"},
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},
                {"type": "Ready", "status": "True"}]});
        let status: PodStatus = serde_json::from_value(own.clone()).expect("a status");
        let patch = patch("u", Some(2), &status);
        let expected = json!({"phase": "Running", "reason": null, "message": null, "podIP": null, "hostIP": null,
            "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null},
                {"type": "PodResizePending", "$patch": "delete"},
                {"type": "PodResizeInProgress", "$patch": "delete"}]});
        assert_eq!(patch["status"], expected);
        let with = |part: &str, value: Value| {
            let mut theirs = own.clone();
            theirs[part] = value;
            theirs
        };
        let ready = json!({"type": "Ready", "status": "True"});
        for (theirs, expected) in [
            (own.clone(), true),
            (with("nominatedNodeName", Value::Null), true),
            (with("conditions", json!([ready])), true),
            (
                with("conditions", json!([{"type": "Ready", "status": "False"}])),
                false,
            ),
            (
                with(
                    "conditions",
                    json!([ready, {"type": "PodResizePending", "status": "True"}]),
                ),
                false,
            ),
            (with("podIPs", json!([])), false),
            (with("reason", json!("NodeLost")), false),
        ] {
            assert_eq!(has(&pod(2, &theirs), &status), expected, "{theirs}");
        }
        let evicted: PodStatus = serde_json::from_value(json!({"conditions":
            [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]}))
        .expect("a status");
        assert!(
            told(&evicted)["conditions"][0].is_object(),
            "the node's own"
        );
    }
}
