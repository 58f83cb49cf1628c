//! DynamicResources: the resource claims of pods. Allocated claims are respected and reserved; devices are not
//! allocated here, so other claims wait as if no driver offered any. Follows
//! k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources.

use std::collections::{HashMap, HashSet};

use compact_str::{CompactString, format_compact};
use k8s_openapi::api::resource::v1 as resource;

use super::node::Node;
use super::plugin::{Plugin, Rejection};
use super::pod::Pod;
use super::snapshot::Quick;
use super::terms::{NodeTerm, any_holds, node_terms};
use crate::client::informer::Key;
use crate::client::owners::controller_of;
use crate::schema::Value;

/// How many pods can share a claim.
const SHARERS: usize = 256;

crate::slim!(
    /// A ResourceClaim in the API.
    RawClaim of resource::ResourceClaim {
        /// Its spec.
        spec: Value,
        /// Its status.
        status: Value,
    }
);

crate::slim!(
    /// A device class.
    RawClass of resource::DeviceClass {}
);

/// A claim referenced by a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The claim's name; `None` if it is yet to be created from a template.
    pub claim: Option<CompactString>,
    /// Whether it was created for this pod.
    pub is_own: bool,
}

/// The claims referenced by a pod, without those that its status declares unnecessary.
pub fn named(spec: &Value, status: &Value) -> Vec<Named> {
    let made = status.list("resourceClaimStatuses");
    let name = |wanted: &Value| {
        if wanted.get("resourceClaimTemplateName").is_none() {
            return Some(Named {
                claim: Some(wanted.str("resourceClaimName").into()),
                is_own: false,
            });
        }
        let made = made
            .iter()
            .find(|made| made.str("name") == wanted.str("name"));
        let claim = match made {
            None => None,
            Some(made) => Some(made.get("resourceClaimName")?.as_str()?.into()),
        };
        Some(Named {
            claim,
            is_own: true,
        })
    };
    spec.list("resourceClaims")
        .iter()
        .filter_map(name)
        .collect()
}

/// A ResourceClaim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its uid, which distinguishes it from others of the same name.
    uid: String,
    /// The uid of its owner; empty if created by hand.
    owner: String,
    is_deleting: bool,
    /// Where its devices are available, once allocated.
    allocated: Option<Allocated>,
    /// Each requested class, with the name of the request.
    classes: Vec<(CompactString, CompactString)>,
    /// The uids in `status.reservedFor`.
    reserved: Vec<CompactString>,
}

/// The nodes on which devices are available; `None` for all.
type Allocated = Option<Vec<NodeTerm>>;

impl From<&RawClaim> for Claim {
    fn from(raw: &RawClaim) -> Claim {
        let mut classes = Vec::new();
        for request in raw.spec.at("devices").list("requests") {
            let name = request.str("name");
            if let Some(exactly) = request.get("exactly") {
                classes.push((exactly.str("deviceClassName").into(), name.into()));
            }
            for choice in request.list("firstAvailable") {
                let name = format_compact!("{name}/{}", choice.str("name"));
                classes.push((choice.str("deviceClassName").into(), name));
            }
        }
        let reserved = raw.status.list("reservedFor").iter();
        Claim {
            uid: raw.metadata.uid.clone().unwrap_or_default(),
            owner: controller_of(&raw.metadata)
                .map(|owner| owner.uid.clone())
                .unwrap_or_default(),
            is_deleting: raw.metadata.deletion_timestamp.is_some(),
            allocated: raw.status.get("allocation").map(|allocation| {
                let nodes = allocation.get("nodeSelector")?;
                Some(node_terms(nodes))
            }),
            classes,
            reserved: reserved.map(|user| user.str("uid").into()).collect(),
        }
    }
}

impl Claim {
    /// Whether it is allocated.
    pub fn is_allocated(&self) -> bool {
        self.allocated.is_some()
    }

    fn is_for(&self, pod: &Pod) -> bool {
        self.reserved.iter().any(|uid| uid == pod.uid())
    }
}

/// ResourceClaims and device classes.
#[derive(Default)]
pub struct Devices {
    /// The claims.
    pub claims: HashMap<Key, Claim, Quick>,
    /// The names of the classes.
    pub classes: HashSet<CompactString, Quick>,
}

impl Devices {
    /// Which of a pod's claims is missing, in upstream's words: until it exists, the pod is not scheduled.
    pub fn missing(&self, pod: &Pod) -> Option<String> {
        pod.device_claims.iter().find_map(|named| {
            let Key { namespace, name } = &pod.key;
            let Some(claim) = &named.claim else {
                return Some(format!(
                    "pod \"{namespace}/{name}\": ResourceClaim not created yet"
                ));
            };
            match self.get(pod, named) {
                None => Some(format!("resourceclaim.resource.k8s.io {claim:?} not found")),
                Some((_, found)) if found.is_deleting => {
                    Some(format!("resourceclaim {claim:?} is being deleted"))
                }
                Some((_, found)) if named.is_own && found.owner != pod.uid() => Some(format!(
                    "ResourceClaim {namespace}/{claim} was not created for Pod {namespace}/{name} (Pod is not owner)"
                )),
                Some(_) => None,
            }
        })
    }

    fn get(&self, pod: &Pod, named: &Named) -> Option<(Key, &Claim)> {
        let key = Key::new(&pod.key.namespace, named.claim.as_ref()?);
        let claim = self.claims.get(&key)?;
        Some((key, claim))
    }

    fn of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (Key, &'a Claim)> {
        let named = pod.device_claims.iter();
        named.filter_map(|named| self.get(pod, named))
    }

    /// Whether some node may be suitable.
    ///
    /// # Errors
    /// Why none is.
    pub fn check(&self, pod: &Pod) -> Result<(), Rejection> {
        let never = |why: String| Rejection::never(Plugin::DynamicResources, why);
        if let Some(why) = self.missing(pod) {
            return Err(never(why));
        }
        for (_, claim) in self.of(pod) {
            if claim.is_allocated() {
                if claim.reserved.len() >= SHARERS && !claim.is_for(pod) {
                    return Err(never("resourceclaim in use".to_owned()));
                }
                continue;
            }
            let missing = |(class, _): &&(CompactString, _)| !self.classes.contains(class);
            if let Some((class, request)) = claim.classes.iter().find(missing) {
                return Err(never(format!(
                    "request {request}: device class {class} does not exist"
                )));
            }
        }
        Ok(())
    }

    /// Whether the devices of a pod's claims are available on a node.
    ///
    /// # Errors
    /// Why not.
    pub fn check_node(&self, pod: &Pod, node: &Node) -> Result<(), Rejection> {
        let never = |why: &'static str| Rejection::never(Plugin::DynamicResources, why);
        if self.of(pod).any(|(_, claim)| !claim.is_allocated()) {
            return Err(never("cannot allocate all claims"));
        }
        let is_here = |claim: &Claim| match &claim.allocated {
            Some(Some(terms)) => any_holds(terms, &node.name, &node.labels),
            _ => true,
        };
        if !self.of(pod).all(|(_, claim)| is_here(claim)) {
            return Err(never("resourceclaim not available on the node"));
        }
        Ok(())
    }

    /// The claims of a pod that must still be reserved for it, with their uids.
    pub fn to_reserve(&self, pod: &Pod) -> Vec<(Key, String)> {
        let unreserved = self.of(pod).filter(|(_, claim)| !claim.is_for(pod));
        unreserved
            .map(|(key, claim)| (key, claim.uid.clone()))
            .collect()
    }

    /// The claims of a pod that are allocated and can be reserved, with their uids.
    pub fn allocated(&self, pod: &Pod) -> Vec<(Key, String)> {
        let allocated = self.of(pod).filter(|(_, claim)| claim.is_allocated());
        allocated
            .map(|(key, claim)| (key, claim.uid.clone()))
            .collect()
    }
}
