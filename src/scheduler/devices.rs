//! DynamicResources: the claims of pods to devices. Claims that somebody has allocated are heeded and reserved; nothing
//! here allocates devices, so that other claims wait as where no driver offers any. Follows
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
    /// A claim as the API tells it.
    RawClaim of resource::ResourceClaim {
        /// What it asks for.
        spec: Value,
        /// What it got.
        status: Value,
    }
);

crate::slim!(
    /// A class of devices.
    RawClass of resource::DeviceClass {}
);

/// A claim that a pod names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The claim's name; none where it is still to be made from a template.
    pub claim: Option<CompactString>,
    /// Whether it is to be the pod's own.
    pub is_own: bool,
}

/// The claims that a pod names; without those that its status says it needs not.
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

/// A claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Tells it apart from another of the same name.
    uid: String,
    /// The uid of what it was made for; empty where it was made by hand.
    owner: String,
    is_deleting: bool,
    /// Where its devices can be used, once it has some.
    allocated: Option<Allocated>,
    /// Each class that it asks for, with the name of the request.
    classes: Vec<(CompactString, CompactString)>,
    /// The uids of those who may use it.
    reserved: Vec<CompactString>,
}

/// The nodes on which devices can be used; none for all.
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
    /// Whether it has devices.
    pub fn is_allocated(&self) -> bool {
        self.allocated.is_some()
    }

    fn is_for(&self, pod: &Pod) -> bool {
        self.reserved.iter().any(|uid| uid == pod.uid())
    }
}

/// Claims to devices, and the classes of devices.
#[derive(Default)]
pub struct Devices {
    /// Claims.
    pub claims: HashMap<Key, Claim, Quick>,
    /// Names of classes.
    pub classes: HashSet<CompactString, Quick>,
}

impl Devices {
    /// Which of a pod's claims is not there, in upstream's words: the pod is not looked at before it is.
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

    /// Whether any node can do.
    ///
    /// # Errors
    /// Why none can.
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

    /// Whether a node has the devices of a pod's claims.
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

    /// The claims of a pod that are still to be reserved for it, with their uids.
    pub fn to_reserve(&self, pod: &Pod) -> Vec<(Key, String)> {
        let unreserved = self.of(pod).filter(|(_, claim)| !claim.is_for(pod));
        unreserved
            .map(|(key, claim)| (key, claim.uid.clone()))
            .collect()
    }

    /// The claims of a pod that can be reserved for it by now, with their uids.
    pub fn allocated(&self, pod: &Pod) -> Vec<(Key, String)> {
        let allocated = self.of(pod).filter(|(_, claim)| claim.is_allocated());
        allocated
            .map(|(key, claim)| (key, claim.uid.clone()))
            .collect()
    }
}
