//! The store: one global revision, every object a key with a history, and watches over both.
//!
//! The semantics are etcd's, so that etcd can stand behind [`Store`] as a second engine: a commit is
//! compare-and-write over a few keys at new revisions, history is kept until it is compacted, a watch
//! from any revision that is not compacted yields every later change once and in order. The embedded engine is
//! redb; [`memory()`] has the same semantics without a file.
//!
//! Readers never wait for a disk: they take the newest durable [`World`], an immutable snapshot of every
//! resource at one revision. A read-modify-write starts from [`Store::head`], which may be ahead of the disk,
//! so that several changes of one object share one fsync.

#[cfg(test)]
mod crash;
mod engine;
mod redb;
#[cfg(test)]
mod tests;
pub mod upkeep;
pub mod view;
mod watching;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use futures::future::BoxFuture;

/// A point in the one sequence of all changes. The first commit makes revision 2, as in a fresh etcd.
pub type Revision = u64;

/// A resource's place in the key space: `/registry/pods/`, `/registry/example.com/widgets/`. Ends in a slash.
pub type ResourcePrefix = Arc<str>;

/// Names and values extracted from an object when it was written (labels, selectable fields), sorted by name.
pub type Pairs = Box<[(CompactString, CompactString)]>;

/// The value of a key: the encoded object, and what selectors need of it. The store never parses `body`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The object in its storage version, as JSON without `metadata.resourceVersion`.
    pub body: Bytes,
    /// Where in `body` the member `"resourceVersion":"N",` belongs, in bytes.
    pub rv_at: u32,
    /// How many bytes of `body` are the opening brace, kind and apiVersion (built-in list items go without).
    pub type_len: u32,
    /// The version of the schema under which `body`, `labels` and `fields` were derived.
    pub epoch: u32,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// The resource's selectable fields, except metadata.name and metadata.namespace, which the key holds.
    pub fields: Pairs,
}

/// One object at one revision.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key: `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// The revision of the change that wrote this entry.
    pub rev: Revision,
    /// What was written.
    pub record: Record,
    /// When the entry expires, in seconds since 1970; `None`: never (everything except events).
    pub expires: Option<u64>,
}

/// The precondition on a key in a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's newest entry has this revision.
    Revision(Revision),
}

/// One key's part of a commit.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource whose watches see the change.
    pub resource: ResourcePrefix,
    /// The whole key, beginning with `resource`.
    pub key: Arc<str>,
    /// The precondition; if one fails, the whole commit fails.
    pub expect: Expect,
    /// The new content, or `None` to delete the key.
    pub put: Option<Record>,
    /// Seconds until the entry expires.
    pub ttl: Option<u64>,
}

/// Why a store rejected a call or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition failed. `current` is the key's newest accepted entry, from which to retry.
    #[error("{key} is not as expected")]
    Conflict {
        key: Arc<str>,
        current: Option<Arc<Entry>>,
    },
    /// History before `oldest` has been compacted.
    #[error("revision {asked} has been compacted; the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision does not exist yet.
    #[error("revision {asked} is in the future; the newest is {current}")]
    Future { asked: Revision, current: Revision },
    /// The engine failed; nothing of the commit is on disk.
    #[error("the store cannot {attempted}: {cause}")]
    Engine {
        attempted: &'static str,
        cause: String,
    },
    /// The store is shutting down.
    #[error("the store is shutting down")]
    Closed,
}

/// A change as a watch sees it: from `old` to `new` at `rev`. At least one of the two is set.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision of the change; a deletion has its own.
    pub rev: Revision,
    /// The entry before, `None` for a creation.
    pub old: Option<Arc<Entry>>,
    /// The entry after, `None` for a deletion.
    pub new: Option<Arc<Entry>>,
}

/// The events that a watch may need. Only a filter for wake-ups: a cursor yields just the events that match.
#[derive(Clone, Debug)]
pub struct Interest {
    /// The resource; empty for all resources, and then `keys` is a prefix of all keys and `field` is `None`.
    pub resource: ResourcePrefix,
    /// Only keys with this prefix (`/registry/pods/default/`), or exactly this key if `exact`.
    pub keys: Arc<str>,
    /// Whether `keys` is a whole key.
    pub exact: bool,
    /// Only entries that have, or had before the change, this value of a trigger field (`spec.nodeName`).
    pub field: Option<(CompactString, CompactString)>,
}

/// A page of a list at a revision.
#[derive(Debug)]
pub struct Range {
    /// The revision of `entries`.
    pub rev: Revision,
    /// Ordered by the bytes of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// Whether more keys follow.
    pub more: bool,
}

/// A storage engine. Object-safe; cheap calls are synchronous, those that may touch a disk or network are not.
pub trait Store: Send + Sync + 'static {
    /// The newest durable snapshot.
    fn world(&self) -> Arc<World>;

    /// The newest accepted entry of `key`, even if not durable yet: the start of a read-modify-write.
    fn head(&self, key: &str) -> Option<Arc<Entry>>;

    /// Writes all of `changes`, in order and each at its own revision, or none. Resolves when they are durable, with
    /// the last revision and, for each change, the entry written or (for a deletion) the entry deleted. Without
    /// changes it resolves when everything accepted before is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a precondition fails; if the engine fails, nothing is written.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Committed, StoreError>>;

    /// Waits until the accepted revision `rev` is durable: until then it must not be reported to a client.
    ///
    /// # Errors
    /// The engine failed to write it.
    fn settled(&self, rev: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.world().rev() >= rev {
                return Ok(());
            }
            self.commit(Vec::new()).await.map(drop)
        })
    }

    /// At most `limit` entries (0: all) as of revision `at` whose keys have the prefix `keys` and are not below `from`
    /// (a whole key).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`] say that the revision cannot be read.
    fn range_at<'a>(
        &'a self,
        resource: &'a ResourcePrefix,
        keys: &'a str,
        from: &'a str,
        limit: usize,
        at: Revision,
    ) -> BoxFuture<'a, Result<Range, StoreError>>;

    /// A cursor over every change after `after` that matches `interest`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if history after `after` is incomplete. `after` may be in the future: the cursor
    /// yields nothing until that revision has passed.
    fn watch(
        self: Arc<Self>,
        interest: Interest,
        after: Revision,
    ) -> Result<Box<dyn Cursor>, StoreError>;

    /// Drops history up to `rev`: what was replaced or deleted before it can no longer be read.
    fn compact(&self, rev: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether commits can be expected to succeed.
    ///
    /// # Errors
    /// [`StoreError::Closed`], or why the last commits failed.
    fn health(&self) -> Result<(), StoreError>;

    /// Stops accepting commits, makes the accepted ones durable, and closes the file.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A durable commit.
#[derive(Debug)]
pub struct Committed {
    /// The revision of its last change.
    pub rev: Revision,
    /// For each change, in order, the entry written, or the entry deleted.
    pub entries: Vec<Arc<Entry>>,
}

/// The position of a watch. Yields events in order of revision, each once.
pub trait Cursor: Send {
    /// What happened since the last call: about `max` events at most, and the revision up to which the answer is
    /// complete (for bookmarks), even if no event matched. Returns at once.
    fn next<'a>(&'a mut self, max: usize) -> BoxFuture<'a, Result<Batch, StoreError>>;

    /// Resolves when a change that may match became durable after the last [`Cursor::next`].
    /// Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()>;
}

/// What [`Cursor::next`] returns.
#[derive(Debug)]
pub struct Batch {
    /// The matching events.
    pub events: Vec<Event>,
    /// All events up to this revision have been returned.
    pub rev: Revision,
    /// More events are ready: call again without waiting.
    pub more: bool,
}

/// Every resource at one revision. Its maps are cheap to clone; readers may keep it as long as they like.
#[derive(Clone, Debug, Default)]
pub struct World {
    rev: Revision,
    resources: imbl::HashMap<ResourcePrefix, imbl::OrdMap<Arc<str>, Arc<Entry>>>,
}

impl World {
    /// The revision of this snapshot.
    pub fn rev(&self) -> Revision {
        self.rev
    }

    /// One object by its whole key.
    pub fn get(&self, resource: &str, key: &str) -> Option<&Arc<Entry>> {
        self.resources.get(resource)?.get(key)
    }

    /// The objects of a resource whose keys have the prefix `keys`, from the key `from` (inclusive) on, in key order.
    pub fn range<'a>(
        &'a self,
        resource: &str,
        keys: &'a str,
        from: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let start = if from > keys { from } else { keys };
        self.resources
            .get(resource)
            .map(|map| {
                map.range::<_, str>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded))
            })
            .into_iter()
            .flatten()
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(keys))
    }

    /// The objects of a resource by key; `None` if it never had any.
    pub fn objects(&self, resource: &str) -> Option<&imbl::OrdMap<Arc<str>, Arc<Entry>>> {
        self.resources.get(resource)
    }

    /// The number of objects of a resource.
    pub fn count(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, imbl::OrdMap::len)
    }
}

/// A store in memory: the semantics of the durable one, but its content ends with the process.
pub fn memory() -> Arc<dyn Store> {
    engine::Engine::memory()
}

pub use redb::{OpenError, compact, open, panics_are_errors};
