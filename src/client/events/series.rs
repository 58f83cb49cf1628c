//! Events in the form of `events.k8s.io`: an action on an object, and how often the same one was repeated. Follows
//! k8s.io/client-go/tools/events (event_broadcaster.go).
//!
//! The first of several equal events is written, and the second one turns it into a series. Of further ones only the
//! count and the last time are kept: they are written when the series is over, and periodically, so that the event does
//! not expire while the series continues.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::json;

use super::Tone;
use super::recent::Recent;
use crate::client::errors::is_not_found;

/// How long after its last event a series is over.
const OVER: SignedDuration = SignedDuration::from_mins(6);
/// How often to look for series that are over.
pub(super) const LOOK: Duration = Duration::from_secs(6 * 60);
/// How often continuing series are written.
pub(super) const REFRESH: Duration = Duration::from_secs(30 * 60);

/// An action on an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// The type of the event.
    pub tone: Tone,
    /// The action, in a word: `Binding`.
    pub action: &'static str,
    /// The result, in a word: `Scheduled`.
    pub reason: &'static str,
    /// A message of at most 1,024 bytes.
    pub note: String,
    /// A related object, if any.
    pub related: Option<ObjectReference>,
}

/// An action, who reports it, and the object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub controller: &'static str,
    pub instance: Arc<str>,
    pub about: ObjectReference,
    pub deed: Deed,
}

/// The state of equal reports.
struct Series {
    first: Report,
    name: String,
    begun: Timestamp,
    /// Their count and the time of the last one; None for a single one.
    more: Option<(i32, Timestamp)>,
    client: Client,
}

/// A report to be written: a new event, or an update of an existing one.
pub(super) struct Entry {
    pub report: Report,
    pub name: String,
    pub begun: Timestamp,
    pub more: Option<(i32, Timestamp)>,
    pub client: Client,
}

impl Series {
    fn entry(&self) -> Entry {
        Entry {
            report: self.first.clone(),
            name: self.name.clone(),
            begun: self.begun,
            more: self.more,
            client: self.client.clone(),
        }
    }
}

/// Reports that may become a series.
#[derive(Default)]
pub(super) struct Book {
    known: Recent<Series>,
}

impl Book {
    /// What to write for a report, if anything. `key` is the hash of [`Report::likeness`].
    pub fn take(
        &mut self,
        key: u64,
        client: Client,
        report: Report,
        now: Timestamp,
    ) -> Option<Entry> {
        let mut is_new = false;
        let series = self.known.entry(key, || {
            is_new = true;
            let object = report.about.name.as_deref().unwrap_or_default();
            Series {
                name: format!("{object}.{:x}", now.as_nanosecond()),
                first: report,
                begun: now,
                more: None,
                client,
            }
        });
        if is_new {
            return Some(series.entry());
        }
        let goes_on = series.more.is_some();
        let count = series.more.map_or(2, |(count, _)| count.saturating_add(1));
        series.more = Some((count, now));
        (!goes_on).then(|| series.entry())
    }

    /// Removes reports whose time is over; returns the series among them, to be written for the last time.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Entry> {
        let mut over = Vec::new();
        self.known.retain(|series| {
            let last = series.more.map_or(series.begun, |(_, last)| last);
            let goes_on = now.duration_since(last) <= OVER;
            if !goes_on && series.more.is_some() {
                over.push(series.entry());
            }
            goes_on
        });
        over
    }

    /// The continuing series, to be written.
    pub fn refresh(&self) -> Vec<Entry> {
        let series = self.known.values.values().map(|(series, _)| series);
        series
            .filter(|series| series.more.is_some())
            .map(Series::entry)
            .collect()
    }
}

impl Report {
    /// What two reports of a series have in common: everything except the message, including the version of the object.
    pub fn likeness(&self) -> impl std::hash::Hash + '_ {
        let reference = |to: &ObjectReference| {
            [
                &to.api_version,
                &to.kind,
                &to.namespace,
                &to.name,
                &to.uid,
                &to.resource_version,
                &to.field_path,
            ]
            .map(Clone::clone)
        };
        let deed = &self.deed;
        (
            (self.controller, &self.instance),
            (deed.tone, deed.action, deed.reason),
            reference(&self.about),
            deed.related.as_ref().map(reference),
        )
    }
}

/// Writes a report.
///
/// # Errors
/// The API rejects it.
pub(super) async fn write(entry: Entry) -> Result<(), kube::Error> {
    let Entry {
        report,
        name,
        begun,
        more,
        client,
    } = entry;
    let Report {
        controller,
        instance,
        about,
        deed,
    } = report;
    // Events about cluster-scoped objects live in the namespace `default`.
    let namespace = about.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let series = more.map(|(count, last)| EventSeries {
        count,
        last_observed_time: MicroTime(last),
    });
    if let Some(series) = &series {
        let patch = Patch::Strategic(json!({"series": series}));
        match api.patch(&name, &PatchParams::default(), &patch).await {
            // It expired, or was never written.
            Err(error) if is_not_found(&error) => {}
            other => return other.map(|_| ()),
        }
    }
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(begun)),
        series,
        reporting_controller: Some(controller.to_owned()),
        reporting_instance: Some(instance.to_string()),
        action: Some(deed.action.to_owned()),
        reason: Some(deed.reason.to_owned()),
        regarding: Some(about),
        related: deed.related,
        note: Some(deed.note),
        type_: Some(deed.tone.as_str().to_owned()),
        ..Event::default()
    };
    let body = serde_json::to_vec(&event).map_err(kube::Error::SerdeError)?;
    let request = Request::new(api.resource_url());
    crate::client::write(&client, request.create(&PostParams::default(), body)).await
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;
    use crate::auth::User;
    use crate::client::Transport;

    #[tokio::test]
    async fn equal_reports_are_a_series_that_is_written_twice_and_when_it_is_over() {
        let transport = Transport::new(|_, _| std::future::pending());
        let client = transport.client(User::new("test", &[]), "test");
        let hasher = RandomState::new();
        let report = |version: &str, note: &str, related: Option<&str>| Report {
            controller: "c",
            instance: "c-host".into(),
            about: ObjectReference {
                name: Some("p".to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectReference::default()
            },
            deed: Deed {
                tone: Tone::Warning,
                action: "Scheduling",
                reason: "FailedScheduling",
                note: note.to_owned(),
                related: related.map(|name| ObjectReference {
                    name: Some(name.to_owned()),
                    ..ObjectReference::default()
                }),
            },
        };
        let mut book = Book::default();
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let told = |book: &mut Book, report: Report, second: i64| {
            let key = hasher.hash_one(report.likeness());
            let entry = book.take(key, client.clone(), report, at(second))?;
            let count = entry.more.map_or(1, |(count, _)| count);
            Some((entry.name, entry.report.deed.note, count))
        };
        let is = |name: &str, note: &str, count| Some((name.to_owned(), note.to_owned(), count));
        let (first, other) = ("p.3b9aca00", "p.b2d05e00");
        assert_eq!(
            told(&mut book, report("1", "a", None), 1),
            is(first, "a", 1)
        );
        // A different message does not make a different event.
        assert_eq!(
            told(&mut book, report("1", "b", None), 2),
            is(first, "a", 2)
        );
        assert_eq!(told(&mut book, report("1", "c", None), 2), None);
        assert_eq!(
            told(&mut book, report("2", "a", None), 3),
            is(other, "a", 1)
        );
        let related = report("1", "a", Some("x"));
        assert!(told(&mut book, related, 3).is_some());
        assert_eq!(told(&mut book, report("1", "d", None), 100), None);
        let written = |entries: Vec<Entry>| -> Vec<_> {
            let more = entries.into_iter().map(|entry| (entry.name, entry.more));
            more.collect()
        };
        let series = [(first.to_owned(), Some((4, at(100))))];
        assert_eq!(written(book.refresh()), series);
        assert_eq!(written(book.finish(at(400))), [], "singles are forgotten");
        assert_eq!(book.known.values.len(), 1);
        assert_eq!(written(book.finish(at(461))), series);
        assert_eq!(written(book.refresh()), []);
        let again = told(&mut book, report("1", "e", None), 500);
        assert_eq!(
            again.map(|(_, note, count)| (note, count)),
            Some(("e".to_owned(), 1))
        );
        assert_eq!(book.known.values.len(), 1);
    }
}
