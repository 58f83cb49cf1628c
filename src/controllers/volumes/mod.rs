//! persistentvolume-binder-controller: binds claims to volumes. Follows
//! k8s.io/kubernetes/pkg/controller/volume/persistentvolume.

mod ephemeral;
mod expand;
mod plan;
mod protection;
mod provision;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

pub use self::ephemeral::run as ephemeral_claims;
pub use self::expand::run as expander;
use self::plan::{Around, ClaimStep, Told, VolumeStep, phase};
pub use self::protection::{
    attributes as attributes_protection, claims as claim_protection, volumes as volume_protection,
};
use super::pods::{Pods, claims_of};
use super::workload::written;
use crate::client::Context;
use crate::client::errors::{is_already_exists, text};
use crate::client::events::{Recorder, Tone};
use crate::client::index::Index;
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Node, Pod};
use crate::client::queue::{Delays, Next, Queue};

impl Cached for PersistentVolume {}
impl Cached for StorageClass {}

/// The item to look at. One worker handles all of them, so that two claims cannot get the same volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Claim(Key),
    Volume(Key),
}

/// How long failed items are delayed: upstream looks at everything every fifteen seconds.
const DELAYS: Delays = Delays {
    first: Duration::from_millis(5),
    longest: Duration::from_secs(15),
};

struct Binder {
    context: Context,
    claims: Informer<Claim>,
    /// By the name of the volume that they claim.
    by_volume: Index<Claim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Pods,
    nodes: Informer<Node>,
    recorder: Recorder,
}

/// Runs the binder.
pub async fn binder(context: Context) {
    let informers = &context.informers;
    let claims = informers.of();
    let binder = Binder {
        by_volume: Index::of(&claims, volume_key),
        claims,
        volumes: informers.of(),
        classes: informers.of(),
        pods: Pods::of(informers),
        nodes: informers.of(),
        recorder: context.recorder("persistentvolume-controller"),
        context,
    };
    let queue = Arc::new(Queue::<Work>::with_delays(DELAYS));
    binder.wake(&queue);
    let look = |work: Work| {
        let (binder, queue) = (&binder, &queue);
        async move {
            match work {
                Work::Claim(key) => binder.look_at_claim(&key).await,
                Work::Volume(key) => binder.look_at_volume(queue, &key).await,
            }
        }
    };
    binder.context.work(&queue, 1, look).await;
}

/// The index key of a claim that has a volume.
fn volume_key(claim: &Claim) -> Option<CompactString> {
    let volume = plan::volume_of(claim);
    (!volume.is_empty()).then(|| volume.into())
}

/// Enqueues the claims that wait for a volume.
fn wake_waiting(queue: &Queue<Work>, claims: &Informer<Claim>) {
    for (key, claim) in claims.all() {
        if plan::is_unbound(&claim) {
            queue.add(Work::Claim(key));
        }
    }
}

impl Binder {
    fn wake(&self, queue: &Arc<Queue<Work>>) {
        let adds = queue.clone();
        self.claims.subscribe(move |change| {
            adds.add(Work::Claim(change.key.clone()));
            for claim in change.old.into_iter().chain(change.new) {
                let volume = plan::volume_of(claim);
                if !volume.is_empty() {
                    adds.add(Work::Volume(Key::new("", volume)));
                }
            }
        });
        let (adds, claims) = (queue.clone(), self.claims.clone());
        let by_volume = self.by_volume.clone();
        self.volumes.subscribe(move |change| {
            adds.add(Work::Volume(change.key.clone()));
            // Claims that had the volume come before others that could get it.
            for claim in by_volume.keys(&change.key.name) {
                adds.add(Work::Claim(claim));
            }
            let claim = change
                .new
                .or(change.old)
                .and_then(|volume| plan::claim_ref(volume));
            match claim {
                Some(claim) => adds.add(Work::Claim(Key::new(
                    claim.namespace.as_deref().unwrap_or_default(),
                    claim.name.as_deref().unwrap_or_default(),
                ))),
                None if change.new.is_some() => wake_waiting(&adds, &claims),
                None => {}
            }
        });
        let (adds, claims) = (queue.clone(), self.claims.clone());
        self.classes
            .subscribe(move |_| wake_waiting(&adds, &claims));
        let (adds, volumes) = (queue.clone(), self.volumes.clone());
        let claims = self.claims.clone();
        self.nodes.subscribe(move |change| {
            if let Some(new) = change.new {
                if provision::can_have(new)
                    && !change.old.is_some_and(|old| provision::can_have(old))
                {
                    wake_waiting(&adds, &claims);
                }
                return;
            }
            // Its volume is released with it.
            for (key, volume) in volumes.all() {
                if volume.metadata.deletion_timestamp.is_some() {
                    adds.add(Work::Volume(key));
                }
            }
        });
        let (adds, claims) = (queue.clone(), self.claims.clone());
        self.pods.cache.subscribe(move |change| {
            let node = |pod: Option<&Arc<Pod>>| pod.and_then(|pod| pod.spec.node_name.clone());
            let same = change.old.is_some() && change.new.is_some();
            if same && node(change.old) == node(change.new) {
                return;
            }
            let pod = change.new.or(change.old);
            for (name, _) in pod.into_iter().flat_map(|pod| claims_of(pod)) {
                let waits = claims.get(&change.key.namespace, &name);
                if waits.is_some_and(|claim| plan::is_unbound(&claim)) {
                    adds.add(Work::Claim(Key::new(&change.key.namespace, &name)));
                }
            }
        });
    }

    fn tell<K: kube::Resource<DynamicType = ()>>(&self, about: &K, told: &Told) {
        let tone = match told.warning {
            true => Tone::Warning,
            false => Tone::Normal,
        };
        self.recorder
            .tell(about, tone, told.reason, told.message.as_str());
    }

    fn warn<K: kube::Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: &str) {
        self.recorder.tell(about, Tone::Warning, reason, message);
    }

    async fn look_at_claim(&self, key: &Key) -> Result<Next, kube::Error> {
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
                failed => return self::written(failed),
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

    /// Writes the phase of a volume, if it changed.
    async fn write_phase(
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

    async fn look_at_volume(&self, queue: &Queue<Work>, key: &Key) -> Result<Next, kube::Error> {
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

/// What to do after a write that failed because of a concurrent change.
fn too_late(next: Next) -> Next {
    match next {
        Next::Done => Next::Retry,
        other => other,
    }
}

fn values<K>(all: Vec<(Key, Arc<K>)>) -> Vec<Arc<K>> {
    all.into_iter().map(|(_, value)| value).collect()
}
