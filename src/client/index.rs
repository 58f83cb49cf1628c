//! Indexes of cached objects by something other than their name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use compact_str::CompactString;
use parking_lot::RwLock;

use super::informer::{Cached, Informer, Key};

/// The objects of a cache by a value computed from each. Cheap to clone.
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
    /// An index of a cache; `values` returns the values under which an object is found: one (or none), or many.
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

    /// The keys of the objects under a value, in order.
    pub fn keys(&self, value: &str) -> Vec<Key> {
        let keys = self.keys.read();
        keys.get(value).into_iter().flatten().cloned().collect()
    }

    /// The objects under a value, ordered by namespace and name.
    pub fn get(&self, value: &str) -> Vec<Arc<P>> {
        let keys = self.keys(value);
        keys.iter()
            .filter_map(|key| self.cache.get(&key.namespace, &key.name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    crate::slim!(
        /// A test object.
        Thing of ConfigMap {
            /// The values under which it is found.
            data: std::collections::BTreeMap<String, String>,
        }
    );

    fn thing(name: &str, version: u32, values: &[&str]) -> Thing {
        let data: Vec<String> = values
            .iter()
            .map(|value| format!(r#""{value}":"""#))
            .collect();
        let text = format!(
            r#"{{"metadata":{{"namespace":"n","name":"{name}","resourceVersion":"{version}"}},"data":{{{}}}}}"#,
            data.join(",")
        );
        serde_json::from_str(&text).expect("a thing")
    }

    #[test]
    fn objects_are_found_under_each_of_their_values_as_they_are_now() {
        let cache = Informer::<Thing>::by_hand();
        cache.put(thing("a", 1, &["x", "y"]));
        let index = Index::of(&cache, |thing| -> Vec<CompactString> {
            thing.data.keys().map(Into::into).collect()
        });
        let found = |value: &str| -> Vec<String> {
            let found = index.get(value).into_iter();
            found
                .filter_map(|thing| thing.metadata.name.clone())
                .collect()
        };
        cache.put(thing("b", 2, &["y"]));
        assert_eq!(
            (found("x"), found("y")),
            (vec!["a".into()], vec!["a".into(), "b".into()])
        );
        cache.put(thing("a", 3, &["z", "y"]));
        assert_eq!((found("x"), found("z")), (vec![], vec!["a".into()]));
        assert_eq!(found("y"), ["a", "b"]);
        cache.drop(&Key::new("n", "a"));
        assert_eq!((found("y"), found("z")), (vec!["b".into()], vec![]));
        cache.put(thing("b", 4, &[]));
        assert!(
            index.keys.read().is_empty(),
            "nothing is kept under nothing"
        );
    }
}
