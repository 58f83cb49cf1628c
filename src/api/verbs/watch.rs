//! Watches: the initial objects, then every change, each once and in order, as one JSON object per line.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody as BoxBody;
use tokio::time::{Instant, Sleep, sleep_until};

use super::list::{ListOptions, Selection};
use super::{Target, too_large};
use crate::api::negotiate::{Accepted, Format, Shape, no_stream};
use crate::api::pieces::PIECE;
use crate::api::reply::{Body, Reply, bytes_of, partial_of};
use crate::api::table::{self, Include};
use crate::meta::strconv::parse_uint;
use crate::meta::{Status, errors::quoted, names};
use crate::resources::custom::definition::PREFIX;
use crate::resources::forms;
use crate::resources::record::write_body;
use crate::schema::{Object, Value, decode, json, proto};
use crate::store::{Cursor, Entry, Event, Interest, Revision, StoreError, World};

/// The interval of bookmarks for clients that want them.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch sends a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// How many events are written in one piece.
const CHUNK: usize = 256;
/// More bytes than an event has beside the stored object: its type and the resource version.
const AROUND: usize = 80;
/// The annotation of the bookmark after the initial objects.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Starts the requested watch.
///
/// # Errors
/// 400, 422 and 500 for its options, 406 for a stream of YAML. Later failures are sent as ERROR events.
pub async fn watch(target: &Target, accepted: Accepted) -> Result<Reply, Status> {
    let query = &target.query;
    // The old paths watch without `watch` in the query; their options are those of a list.
    let said = query.bool("watch").unwrap_or(false);
    let ListOptions {
        mut selection,
        timeout,
        ..
    } = ListOptions::read(target, said)?;
    if target.info.old_watch && !target.info.path_name.is_empty() {
        selection.only(&target.info.path_name)?;
    }
    let text = query.get("resourceVersion").unwrap_or_default();
    let asked = if text.is_empty() {
        0
    } else {
        parse_uint(text).map_err(|error| {
            Status::unclassified(format!(
                "resourceVersion: Invalid value: {}: {error}",
                quoted(text)
            ))
        })?
    };
    if accepted.format == Format::Yaml {
        return Err(no_stream());
    }
    let include = Include::read(query, accepted.shape)?;
    let bookmarks = query.bool("allowWatchBookmarks").unwrap_or(false);
    let initial = query.bool("sendInitialEvents");
    // Go's duration, which wraps if it is too long: at most 292 years.
    let nanoseconds = match timeout.filter(|seconds| *seconds != 0) {
        Some(seconds) => seconds.wrapping_mul(SECOND),
        None => {
            let mut random = [0; 8];
            names::random(&mut random);
            life(u64::from_ne_bytes(random))
        }
    };
    let ends = Instant::now() + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let watcher = Watcher {
        target: target.clone(),
        selection,
        // No stream is indented.
        accepted: Accepted {
            indented: false,
            ..accepted
        },
        include,
        bookmarks,
        told_columns: false,
        untold: false,
        out: Vec::new(),
        cursor: None,
        definition: definition_of(target),
        at: asked,
        bookmarked: asked,
        plan: match initial {
            Some(true) => Plan::Initial { asked, mark: true },
            Some(false) if asked == 0 => Plan::From(target.cluster.store.world().rev()),
            None if asked == 0 => Plan::Initial {
                asked: 0,
                mark: said,
            },
            _ => Plan::From(asked),
        },
        ends,
        timer: Box::pin(sleep_until(ends)),
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        over: nanoseconds < 0,
        waits: said && text.is_empty() && !bookmarks,
    };
    let stream = futures::stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        let goes_on = watcher.step().await && !watcher.untold;
        let bytes = Bytes::from(std::mem::take(&mut watcher.out));
        Some((
            Ok::<_, std::convert::Infallible>(Frame::data(bytes)),
            goes_on.then_some(watcher),
        ))
    });
    let mut response: Response<Body> = Response::new(BoxBody::new(StreamBody::new(stream)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(match accepted.format {
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => "application/json",
        }),
    );
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    Ok(Reply::Stream(response))
}

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
/// The shortest lifetime of a watch without a timeout, in nanoseconds: upstream's `--min-request-timeout`.
const LIFE: i64 = 1800 * SECOND;

/// The lifetime in nanoseconds of a watch without a timeout: between once and twice [`LIFE`], uniformly distributed, so
/// that clients that connected together do not reconnect together. Upstream's `minRequestTimeout * (rand.Float64() +
/// 1.0)`.
fn life(random: u64) -> i64 {
    let beyond = (u128::from(random) * u128::from(LIFE.unsigned_abs())) >> 64;
    LIFE + i64::try_from(beyond).unwrap_or(0)
}

/// A cursor over the definition of a custom resource.
fn definition_of(target: &Target) -> Option<Box<dyn Cursor>> {
    let custom = target.resource.custom.as_ref()?;
    let name = custom.definition.at("metadata").str("name");
    let interest = Interest {
        resource: PREFIX.into(),
        keys: format!("{PREFIX}{name}").into(),
        exact: true,
        field: None,
    };
    let store = &target.cluster.store;
    store.clone().watch(interest, store.world().rev()).ok()
}

/// Waits for a change at a cursor; forever if there is none.
async fn changed(cursor: Option<&mut Box<dyn Cursor>>) {
    match cursor {
        Some(cursor) => cursor.changed().await,
        None => std::future::pending().await,
    }
}

/// The phase of a watch.
enum Plan {
    /// Sends all objects, once revision `asked` exists.
    Initial { asked: Revision, mark: bool },
    /// Sends the objects of a snapshot, from a key on.
    There {
        world: Arc<World>,
        from: String,
        mark: bool,
    },
    /// Starts after a revision.
    From(Revision),
    /// Sends changes.
    Live,
}

struct Watcher {
    target: Target,
    selection: Selection,
    accepted: Accepted,
    include: Include,
    bookmarks: bool,
    told_columns: bool,
    out: Vec<u8>,
    cursor: Option<Box<dyn Cursor>>,
    /// Changes of the definition of the watched resource.
    definition: Option<Box<dyn Cursor>>,
    at: Revision,
    bookmarked: Revision,
    plan: Plan,
    ends: Instant,
    /// Set to what is due next: a new timer for each event would take the lock of all timers twice.
    timer: Pin<Box<Sleep>>,
    next_bookmark: Instant,
    /// It ended before it began.
    over: bool,
    /// The newest revision must be determined first.
    waits: bool,
    /// An event could not be converted to the requested kind.
    untold: bool,
}

impl Watcher {
    /// Writes the next events into `out`; false at the end.
    async fn step(&mut self) -> bool {
        if self.over {
            if self.waits {
                self.error(&Status::failure(
                    500,
                    "InternalError",
                    "context deadline exceeded".to_owned(),
                ));
            }
            return false;
        }
        match std::mem::replace(&mut self.plan, Plan::Live) {
            Plan::Initial { asked, mark } => return self.initial(asked, mark).await,
            Plan::There { world, from, mark } => return self.there(&world, &from, mark),
            Plan::From(after) => return self.resume(after),
            Plan::Live => {}
        }
        // Whether a bookmark is due: events up to the current revision are sent first.
        let mut is_due = false;
        loop {
            // Changes from before the change of the definition are still sent.
            let is_last = self.is_superseded().await;
            let Some(cursor) = self.cursor.as_mut() else {
                return false;
            };
            match cursor.next(CHUNK).await {
                Ok(batch) => {
                    self.at = self.at.max(batch.rev);
                    for event in &batch.events {
                        self.event(event);
                    }
                    if std::mem::take(&mut is_due) && self.at > self.bookmarked {
                        self.bookmark(false);
                    }
                    if !self.out.is_empty() || self.untold {
                        return true;
                    }
                    if batch.more {
                        continue;
                    }
                    if is_last {
                        return false;
                    }
                }
                Err(error) => {
                    self.gone(&error);
                    return false;
                }
            }
            // Changes of other resources, which wake nobody here, are told by it, too.
            let last = self
                .ends
                .checked_sub(LAST_BOOKMARK)
                .filter(|last| self.bookmarks && *last > Instant::now());
            let wake = last.map_or(self.ends, |last| last.min(self.ends));
            let wake = if self.bookmarks {
                wake.min(self.next_bookmark)
            } else {
                wake
            };
            if self.timer.deadline() != wake {
                self.timer.as_mut().reset(wake);
            }
            let Some(cursor) = self.cursor.as_mut() else {
                return false;
            };
            tokio::select! {
                // Cancel-safe by the cursor's contract: what was not taken is returned by the next call.
                () = cursor.changed() => {}
                () = changed(self.definition.as_mut()) => {}
                () = self.timer.as_mut() => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return false;
                    }
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    is_due = self.bookmarks;
                }
            }
        }
    }

    /// Whether the definition of the watched resource is gone or has changed since the watch began: clients then have
    /// to watch again, with what is served now.
    async fn is_superseded(&mut self) -> bool {
        let (Some(custom), Some(definition)) =
            (&self.target.resource.custom, self.definition.as_mut())
        else {
            return false;
        };
        // The events themselves do not matter: they only show that something changed.
        let _ = definition.next(CHUNK).await;
        let definitions = self.target.cluster.definitions();
        let name = custom.definition.at("metadata").str("name");
        let now = definitions.resources.get(name);
        let now = now.and_then(|resource| resource.custom.as_ref());
        now.is_none_or(|now| now.since != custom.since)
    }

    /// Starts after a revision that the client names.
    fn resume(&mut self, after: Revision) -> bool {
        let custom = self.target.resource.custom.as_ref();
        match custom.map(|custom| custom.since) {
            Some(oldest) if after < oldest => {
                self.gone(&StoreError::Compacted {
                    asked: after,
                    oldest,
                });
                false
            }
            _ => self.open(after),
        }
    }

    fn open(&mut self, after: Revision) -> bool {
        let target = &self.target;
        let keys = target.resource.keys(target.namespace());
        let interest = match self.selection.name() {
            Some(name) if !target.resource.namespaced || !target.namespace().is_empty() => {
                Interest {
                    resource: target.resource.prefix.clone(),
                    keys: target.resource.key(target.namespace(), name),
                    exact: true,
                    field: None,
                }
            }
            _ => {
                let field = target.resource.rules.selection.trigger.and_then(|trigger| {
                    let term = self.selection.fields.0.iter().find(|term| {
                        term.key == trigger && term.op == crate::meta::selector::Op::Equals
                    })?;
                    Some((term.key.clone(), term.values.first()?.clone()))
                });
                Interest {
                    resource: target.resource.prefix.clone(),
                    keys,
                    exact: false,
                    field,
                }
            }
        };
        self.at = self.at.max(after);
        match target.cluster.store.clone().watch(interest, after) {
            Ok(cursor) => {
                self.cursor = Some(cursor);
                true
            }
            Err(error) => {
                self.gone(&error);
                false
            }
        }
    }

    /// Waits for the requested revision, and then begins to send all objects.
    async fn initial(&mut self, asked: Revision, mark: bool) -> bool {
        if let Err(current) = super::list::until(&self.target, asked).await {
            self.error(&too_large(asked, current));
            return false;
        }
        let world = self.target.cluster.store.world();
        self.there(&world, "", mark)
    }

    /// Sends some of the initial objects, and after the last one the bookmark: a watch of any length holds one piece in
    /// memory.
    fn there(&mut self, world: &Arc<World>, from: &str, mark: bool) -> bool {
        let keys = self.target.resource.keys(self.target.namespace());
        for entry in world.range(&self.target.resource.prefix, &keys, from) {
            if let Some(shown) = self.selected(Some(entry)) {
                self.write("ADDED", &shown, shown.rev);
            }
            if self.out.len() >= PIECE {
                let from = format!("{}\0", entry.key);
                let world = world.clone();
                self.plan = Plan::There { world, from, mark };
                return true;
            }
        }
        self.at = world.rev();
        if mark && self.bookmarks {
            self.bookmark(true);
        }
        self.open(world.rev())
    }

    /// The entry in the version of the watch, if it is selected.
    fn selected(&self, entry: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
        let target = &self.target;
        let shown = forms::shown(&target.resource, target.version(), entry?);
        let selected =
            self.selection.is_everything() || self.selection.matches(&target.resource, &shown);
        selected.then_some(shown)
    }

    fn event(&mut self, event: &Event) {
        match (
            self.selected(event.old.as_ref()),
            self.selected(event.new.as_ref()),
        ) {
            (None, Some(new)) => self.write("ADDED", &new, event.rev),
            (Some(_), Some(new)) => self.write("MODIFIED", &new, event.rev),
            (Some(old), None) => self.write("DELETED", &old, event.rev),
            (None, None) => {}
        }
    }

    /// Whether no event can be converted to the requested kind, because one object is not a list: the watch ends at the
    /// first one.
    fn untellable(&mut self) -> bool {
        self.untold |= matches!(self.accepted.shape, Shape::PartialList { .. });
        self.untold
    }

    fn write(&mut self, kind: &str, entry: &Entry, rev: Revision) {
        if self.untellable() {
            return;
        }
        if self.accepted == Accepted::JSON {
            self.out.reserve(entry.record.body.len() + AROUND);
            self.out.extend_from_slice(b"{\"type\":\"");
            self.out.extend_from_slice(kind.as_bytes());
            self.out.extend_from_slice(b"\",\"object\":");
            write_body(entry, rev, true, &mut self.out);
            self.out.extend_from_slice(b"}\n");
            return;
        }
        let mut object = crate::resources::cluster::stored(entry);
        crate::resources::cluster::set_revision(&mut object, rev);
        let shown = self.shaped(object);
        self.line(kind, &shown);
    }

    fn shaped(&mut self, object: Value) -> Value {
        match self.accepted.shape {
            Shape::Object | Shape::PartialList { .. } => object,
            Shape::Partial { beta } => partial_of(&self.target.resource, &object, beta),
            Shape::Table { beta } => {
                let columns = !std::mem::replace(&mut self.told_columns, true);
                table::of(
                    &[object],
                    &self.target.resource,
                    self.target.version(),
                    beta,
                    self.include,
                    columns,
                )
            }
        }
    }

    fn bookmark(&mut self, initial: bool) {
        self.bookmarked = self.at;
        if self.untellable() {
            return;
        }
        let target = &self.target;
        let mut meta = Object::new();
        meta.insert("resourceVersion", self.at.to_string());
        if initial {
            let mut annotations = Object::new();
            annotations.insert(INITIAL_END, "true");
            meta.insert("annotations", annotations);
        }
        let mut object = Object::new();
        object.insert("kind", &target.resource.kind);
        object.insert(
            "apiVersion",
            target.resource.api_version(&target.version().name),
        );
        object.insert("metadata", meta);
        let object = self.zeroed(object);
        let shown = match self.accepted.shape {
            Shape::Table { beta } => {
                let columns = !std::mem::replace(&mut self.told_columns, true);
                table::of(
                    std::slice::from_ref(&object),
                    &self.target.resource,
                    self.target.version(),
                    beta,
                    Include::Metadata,
                    columns,
                )
            }
            Shape::Partial { beta } => partial_of(&self.target.resource, &object, beta),
            _ => object,
        };
        self.line("BOOKMARK", &shown);
    }

    /// An object of a built-in kind, including the members that are shown even if they are zero.
    fn zeroed(&self, object: Object) -> Value {
        let version = self.target.version();
        let object = Value::Object(object);
        if self.target.resource.is_custom() {
            return object;
        }
        let Ok(decoded) = decode::decode(object.clone(), &version.schema, "") else {
            return object;
        };
        let mut whole = object;
        for (key, value) in decoded.value.as_object().into_iter().flat_map(Object::iter) {
            if whole.get(key).is_none() {
                whole.set(key.as_str(), value.clone());
            }
        }
        (self.target.resource.rules.nothing)(&mut whole);
        whole
    }

    fn gone(&mut self, error: &StoreError) {
        let status = match error {
            StoreError::Compacted { asked, oldest } => Status::failure(
                410,
                "Expired",
                format!("too old resource version: {asked} ({oldest})"),
            ),
            other => super::store_failure(other),
        };
        self.error(&status);
    }

    fn error(&mut self, status: &Status) {
        self.line("ERROR", &status.to_value());
    }

    fn line(&mut self, kind: &str, object: &Value) {
        if self.accepted.format == Format::Protobuf {
            let object = bytes_of(object, Format::Protobuf);
            proto::event(kind, &object, &mut self.out);
            return;
        }
        self.out.extend_from_slice(b"{\"type\":\"");
        self.out.extend_from_slice(kind.as_bytes());
        self.out.extend_from_slice(b"\",\"object\":");
        self.out
            .extend_from_slice(json::to_string(object).as_bytes());
        self.out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_lives_from_once_to_twice_the_least_time() {
        for (random, seconds) in [(0, 1800.0), (u64::MAX / 2, 2700.0), (u64::MAX, 3600.0)] {
            let lives = life(random) as f64 / SECOND as f64;
            assert!((lives - seconds).abs() < 1e-6, "{random}: {lives}");
        }
        assert!(life(u64::MAX) < 2 * LIFE);
    }
}
