//! Records events about objects. Follows k8s.io/client-go/tools/record.
//!
//! Nothing waits for an event to be written, and no caller fails if it is not: events go through a bounded channel, and
//! are dropped when that is full. Equal events are counted in one Event object, similar ones are aggregated, and events
//! about one object are rate-limited. One task correlates all events; several write them. All events of one Event
//! object go to the same writer, so its counts are written in order. The scheduler uses the newer `events.k8s.io` form:
//! see [`series`].

mod book;
mod recent;
mod series;

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

use self::book::{Book, Entry};
use super::errors::is_not_found;

pub use self::series::Deed;

/// Events that may wait at most, of some 500 bytes each: as many as placing thousands of pods at once produces.
const MOST_WAITING: usize = 10_000;
/// Tasks that write events.
const WRITERS: usize = 8;
/// Events that may wait for each writer.
const MOST_UNDER_WAY: usize = 32;
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
mod tests;
