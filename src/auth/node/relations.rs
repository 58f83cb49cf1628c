//! Relations between nodes and objects: through pods bound to the node, and through objects that name a node.

use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use imbl::{HashMap, OrdMap, OrdSet};

use super::references::{Reference, is_mirror, pod_references, volume_references};
use crate::resources::cluster::object;
use crate::schema::Value;
use crate::store::Entry;
use crate::store::view::Derived;

/// The resources from which relations are derived, in the order used by [`Relations::apply`].
pub(super) const RESOURCES: [&str; 5] = [
    "/registry/pods/",
    "/registry/persistentvolumes/",
    "/registry/volumeattachments/",
    "/registry/resourceslices/",
    "/registry/podcertificaterequests/",
];

/// An object: its kind and `namespace/name`.
type Object = (Reference, CompactString);

/// The relations between nodes and objects. Cheap to clone.
#[derive(Clone, Default)]
pub struct Relations {
    /// The relations due to each pod (by its key in the store), to be removed when it changes.
    pods: HashMap<Arc<str>, Arc<Tie>>,
    /// The number of relations between an object and each node.
    nodes: HashMap<Object, OrdMap<CompactString, u32>>,
    /// The claim of each bound volume, by the volume's name.
    claims: HashMap<CompactString, CompactString>,
    /// The volumes that need a secret.
    secrets: HashMap<CompactString, OrdSet<CompactString>>,
}

#[derive(Debug, PartialEq)]
struct Tie {
    node: CompactString,
    objects: Vec<Object>,
}

impl Tie {
    fn of(pod: &Value) -> Option<Tie> {
        let node = pod.at("spec").str("nodeName");
        if node.is_empty() {
            return None;
        }
        let meta = pod.at("metadata");
        let namespace = meta.str("namespace");
        let own = (
            Reference::Pod,
            format_compact!("{namespace}/{}", meta.str("name")),
        );
        let mut objects = vec![own];
        // Nodes create mirror pods themselves: these give them no access.
        if !is_mirror(pod) {
            objects.extend(
                pod_references(pod)
                    .into_iter()
                    .map(|(kind, name)| (kind, format_compact!("{namespace}/{name}"))),
            );
        }
        Some(Tie {
            node: node.into(),
            objects,
        })
    }
}

/// The relation due to an object that names a node.
fn direct(resource: usize, entry: &Entry) -> Option<(Object, CompactString)> {
    let object = object(entry);
    let kind = match resource {
        2 => Reference::Attachment,
        3 => Reference::Slice,
        _ => Reference::CertificateRequest,
    };
    let node = object.at("spec").str("nodeName");
    let meta = object.at("metadata");
    (!node.is_empty()).then(|| {
        let name = format_compact!("{}/{}", meta.str("namespace"), meta.str("name"));
        ((kind, name), node.into())
    })
}

impl Derived for Relations {
    fn apply(&mut self, resource: usize, old: Option<&Entry>, new: Option<&Entry>) {
        match resource {
            0 => self.pod(old, new),
            1 => {
                if let Some(old) = old {
                    self.forget_volume(&object(old));
                }
                if let Some(new) = new {
                    self.learn_volume(&object(new));
                }
            }
            _ => {
                if let Some((object, node)) = old.and_then(|old| direct(resource, old)) {
                    self.untie(&object, &node);
                }
                if let Some((object, node)) = new.and_then(|new| direct(resource, new)) {
                    self.tie(object, &node);
                }
            }
        }
    }
}

impl Relations {
    fn pod(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(key) = old.or(new).map(|entry| entry.key.clone()) else {
            return;
        };
        let before = self.pods.get(&key).cloned();
        let after = new.and_then(|new| Tie::of(&object(new))).map(Arc::new);
        if before == after {
            return;
        }
        if let Some(before) = before {
            for object in &before.objects {
                self.untie(object, &before.node);
            }
            self.pods.remove(&key);
        }
        if let Some(after) = after {
            for object in &after.objects {
                self.tie(object.clone(), &after.node);
            }
            self.pods.insert(key, after);
        }
    }

    fn tie(&mut self, object: Object, node: &CompactString) {
        *self
            .nodes
            .entry(object)
            .or_default()
            .entry(node.clone())
            .or_default() += 1;
    }

    fn untie(&mut self, object: &Object, node: &CompactString) {
        let Some(nodes) = self.nodes.get_mut(object) else {
            return;
        };
        match nodes.get_mut(node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.nodes.remove(object);
        }
    }

    fn learn_volume(&mut self, volume: &Value) {
        let name = CompactString::from(volume.at("metadata").str("name"));
        if let Some((claim, secrets)) = volume_references(volume) {
            for secret in secrets {
                self.secrets.entry(secret).or_default().insert(name.clone());
            }
            self.claims.insert(name, claim);
        }
    }

    fn forget_volume(&mut self, volume: &Value) {
        let name = volume.at("metadata").str("name");
        for secret in volume_references(volume).into_iter().flat_map(|(_, s)| s) {
            if let Some(volumes) = self.secrets.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.secrets.remove(&secret);
                }
            }
        }
        self.claims.remove(name);
    }

    /// Whether `node` is related to an object.
    pub fn has(&self, node: &str, kind: Reference, namespace: &str, name: &str) -> bool {
        let of_volume = |volume: &str| {
            self.claims
                .get(volume)
                .is_some_and(|claim| self.tied(node, &(Reference::Claim, claim.clone())))
        };
        let object = (kind, format_compact!("{namespace}/{name}"));
        match kind {
            Reference::Volume => of_volume(name),
            Reference::Secret => {
                self.tied(node, &object)
                    || self
                        .secrets
                        .get(&object.1)
                        .is_some_and(|volumes| volumes.iter().any(|volume| of_volume(volume)))
            }
            _ => self.tied(node, &object),
        }
    }

    fn tied(&self, node: &str, object: &Object) -> bool {
        self.nodes
            .get(object)
            .is_some_and(|nodes| nodes.contains_key(node))
    }
}
