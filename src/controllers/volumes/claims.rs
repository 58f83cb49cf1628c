//! Claims: bound to volumes, provisioned, or told why not.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::super::workload::written;
use super::plan::{self, Around, ClaimStep};
use super::{Binder, provision};
use crate::client::errors::{is_already_exists, text};
use crate::client::events::Tone;
use crate::client::informer::Key;
use crate::client::kinds::{Claim, Pod};
use crate::client::queue::Next;

impl Binder {
    pub(super) async fn look_at_claim(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let volumes: Vec<Arc<PersistentVolume>> = values(self.volumes.all());
        let classes: Vec<Arc<StorageClass>> = values(self.classes.all());
        let mut users = self.pods.users(key);
        users.retain(|pod| !pod.is_terminal());
        let node = self.node_for(&claim, &classes, &users);
        let unplaced: Vec<String> = users
            .iter()
            .filter(|pod| pod.spec.node_name.as_deref().is_none_or(str::is_empty))
            .map(|pod| pod.name_any())
            .collect();
        let around = Around {
            volumes: &volumes,
            classes: &classes,
            unplaced: &unplaced,
            placed: plan::selected_node(&claim).is_some() || node.is_some(),
        };
        match plan::claim_step(&claim, &around) {
            ClaimStep::Bind(name) => match self.volumes.get("", &name) {
                Some(volume) => self.bind(&volume, &claim).await,
                None => Ok(Next::Retry),
            },
            ClaimStep::Wait(told) => {
                if let Some(told) = told {
                    self.tell(&*claim, &told);
                }
                self.write_status(&claim, "Pending", None).await
            }
            ClaimStep::Assign(class) => {
                let mut new = plan::full(&claim);
                new.spec.get_or_insert_default().storage_class_name = Some(class);
                self.write_claim(&claim, Some(new))
                    .await
                    .map(|(_, next)| next)
            }
            ClaimStep::Lose(told) => {
                if claim.status.phase.as_deref() == Some("Lost") {
                    return Ok(Next::Done);
                }
                let next = self.write_status(&claim, "Lost", None).await?;
                self.tell(&*claim, &told);
                Ok(next)
            }
            ClaimStep::Misbound(told) => {
                self.tell(&*claim, &told);
                Ok(Next::Retry)
            }
            ClaimStep::Provision => self.provision(&claim, &classes, node).await,
        }
    }

    /// The node for the volume of a claim, if it is known. For this server's own volumes it can also come from a pod
    /// with `nodeName`.
    fn node_for(
        &self,
        claim: &Claim,
        classes: &[Arc<StorageClass>],
        users: &[Arc<Pod>],
    ) -> Option<String> {
        let name = plan::class_of(claim);
        let class = classes.iter().find(|class| class.name_any() == name)?;
        if class.provisioner != provision::PROVISIONER {
            return None;
        }
        let chosen = plan::selected_node(claim).map(str::to_owned);
        let used = || {
            let mut placed = users.iter().filter_map(|pod| pod.spec.node_name.clone());
            placed.find(|node| !node.is_empty())
        };
        let any = || {
            if plan::is_delayed(Some(class)) {
                return None;
            }
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            provision::any_node(&values(self.nodes.all()), uid)
        };
        chosen.or_else(used).or_else(any)
    }

    /// Creates a volume for a claim, or requests it from an external provisioner.
    async fn provision(
        &self,
        claim: &Claim,
        classes: &[Arc<StorageClass>],
        node: Option<String>,
    ) -> Result<Next, kube::Error> {
        const FAILED: &str = "ProvisioningFailed";
        let name = plan::class_of(claim);
        let Some(class) = classes.iter().find(|class| class.name_any() == name) else {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            self.warn(claim, FAILED, &message);
            return Ok(Next::Done);
        };
        let by = class.provisioner.as_str();
        if by.starts_with("kubernetes.io/") {
            self.warn(claim, FAILED, "no volume plugin matched");
            return Ok(Next::Done);
        }
        let mut new = plan::full(claim);
        for key in [
            "volume.beta.kubernetes.io/storage-provisioner",
            "volume.kubernetes.io/storage-provisioner",
        ] {
            plan::mark(&mut new.metadata, key, by);
        }
        let changed = new.metadata.annotations != claim.metadata.annotations;
        let (claim, next) = self.write_claim(claim, changed.then_some(new)).await?;
        if next != Next::Done {
            return Ok(next);
        }
        if by != provision::PROVISIONER {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{by}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            self.recorder
                .tell(&claim, Tone::Normal, "ExternalProvisioning", message);
            return Ok(Next::Done);
        }
        let found = node.as_deref().and_then(|node| self.nodes.get("", node));
        let made = match (&node, found) {
            (_, Some(found)) => provision::volume(&claim, class, &found),
            (Some(node), None) => Err(format!(
                "Failed to get target node: node {node:?} not found"
            )),
            (None, None) => Err("there is no node that could have it".to_owned()),
        };
        let why = match made {
            Ok(volume) => {
                let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
                match api.create(&PostParams::default(), &volume).await {
                    Ok(made) => {
                        self.volumes.reach(made.resource_version().as_deref()).await;
                        let message = format!(
                            "Successfully provisioned volume {} using {by}",
                            made.name_any()
                        );
                        self.recorder
                            .tell(&claim, Tone::Normal, "ProvisioningSucceeded", message);
                        return Ok(Next::Done);
                    }
                    Err(error) if is_already_exists(&error) => return Ok(Next::Done),
                    Err(error) => text(&error),
                }
            }
            Err(why) => why,
        };
        let message = format!("Failed to provision volume with StorageClass {name:?}: {why}");
        self.warn(&claim, FAILED, &message);
        Ok(Next::Retry)
    }

    /// Binds volume and claim to each other. Only necessary writes are done, so that a partial binding is completed.
    async fn bind(&self, volume: &PersistentVolume, claim: &Claim) -> Result<Next, kube::Error> {
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let name = volume.name_any();
        let mut volume = volume.clone();
        if let Some(new) = plan::bound_volume(&volume, claim) {
            match api.replace(&name, &PostParams::default(), &new).await {
                Ok(written) => volume = written,
                failed => return written(failed),
            }
        }
        let (volume, next) = self.write_phase(volume, "Bound", "").await?;
        if next != Next::Done {
            return Ok(next);
        }
        let bound = plan::bound_claim(claim, &name);
        let (claim, next) = self.write_claim(claim, bound).await?;
        if next != Next::Done {
            return Ok(next);
        }
        self.write_status(&claim, "Bound", Some(&volume)).await
    }

    /// Writes a claim, if it changed. Returns the resulting claim, or what to do if it was changed meanwhile.
    async fn write_claim(
        &self,
        claim: &Claim,
        new: Option<PersistentVolumeClaim>,
    ) -> Result<(Claim, Next), kube::Error> {
        let Some(new) = new else {
            return Ok((claim.clone(), Next::Done));
        };
        let api = self.claim_api(claim);
        match api
            .replace(&claim.name_any(), &PostParams::default(), &new)
            .await
        {
            Ok(made) => {
                self.claims.reach(made.resource_version().as_deref()).await;
                let made = Claim {
                    metadata: made.metadata,
                    spec: made.spec.unwrap_or_default(),
                    status: made.status.unwrap_or_default(),
                };
                Ok((made, Next::Done))
            }
            failed => Ok((claim.clone(), too_late(written(failed)?))),
        }
    }

    fn claim_api(&self, claim: &Claim) -> Api<PersistentVolumeClaim> {
        let namespace = claim.namespace().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), &namespace)
    }

    async fn write_status(
        &self,
        claim: &Claim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<Next, kube::Error> {
        let Some(new) = plan::claim_status(claim, phase, volume) else {
            return Ok(Next::Done);
        };
        let result = self
            .claim_api(claim)
            .replace_status(&claim.name_any(), &PostParams::default(), &new)
            .await;
        if let Ok(made) = &result {
            self.claims.reach(made.resource_version().as_deref()).await;
        }
        written(result)
    }
}

/// What to do after a write that failed because of a concurrent change.
pub(super) fn too_late(next: Next) -> Next {
    match next {
        Next::Done => Next::Retry,
        other => other,
    }
}

fn values<K>(all: Vec<(Key, Arc<K>)>) -> Vec<Arc<K>> {
    all.into_iter().map(|(_, value)| value).collect()
}
