//! Events: what controllers tell people about objects. Follows k8s.io/client-go/tools/record.
//!
//! Nothing waits for an event to be written, and none is worth failing for: they go through a bounded channel, and
//! are dropped where that is full. Equal events are one event with a count, alike ones are told together, and what
//! tells too much of one object is held back.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::errors::is_not_found;

/// Events under way at most.
const MOST_UNDER_WAY: usize = 256;
/// How many events are remembered, to be counted, joined or held back.
const MOST_KNOWN: usize = 1024;
/// How many events that differ only in their text are told one by one.
const ALIKE: usize = 10;
/// For how many seconds those are remembered.
const ALIKE_SECONDS: i64 = 600;
/// How many events of one source about one object are told at once.
const BURST: f64 = 25.0;
/// And how many more a second.
const RATE: f64 = 1.0 / 300.0;

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tone {
    /// It is.
    Normal,
    /// It is not.
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

/// Tells of objects.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    client: Client,
    under_way: mpsc::Sender<Told>,
}

struct Told {
    client: Client,
    note: Note,
}

/// What is told, whoever tells it when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Note {
    component: &'static str,
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    tone: Tone,
    reason: String,
    message: String,
}

/// Begins to write events until `ends` is cancelled; gives the way in.
pub fn start(ends: CancellationToken) -> Events {
    let (under_way, mut told) = mpsc::channel::<Told>(MOST_UNDER_WAY);
    tokio::spawn(async move {
        let mut book = Book::default();
        loop {
            let Told { client, note } = tokio::select! {
                told = told.recv() => match told {
                    Some(told) => told,
                    None => return,
                },
                () = ends.cancelled() => return,
            };
            let now = Timestamp::now();
            if let Some(entry) = book.take(note, now.as_second())
                && let Err(error) = write(&client, &mut book, entry, now).await
            {
                tracing::debug!(%error, "an event is not written");
            }
        }
    });
    Events(under_way)
}

/// The way in for events.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Told>);

impl Events {
    /// A recorder for one component, which writes through `client`.
    pub fn recorder(&self, client: Client, component: &'static str) -> Recorder {
        Recorder {
            component,
            client,
            under_way: self.0.clone(),
        }
    }
}

impl Recorder {
    /// Tells of an object.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        tone: Tone,
        reason: &str,
        message: impl Into<String>,
    ) {
        let meta = about.meta();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let note = Note {
            component: self.component,
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            tone,
            reason: reason.to_owned(),
            message: message.into(),
        };
        let told = Told {
            client: self.client.clone(),
            note,
        };
        if self.under_way.try_send(told).is_err() {
            tracing::debug!(reason, "an event is dropped: too many are under way");
        }
    }
}

/// An event to be written: a new one, or one more of one that is there.
struct Entry {
    note: Note,
    count: i32,
    /// The name of the event that is there, and when it was first told.
    known: Option<(String, Timestamp)>,
}

/// What was told before.
#[derive(Default)]
struct Book {
    known: Recent<(String, Timestamp, i32)>,
    alike: Recent<(HashSet<String>, i64)>,
    buckets: Recent<(f64, i64)>,
}

/// Values by notes, of which the newest [`MOST_KNOWN`] are kept.
struct Recent<V> {
    values: HashMap<Note, V>,
    order: VecDeque<Note>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent {
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<V> Recent<V> {
    fn get(&self, key: &Note) -> Option<&V> {
        self.values.get(key)
    }

    /// The value of a note; a new one has `first`, and takes the place of the oldest.
    fn entry(&mut self, key: Note, first: V) -> &mut V {
        if !self.values.contains_key(&key) {
            self.order.push_back(key.clone());
            if self.order.len() > MOST_KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.values.remove(&oldest);
            }
        }
        self.values.entry(key).or_insert(first)
    }
}

impl Book {
    /// What is to be written of a note; none where too much was told already.
    fn take(&mut self, note: Note, now: i64) -> Option<Entry> {
        if !self.has_room(&note, now) {
            return None;
        }
        let note = self.joined(note, now);
        let key = Note {
            resource_version: String::new(),
            ..note.clone()
        };
        let (known, count) = match self.known.get(&key) {
            Some((name, first, count)) => (Some((name.clone(), *first)), count + 1),
            None => (None, 1),
        };
        Some(Entry { note, count, known })
    }

    /// Takes a token of the bucket of this source and object.
    fn has_room(&mut self, note: &Note, now: i64) -> bool {
        let key = Note {
            reason: String::new(),
            message: String::new(),
            resource_version: String::new(),
            tone: Tone::Normal,
            ..note.clone()
        };
        let (tokens, since) = self.buckets.entry(key, (BURST, now));
        *tokens = (*tokens + (now - *since) as f64 * RATE).min(BURST);
        *since = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// The note, or one that stands for many that are alike.
    fn joined(&mut self, note: Note, now: i64) -> Note {
        let key = Note {
            message: String::new(),
            resource_version: String::new(),
            ..note.clone()
        };
        let (texts, since) = self.alike.entry(key, (HashSet::new(), now));
        if now - *since >= ALIKE_SECONDS {
            texts.clear();
        }
        *since = now;
        texts.insert(note.message.clone());
        if texts.len() < ALIKE {
            return note;
        }
        // One more would grow without bound.
        let last = texts.iter().next().cloned();
        if let Some(last) = last.filter(|_| texts.len() > ALIKE) {
            texts.remove(&last);
        }
        Note {
            message: format!("(combined from similar events): {}", note.message),
            ..note
        }
    }

    fn remember(&mut self, note: &Note, name: String, first: Timestamp, count: i32) {
        let key = Note {
            resource_version: String::new(),
            ..note.clone()
        };
        *self.known.entry(key, (String::new(), first, 0)) = (name, first, count);
    }
}

async fn write(
    client: &Client,
    book: &mut Book,
    entry: Entry,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let Entry { note, count, known } = entry;
    // Events about cluster-scoped objects live in the default namespace.
    let namespace = match note.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if let Some((name, first)) = known {
        let more = json!({"count": count, "lastTimestamp": Time(now), "message": note.message});
        let params = PatchParams::default();
        match api.patch(&name, &params, &Patch::Strategic(more)).await {
            Ok(_) => {
                book.remember(&note, name, first, count);
                return Ok(());
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let name = format!("{}.{:x}", note.name, now.as_nanosecond());
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: some(&note.api_version),
            kind: some(&note.kind),
            namespace: some(&note.namespace),
            name: some(&note.name),
            uid: some(&note.uid),
            resource_version: some(&note.resource_version),
            ..ObjectReference::default()
        },
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        type_: Some(note.tone.as_str().to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(note.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(note.component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    book.remember(&note, name, now, 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(object: &str, message: &str) -> Note {
        Note {
            component: "c",
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "n".to_owned(),
            name: object.to_owned(),
            uid: object.to_owned(),
            resource_version: message.len().to_string(),
            tone: Tone::Normal,
            reason: "R".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn equal_events_are_counted_alike_ones_joined_and_floods_held_back() {
        let mut book = Book::default();
        let told = |book: &mut Book, message: &str, now: i64| -> Option<(String, i32)> {
            let entry = book.take(note("a", message), now)?;
            let name = entry.known.map_or_else(|| "e".to_owned(), |(name, _)| name);
            book.remember(&entry.note, name, Timestamp::UNIX_EPOCH, entry.count);
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
        assert_eq!(told(&mut book, "m10", 3), Some((joined(10), 1)));
        for _ in 0..13 {
            assert!(told(&mut book, "m10", 3).is_some());
        }
        assert_eq!(told(&mut book, "m10", 3), None, "25 at once are enough");
        assert!(
            told(&mut book, "m11", 303).is_some(),
            "one more in five minutes"
        );
        assert_eq!(told(&mut book, "m11", 303), None);
        assert!(
            book.take(note("b", "m"), 303).is_some(),
            "others are not held back"
        );
        for object in 0..2 * MOST_KNOWN {
            let entry = book.take(note(&format!("o{object}"), "m"), 303).unwrap();
            book.remember(&entry.note, "e".to_owned(), Timestamp::UNIX_EPOCH, 1);
        }
        let sizes = (book.known.values.len(), book.alike.values.len());
        assert_eq!(sizes, (MOST_KNOWN, MOST_KNOWN));
        assert_eq!(book.buckets.values.len(), MOST_KNOWN);
    }
}
