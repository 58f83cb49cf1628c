//! Views: values derived from some resources of the store (RBAC rules, the pods of a node), updated from the
//! changes since their last use.
//!
//! A view is a persistent value: using it costs a few pointer comparisons if nothing has changed, else work in
//! proportion to the changed entries. It always shows exactly the [`World`] it was asked for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::{Entry, ResourcePrefix, World};

type Objects = OrdMap<Arc<str>, Arc<Entry>>;

/// A value derived from the objects of some resources. `Default` is its value for an empty store; `Clone` must be
/// cheap (persistent maps).
pub trait Derived: Default + Clone + Send + Sync + 'static {
    /// Applies one change of the resource at index `resource` of [`View::new`]'s list. At least one of `old` and `new`
    /// is set.
    fn apply(&mut self, resource: usize, old: Option<&Entry>, new: Option<&Entry>);
}

/// A derived value and the world from which it was derived.
pub struct View<T> {
    resources: Vec<ResourcePrefix>,
    state: ArcSwap<State<T>>,
}

struct State<T> {
    objects: Vec<Objects>,
    value: Arc<T>,
}

impl<T: Derived> View<T> {
    /// A view of the objects under `resources`.
    pub fn new(resources: Vec<ResourcePrefix>) -> Self {
        let objects = resources.iter().map(|_| Objects::new()).collect();
        View {
            resources,
            state: ArcSwap::from_pointee(State {
                objects,
                value: Arc::new(T::default()),
            }),
        }
    }

    /// The value for `world`.
    pub fn of(&self, world: &World) -> Arc<T> {
        let state = self.state.load();
        let empty = Objects::new();
        let now = |i: usize| world.objects(&self.resources[i]).unwrap_or(&empty);
        let changed: Vec<usize> = (0..self.resources.len())
            .filter(|&i| !state.objects[i].ptr_eq(now(i)))
            .collect();
        if changed.is_empty() {
            return state.value.clone();
        }
        let mut value = T::clone(&state.value);
        let mut objects = state.objects.clone();
        for i in changed {
            for item in state.objects[i].diff(now(i)) {
                match item {
                    DiffItem::Add(_, new) => value.apply(i, None, Some(new)),
                    DiffItem::Remove(_, old) => value.apply(i, Some(old), None),
                    DiffItem::Update { old, new } => value.apply(i, Some(old.1), Some(new.1)),
                }
            }
            objects[i] = now(i).clone();
        }
        let value = Arc::new(value);
        // Two readers may derive at once, even from different worlds: each gets its own result, and either one is
        // a good start for the next.
        self.state.store(Arc::new(State {
            objects,
            value: value.clone(),
        }));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Expect, Record, Store, memory};
    use super::*;

    /// The keys that a view has seen.
    #[derive(Clone, Default)]
    struct Keys(imbl::OrdMap<(usize, Arc<str>), u64>);

    impl Derived for Keys {
        fn apply(&mut self, resource: usize, old: Option<&Entry>, new: Option<&Entry>) {
            if let Some(old) = old {
                assert_eq!(self.0.remove(&(resource, old.key.clone())), Some(old.rev));
            }
            if let Some(new) = new {
                assert_eq!(self.0.insert((resource, new.key.clone()), new.rev), None);
            }
        }
    }

    async fn write(store: &Arc<dyn Store>, key: &str, put: bool) {
        let expect = match store.head(key) {
            Some(entry) => Expect::Revision(entry.rev),
            None => Expect::Absent,
        };
        let resource = &key[..key[10..].find('/').unwrap() + 11];
        store
            .commit(vec![Change {
                resource: resource.into(),
                key: key.into(),
                expect,
                put: put.then(Record::default),
                ttl: None,
            }])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_view_shows_each_world_exactly() {
        let store = memory();
        let view: View<Keys> = View::new(vec!["/registry/a/".into(), "/registry/b/".into()]);
        let seen = |view: &View<Keys>| {
            let keys = view.of(&store.world());
            keys.0
                .keys()
                .map(|(i, key)| format!("{i}{key}"))
                .collect::<Vec<_>>()
        };
        assert!(seen(&view).is_empty());
        write(&store, "/registry/a/x", true).await;
        write(&store, "/registry/c/x", true).await;
        assert_eq!(seen(&view), ["0/registry/a/x"]);
        let (before, old) = (store.world(), view.of(&store.world()));
        assert!(
            Arc::ptr_eq(&old, &view.of(&store.world())),
            "nothing changed"
        );
        write(&store, "/registry/a/x", true).await;
        write(&store, "/registry/b/y", true).await;
        write(&store, "/registry/b/z", true).await;
        write(&store, "/registry/b/y", false).await;
        assert_eq!(seen(&view), ["0/registry/a/x", "1/registry/b/z"]);
        assert_eq!(
            view.of(&before).0,
            old.0,
            "an older world is shown as it was"
        );
        write(&store, "/registry/a/x", false).await;
        assert_eq!(seen(&view), ["1/registry/b/z"]);
    }
}
