//! Events about pods and the node. What happens again raises the count of an event that is there.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Request;
use tokio::sync::mpsc;

use super::machine::status_time;
use crate::controllers::client::write;

/// Events that wait to be sent; more are dropped.
const QUEUE: usize = 1000;
/// Events that are remembered to be counted.
const KNOWN: usize = 4096;

struct Told {
    about: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events; never waits. Clones are the same.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Told>);

impl Recorder {
    /// A recorder whose events come from `component` on `host`, sent until all clones are gone.
    pub fn start(client: kube::Client, component: &'static str, host: String) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(send(client, component, host, receiver));
        Recorder(sender)
    }

    /// Says something about an object.
    pub fn event(&self, about: ObjectReference, warning: bool, reason: &str, message: &str) {
        let told = Told {
            about,
            warning,
            reason: reason.to_owned(),
            message: message.chars().take(1024).collect(),
            at: Timestamp::now(),
        };
        if self.0.try_send(told).is_err() {
            tracing::debug!(reason, "an event is dropped: too many wait to be sent");
        }
    }
}

async fn send(
    client: kube::Client,
    component: &'static str,
    host: String,
    mut events: mpsc::Receiver<Told>,
) {
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    let mut number = 0u64;
    while let Some(told) = events.recv().await {
        let about = &told.about;
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = format!(
            "{}/{}/{}/{:?}/{}/{}",
            namespace,
            about.name.as_deref().unwrap_or_default(),
            about.uid.as_deref().unwrap_or_default(),
            about.field_path,
            told.reason,
            told.message
        );
        if known.len() >= KNOWN {
            known.clear();
        }
        if let Some((name, count)) = known.get_mut(&key) {
            *count += 1;
            let patch = serde_json::json!({"count": *count, "lastTimestamp": status_time(told.at)});
            let result = api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            if result.is_ok() {
                continue;
            }
            // It expired, most likely: it is told anew.
        }
        number += 1;
        let name = format!(
            "{}.{:x}{:04x}",
            about.name.as_deref().unwrap_or_default(),
            told.at.as_microsecond(),
            number & 0xffff
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            reason: Some(told.reason.clone()),
            message: Some(told.message.clone()),
            source: Some(EventSource {
                component: Some(component.into()),
                host: Some(host.clone()),
            }),
            first_timestamp: Some(status_time(told.at)),
            last_timestamp: Some(status_time(told.at)),
            count: Some(1),
            type_: Some(if told.warning { "Warning" } else { "Normal" }.into()),
            reporting_component: Some(component.into()),
            reporting_instance: Some(host.clone()),
            ..Event::default()
        };
        let made = match serde_json::to_vec(&event) {
            Ok(body) => {
                let request = Request::new(api.resource_url());
                write(&client, request.create(&PostParams::default(), body)).await
            }
            Err(error) => Err(kube::Error::SerdeError(error)),
        };
        match made {
            Ok(_) => {
                known.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(%error, reason = told.reason, "an event is not taken"),
        }
    }
}
