//! API requests of the scheduler.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::binding::Written;
use super::pod::{Condition, Pod, SCHEDULER};
use super::volumes::{Claim, SELECTED_NODE, Volume};
use crate::client::errors::{is_conflict, is_not_found, text};
use crate::client::events::{Deed, Events, Recorder, Tone, reference};
use crate::client::informer::Key;

/// Maximum length of an event's note, in bytes.
const NOTE: usize = 1024;
/// Action and reason of the event for a pod that was not scheduled.
const FAILED: (&str, &str) = ("Scheduling", "FailedScheduling");

/// The API client.
pub struct Requests {
    client: kube::Client,
    recorder: Recorder,
}

/// The writes that a pod's claims need before it is bound.
pub struct Asked {
    /// Volumes to bind, each with its claim.
    pub bind: Vec<(CompactString, Volume, Key, Claim)>,
    /// Claims to provision.
    pub provision: Vec<(Key, Claim)>,
}

impl Requests {
    /// Uses a client with the scheduler's identity.
    pub fn new(client: kube::Client, events: &Events) -> Requests {
        Requests {
            recorder: events
                .recorder(client.clone(), SCHEDULER)
                .on(&rustix::system::uname().nodename().to_string_lossy()),
            client,
        }
    }

    /// Sends an event about a pod.
    fn tell(
        &self,
        pod: &Pod,
        tone: Tone,
        (action, reason): (&'static str, &'static str),
        note: String,
    ) {
        let deed = Deed {
            tone,
            action,
            reason,
            note,
            related: None,
        };
        self.recorder.tell_deed(pod, deed);
    }

    fn pods(&self, pod: &Pod) -> Api<v1::Pod> {
        Api::namespaced(self.client.clone(), &pod.key.namespace)
    }

    /// Writes a pod's nominated node to its status.
    pub async fn nominate(&self, pod: &Pod) {
        let will_be = serde_json::Map::from_iter([("nominatedNodeName".into(), json!(pod.node))]);
        self.patch(pod, will_be).await;
    }

    /// Removes the nominated node from the status of pods.
    pub async fn nominate_no_longer(&self, pods: &[Arc<Pod>]) {
        for pod in pods.iter().filter(|pod| !pod.nominated.is_empty()) {
            let nowhere = serde_json::Map::from_iter([("nominatedNodeName".into(), Value::Null)]);
            self.patch(pod, nowhere).await;
        }
    }

    /// Binds volumes to claims, and annotates claims to be provisioned with their node.
    ///
    /// # Errors
    /// Why the API rejected it, in its words.
    pub async fn prepare(&self, pod: &Pod, asked: Asked) -> Result<Written, String> {
        let mut written = Written::default();
        let params = PatchParams::default();
        let volumes: Api<v1::PersistentVolume> = Api::all(self.client.clone());
        for (name, volume, key, claim) in asked.bind {
            let mut metadata = json!({"resourceVersion": volume.version});
            if volume.claim.is_none() {
                metadata["annotations"] = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
            }
            let reference = json!({
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "namespace": key.namespace,
                "name": key.name,
                "uid": claim.uid,
                "resourceVersion": claim.version,
            });
            let patch = json!({"metadata": metadata, "spec": {"claimRef": reference}});
            let answer = volumes.patch(&name, &params, &Patch::Merge(patch)).await;
            let version = version(&answer.map_err(|error| text(&error))?.metadata);
            written.volumes.insert(name, version);
        }
        for (key, claim) in asked.provision {
            let claims: Api<v1::PersistentVolumeClaim> =
                Api::namespaced(self.client.clone(), &key.namespace);
            let annotations = json!({SELECTED_NODE: pod.node});
            let metadata = json!({"resourceVersion": claim.version, "annotations": annotations});
            let patch = json!({"metadata": metadata});
            let answer = claims.patch(&key.name, &params, &Patch::Merge(patch)).await;
            let version = version(&answer.map_err(|error| text(&error))?.metadata);
            written.claims.insert(key, version);
        }
        Ok(written)
    }

    /// Reserves ResourceClaims for a pod. The API decides whether they can be: they may have changed, and others may
    /// reserve them at the same time.
    ///
    /// # Errors
    /// Why the API rejected it, in upstream's words.
    pub async fn reserve(&self, pod: &Pod, claims: Vec<(Key, String)>) -> Result<(), String> {
        let user = json!({"resource": "pods", "name": pod.key.name, "uid": pod.uid()});
        for (key, uid) in claims {
            let answer = self.reserved_for(&key, &uid, &user).await;
            answer.map_err(|error| {
                let Key { namespace, name } = &key;
                let why = text(&error);
                format!("add reservation to claim {namespace}/{name}: {why}")
            })?;
        }
        Ok(())
    }

    /// Removes a pod from `status.reservedFor` of ResourceClaims.
    pub async fn give_back(&self, pod: &Pod, claims: Vec<(Key, String)>) {
        let user = json!({"$patch": "delete", "uid": pod.uid()});
        for (key, uid) in claims {
            match self.reserved_for(&key, &uid, &user).await {
                Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                    tracing::warn!(claim = ?key, pod = ?pod.key, %error, "cannot release a resource claim");
                }
                _ => {}
            }
        }
    }

    async fn reserved_for(&self, key: &Key, uid: &str, user: &Value) -> kube::Result<()> {
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": uid}, "status": {"reservedFor": [user]}});
        let params = PatchParams::default();
        api.patch_status(&key.name, &params, &Patch::Strategic(patch))
            .await?;
        Ok(())
    }

    /// Binds a pod to its assumed node.
    ///
    /// # Errors
    /// Why it was not bound, in upstream's words.
    pub async fn bind(&self, pod: &Arc<Pod>) -> Result<(), String> {
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
                self.tell(pod, Tone::Normal, ("Binding", "Scheduled"), note);
                Ok(())
            }
            Err(error) => Err(format!(
                "running Bind plugin \"DefaultBinder\": {}",
                text(&error)
            )),
        }
    }

    /// Reports why a pod was not scheduled, in an event and in its status.
    pub async fn report(&self, pod: &Pod, reason: &str, why: &str, nominated: Option<String>) {
        self.tell(pod, Tone::Warning, FAILED, shortened(why));
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

    /// Reports that a pod is not scheduled because it is being deleted.
    pub fn skip(&self, pod: &Pod) {
        let note = format!(
            "skip schedule deleting pod: {}/{}",
            pod.key.namespace, pod.key.name
        );
        self.tell(pod, Tone::Warning, FAILED, note);
    }

    /// Deletes a pod to make room for another on a node, and reports that. Returns whether it will end.
    pub async fn end(&self, pod: &Pod, node: &str, victim: &Pod) -> bool {
        let condition = Condition {
            status: "True".into(),
            reason: "PreemptionByScheduler".into(),
            message: format!("{SCHEDULER}: preempting to accommodate a higher priority pod").into(),
            since: Default::default(),
        };
        let had = victim.disrupted.as_ref();
        if let Some(changed) = changed(victim, "DisruptionTarget", had, &condition) {
            let status = serde_json::Map::from_iter([("conditions".into(), json!([changed]))]);
            if !self.patch(victim, status).await {
                return false;
            }
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: victim.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.pods(victim).delete(&victim.key.name, &params).await {
            Ok(_) => {}
            // It is gone, or another pod has its name.
            Err(error) if is_not_found(&error) || is_conflict(&error) => return true,
            Err(error) => {
                tracing::warn!(pod = ?victim.key, %error, "cannot delete a pod that is to be preempted");
                return false;
            }
        }
        self.tell_preempted(pod, node, victim, false);
        true
    }

    /// Sends an event that a pod was preempted; `in_memory` if only the scheduler knew that it was placed.
    pub fn tell_preempted(&self, pod: &Pod, node: &str, victim: &Pod, in_memory: bool) {
        let how = match in_memory {
            true => " (in kube-scheduler memory).",
            false => "",
        };
        let note = format!("Preempted by pod {} on node {node}{how}", pod.uid());
        let deed = Deed {
            tone: Tone::Normal,
            action: "Preempting",
            reason: "Preempted",
            note,
            related: Some(reference(pod)),
        };
        self.recorder.tell_deed(victim, deed);
    }

    /// Writes parts of a pod's status. Returns whether they were written, or the pod is gone.
    async fn patch(&self, pod: &Pod, status: serde_json::Map<String, Value>) -> bool {
        if status.is_empty() {
            return true;
        }
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        let params = PatchParams::default();
        let answer = self
            .pods(pod)
            .patch_status(&pod.key.name, &params, &Patch::Strategic(patch))
            .await;
        match answer {
            Err(error) if !is_not_found(&error) => {
                tracing::warn!(pod = ?pod.key, %error, "cannot write the status of a pod");
                false
            }
            _ => true,
        }
    }
}

/// The resource version of the object in an answer.
fn version(answer: &ObjectMeta) -> u64 {
    let version = answer.resource_version.as_deref().unwrap_or_default();
    version.parse().unwrap_or_default()
}

/// The condition to write; `None` if it is unchanged.
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

/// A text shortened to fit an event.
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
