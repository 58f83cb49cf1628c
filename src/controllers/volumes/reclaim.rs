//! Volumes: their phase, and what happens to them when their claim is gone.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

use super::super::workload::written;
use super::claims::too_late;
use super::plan::{self, VolumeStep, phase};
use super::{Binder, Work, provision};
use crate::client::informer::Key;
use crate::client::kinds::Claim;
use crate::client::queue::{Next, Queue};

impl Binder {
    /// Writes the phase of a volume, if it changed.
    pub(super) async fn write_phase(
        &self,
        volume: PersistentVolume,
        to: &str,
        message: &str,
    ) -> Result<(PersistentVolume, Next), kube::Error> {
        if phase(&volume) == to {
            return Ok((volume, Next::Done));
        }
        let mut new = volume.clone();
        let status = new.status.get_or_insert_default();
        status.phase = Some(to.to_owned());
        status.message = (!message.is_empty()).then(|| message.to_owned());
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        match api
            .replace_status(&volume.name_any(), &PostParams::default(), &new)
            .await
        {
            Ok(made) => {
                self.volumes.reach(made.resource_version().as_deref()).await;
                Ok((made, Next::Done))
            }
            failed => Ok((volume, too_late(written(failed)?))),
        }
    }

    pub(super) async fn look_at_volume(
        &self,
        queue: &Queue<Work>,
        key: &Key,
    ) -> Result<Next, kube::Error> {
        let Some(volume) = self.volumes.get("", &key.name) else {
            return Ok(Next::Done);
        };
        if volume.metadata.deletion_timestamp.is_some() && self.is_orphan(&volume) {
            return self.forget(&volume).await;
        }
        let claim = self.claim_of(&volume).await?;
        match plan::volume_step(&volume, claim.as_ref()) {
            VolumeStep::Phase(phase) => {
                let (_, next) = self.write_phase((*volume).clone(), phase, "").await?;
                Ok(next)
            }
            VolumeStep::Wake => {
                if let Some(claim) = claim {
                    let namespace = claim.namespace().unwrap_or_default();
                    queue.add(Work::Claim(Key::new(&namespace, &claim.name_any())));
                }
                Ok(Next::Done)
            }
            VolumeStep::Mismatch => {
                if let Some(claim) = claim {
                    let (name, volume_name) = (claim.name_any(), volume.name_any());
                    let mode = "due to incompatible volumeMode.";
                    self.warn(&*volume, "VolumeMismatch", &format!("Cannot bind PersistentVolume to requested PersistentVolumeClaim {name:?} {mode}"));
                    self.warn(&claim, "VolumeMismatch", &format!("Cannot bind PersistentVolume {volume_name:?} to requested PersistentVolumeClaim {mode}"));
                }
                Ok(Next::Done)
            }
            VolumeStep::Unbind => {
                let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
                let free = plan::unbound_volume(&volume);
                match api
                    .replace(&volume.name_any(), &PostParams::default(), &free)
                    .await
                {
                    Ok(made) => Ok(self.write_phase(made, "Available", "").await?.1),
                    failed => written(failed),
                }
            }
            VolumeStep::Reclaim => self.reclaim(&volume).await,
        }
    }

    /// The claim that a volume refers to: from the cache, or from the API if a wrong answer would cost the volume its
    /// data.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<Claim>, kube::Error> {
        let Some(named) = plan::claim_ref(volume) else {
            return Ok(None);
        };
        let namespace = named.namespace.as_deref().unwrap_or_default();
        let name = named.name.as_deref().unwrap_or_default();
        let cached = self.claims.get(namespace, name);
        if let Some(cached) = cached.filter(|cached| cached.metadata.uid == named.uid) {
            return Ok(Some((*cached).clone()));
        }
        if named.uid.is_none() || matches!(phase(volume), "Released" | "Failed") {
            return Ok(None);
        }
        let api: Api<Claim> = Api::namespaced(self.context.client.clone(), namespace);
        api.get_opt(name).await
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<Next, kube::Error> {
        let mut volume = volume.clone();
        if !matches!(phase(&volume), "Released" | "Failed") {
            let (released, next) = self.write_phase(volume, "Released", "").await?;
            if next != Next::Done {
                return Ok(next);
            }
            volume = released;
        }
        let (reason, message) = match (plan::policy(&volume), plan::provisioner(&volume)) {
            ("Retain", _) => return Ok(Next::Done),
            ("Delete", Some(provision::PROVISIONER)) => {
                if volume.metadata.deletion_timestamp.is_some() {
                    return Ok(Next::Done);
                }
                let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
                return written(
                    api.delete(&volume.name_any(), &DeleteParams::default())
                        .await,
                );
            }
            // Its external provisioner deletes it.
            ("Delete", Some(_)) => return Ok(Next::Done),
            ("Delete", None) => (
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                    volume.name_any()
                ),
            ),
            ("Recycle", _) => (
                "VolumeFailedRecycle",
                "No recycler plugin found for the volume!".to_owned(),
            ),
            _ => (
                "VolumeUnknownReclaimPolicy",
                "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned(),
            ),
        };
        if phase(&volume) == "Failed" {
            return Ok(Next::Done);
        }
        let (volume, next) = self.write_phase(volume, "Failed", &message).await?;
        self.warn(&volume, reason, &message);
        Ok(next)
    }

    /// Whether one of this server's own volumes is on a node that no longer exists.
    fn is_orphan(&self, volume: &PersistentVolume) -> bool {
        let held = volume
            .finalizers()
            .iter()
            .any(|held| held == provision::FINALIZER);
        let nodes = self.nodes.all();
        held && provision::place(volume).is_some()
            && !provision::has_node(volume, nodes.iter().map(|(_, node)| &**node))
    }

    /// Removes the finalizer of a volume whose node can no longer delete it.
    async fn forget(&self, volume: &PersistentVolume) -> Result<Next, kube::Error> {
        let mut new = volume.clone();
        new.finalizers_mut()
            .retain(|held| held != provision::FINALIZER);
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        written(
            api.replace(&volume.name_any(), &PostParams::default(), &new)
                .await,
        )
    }
}
