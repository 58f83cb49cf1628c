//! Records events about objects. Follows k8s.io/client-go/tools/record.
//!
//! Nothing waits for an event to be written, and no caller fails if it is not: events go through a bounded channel, and
//! are dropped when that is full. Equal events are counted in one Event object, similar ones are aggregated, and events
//! about one object are rate-limited. One task correlates all events; several write them. All events of one Event
//! object go to the same writer, so its counts are written in order. The scheduler uses the newer `events.k8s.io` form:
//! see [`series`].

mod series;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

pub use self::series::Deed;
use super::errors::is_not_found;

/// Events that may wait at most, of some 500 bytes each: as many as placing thousands of pods at once produces.
const MOST_WAITING: usize = 10_000;
/// Tasks that write events.
const WRITERS: usize = 8;
/// Events that may wait for each writer.
const MOST_UNDER_WAY: usize = 32;
/// How many events are remembered for counting, aggregation and rate limits.
const MOST_KNOWN: usize = 4096;
/// How many events that differ only in their message are recorded separately before they are aggregated.
const ALIKE: usize = 10;
/// How long similar events are remembered, in seconds.
const ALIKE_SECONDS: i64 = 600;
/// How many events a source may record about one object in a burst.
const BURST: f64 = 25.0;
/// The rate of further ones, per second.
const RATE: f64 = 1.0 / 300.0;

/// The longest `reportingInstance` that the API accepts, in bytes.
const LONGEST_INSTANCE: usize = 128;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tone {
    /// Something expected happened.
    Normal,
    /// Something needs attention.
    Warning,
}

impl Tone {
    fn as_str(self) -> &'static str {
        match self {
            Tone::Normal => "Normal",
            Tone::Warning => "Warning",
        }
    }
}

/// Records events for one component.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    /// The host that reports; empty if it does not matter.
    host: Arc<str>,
    client: Client,
    under_way: mpsc::Sender<Told>,
}

struct Told {
    client: Client,
    what: What,
}

/// The content of an event, in the older or the newer form.
enum What {
    Note(Note),
    Report(series::Report),
}

/// An event before it is correlated: content and source.
#[derive(Clone, Debug, PartialEq)]
struct Note {
    component: &'static str,
    host: Arc<str>,
    about: ObjectReference,
    tone: Tone,
    reason: String,
    message: String,
}

/// Starts the tasks that write events until `ends` is cancelled; returns the handle to record with.
pub fn start(ends: CancellationToken) -> Events {
    let (waiting, mut told) = mpsc::channel::<Told>(MOST_WAITING);
    let writers: Vec<_> = (0..WRITERS).map(|_| writer(ends.clone())).collect();
    tokio::spawn(async move {
        let (mut book, mut reports) = (Book::default(), series::Book::default());
        let mut look = interval(series::LOOK);
        let mut refresh = interval(series::REFRESH);
        loop {
            // Cancel-safe: each branch waits only for the next message or deadline, and resumes where it was.
            let entries = tokio::select! {
                told = told.recv() => {
                    let Some(Told { client, what }) = told else {
                        return;
                    };
                    let now = Timestamp::now();
                    let entry = match what {
                        What::Note(note) => book
                            .take(note, now)
                            .map(|entry| Written::Entry(client, entry)),
                        What::Report(report) => {
                            let key = book.hash(report.likeness());
                            let entry = reports.take(key, client, report, now);
                            entry.map(Written::Report)
                        }
                    };
                    entry.into_iter().collect()
                }
                _ = look.tick() => all(reports.finish(Timestamp::now())),
                _ = refresh.tick() => all(reports.refresh()),
                () = ends.cancelled() => return,
            };
            for entry in entries {
                let place = book.hash(entry.name()) as usize % writers.len();
                if writers[place].send(entry).await.is_err() {
                    return;
                }
            }
        }
    });
    Events(waiting)
}

fn all(entries: Vec<series::Entry>) -> Vec<Written> {
    entries.into_iter().map(Written::Report).collect()
}

/// A request to write an event.
enum Written {
    Entry(Client, Entry),
    Report(series::Entry),
}

impl Written {
    /// The event's name.
    fn name(&self) -> &str {
        match self {
            Written::Entry(_, entry) => &entry.name,
            Written::Report(entry) => &entry.name,
        }
    }
}

/// Starts a task that writes entries until `ends` is cancelled.
fn writer(ends: CancellationToken) -> mpsc::Sender<Written> {
    let (sender, mut entries) = mpsc::channel::<Written>(MOST_UNDER_WAY);
    tokio::spawn(async move {
        loop {
            let entry = tokio::select! {
                entry = entries.recv() => match entry {
                    Some(entry) => entry,
                    None => return,
                },
                () = ends.cancelled() => return,
            };
            let written = match entry {
                Written::Entry(client, entry) => write(&client, entry).await,
                Written::Report(entry) => series::write(entry).await,
            };
            if let Err(error) = written {
                tracing::debug!(%error, "cannot write an event");
            }
        }
    });
    sender
}

/// The handle to record events with.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Told>);

impl Events {
    /// A recorder for one component, which writes through `client`.
    pub fn recorder(&self, client: Client, component: &'static str) -> Recorder {
        Recorder {
            component,
            host: "".into(),
            client,
            under_way: self.0.clone(),
        }
    }
}

impl Recorder {
    /// The recorder of this component on a host, or on that host's node.
    pub fn on(self, host: &str) -> Recorder {
        Recorder {
            host: host.into(),
            ..self
        }
    }

    /// Records an event about an object.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        tone: Tone,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.tell_of(reference(about), tone, reason, message);
    }

    /// Records an action on an object, in the form of `events.k8s.io`, with this recorder's host.
    pub fn tell_deed<K: Resource<DynamicType = ()>>(&self, about: &K, deed: Deed) {
        let reason = deed.reason;
        let mut instance = format!("{}-{}", self.component, self.host);
        while instance.len() > LONGEST_INSTANCE {
            instance.pop();
        }
        let report = series::Report {
            controller: self.component,
            instance: instance.into(),
            about: reference(about),
            deed,
        };
        self.send(What::Report(report), reason);
    }

    /// Records an event about a reference, like a part of an object.
    pub fn tell_of(
        &self,
        about: ObjectReference,
        tone: Tone,
        reason: &str,
        message: impl Into<String>,
    ) {
        let note = Note {
            component: self.component,
            host: self.host.clone(),
            about,
            tone,
            reason: reason.to_owned(),
            message: message.into(),
        };
        self.send(What::Note(note), reason);
    }

    fn send(&self, what: What, reason: &str) {
        let client = self.client.clone();
        if self.under_way.try_send(Told { client, what }).is_err() {
            tracing::debug!(reason, "dropping an event: too many are pending");
        }
    }
}

/// A reference to an object, including its version.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: some(&meta.namespace),
        name: some(&meta.name),
        uid: some(&meta.uid),
        resource_version: some(&meta.resource_version),
        field_path: None,
    }
}

/// An event to be written: a new object, or an update of an existing one's count.
struct Entry {
    note: Note,
    name: String,
    /// When it first and last happened.
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

/// Correlates events: what was recorded before.
#[derive(Default)]
struct Book {
    hasher: RandomState,
    known: Recent<(String, Timestamp, i32)>,
    alike: Recent<(HashSet<u64>, i64)>,
    buckets: Recent<(f64, i64)>,
}

/// Values by hash; keeps the [`MOST_KNOWN`] that were used last.
struct Recent<V> {
    /// Each with the time of its last use.
    values: HashMap<u64, (V, u64)>,
    by_use: BTreeMap<u64, u64>,
    /// Counts uses.
    time: u64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent {
            values: HashMap::new(),
            by_use: BTreeMap::new(),
            time: 0,
        }
    }
}

impl<V> Recent<V> {
    /// The value for a key. A new one is `first`, and replaces the one that was not used for the longest time.
    fn entry(&mut self, key: u64, first: impl FnOnce() -> V) -> &mut V {
        self.time += 1;
        if self.values.len() >= MOST_KNOWN
            && !self.values.contains_key(&key)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.values.remove(&oldest);
        }
        let (value, used) = self.values.entry(key).or_insert_with(|| (first(), 0));
        self.by_use.remove(used);
        self.by_use.insert(self.time, key);
        *used = self.time;
        value
    }

    /// Removes the values for which `keeps` is false.
    fn retain(&mut self, mut keeps: impl FnMut(&V) -> bool) {
        let Recent { values, by_use, .. } = self;
        values.retain(|_, (value, _)| keeps(value));
        by_use.retain(|_, key| values.contains_key(key));
    }
}

impl Book {
    fn hash(&self, value: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The hash of an event's source and object.
    fn about(&self, note: &Note) -> u64 {
        let about = &note.about;
        self.hash((
            (note.component, &note.host),
            (&about.api_version, &about.kind),
            (&about.namespace, &about.name, &about.uid),
        ))
    }

    /// The entry to write for an event; None if it exceeds the rate limit, but it is counted all the same.
    fn take(&mut self, note: Note, now: Timestamp) -> Option<Entry> {
        let about = self.about(&note);
        let (key, note) = self.joined(about, note, now.as_second());
        let (name, first, count) = self.known.entry(key, || {
            let object = note.about.name.as_deref().unwrap_or_default();
            let name = format!("{object}.{:x}", now.as_nanosecond());
            (name, now, 0)
        });
        *count += 1;
        let entry = Entry {
            name: name.clone(),
            first: *first,
            last: now,
            count: *count,
            note,
        };
        self.has_room(about, now.as_second()).then_some(entry)
    }

    /// Takes a token from the bucket of this source and object.
    fn has_room(&mut self, about: u64, now: i64) -> bool {
        let (tokens, since) = self.buckets.entry(about, || (BURST, now));
        *tokens = (*tokens + (now - *since) as f64 * RATE).min(BURST);
        *since = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// The event itself, or the aggregate of many similar ones; with the hash under which it is counted.
    fn joined(&mut self, about: u64, note: Note, now: i64) -> (u64, Note) {
        let alike = self.hash((about, note.tone, &note.reason));
        let text = self.hash(&note.message);
        let (texts, since) = self.alike.entry(alike, || (HashSet::new(), now));
        if now - *since > ALIKE_SECONDS {
            texts.clear();
        }
        *since = now;
        let known = texts.contains(&text);
        if known || texts.len() + 1 < ALIKE {
            texts.insert(text);
            let part = &note.about.field_path;
            return (self.hash((alike, part, text)), note);
        }
        let message = format!("(combined from similar events): {}", note.message);
        (alike, Note { message, ..note })
    }
}

async fn write(client: &Client, entry: Entry) -> Result<(), kube::Error> {
    let Entry {
        note,
        name,
        first,
        last,
        count,
    } = entry;
    // Events about cluster-scoped objects live in the namespace `default`.
    let namespace = note.about.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    if count > 1 {
        let more = json!({"count": count, "lastTimestamp": Time(last), "message": note.message});
        let params = PatchParams::default();
        match api.patch(&name, &params, &Patch::Strategic(more)).await {
            // It expired, or was never written.
            Err(error) if is_not_found(&error) => {}
            other => return other.map(|_| ()),
        }
    }
    let host = note.host.to_string();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: note.about,
        reason: Some(note.reason),
        message: Some(note.message),
        type_: Some(note.tone.as_str().to_owned()),
        count: Some(count),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(last)),
        source: Some(EventSource {
            component: Some(note.component.to_owned()),
            host: (!host.is_empty()).then(|| host.clone()),
        }),
        reporting_component: Some(note.component.to_owned()),
        reporting_instance: Some(host),
        ..Event::default()
    };
    let body = serde_json::to_vec(&event).map_err(kube::Error::SerdeError)?;
    let request = Request::new(api.resource_url());
    super::write(client, request.create(&PostParams::default(), body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(object: &str, message: &str) -> Note {
        Note {
            component: "c",
            host: "".into(),
            about: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some("n".to_owned()),
                name: Some(object.to_owned()),
                uid: Some(object.to_owned()),
                resource_version: Some(message.len().to_string()),
                field_path: None,
            },
            tone: Tone::Normal,
            reason: "R".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn equal_events_are_counted_alike_ones_joined_and_floods_held_back() {
        let mut book = Book::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let told = |book: &mut Book, message: &str, now: i64| -> Option<(String, i32)> {
            let entry = book.take(note("a", message), at(now))?;
            Some((entry.note.message, entry.count))
        };
        assert_eq!(told(&mut book, "m", 0), Some(("m".to_owned(), 1)));
        assert_eq!(told(&mut book, "m", 1), Some(("m".to_owned(), 2)));
        for i in 1..9 {
            assert_eq!(
                told(&mut book, &format!("m{i}"), 2).map(|(_, count)| count),
                Some(1)
            );
        }
        let joined = |i: i32| format!("(combined from similar events): m{i}");
        assert_eq!(told(&mut book, "m9", 3), Some((joined(9), 1)));
        assert_eq!(
            told(&mut book, "m10", 3),
            Some((joined(10), 2)),
            "one event"
        );
        assert_eq!(told(&mut book, "m", 3), Some(("m".to_owned(), 3)));
        for _ in 0..12 {
            assert!(told(&mut book, "m10", 3).is_some());
        }
        assert_eq!(told(&mut book, "m10", 3), None, "25 at once are enough");
        let later = told(&mut book, "m11", 303);
        assert_eq!(
            later,
            Some((joined(11), 16)),
            "one more in five minutes, and all count"
        );
        assert_eq!(told(&mut book, "m11", 303), None);
        let others: Vec<String> = (0..2)
            .map(|_| book.take(note("b", "m"), at(303)).unwrap().name)
            .collect();
        assert_eq!(others[0], others[1], "one more of the same event");
        for object in 0..2 * MOST_KNOWN {
            assert!(
                book.take(note(&format!("o{object}"), "m"), at(303))
                    .is_some()
            );
            if object % (MOST_KNOWN / 2) == 0 {
                let again = book.take(note("b", "m"), at(303)).map(|entry| entry.name);
                assert_eq!(
                    again.as_ref(),
                    Some(&others[0]),
                    "what goes on is not forgotten"
                );
            }
        }
        let sizes = (book.known.values.len(), book.alike.values.len());
        assert_eq!(sizes, (MOST_KNOWN, MOST_KNOWN));
        assert_eq!(book.buckets.values.len(), MOST_KNOWN);
    }
}
