//! persistentvolume-binder-controller: binds claims to volumes. Follows
//! k8s.io/kubernetes/pkg/controller/volume/persistentvolume.

mod claims;
mod ephemeral;
mod expand;
mod plan;
mod protection;
mod provision;
mod reclaim;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;

use self::plan::Told;
use super::pods::{Pods, claims_of};
use crate::client::Context;
use crate::client::events::{Recorder, Tone};
use crate::client::index::Index;
use crate::client::informer::{Cached, Informer, Key};
use crate::client::kinds::{Claim, Node, Pod};
use crate::client::queue::{Delays, Queue};

pub use self::ephemeral::run as ephemeral_claims;
pub use self::expand::run as expander;
pub use self::protection::{
    attributes as attributes_protection, claims as claim_protection, volumes as volume_protection,
};

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
}
