//! Protects volumes, claims and attributes classes in use from deletion: persistentvolumeclaim-protection-,
//! persistentvolume-protection- and volumeattributesclass-protection-controller. Follows
//! k8s.io/kubernetes/pkg/controller/volume/{pvc,pv,vac}protection.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::OnceCell;

use super::plan::{self, is_made_for};
use crate::client::Context;
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Pod};
use crate::client::queue::{Next, Queue};
use crate::controllers::pods::{Pods, claims_of};
use crate::controllers::workload::{queue_of, written};

const UNUSED: &str = "Unused";

impl Cached for VolumeAttributesClass {}

/// The object with the finalizer added if it is missing, or removed if it is being deleted and not `used`. `None` if
/// nothing has to change.
fn protected<K: kube::Resource + Clone>(object: &K, finalizer: &str, used: bool) -> Option<K> {
    let ends = object.meta().deletion_timestamp.is_some();
    let held = object.finalizers().iter().any(|held| held == finalizer);
    let mut new = object.clone();
    match (ends, held) {
        (false, false) => new.finalizers_mut().push(finalizer.to_owned()),
        (true, true) if !used => new.finalizers_mut().retain(|held| held != finalizer),
        _ => return None,
    }
    Some(new)
}

/// Runs persistentvolume-protection-controller.
pub async fn volumes(context: Context) {
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let queue = queue_of(&volumes);
    let is_used = |volume: &PersistentVolume| plan::phase(volume) == "Bound";
    protect(
        &context,
        &volumes,
        &queue,
        "kubernetes.io/pv-protection",
        is_used,
    )
    .await;
}

/// Runs volumeattributesclass-protection-controller.
pub async fn attributes(context: Context) {
    let classes: Informer<VolumeAttributesClass> = context.informers.of();
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let claims: Informer<Claim> = context.informers.of();
    let queue = queue_of(&classes);
    volumes.enqueue(&queue, |change| {
        let name = volume_attributes(change.old?)?;
        Some(Key::new("", name))
    });
    claims.enqueue(&queue, |change| -> Vec<Key> {
        let names = change.old.into_iter().flat_map(|old| claim_attributes(old));
        names.map(|name| Key::new("", name)).collect()
    });
    let is_used = |class: &VolumeAttributesClass| {
        let name = class.name_any();
        let volumes = volumes.all();
        let mut by_volumes = volumes
            .iter()
            .filter_map(|(_, volume)| volume_attributes(volume));
        let claims = claims.all();
        let mut by_claims = claims.iter().flat_map(|(_, claim)| claim_attributes(claim));
        by_volumes.any(|used| used == name) || by_claims.any(|used| used == name)
    };
    protect(
        &context,
        &classes,
        &queue,
        "kubernetes.io/vac-protection",
        is_used,
    )
    .await;
}

fn volume_attributes(volume: &PersistentVolume) -> Option<&str> {
    volume
        .spec
        .as_ref()?
        .volume_attributes_class_name
        .as_deref()
}

fn claim_attributes(claim: &Claim) -> impl Iterator<Item = &str> {
    let (spec, status) = (&claim.spec, &claim.status);
    let modified = status.modify_volume_status.as_ref();
    [
        spec.volume_attributes_class_name.as_deref(),
        status.current_volume_attributes_class_name.as_deref(),
        modified.and_then(|modified| modified.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
}

/// Adds a finalizer to objects of a kind, and removes it from deleted objects that nobody uses.
async fn protect<K>(
    context: &Context,
    cache: &Informer<K>,
    queue: &Queue<Key>,
    finalizer: &str,
    is_used: impl Fn(&K) -> bool + Sync,
) where
    K: Cached + Serialize + kube::Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(context.client.clone());
    let look = |key: Key| {
        let found = cache.get("", &key.name);
        let new = found.and_then(|found| protected(&*found, finalizer, is_used(&found)));
        let api = &api;
        async move {
            match new {
                None => Ok(Next::Done),
                Some(new) => written(api.replace(&key.name, &PostParams::default(), &new).await),
            }
        }
    };
    context.work(queue, 1, look).await;
}

/// Claims to look at. Those of a namespace are handled together, so that its pods are read once for all of them.
#[derive(Default)]
struct Waiting {
    claims: Mutex<HashMap<CompactString, BTreeSet<CompactString>>>,
    namespaces: Queue<CompactString>,
}

impl Waiting {
    fn add(&self, namespace: &CompactString, name: &str) {
        self.put(namespace, name.into());
        self.namespaces.add(namespace.clone());
    }

    fn put(&self, namespace: &CompactString, name: CompactString) {
        let mut claims = self.claims.lock();
        claims.entry(namespace.clone()).or_default().insert(name);
    }

    fn take(&self, namespace: &CompactString) -> BTreeSet<CompactString> {
        self.claims.lock().remove(namespace).unwrap_or_default()
    }
}

/// The pods of a namespace as read from the API, by the claims that they use.
type Live = HashMap<String, Vec<Arc<Pod>>>;

struct Claims {
    client: kube::Client,
    cache: Informer<Claim>,
    pods: Pods,
    waiting: Waiting,
}

/// Runs persistentvolumeclaim-protection-controller.
pub async fn claims(context: Context) {
    let claims = Arc::new(Claims {
        client: context.client.clone(),
        cache: context.informers.of(),
        pods: Pods::of(&context.informers),
        waiting: Waiting::default(),
    });
    claims.listen();
    let look = |namespace: CompactString| claims.look(namespace);
    let namespaces = &claims.waiting.namespaces;
    context.work(namespaces, 1, look).await;
}

impl Claims {
    /// Adds each claim that changes, and the claims of each pod that begins or ceases to use them.
    fn listen(self: &Arc<Self>) {
        let adds = Arc::downgrade(self);
        self.cache.subscribe(move |change| {
            if let Some(claims) = adds.upgrade() {
                claims.waiting.add(&change.key.namespace, &change.key.name);
            }
        });
        let adds = Arc::downgrade(self);
        self.pods.cache.subscribe(move |change| {
            let Some(claims) = adds.upgrade().filter(|_| change.alters(User::of)) else {
                return;
            };
            for pod in change.old.into_iter().chain(change.new) {
                for (name, _) in claims_of(pod) {
                    claims.waiting.add(&change.key.namespace, &name);
                }
            }
        });
    }

    /// Looks at the waiting claims of a namespace.
    async fn look(&self, namespace: CompactString) -> Result<Next, Infallible> {
        let live = OnceCell::new();
        let mut next = Next::Done;
        for name in self.waiting.take(&namespace) {
            match self.look_at(&Key::new(&namespace, &name), &live).await {
                Ok(Next::Done) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%namespace, %name, %error, "cannot update a claim; retrying");
                }
            }
            self.waiting.put(&namespace, name);
            next = Next::Retry;
        }
        Ok(next)
    }

    async fn look_at(&self, key: &Key, live: &OnceCell<Live>) -> Result<Next, kube::Error> {
        const FINALIZER: &str = "kubernetes.io/pvc-protection";
        let Some(claim) = self.cache.get(&key.namespace, &key.name) else {
            return Ok(Next::Done);
        };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let users = self.pods.users(key);
        let params = PostParams::default();
        let ends = claim.metadata.deletion_timestamp.is_some();
        if !ends {
            let used = users.iter().any(|pod| refers(pod, &claim));
            if let Some(new) = unused(&claim, used, Timestamp::now()) {
                return written(api.replace_status(&key.name, &params, &new).await);
            }
        }
        let used = users.iter().any(|pod| holds(pod, &claim));
        let Some(new) = protected(&*claim, FINALIZER, used) else {
            return Ok(Next::Done);
        };
        if ends {
            // The cache may be behind, and a deletion cannot be undone.
            let live = live.get_or_try_init(|| self.live(&key.namespace)).await?;
            let mut users = live.get(key.name.as_str()).into_iter().flatten();
            if users.any(|pod| holds(pod, &claim)) {
                return Ok(Next::Done);
            }
        }
        written(api.replace(&key.name, &params, &plan::full(&new)).await)
    }

    async fn live(&self, namespace: &str) -> Result<Live, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut live = Live::new();
        for pod in api.list(&ListParams::default()).await?.items {
            let pod = Arc::new(pod);
            for (claim, _) in claims_of(&pod) {
                live.entry(claim).or_default().push(pod.clone());
            }
        }
        Ok(live)
    }
}

/// What decides whether a pod uses its claims; the claims of a pod never change.
#[derive(PartialEq)]
struct User<'a> {
    uid: Option<&'a str>,
    placed: bool,
    terminal: bool,
    /// Its node is done with it, or was not asked. It may wait for its claims to be deleted, so they cannot wait for it.
    shut_down: bool,
}

impl User<'_> {
    fn of(pod: &Pod) -> User<'_> {
        let node = pod.spec.node_name.as_deref();
        User {
            uid: pod.metadata.uid.as_deref(),
            placed: node.is_some_and(|node| !node.is_empty()),
            terminal: pod.is_terminal(),
            shut_down: pod.is_deleting() && pod.metadata.deletion_grace_period_seconds == Some(0),
        }
    }
}

/// Whether a pod prevents the deletion of a claim: it is scheduled and uses it, or the claim was created for it.
fn holds(pod: &Pod, claim: &Claim) -> bool {
    let user = User::of(pod);
    user.placed && uses(pod, claim, !user.shut_down)
}

/// Whether a pod that has not terminated uses a claim.
fn refers(pod: &Pod, claim: &Claim) -> bool {
    !User::of(pod).terminal && uses(pod, claim, true)
}

/// Whether a pod names a claim, or, if `made` counts, has an ephemeral volume that it was created for.
fn uses(pod: &Pod, claim: &Claim, made: bool) -> bool {
    claims_of(pod).any(|(name, ephemeral)| {
        claim.metadata.name.as_ref() == Some(&name)
            && (!ephemeral || (made && is_made_for(&claim.metadata, pod)))
    })
}

/// The claim with the condition that shows whether it is unused; None if it has it, or is not bound.
fn unused(claim: &Claim, used: bool, now: Timestamp) -> Option<PersistentVolumeClaim> {
    if claim.status.phase.as_deref() != Some("Bound") {
        return None;
    }
    let (status, reason, message) = if used {
        (
            "False",
            "PodUsingPVC",
            "A pod is currently referencing this PVC",
        )
    } else {
        (
            "True",
            "NoPodsUsingPVC",
            "No pods are currently referencing this PVC",
        )
    };
    let mut new = plan::full(claim);
    let conditions = new
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let condition = PersistentVolumeClaimCondition {
        type_: UNUSED.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        last_probe_time: None,
    };
    match conditions.iter_mut().find(|known| known.type_ == UNUSED) {
        Some(known) if known.status == status => return None,
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    Some(new)
}

#[cfg(test)]
mod tests;
