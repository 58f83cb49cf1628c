//! What the scheduler asks of the API.

use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::pod::{Condition, Pod, SCHEDULER};
use crate::controllers::Context;
use crate::controllers::errors::{is_not_found, text};
use crate::controllers::events::{Recorder, Tone};

/// The longest note of an event, in bytes.
const NOTE: usize = 1024;

/// The way to the API.
pub struct Requests {
    client: kube::Client,
    recorder: Recorder,
}

/// What came of a request.
pub enum Outcome {
    /// It is so.
    Done,
    /// It is not.
    Refused(String),
}

impl Requests {
    /// As the scheduler.
    pub fn new(context: &Context) -> Requests {
        Requests {
            client: context.client.clone(),
            recorder: context.events.recorder(context.client.clone(), SCHEDULER),
        }
    }

    fn pods(&self, pod: &Pod) -> Api<v1::Pod> {
        Api::namespaced(self.client.clone(), &pod.key.namespace)
    }

    /// Gives a pod the place that it is assumed to have.
    pub async fn bind(&self, pod: &Arc<Pod>) -> Outcome {
        let (namespace, name) = (&pod.key.namespace, &pod.key.name);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"kind": "Node", "name": pod.node},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(binding.to_string().into_bytes())
            .map_err(kube::Error::HttpError);
        let answer = match request {
            Ok(request) => self.client.request_text(request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(_) => {
                let note = format!("Successfully assigned {namespace}/{name} to {}", pod.node);
                self.recorder.tell(&**pod, Tone::Normal, "Scheduled", note);
                Outcome::Done
            }
            Err(error) => Outcome::Refused(format!(
                "running Bind plugin \"DefaultBinder\": {}",
                text(&error)
            )),
        }
    }

    /// Says why a pod has no place, in an event and in its status.
    pub async fn report(&self, pod: &Pod, reason: &str, why: &str, nominated: Option<String>) {
        self.recorder
            .tell(pod, Tone::Warning, "FailedScheduling", shortened(why));
        let condition = Condition {
            status: "False".into(),
            reason: reason.into(),
            message: why.into(),
            since: Default::default(),
        };
        let mut status = serde_json::Map::new();
        if let Some(changed) = changed(pod, "PodScheduled", pod.scheduled.as_ref(), &condition) {
            status.insert("conditions".to_owned(), json!([changed]));
        }
        if let Some(node) = nominated.filter(|node| *node != pod.nominated) {
            let node = if node.is_empty() {
                Value::Null
            } else {
                node.into()
            };
            status.insert("nominatedNodeName".to_owned(), node);
        }
        self.patch(pod, status).await;
    }

    /// Says that a pod gets no place because it is being deleted.
    pub fn skip(&self, pod: &Pod) {
        let note = format!(
            "skip schedule deleting pod: {}/{}",
            pod.key.namespace, pod.key.name
        );
        self.recorder
            .tell(pod, Tone::Warning, "FailedScheduling", note);
    }

    async fn patch(&self, pod: &Pod, status: serde_json::Map<String, Value>) {
        if status.is_empty() {
            return;
        }
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        let params = PatchParams::default();
        let answer = self
            .pods(pod)
            .patch_status(&pod.key.name, &params, &Patch::Strategic(patch))
            .await;
        if let Err(error) = answer.map(drop)
            && !is_not_found(&error)
        {
            tracing::warn!(pod = ?pod.key, %error, "cannot write why it has no place");
        }
    }
}

/// A condition to be written; none where it is so already.
fn changed(pod: &Pod, kind: &str, had: Option<&Condition>, new: &Condition) -> Option<Value> {
    let same = |had: &Condition| {
        (&had.status, &had.reason, &had.message) == (&new.status, &new.reason, &new.message)
    };
    if had.is_some_and(same) {
        return None;
    }
    let since = had.filter(|had| had.status == new.status);
    let since = match since {
        Some(had) if !had.since.is_empty() => had.since.to_string(),
        _ => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    Some(json!({
        "type": kind,
        "status": new.status,
        "reason": new.reason,
        "message": new.message,
        "lastProbeTime": null,
        "lastTransitionTime": since,
        "observedGeneration": pod.metadata.generation,
    }))
}

/// A text as an event can hold it.
fn shortened(text: &str) -> String {
    const MORE: &str = " ...";
    if text.len() <= NOTE {
        return text.to_owned();
    }
    let mut end = NOTE - MORE.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &text[..end])
}
