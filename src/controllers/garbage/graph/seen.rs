//! What the graph is told about objects.

use compact_str::CompactString;
use kube::ResourceExt as _;

use super::{FOREGROUND, ORPHAN, Uid};
use crate::client::discovery::Bare;

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

    pub(super) fn means(&self, identity: &Identity) -> bool {
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
