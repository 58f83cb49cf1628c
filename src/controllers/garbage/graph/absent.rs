//! Owners that are not there, or not under the name by which they were referred to.

use super::seen::{Identity, Seen};
use super::{Graph, Node, Uid, Work, is_reachable};

/// An object with a reference to an object of another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The object.
    pub dependent: Identity,
    /// What its reference refers to, if it were in the namespace of the object.
    pub owner: Identity,
}

/// How many absent owners are remembered.
const MOST_ABSENT: usize = 500;

impl Graph {
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
}

/// What to tell if a dependent refers to an object that is known to be in another namespace.
pub(super) fn misplaced(dependent: &Node, owner: &Identity) -> Option<Work> {
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
pub(super) fn names(dependent: &Node, owner: &Identity) -> bool {
    is_reachable(owner, &dependent.identity.namespace)
        && dependent
            .owners
            .iter()
            .any(|reference| reference.means(owner))
}
