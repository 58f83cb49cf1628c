//! What is remembered of events, so that those that are alike become one.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use k8s_openapi::jiff::Timestamp;

use super::Note;
use super::recent::Recent;

/// How many events that differ only in their message are recorded separately before they are aggregated.
const ALIKE: usize = 10;

/// How long similar events are remembered, in seconds.
const ALIKE_SECONDS: i64 = 600;

/// How many events a source may record about one object in a burst.
const BURST: f64 = 25.0;

/// The rate of further ones, per second.
const RATE: f64 = 1.0 / 300.0;

/// An event to be written: a new object, or an update of an existing one's count.
pub(super) struct Entry {
    pub(super) note: Note,
    pub(super) name: String,
    /// When it first and last happened.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: i32,
}

/// Correlates events: what was recorded before.
#[derive(Default)]
pub(super) struct Book {
    hasher: RandomState,
    pub(super) known: Recent<(String, Timestamp, i32)>,
    pub(super) alike: Recent<(HashSet<u64>, i64)>,
    pub(super) buckets: Recent<(f64, i64)>,
}

impl Book {
    pub(super) fn hash(&self, value: impl std::hash::Hash) -> u64 {
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
    pub(super) fn take(&mut self, note: Note, now: Timestamp) -> Option<Entry> {
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
