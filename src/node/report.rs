//! Reports a pod's status: only the parts that the node owns, and only changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::failing::Attempts;
use super::machine::RESIZES;
use crate::client::write;

/// The strategic merge patch that changes a pod's status to `new`. Keyed lists that only the node owns are replaced;
/// conditions are merged by type, so that those of others stay.
fn patch(pod: &Pod, new: &PodStatus) -> Value {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut status = serde_json::to_value(new).unwrap_or_else(|_| json!({}));
    if let Some(map) = status.as_object_mut() {
        for key in ["reason", "message", "podIP", "hostIP", "nominatedNodeName"] {
            map.entry(key).or_insert(Value::Null);
        }
        map.remove("qosClass");
        if map["nominatedNodeName"].is_null() {
            map.remove("nominatedNodeName");
        }
        for key in ["podIPs", "hostIPs"] {
            let mut list = vec![json!({"$patch": "replace"})];
            match map.get(key).and_then(Value::as_array) {
                Some(own) => list.extend(own.iter().cloned()),
                None => continue,
            }
            map.insert(key.to_owned(), Value::Array(list));
        }
        let conditions = map.get_mut("conditions").and_then(Value::as_array_mut);
        if let Some(conditions) = conditions {
            for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
                for key in ["reason", "message"] {
                    condition.entry(key).or_insert(Value::Null);
                }
            }
            // These are deleted when they end; a pod that was never changed cannot have them.
            for type_ in RESIZES {
                let told = conditions.iter().any(|one| one["type"] == type_);
                if !told && pod.metadata.generation != Some(1) {
                    conditions.push(json!({"type": type_, "$patch": "delete"}));
                }
            }
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// The first pause after a failed report.
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a status was rejected, because it would be rejected again.
const REFUSED: Duration = Duration::from_secs(30);

/// A status with its sequence number.
#[derive(Clone, Default)]
struct Offer {
    number: u64,
    of: Option<(Arc<Pod>, PodStatus)>,
}

/// Reports the statuses of one pod to the API, beside its worker, so that an API server that does not respond delays
/// nothing else of the pod. Only the newest status counts; older ones are skipped.
pub struct Reporter {
    newest: watch::Sender<Offer>,
    /// The last one that was reported, or whose pod is gone.
    settled: watch::Receiver<u64>,
}

impl Reporter {
    /// A reporter that runs as one of `tasks`.
    pub fn start(api: Api<Pod>, tasks: &mut JoinSet<()>) -> Self {
        let (newest, offers) = watch::channel(Offer::default());
        let (settles, settled) = watch::channel(0);
        tasks.spawn(tell(api, offers, settles));
        Reporter { newest, settled }
    }

    /// Hands over a newer status.
    pub fn offer(&self, pod: &Arc<Pod>, status: &PodStatus) {
        self.newest.send_modify(|newest| {
            newest.number += 1;
            newest.of = Some((pod.clone(), status.clone()));
        });
    }

    /// Whether the newest status was not reported yet.
    pub fn owes(&self) -> bool {
        *self.settled.borrow() < self.newest.borrow().number
    }

    /// Waits until the newest status was reported. Cancel-safe.
    pub async fn settled(&self) {
        let number = self.newest.borrow().number;
        let _ = self.settled.clone().wait_for(|told| *told >= number).await;
    }
}

/// Whether the API rejects a status for good, as opposed to being down or overloaded.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

async fn tell(api: Api<Pod>, mut offers: watch::Receiver<Offer>, settles: watch::Sender<u64>) {
    let (mut attempts, mut wait) = (None, RETRY);
    while offers.changed().await.is_ok() {
        loop {
            let Offer { number, of } = offers.borrow_and_update().clone();
            let Some((pod, status)) = of else {
                break;
            };
            let told = report(&api, &pod, &status).await;
            // An unreachable API server is logged once for the node, not for each of its pods.
            if attempts.is_some() || told.as_ref().is_err_and(is_refused) {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let what =
                    || Attempts::new(format!("the status of pod {namespace}/{name} is refused"));
                attempts.get_or_insert_with(what).note(&told);
            }
            match told {
                Ok(_) => {
                    (attempts, wait) = (None, RETRY);
                    settles.send_replace(number);
                    break;
                }
                Err(error) => {
                    // Pods run on without the API server; the newest status is reported when it is back.
                    let uid = pod.metadata.uid.as_deref();
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

/// Writes the status. Returns whether the pod still exists.
async fn report(api: &Api<Pod>, pod: &Pod, status: &PodStatus) -> kube::Result<bool> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Strategic(patch(pod, status));
    let params = PatchParams::default();
    let request =
        Request::new(api.resource_url()).patch_subresource("status", name, &params, &patch);
    // The watch delivers the result.
    match write(&api.clone().into_client(), request).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 || is_other(&status) => Ok(false),
        Err(error) => Err(error),
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
