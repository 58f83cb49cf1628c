//! Persistent volumes of reddwarf's own driver, from the view of their nodes: released ones are removed, and those
//! whose claims grew are expanded. They are created when a pod first uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use crate::client::errors::reason;
use crate::client::follow::{Event, follow};
use crate::meta::quantity::Quantity;
pub use crate::meta::volumes::{DRIVER, FINALIZER, HOSTNAME};
use crate::storage::{StorageEngine, StorageError};

/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// Conditions of growing claims that nodes remove.
const GROWING: [&str; 2] = ["Resizing", "FileSystemResizePending"];

/// The host name of a volume's node; None if it is not one of these volumes. Typed, what [`keeper`] says of values.
///
/// [`keeper`]: crate::meta::volumes::keeper
pub fn place(volume: &PersistentVolume) -> Option<&str> {
    let spec = volume.spec.as_ref()?;
    spec.csi.as_ref().filter(|csi| csi.driver == DRIVER)?;
    let required = spec.node_affinity.as_ref()?.required.as_ref()?;
    let [term] = &required.node_selector_terms[..] else {
        return None;
    };
    let [chosen] = &term.match_expressions.as_ref()?[..] else {
        return None;
    };
    match &chosen.values.as_ref()?[..] {
        [host] if chosen.key == HOSTNAME => Some(host),
        _ => None,
    }
}

/// What a node has to do about one of its volumes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Leave,
    /// Remove it and the finalizer.
    Remove,
    /// Remove the finalizer: its data stays.
    Release,
    /// Expand it to this many bytes.
    Grow(u64),
}

fn step(volume: &PersistentVolume) -> Step {
    let spec = volume.spec.as_ref();
    if volume.metadata.deletion_timestamp.is_none() {
        let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let size = capacity.and_then(|text| Quantity::parse(&text.0).ok());
        return match size.and_then(|size| u64::try_from(size.value()).ok()) {
            Some(size) => Step::Grow(size),
            None => Step::Leave,
        };
    }
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let held = volume.finalizers().iter().any(|held| held == FINALIZER);
    match (held, phase, policy) {
        (false, ..) | (_, Some("Bound"), _) => Step::Leave,
        // Only a released volume may be destroyed.
        (_, Some("Released" | "Failed"), Some("Delete")) => Step::Remove,
        _ => Step::Release,
    }
}

/// The claim after its volume was expanded; None if it does not wait for that.
fn grown(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let waits = |kind: &str| GROWING.contains(&kind);
    let size = |amount: Option<&ApiQuantity>| {
        let amount = amount.and_then(|amount| Quantity::parse(&amount.0).ok());
        amount.map_or(0, |amount| amount.value())
    };
    let given = volume.spec.as_ref()?.capacity.as_ref();
    let asked = claim.spec.as_ref().and_then(|spec| {
        let requests = spec.resources.as_ref()?.requests.as_ref();
        requests?.get("storage")
    });
    if size(given.and_then(|given| given.get("storage"))) < size(asked) {
        // It has yet to grow: wait for that.
        return None;
    }
    let mut new = claim.clone();
    let status = new.status.as_mut()?;
    let conditions = status.conditions.as_mut()?;
    conditions
        .iter()
        .find(|condition| waits(&condition.type_))?;
    conditions.retain(|condition| !waits(&condition.type_));
    status.capacity = volume.spec.as_ref()?.capacity.clone();
    Some(new)
}

/// The volumes of the nodes of one process.
pub struct Volumes {
    /// A client that may see volumes, release those of these nodes, and write the statuses of their claims.
    pub client: kube::Client,
    /// The nodes.
    pub nodes: BTreeSet<String>,
    /// Their storage; None for simulated nodes, which have nothing to remove.
    pub storage: Option<Arc<dyn StorageEngine>>,
}

/// Why something has to be retried.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The API server's answer, or none.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The storage of this host.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Volumes {
    /// Handles the volumes until `ends` is cancelled.
    pub async fn keep(&self, ends: CancellationToken) {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut events = follow(api, "");
        let mut failed: BTreeMap<String, PersistentVolume> = BTreeMap::new();
        let mut again = tokio::time::interval(AGAIN);
        loop {
            // Both are cancel-safe.
            let event = tokio::select! {
                event = events.next() => event,
                _ = again.tick() => {
                    for (name, volume) in std::mem::take(&mut failed) {
                        self.try_look(name, volume, &mut failed).await;
                    }
                    continue;
                }
                () = ends.cancelled() => return,
            };
            match event {
                Some(Ok(Event::Listed(volume) | Event::Applied(volume))) => {
                    if place(&volume).is_some_and(|host| self.nodes.contains(host)) {
                        self.try_look(volume.name_any(), volume, &mut failed).await;
                    }
                }
                Some(Ok(Event::Deleted(volume))) => {
                    failed.remove(&volume.name_any());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::warn!(
                    %error,
                    "persistent volumes cannot be watched, so none is removed or expanded; `reddwarf token create` on the API server's host makes the cluster role nodes-keep-their-volumes, which allows it"
                ),
                None => return,
            }
        }
    }

    /// Does what a volume needs; failures are recorded for a retry.
    async fn try_look(
        &self,
        name: String,
        volume: PersistentVolume,
        failed: &mut BTreeMap<String, PersistentVolume>,
    ) {
        failed.remove(&name);
        if let Err(error) = self.look(&volume).await {
            tracing::warn!(volume = name, %error, "cannot remove or expand a persistent volume");
            failed.insert(name, volume);
        }
    }

    async fn look(&self, volume: &PersistentVolume) -> Result<(), Failed> {
        let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let name = csi.map_or("", |csi| csi.volume_handle.as_str());
        match step(volume) {
            Step::Leave => Ok(()),
            Step::Remove => {
                // It may be older than what the API has: its name and directory may belong to another volume now.
                let api: Api<PersistentVolume> = Api::all(self.client.clone());
                let now = api.get_opt(&volume.name_any()).await?;
                if !now.is_some_and(|now| is_same(&now, volume)) {
                    return Ok(());
                }
                if let Some(storage) = &self.storage {
                    allow_missing(storage.remove_volume(name).await)?;
                }
                self.release(volume).await
            }
            Step::Release => self.release(volume).await,
            Step::Grow(_) => self.grow(volume).await,
        }
    }

    async fn release(&self, volume: &PersistentVolume) -> Result<(), Failed> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut new = volume.clone();
        new.finalizers_mut().retain(|held| held != FINALIZER);
        let name = volume.name_any();
        match api.replace(&name, &PostParams::default(), &new).await {
            // It changed, and the watch delivers that change.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    /// Expands the volume if its claim waits for that. A node that joined may only see claims of its own pods: it expands
    /// the others when a pod uses them (see [`grow`]).
    async fn grow(&self, volume: &PersistentVolume) -> Result<(), Failed> {
        let spec = volume.spec.as_ref();
        let Some(of) = spec.and_then(|spec| spec.claim_ref.as_ref()) else {
            return Ok(());
        };
        let namespace = of.namespace.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = match api.get_opt(of.name.as_deref().unwrap_or_default()).await {
            Err(error) if reason(&error) == "Forbidden" => return Ok(()),
            claim => claim?,
        };
        match claim.filter(|claim| claim.metadata.uid == of.uid) {
            Some(claim) => grow(&self.client, self.storage.as_deref(), &claim, volume).await,
            None => Ok(()),
        }
    }
}

/// Whether two objects are the same version of a volume.
fn is_same(one: &PersistentVolume, other: &PersistentVolume) -> bool {
    let version = |volume: &PersistentVolume| {
        let metadata = &volume.metadata;
        (metadata.uid.clone(), metadata.resource_version.clone())
    };
    version(one) == version(other)
}

/// Expands one of these volumes if its claim waits for that, and tells so in the claim's status.
///
/// # Errors
/// [`Failed`]: nothing is told then, and it has to be tried again.
pub async fn grow(
    client: &kube::Client,
    storage: Option<&dyn StorageEngine>,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<(), Failed> {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let handle = csi
        .filter(|csi| csi.driver == DRIVER)
        .map(|csi| csi.volume_handle.as_str());
    let (Some(handle), Step::Grow(size), Some(new)) = (handle, step(volume), grown(claim, volume))
    else {
        return Ok(());
    };
    if let Some(storage) = storage {
        // A volume that no pod has used yet is created with its new size.
        allow_missing(storage.resize_volume(handle, size).await.map(drop))?;
    }
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    api.replace_status(&new.name_any(), &PostParams::default(), &new)
        .await?;
    Ok(())
}

fn allow_missing(result: Result<(), StorageError>) -> Result<(), StorageError> {
    match result {
        Err(StorageError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(meta: &str, policy: &str, phase: &str) -> PersistentVolume {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"a"{meta}}},"spec":{{"capacity":{{"storage":"1Ki"}},"persistentVolumeReclaimPolicy":"{policy}"}},"status":{{"phase":"{phase}"}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_volume_has_the_same_node_for_all() {
        let on = |key: &str, values: &str| {
            format!(
                r#""nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"{key}","operator":"In","values":[{values}]}}]}}]}}}}"#
            )
        };
        let own = r#""csi":{"driver":"reddwarf.io","volumeHandle":"a"}"#;
        let (here, other) = (
            on(HOSTNAME, r#""n""#),
            r#""csi":{"driver":"other","volumeHandle":"a"}"#,
        );
        for (spec, expected) in [
            (format!("{own},{here}"), Some("n")),
            (format!("{other},{here}"), None),
            (format!(r#""hostPath":{{"path":"/a"}},{here}"#), None),
            (own.to_owned(), None),
            (format!("{own},{}", on("zone", r#""n""#)), None),
            (format!("{own},{}", on(HOSTNAME, r#""n","m""#)), None),
        ] {
            let text = format!(r#"{{"metadata":{{}},"spec":{{{spec}}}}}"#);
            let typed: PersistentVolume = serde_json::from_str(&text).unwrap();
            let value = crate::schema::json::parse(text.as_bytes()).unwrap().value;
            assert_eq!(place(&typed), expected, "{spec}");
            assert_eq!(crate::meta::volumes::keeper(&value), expected, "{spec}");
        }
    }

    #[test]
    fn only_what_was_given_back_is_removed() {
        let ends = r#","deletionTimestamp":"2026-01-01T00:00:00Z""#;
        let held = format!(r#"{ends},"finalizers":["{FINALIZER}"]"#);
        for (meta, policy, phase, wanted) in [
            ("", "Delete", "Released", Step::Grow(1024)),
            (ends, "Delete", "Released", Step::Leave),
            (&*held, "Delete", "Released", Step::Remove),
            (&*held, "Delete", "Failed", Step::Remove),
            (&*held, "Delete", "Bound", Step::Leave),
            (&*held, "Retain", "Released", Step::Release),
            (&*held, "Delete", "Available", Step::Release),
        ] {
            assert_eq!(
                step(&volume(meta, policy, phase)),
                wanted,
                "{meta} {policy} {phase}"
            );
        }
    }

    #[test]
    fn only_the_current_version_of_a_volume_is_removed() {
        let of = |uid: &str, version: &str| {
            let meta = format!(r#","uid":"{uid}","resourceVersion":"{version}""#);
            volume(&meta, "Delete", "Released")
        };
        for (uid, version, expected) in [("u", "5", true), ("u", "6", false), ("v", "5", false)] {
            assert_eq!(
                is_same(&of(uid, version), &of("u", "5")),
                expected,
                "{uid} {version}"
            );
        }
    }

    #[test]
    fn claims_that_wait_have_grown() {
        let claim = |conditions: &str| -> PersistentVolumeClaim {
            serde_json::from_str(&format!(
                r#"{{"metadata":{{}},"spec":{{"resources":{{"requests":{{"storage":"1Ki"}}}}}},"status":{{"conditions":[{conditions}]}}}}"#
            ))
            .unwrap()
        };
        let volume = volume("", "Delete", "Bound");
        let other = r#"{"type":"Unused","status":"True"}"#;
        assert_eq!(grown(&claim(other), &volume), None);
        let waits = format!(r#"{other},{{"type":"FileSystemResizePending","status":"True"}}"#);
        let status = grown(&claim(&waits), &volume).unwrap().status.unwrap();
        assert_eq!(status.conditions.unwrap().len(), 1);
        assert_eq!(status.capacity.unwrap()["storage"].0, "1Ki");
        let mut larger = claim(&waits);
        let spec = larger.spec.as_mut().unwrap();
        let requests = spec.resources.as_mut().unwrap().requests.as_mut().unwrap();
        requests.get_mut("storage").unwrap().0 = "2Ki".into();
        assert_eq!(grown(&larger, &volume), None, "it grew again meanwhile");
    }
}
