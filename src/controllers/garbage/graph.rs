//! The ownership graph. Follows k8s.io/kubernetes/pkg/controller/garbagecollector/{graph,graph_builder}.go.
//!
//! There is a node for each object that has owners, is owned, or waits for its dependents; other objects have none. An
//! owner that is only known from a dependent's reference is *virtual*: whether it exists is not known yet.

mod absent;
mod seen;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use self::absent::{misplaced, names};

pub use self::absent::Misplaced;
pub use self::seen::{Identity, Owner, Seen};

/// An object's uid.
pub type Uid = Arc<str>;

/// The finalizer of an object whose dependents must be orphaned.
pub const ORPHAN: &str = "orphan";
/// The finalizer of an object that is deleted after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";

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
