//! A cache of decoded objects. Rules and admission read the same few on every write: the namespace, its default service
//! account, the priority classes.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

use super::cluster;
use crate::schema::Value;
use crate::store::Entry;

/// The number of cached objects; together with [`LARGEST`] it limits memory.
const SLOTS: usize = 128;

/// The largest body that is cached, in bytes.
const LARGEST: usize = 8 << 10;

struct Kept {
    entry: Arc<Entry>,
    object: Arc<Value>,
}

/// A direct-mapped cache: each key has one slot, which holds the last object read.
pub struct Decoded {
    hasher: RandomState,
    slots: [Mutex<Option<Kept>>; SLOTS],
}

impl Default for Decoded {
    fn default() -> Self {
        Decoded {
            hasher: RandomState::default(),
            slots: [const { Mutex::new(None) }; SLOTS],
        }
    }
}

impl Decoded {
    /// Decodes a stored entry to the storage version, with resourceVersion.
    pub fn object(&self, entry: &Arc<Entry>) -> Arc<Value> {
        if entry.record.body.len() > LARGEST {
            return Arc::new(cluster::object(entry));
        }
        let slot = &self.slots[self.hasher.hash_one(&*entry.key) as usize % SLOTS];
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(kept) if Arc::ptr_eq(&kept.entry, entry) => kept.object.clone(),
            _ => {
                let object = Arc::new(cluster::object(entry));
                *slot = Some(Kept {
                    entry: entry.clone(),
                    object: object.clone(),
                });
                object
            }
        }
    }
}
