//! Shared caches: one watch per kind, of each object only what controllers need, and notifications of changes. Follows
//! k8s.io/client-go/tools/cache (shared informers and listers).

mod informers;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use futures::Stream;
use kube::{Resource, ResourceExt as _};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follow::{Broken, Event, Told, record};
use super::queue::Queue;

pub use self::informers::Informers;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: CompactString,
    /// The name.
    pub name: CompactString,
}

impl Key {
    /// The key of a namespaced object, or of a cluster-scoped one if `namespace` is empty.
    pub fn new(namespace: &str, name: &str) -> Key {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// A kind as controllers cache it: the kind itself, or a type that reads only parts of it (see [`crate::slim!`]).
pub trait Cached:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// A field selector for the objects to cache; all if it is empty.
    const FIELDS: &'static str = "";
}

/// Declares a type that reads only parts of the objects of a kind.
///
/// `slim!(/// doc
/// Pod of k8s_openapi::api::core::v1::Pod { spec: PodSpec });`; with `where "FIELDS"` after the kind only the objects
/// that this field selector selects are cached.
#[macro_export]
macro_rules! slim {
    ($(#[$doc:meta])* $name:ident of $kind:ty $(where $fields:literal)? { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The object's metadata.
            #[serde(default, deserialize_with = "crate::client::discovery::lean")]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            $($(#[$field_doc])* #[serde(default)] pub $field: $type,)*
        }

        $crate::kind_of!($name of $kind);
        impl $crate::client::informer::Cached for $name {
            $(const FIELDS: &'static str = $fields;)?
        }
    };
}

/// Makes a type with a field `metadata` readable as objects of a kind: `kind_of!(Pod of v1::Pod);`
#[macro_export]
macro_rules! kind_of {
    ($name:ident of $kind:ty) => {
        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = <$kind as kube::Resource>::Scope;
            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::kind(&())
            }
            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::group(&())
            }
            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::version(&())
            }
            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::plural(&())
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// A change of an object as passed to handlers. At least one of `old` and `new` is set.
pub struct Change<'a, P> {
    /// Which object.
    pub key: &'a Key,
    /// The state before; None for a new object.
    pub old: Option<&'a Arc<P>>,
    /// The state after; None for a deleted object.
    pub new: Option<&'a Arc<P>>,
}

impl<'a, P> Change<'a, P> {
    /// Whether it alters `facts` of the object; creations and deletions always do. A handler that is not interested in
    /// every change compares what its decision reads, best the very value that the decision is made from: whatever it
    /// leaves out may change without anybody looking at it.
    pub fn alters<F: PartialEq>(&self, facts: impl Fn(&'a P) -> F) -> bool {
        self.old.map(|old| facts(old)) != self.new.map(|new| facts(new))
    }
}

/// How long a cache may take to show a write before a warning is logged.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a watch that panicked is restarted.
const PAUSE: Duration = Duration::from_secs(1);

type Tell<P> = Box<dyn Fn(Change<'_, P>) + Send + Sync>;

/// A subscriber.
struct Handler<P> {
    tell: Tell<P>,
    /// The run of the program that it belongs to, if any.
    run: Option<CancellationToken>,
}

impl<P> Handler<P> {
    fn is_over(&self) -> bool {
        self.run
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled)
    }

    /// Calls the handler. If it panics, the program has lost track of the state: its run is cancelled, and only that,
    /// because others share the cache.
    fn tell(&self, change: Change<'_, P>) {
        let key = change.key;
        if catch_unwind(AssertUnwindSafe(|| (self.tell)(change))).is_err() {
            tracing::error!(
                ?key,
                "an event handler panicked; its controller run is restarted"
            );
            if let Some(run) = &self.run {
                run.cancel();
            }
        }
    }
}

/// The cache of a kind. Cheap to clone.
pub struct Informer<P> {
    shared: Arc<Shared<P>>,
    run: Option<CancellationToken>,
}

impl<P> Clone for Informer<P> {
    fn clone(&self) -> Self {
        Informer {
            shared: self.shared.clone(),
            run: self.run.clone(),
        }
    }
}

struct Shared<P> {
    objects: RwLock<BTreeMap<Key, Item<P>>>,
    /// Called in the order of changes, one change at a time: the lock is held during the call.
    handlers: Mutex<Vec<Handler<P>>>,
    synced: watch::Sender<bool>,
    /// The newest resourceVersion that the cache shows.
    shown: watch::Sender<u64>,
    ends: CancellationToken,
}

struct Item<P> {
    version: CompactString,
    value: Arc<P>,
}

impl<P: Cached> Informer<P> {
    fn new(ends: CancellationToken) -> Self {
        Informer {
            shared: Arc::new(Shared {
                objects: RwLock::new(BTreeMap::new()),
                handlers: Mutex::new(Vec::new()),
                synced: watch::Sender::new(false),
                shown: watch::Sender::new(0),
                ends,
            }),
            run: None,
        }
    }

    /// The cached object, if it exists.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<P>> {
        let objects = self.shared.objects.read();
        objects
            .get(&Key::new(namespace, name))
            .map(|item| item.value.clone())
    }

    /// The cached objects of a namespace, ordered by name.
    pub fn list(&self, namespace: &str) -> Vec<(Key, Arc<P>)> {
        let objects = self.shared.objects.read();
        let from = Key::new(namespace, "");
        objects
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(key, item)| (key.clone(), item.value.clone()))
            .collect()
    }

    /// All cached objects, ordered by namespace and name.
    pub fn all(&self) -> Vec<(Key, Arc<P>)> {
        let objects = self.shared.objects.read();
        objects
            .iter()
            .map(|(key, item)| (key.clone(), item.value.clone()))
            .collect()
    }

    /// Calls `handler` with each existing object, as a new one, and then with every change. It must be quick, like
    /// putting keys into queues. It is dropped when the run ends for which this cache was requested.
    pub fn subscribe(&self, handler: impl Fn(Change<'_, P>) + Send + Sync + 'static) {
        let handler = Handler {
            tell: Box::new(handler),
            run: self.run.clone(),
        };
        let mut handlers = self.shared.handlers.lock();
        handlers.retain(|known| !known.is_over());
        for (key, value) in self.all() {
            handler.tell(Change {
                key: &key,
                old: None,
                new: Some(&value),
            });
        }
        handlers.push(handler);
    }

    /// Puts the keys that `keys` makes of each change into a queue.
    pub fn enqueue<K, I>(
        &self,
        queue: &Arc<Queue<K>>,
        keys: impl Fn(Change<'_, P>) -> I + Send + Sync + 'static,
    ) where
        K: Clone + Eq + Hash + Send + 'static,
        I: IntoIterator<Item = K>,
    {
        let queue = queue.clone();
        self.subscribe(move |change| {
            for key in keys(change) {
                queue.add(key);
            }
        });
    }

    /// Resolves when all initial objects are known and handlers have been called for them; also when the caches end,
    /// because then that will never happen.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        tokio::select! {
            // The sender lives as long as `self`.
            _ = synced.wait_for(|synced| *synced) => {}
            () = self.over() => {}
        }
    }

    /// Resolves when the cache shows a write that produced this resourceVersion, and handlers were called; also when
    /// the caches end.
    ///
    /// Call it after a write and before the next decision: a decision on the older cache would repeat the write. It may
    /// take long; upstream postpones an object until its cache is new enough (pkg/controller/util/consistency), which
    /// takes as long.
    pub async fn reach(&self, version: Option<&str>) {
        let Some(version) = version.and_then(|version| version.parse::<u64>().ok()) else {
            return;
        };
        let mut shown = self.shared.shown.subscribe();
        let reached = async {
            // The sender lives as long as `self`.
            let _ = shown.wait_for(|shown| *shown >= version).await;
        };
        let said = async {
            tokio::time::sleep(PATIENCE).await;
            let kind = P::kind(&());
            tracing::warn!(%kind, version, "a cache is behind: its watch has not shown a write yet");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = reached => {}
            () = said => {}
            () = self.over() => {}
        }
    }

    /// Resolves when the cache is no longer of use: all caches end, or the run for which it was requested.
    async fn over(&self) {
        over(self.run.as_ref(), &self.shared.ends).await;
    }

    fn show(&self, version: u64) {
        self.shared.shown.send_if_modified(|shown| {
            let newer = version > *shown;
            *shown = (*shown).max(version);
            newer
        });
    }

    /// Stores one object (or removes it), and calls the handlers.
    fn take(&self, key: Key, item: Option<Item<P>>) {
        let handlers = self.shared.handlers.lock();
        let (old, new) = {
            let mut objects = self.shared.objects.write();
            match item {
                Some(item) => {
                    let value = item.value.clone();
                    let old = objects.get(&key);
                    if old.is_some_and(|old| old.version == item.version) {
                        return;
                    }
                    (objects.insert(key.clone(), item), Some(value))
                }
                None => (objects.remove(&key), None),
            }
        };
        let old = old.map(|item| item.value);
        if old.is_none() && new.is_none() {
            return;
        }
        for handler in handlers.iter().filter(|handler| !handler.is_over()) {
            handler.tell(Change {
                key: &key,
                old: old.as_ref(),
                new: new.as_ref(),
            });
        }
    }

    /// Removes all objects that are not among `names`.
    fn keep(&self, names: &HashSet<Key>) {
        let gone: Vec<Key> = {
            let objects = self.shared.objects.read();
            objects
                .keys()
                .filter(|key| !names.contains(key))
                .cloned()
                .collect()
        };
        for key in gone {
            self.take(key, None);
        }
    }

    /// Applies the events of a watch until it ends.
    async fn follow(&self, events: impl Stream<Item = Result<Event<P>, Broken>> + Unpin) {
        record(&P::kind(&()), events, key_of, |told| match told {
            Told::There(object) => self.take(key_of(&object), Some(item(object))),
            Told::Gone(object) => self.take(key_of(&object), None),
            Told::Only(names) => {
                self.keep(&names);
                self.shared.synced.send_replace(true);
            }
            Told::UpTo(version) => self.show(version),
        })
        .await;
    }
}

/// Resolves when all caches end, or the run that asked for one.
async fn over(run: Option<&CancellationToken>, ends: &CancellationToken) {
    match run {
        Some(run) => tokio::select! {
            () = run.cancelled() => {}
            () = ends.cancelled() => {}
        },
        None => ends.cancelled().await,
    }
}

fn key_of<K: Resource>(object: &K) -> Key {
    Key::new(
        object.meta().namespace.as_deref().unwrap_or_default(),
        object.meta().name.as_deref().unwrap_or_default(),
    )
}

fn item<P: Cached>(mut object: P) -> Item<P> {
    // Controllers never use them.
    object.meta_mut().managed_fields = None;
    Item {
        version: object.resource_version().unwrap_or_default().into(),
        value: Arc::new(object),
    }
}

/// A cache that a test fills.
#[cfg(test)]
impl<P: Cached> Informer<P> {
    /// An empty one.
    pub fn by_hand() -> Self {
        Informer::new(CancellationToken::new())
    }

    /// Stores an object, new or changed.
    pub fn put(&self, object: P) {
        self.take(key_of(&object), Some(item(object)));
    }

    /// Removes an object.
    pub fn drop(&self, key: &Key) {
        self.take(key.clone(), None);
    }
}

#[cfg(test)]
mod tests;
