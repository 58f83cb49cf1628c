//! The ownership graph. Follows k8s.io/kubernetes/pkg/controller/garbagecollector/{graph,graph_builder}.go.
//!
//! There is a node for each object that has owners, is owned, or waits for its dependents; other objects have none. An
//! owner that is only known from a dependent's reference is *virtual*: whether it exists is not known yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use compact_str::CompactString;
use kube::ResourceExt as _;

use crate::client::discovery::Bare;

/// An object's uid.
pub type Uid = Arc<str>;

/// The finalizer of an object whose dependents are to be orphaned.
pub const ORPHAN: &str = "orphan";
/// The finalizer of an object that is deleted after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Identifies an object: the content of an owner reference, and a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `apps/v1`
    pub api_version: CompactString,
    /// `ReplicaSet`
    pub kind: CompactString,
    /// Empty for cluster-scoped objects.
    pub namespace: CompactString,
    /// Its name.
    pub name: CompactString,
    /// Its uid.
    pub uid: Uid,
}

/// An owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `apps/v1`
    pub api_version: CompactString,
    /// `ReplicaSet`
    pub kind: CompactString,
    /// Its name.
    pub name: CompactString,
    /// Its uid.
    pub uid: Uid,
    /// `blockOwnerDeletion`: an owner that waits for its dependents must wait for this one.
    pub blocks: bool,
}

impl Owner {
    /// The object that the reference refers to from a namespace.
    pub fn identity(&self, namespace: &str) -> Identity {
        Identity {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: namespace.into(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    fn means(&self, identity: &Identity) -> bool {
        self.uid == identity.uid
            && self.name == identity.name
            && self.kind == identity.kind
            && self.api_version == identity.api_version
    }
}

/// The state of an object that the graph needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its identity.
    pub identity: Identity,
    /// Its owners.
    pub owners: Vec<Owner>,
    /// It is being deleted.
    pub deleting: bool,
    /// It has the finalizer [`ORPHAN`].
    pub orphans: bool,
    /// It has the finalizer [`FOREGROUND`].
    pub waits: bool,
}

impl Seen {
    /// Extracts the state from an object.
    pub fn of(object: &Bare, api_version: &str, kind: &str) -> Seen {
        let meta = &object.metadata;
        let has = |finalizer: &str| {
            meta.finalizers
                .iter()
                .flatten()
                .any(|known| known == finalizer)
        };
        let owners = object.owner_references().iter().map(|owner| Owner {
            api_version: owner.api_version.as_str().into(),
            kind: owner.kind.as_str().into(),
            name: owner.name.as_str().into(),
            uid: owner.uid.as_str().into(),
            blocks: owner.block_owner_deletion == Some(true),
        });
        Seen {
            identity: Identity {
                api_version: api_version.into(),
                kind: kind.into(),
                namespace: meta.namespace.as_deref().unwrap_or_default().into(),
                name: meta.name.as_deref().unwrap_or_default().into(),
                uid: meta.uid.as_deref().unwrap_or_default().into(),
            },
            owners: owners.collect(),
            deleting: meta.deletion_timestamp.is_some(),
            orphans: has(ORPHAN),
            waits: has(FOREGROUND),
        }
    }
}

/// What to do after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find out whether it has to be deleted.
    Delete(Uid),
    /// Orphan its dependents.
    Orphan(Uid),
    /// Tell the author of an object that its reference can never be right.
    Tell(Box<Misplaced>),
}

/// An object with a reference to an object of another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The object.
    pub dependent: Identity,
    /// What its reference refers to, if it were in the namespace of the object.
    pub owner: Identity,
}

#[derive(Clone, Debug)]
struct Node {
    identity: Identity,
    owners: Vec<Owner>,
    dependents: BTreeSet<Uid>,
    /// It was seen in a watch or read from the API.
    observed: bool,
    deleting: bool,
    orphaning: bool,
    waiting: bool,
    /// Distinguishes successive nodes with the same uid.
    serial: u64,
}

/// The state of a node that a worker needs.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its identity.
    pub identity: Identity,
    /// It was seen in a watch or read from the API.
    pub observed: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It waits for its dependents.
    pub waiting: bool,
    /// Its dependents.
    pub dependents: Vec<Identity>,
    /// The dependents that block its deletion, and whether each waits for its own dependents.
    pub blocking: Vec<(Uid, bool)>,
    /// Whether a dependent waits for its own dependents.
    pub dependent_waits: bool,
    /// To be passed to [`Graph::confirm`].
    pub serial: u64,
}

/// How many absent owners are remembered.
const MOST_ABSENT: usize = 500;

/// The ownership graph.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    absent: VecDeque<Identity>,
    serial: u64,
}

impl Graph {
    /// Adds or updates an object.
    pub fn saw(&mut self, seen: Seen) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = seen.identity.uid.clone();
        let holds = seen.deleting && (seen.orphans || seen.waits);
        let Some(node) = self.nodes.get_mut(&uid) else {
            if !seen.owners.is_empty() || holds {
                self.insert(&seen.identity, true);
                self.set_owners(&uid, &seen.owners);
                self.own(&uid, &seen.owners, &mut work);
                self.transitions(&seen, &mut work);
            }
            return work;
        };
        if !node.observed {
            node.observed = true;
            if node.identity != seen.identity {
                node.identity = seen.identity.clone();
                // It does not own dependents that refer to it by another identity after all.
                let dependents: Vec<Uid> = node.dependents.iter().cloned().collect();
                let dependents = dependents.iter().filter_map(|uid| self.nodes.get(uid));
                for wrong in dependents.filter(|dependent| !names(dependent, &seen.identity)) {
                    work.extend(misplaced(wrong, &seen.identity));
                    work.push(Work::Delete(wrong.identity.uid.clone()));
                }
            }
        }
        let old = self
            .nodes
            .get(&uid)
            .map(|node| node.owners.clone())
            .unwrap_or_default();
        if old != seen.owners {
            let same = |a: &Owner, list: &[Owner]| list.iter().any(|b| a.uid == b.uid);
            for owner in &old {
                let new = seen.owners.iter().find(|new| new.uid == owner.uid);
                if owner.blocks && new.is_none_or(|new| !new.blocks) {
                    work.push(Work::Delete(owner.uid.clone()));
                }
            }
            let added: Vec<Owner> = seen
                .owners
                .iter()
                .filter(|owner| !same(owner, &old))
                .cloned()
                .collect();
            let removed = old.iter().filter(|owner| !same(owner, &seen.owners));
            for owner in removed {
                self.disown(&uid, &owner.uid);
            }
            self.set_owners(&uid, &seen.owners);
            self.own(&uid, &added, &mut work);
        }
        self.transitions(&seen, &mut work);
        self.drop_if_alone(&uid);
        work.retain(|work| match work {
            Work::Delete(uid) | Work::Orphan(uid) => self.nodes.contains_key(uid),
            Work::Tell(_) => true,
        });
        work
    }

    /// Removes an object after a watch reported its deletion.
    pub fn gone(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = Vec::new();
        if !node.dependents.is_empty() {
            self.remember_absent(node.identity.clone());
        }
        work.extend(node.dependents.iter().cloned().map(Work::Delete));
        for owner in &node.owners {
            if self
                .nodes
                .get(&owner.uid)
                .is_some_and(|owner| owner.waiting)
            {
                work.push(Work::Delete(owner.uid.clone()));
            }
            self.disown(&node.identity.uid, &owner.uid);
        }
        work
    }

    /// Removes an object that the API says does not exist. Also returns whether to retry it with a delay, because other
    /// dependents refer to its uid by another identity: as long as two identities exist, they alternate, so each turn
    /// should cost more than the last.
    pub fn missing(&mut self, identity: &Identity) -> (Vec<Work>, bool) {
        let Some(node) = self.nodes.get(&identity.uid) else {
            return (Vec::new(), false);
        };
        let disagrees = node.observed && node.identity != *identity;
        let (meant, others): (Vec<Uid>, Vec<Uid>) =
            node.dependents.iter().cloned().partition(|dependent| {
                self.nodes
                    .get(dependent)
                    .is_some_and(|dependent| names(dependent, identity))
            });
        if !disagrees && (node.observed || others.is_empty()) {
            return (self.gone(&identity.uid), false);
        }
        let mut work = Vec::new();
        if !meant.is_empty() {
            self.remember_absent(identity.clone());
            work.extend(meant.into_iter().map(Work::Delete));
        }
        // Some dependents refer to another object with this uid: that one is looked up next.
        let current = self.nodes.get(&identity.uid).filter(|node| !node.observed);
        let mut elsewhere = false;
        if current.is_some_and(|node| node.identity == *identity)
            && let Some(other) = self.other_name(&others, identity)
            && let Some(node) = self.nodes.get_mut(&identity.uid)
        {
            node.identity = other;
            elsewhere = true;
        }
        (work, elsewhere)
    }

    /// Another identity by which dependents refer to an owner: the next one in a circular order.
    fn other_name(&self, dependents: &[Uid], identity: &Identity) -> Option<Identity> {
        let order = |identity: &Identity| {
            (
                identity.kind.clone(),
                identity.api_version.clone(),
                identity.namespace.clone(),
                identity.name.clone(),
            )
        };
        let mut others: Vec<Identity> = dependents
            .iter()
            .filter_map(|dependent| self.nodes.get(dependent))
            .filter_map(|dependent| {
                let owner = dependent
                    .owners
                    .iter()
                    .find(|owner| owner.uid == identity.uid)?;
                Some(owner.identity(&dependent.identity.namespace))
            })
            .collect();
        others.sort_by_key(order);
        let next = others.iter().find(|other| order(other) > order(identity));
        next.or(others.first()).cloned()
    }

    /// Updates a virtual node with its state in the API, unless the node has changed since `serial` was read.
    pub fn confirm(&mut self, seen: Seen, serial: u64) -> Vec<Work> {
        match self.nodes.get(&seen.identity.uid) {
            Some(node) if !node.observed && node.serial == serial => self.saw(seen),
            _ => Vec::new(),
        }
    }

    /// Applies a new list of a watch: all objects of a kind that exist.
    pub fn listed(
        &mut self,
        api_version: &str,
        kind: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> Vec<Work> {
        let gone: Vec<Uid> = self
            .nodes
            .values()
            .filter(|node| {
                node.observed
                    && node.identity.api_version == api_version
                    && node.identity.kind == kind
                    && !is_there(&node.identity.uid)
            })
            .map(|node| node.identity.uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.gone(uid)).collect()
    }

    /// The state of a node, if it exists.
    pub fn item(&self, uid: &str) -> Option<Item> {
        let node = self.nodes.get(uid)?;
        let dependents = || node.dependents.iter().filter_map(|uid| self.nodes.get(uid));
        Some(Item {
            identity: node.identity.clone(),
            observed: node.observed,
            deleting: node.deleting,
            waiting: node.waiting,
            dependents: dependents().map(|node| node.identity.clone()).collect(),
            blocking: dependents()
                .filter(|dependent| {
                    let mut owners = dependent.owners.iter();
                    owners.any(|owner| owner.blocks && *owner.uid == *uid)
                })
                .map(|dependent| (dependent.identity.uid.clone(), dependent.waiting))
                .collect(),
            dependent_waits: dependents().any(|dependent| dependent.waiting),
            serial: node.serial,
        })
    }

    /// Whether an object is known not to exist.
    pub fn is_absent(&self, identity: &Identity) -> bool {
        self.absent.contains(identity)
    }

    /// Remembers that an object does not exist. Uids are never reused.
    pub fn remember_absent(&mut self, identity: Identity) {
        if self.is_absent(&identity) {
            return;
        }
        if self.absent.len() == MOST_ABSENT {
            self.absent.pop_front();
        }
        self.absent.push_back(identity);
    }

    fn insert(&mut self, identity: &Identity, observed: bool) {
        self.serial += 1;
        let node = Node {
            identity: identity.clone(),
            owners: Vec::new(),
            dependents: BTreeSet::new(),
            observed,
            deleting: false,
            orphaning: false,
            waiting: false,
            serial: self.serial,
        };
        self.nodes.insert(identity.uid.clone(), node);
    }

    fn set_owners(&mut self, uid: &Uid, owners: &[Owner]) {
        if let Some(node) = self.nodes.get_mut(uid) {
            node.owners = owners.to_vec();
        }
    }

    /// Adds owners to a node.
    fn own(&mut self, uid: &Uid, owners: &[Owner], work: &mut Vec<Work>) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        let (dependent, namespace) = (node.clone(), node.identity.namespace.clone());
        let mut doubtful = false;
        for owner in owners {
            if !self.nodes.contains_key(&owner.uid) {
                self.insert(&owner.identity(&namespace), false);
                work.push(Work::Delete(owner.uid.clone()));
            }
            let Some(found) = self.nodes.get_mut(&owner.uid) else {
                continue;
            };
            found.dependents.insert(uid.clone());
            if !doubtful && found.observed {
                work.extend(misplaced(&dependent, &found.identity));
            }
            // A virtual owner without namespace was found in a cluster-scoped object, which may be wrong about it.
            let elsewhere = found.identity.namespace.is_empty() && !namespace.is_empty();
            doubtful |= !is_reachable(&found.identity, &namespace)
                || !owner.means(&found.identity)
                || (elsewhere && !found.observed);
        }
        if doubtful {
            work.push(Work::Delete(uid.clone()));
        }
    }

    fn disown(&mut self, uid: &str, owner: &Uid) {
        if let Some(owner) = self.nodes.get_mut(owner) {
            owner.dependents.remove(uid);
        }
        self.drop_if_alone(owner);
    }

    /// The work that a deletion starts.
    fn transitions(&mut self, seen: &Seen, work: &mut Vec<Work>) {
        let uid = &seen.identity.uid;
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        node.deleting |= seen.deleting;
        let orphaning = seen.deleting && seen.orphans;
        if orphaning && !node.orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        node.orphaning = orphaning;
        if seen.deleting && seen.waits && !node.waiting {
            node.waiting = true;
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
            work.push(Work::Delete(uid.clone()));
        }
    }

    /// Removes a node without owners and dependents.
    fn drop_if_alone(&mut self, uid: &Uid) {
        if self.nodes.get(uid).is_some_and(|node| {
            node.owners.is_empty() && node.dependents.is_empty() && !node.waiting && !node.orphaning
        }) {
            self.nodes.remove(uid);
        }
    }

    /// The number of nodes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Whether an owner can own objects in `namespace`, given its own namespace.
fn is_reachable(owner: &Identity, namespace: &str) -> bool {
    owner.namespace.is_empty() || owner.namespace == namespace
}

/// What to tell if a dependent refers to an object that is known to be in another namespace.
fn misplaced(dependent: &Node, owner: &Identity) -> Option<Work> {
    let namespace = &dependent.identity.namespace;
    let mut references = dependent.owners.iter();
    let reference = references.find(|reference| reference.uid == owner.uid)?;
    (!is_reachable(owner, namespace)).then(|| {
        Work::Tell(Box::new(Misplaced {
            dependent: dependent.identity.clone(),
            owner: reference.identity(namespace),
        }))
    })
}

/// Whether a dependent has a reference to exactly this object.
fn names(dependent: &Node, owner: &Identity) -> bool {
    is_reachable(owner, &dependent.identity.namespace)
        && dependent
            .owners
            .iter()
            .any(|reference| reference.means(owner))
}
