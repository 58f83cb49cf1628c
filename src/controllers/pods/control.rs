//! Creates and deletes pods, a few at first and then more at once.

use futures::future::join_all;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};

use crate::client::errors::{is_not_found, is_terminating, text};
use crate::client::events::{Recorder, Tone};

/// The most pods of one owner that are created or deleted in one sync.
pub const BURST: usize = 500;

/// A pod from a controller's template, with a generated name if `name` is None.
pub fn from_template(
    template: &v1::PodTemplateSpec,
    owner_name: &str,
    owner: OwnerReference,
    name: Option<String>,
) -> v1::Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    // A prefix that is too long is truncated by the API.
    let generate_name = name.is_none().then(|| format!("{owner_name}-"));
    v1::Pod {
        metadata: ObjectMeta {
            name,
            generate_name,
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates and deletes the pods of one owner, and records events about it.
pub struct PodControl<'a, O> {
    /// A client.
    pub client: &'a Client,
    /// Records events about the owner.
    pub recorder: &'a Recorder,
    /// The owner.
    pub owner: &'a O,
}

impl<O: Resource<DynamicType = ()>> PodControl<'_, O> {
    fn api(&self) -> Api<v1::Pod> {
        let namespace = self.owner.meta().namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a pod. Returns the new resourceVersion; None if the namespace is being deleted.
    ///
    /// # Errors
    /// The API's message, if it rejects the pod.
    pub async fn create(&self, pod: &v1::Pod) -> Result<Option<String>, String> {
        match self.api().create(&PostParams::default(), pod).await {
            Ok(made) => {
                let message = format!("Created pod: {}", made.name_any());
                self.recorder
                    .tell(self.owner, Tone::Normal, "SuccessfulCreate", message);
                Ok(made.resource_version())
            }
            Err(error) if is_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating: {}", text(&error));
                self.recorder
                    .tell(self.owner, Tone::Warning, "FailedCreate", message);
                Err(text(&error))
            }
        }
    }

    /// Deletes a pod. Returns the new resourceVersion; None if it was gone.
    ///
    /// # Errors
    /// The API's message, if it rejects the deletion.
    pub async fn delete(&self, name: &str) -> Result<Option<String>, String> {
        match self.api().delete(name, &DeleteParams::default()).await {
            Ok(deleted) => {
                let message = format!("Deleted pod: {name}");
                self.recorder
                    .tell(self.owner, Tone::Normal, "SuccessfulDelete", message);
                Ok(deleted.left().and_then(|pod| pod.resource_version()))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error deleting: {}", text(&error));
                self.recorder
                    .tell(self.owner, Tone::Warning, "FailedDelete", message);
                Err(format!("unable to delete pods: {}", text(&error)))
            }
        }
    }
}

/// The outcome of several writes.
#[derive(Default)]
pub struct Outcome {
    versions: Versions,
    /// How many succeeded.
    pub done: usize,
    /// The first error message.
    pub refusal: Option<String>,
}

impl Outcome {
    /// Adds a write: its resourceVersion, or its error message.
    pub fn take(&mut self, result: Result<Option<String>, String>) {
        match result {
            Ok(version) => {
                self.versions.add(version);
                self.done += 1;
            }
            Err(why) => self.refusal = self.refusal.take().or(Some(why)),
        }
    }

    /// Adds the outcome of later writes.
    pub fn add(&mut self, later: Outcome) {
        self.versions.add(later.newest());
        self.done += later.done;
        self.refusal = self.refusal.take().or(later.refusal);
    }

    /// The newest resourceVersion, if any.
    pub fn newest(&self) -> Option<String> {
        self.versions.newest()
    }
}

/// Writes `count` times, in batches of doubling size that stop at the first failure, so that writes that cannot succeed
/// are not tried often.
pub async fn slowly<F: Future<Output = Result<Option<String>, String>>>(
    count: usize,
    write: impl Fn(usize) -> F,
) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut from, mut size) = (0, 1);
    while from < count && outcome.refusal.is_none() {
        let to = (from + size).min(count);
        outcome.add(together((from..to).map(&write)).await);
        (from, size) = (to, size * 2);
    }
    outcome
}

/// Runs all writes at once.
pub async fn together<F: Future<Output = Result<Option<String>, String>>>(
    writes: impl IntoIterator<Item = F>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for result in join_all(writes).await {
        outcome.take(result);
    }
    outcome
}

/// The newest of several resourceVersions.
#[derive(Default)]
pub struct Versions(u64);

impl Versions {
    /// Adds one.
    pub fn add(&mut self, version: Option<String>) {
        let version = version.and_then(|version| version.parse().ok());
        self.0 = self.0.max(version.unwrap_or(0));
    }

    /// The newest, if any.
    pub fn newest(&self) -> Option<String> {
        (self.0 > 0).then(|| self.0.to_string())
    }
}
