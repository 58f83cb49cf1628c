//! Pods for workload controllers: found by owner, by node and by claim. Follows
//! k8s.io/kubernetes/pkg/controller/controller_utils.go.

mod control;
mod ranks;
mod status;

use std::fmt::Debug;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::client::index::Index;
use crate::client::informer::{Informer, Informers, Key};
use crate::client::kinds::Pod;
use crate::client::owners::{Claims, controller_of};

pub use self::control::{BURST, Outcome, PodControl, Versions, from_template, slowly, together};
pub use self::ranks::{rank_for_deletion, rank_for_ending};
pub use self::status::{disrupted, is_active, is_available, millis_until_next, patch_status};

/// The cache of pods, with indexes by controller and by node.
#[derive(Clone)]
pub struct Pods {
    /// The cache.
    pub cache: Informer<Pod>,
    /// By the name of their node.
    pub by_node: Index<Pod>,
    by_owner: Index<Pod>,
    by_claim: Index<Pod>,
}

/// The index key of a pod: its controller, or its namespace if it has none.
fn owner_key(pod: &Pod) -> Option<CompactString> {
    Some(match controller_of(&pod.metadata) {
        Some(owner) => owner.uid.as_str().into(),
        None => orphans(pod.metadata.namespace.as_deref().unwrap_or_default()),
    })
}

fn orphans(namespace: &str) -> CompactString {
    format_compact!("/{namespace}")
}

fn node_key(pod: &Pod) -> Option<CompactString> {
    let node = pod
        .spec
        .node_name
        .as_deref()
        .filter(|node| !node.is_empty());
    node.map(CompactString::from)
}

/// The index key of the pods that use a claim; unique because no name has a slash.
fn claim_key(namespace: &str, name: &str) -> CompactString {
    format_compact!("{namespace}/{name}")
}

fn claim_keys(pod: &Pod) -> Vec<CompactString> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    claims_of(pod)
        .map(|(name, _)| claim_key(namespace, &name))
        .collect()
}

/// The names of the claims that a pod uses, and whether each is created for the pod.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = (String, bool)> + '_ {
    pod.spec.volumes.iter().filter_map(|volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        let made = volume.ephemeral.is_some();
        made.then(|| (format!("{}-{}", pod.name_any(), volume.name), true))
    })
}

impl Pods {
    /// The pods that all controllers share; the cache belongs to the run of the caller.
    pub fn of(informers: &Informers) -> Pods {
        let shared = informers.shared(|informers| Pods::in_cache(informers.of()));
        Pods {
            cache: informers.of(),
            ..shared
        }
    }

    /// The pods of a cache.
    pub fn in_cache(cache: Informer<Pod>) -> Pods {
        Pods {
            by_node: Index::of(&cache, node_key),
            by_owner: Index::of(&cache, owner_key),
            by_claim: Index::of(&cache, claim_keys),
            cache,
        }
    }

    /// The pods that an owner controls, ordered by name.
    pub fn owned(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        self.by_owner.get(owner.uid.as_deref().unwrap_or_default())
    }

    /// The pods that use a claim, ordered by name.
    pub fn users(&self, claim: &Key) -> Vec<Arc<Pod>> {
        self.by_claim.get(&claim_key(&claim.namespace, &claim.name))
    }

    /// The pods of a namespace without a controller, ordered by name.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<Pod>> {
        self.by_owner.get(&orphans(namespace))
    }

    /// The pods that an owner controls, and those of its namespace without a controller.
    pub fn candidates(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let mut pods = self.owned(owner);
        pods.extend(self.orphans(owner.namespace.as_deref().unwrap_or_default()));
        pods
    }

    /// The pods of an owner, after adopting matching orphans and releasing pods that no longer match. Adopted pods get
    /// the finalizer, if any, and released ones lose it.
    ///
    /// # Errors
    /// The API rejects a change, except because a pod is gone.
    pub async fn claimed<O>(
        &self,
        client: &Client,
        owner: &O,
        finalizer: Option<&'static str>,
        fits: fn(&O, &Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, kube::Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let claims = Claims::<O, Pod>::of(client, owner, finalizer);
        let candidates = self.candidates(owner.meta());
        claims.take(candidates, |pod| fits(owner, pod)).await
    }
}
