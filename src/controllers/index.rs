//! Where objects of a cache are found by something else than their name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use compact_str::CompactString;
use parking_lot::RwLock;

use super::informer::{Cached, Informer, Key};

/// The objects of a cache by one value of each. Cheap to clone.
pub struct Index<P> {
    cache: Informer<P>,
    keys: Arc<RwLock<HashMap<CompactString, BTreeSet<Key>>>>,
}

impl<P> Clone for Index<P> {
    fn clone(&self) -> Self {
        Index {
            cache: self.cache.clone(),
            keys: self.keys.clone(),
        }
    }
}

impl<P: Cached> Index<P> {
    /// An index of a cache; `values` says under what an object is found: one value (or none), or many.
    pub fn of<I>(cache: &Informer<P>, values: fn(&P) -> I) -> Index<P>
    where
        I: IntoIterator<Item = CompactString> + PartialEq + 'static,
    {
        let index = Index {
            cache: cache.clone(),
            keys: Arc::default(),
        };
        let keys = index.keys.clone();
        cache.subscribe(move |change| {
            let before = change.old.map(|object| values(object));
            let after = change.new.map(|object| values(object));
            if before == after {
                return;
            }
            let mut keys = keys.write();
            for value in before.into_iter().flatten() {
                if let Some(there) = keys.get_mut(&value) {
                    there.remove(change.key);
                    if there.is_empty() {
                        keys.remove(&value);
                    }
                }
            }
            for value in after.into_iter().flatten() {
                keys.entry(value).or_default().insert(change.key.clone());
            }
        });
        index
    }

    /// The keys of what is found under a value, in order.
    pub fn keys(&self, value: &str) -> Vec<Key> {
        let keys = self.keys.read();
        keys.get(value).into_iter().flatten().cloned().collect()
    }

    /// What is found under a value, ordered by namespace and name.
    pub fn get(&self, value: &str) -> Vec<Arc<P>> {
        let keys = self.keys(value);
        keys.iter()
            .filter_map(|key| self.cache.get(&key.namespace, &key.name))
            .collect()
    }
}
