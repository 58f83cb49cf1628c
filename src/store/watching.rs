//! Wakes watches: a change wakes only the cursors that it matches, so that a thousand nodes that each watch their
//! own pods do not make a change expensive.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Event, Interest, ResourcePrefix, Revision};

/// How many revisions are queued for a cursor that does not read them.
const KEPT: usize = 256;

/// Wakes one cursor.
pub(super) struct Signal {
    interest: Interest,
    /// Written under the lock of the history that its revisions refer to, so never contended.
    untold: Mutex<Untold>,
    notify: Notify,
}

/// What a cursor has not read yet.
#[derive(Default)]
pub(super) struct Untold {
    /// Matching changes in order; the history between them need not be searched under the contended lock.
    pub(super) revs: Vec<Revision>,
    /// From here on the cursor must search the history: too many changes matched, or it is unknown which.
    pub(super) rest: Option<Revision>,
}

impl Untold {
    /// The first revision to read.
    pub(super) fn first(&self) -> Option<Revision> {
        self.revs.first().copied().or(self.rest)
    }
}

impl Signal {
    /// Returns and clears what is to be read.
    pub(super) fn take(&self) -> Untold {
        std::mem::take(&mut self.untold.lock())
    }

    /// Adds a matching change. Returns whether there was none before, so that the cursor must be woken.
    fn tell(&self, rev: Revision) -> bool {
        let mut untold = self.untold.lock();
        let is_first = untold.first().is_none();
        if untold.rest.is_none() {
            match untold.revs.len() < KEPT {
                true => untold.revs.push(rev),
                false => untold.rest = Some(rev),
            }
        }
        is_first
    }

    /// Makes the cursor search the history from this revision on.
    pub(super) fn look_from(&self, rev: Revision) {
        *self.untold.lock() = Untold {
            revs: Vec::new(),
            rest: Some(rev),
        };
        self.wake();
    }

    /// Wakes the cursor.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Resolves when there is something to read, at once if it came since the last call. Cancel-safe.
    pub(super) async fn told(&self) {
        self.notify.notified().await;
    }

    /// The events that wake it.
    pub(super) fn interest(&self) -> &Interest {
        &self.interest
    }
}

/// Several signals.
pub(super) type Signals = Vec<Arc<Signal>>;

/// The signals of all cursors.
#[derive(Default)]
pub(super) struct Watching(HashMap<ResourcePrefix, OfResource>);

/// The signals of a resource's cursors, indexed by what a change can match.
#[derive(Default)]
struct OfResource {
    by_key: HashMap<Arc<str>, Signals>,
    by_field: HashMap<CompactString, HashMap<CompactString, Signals>>,
    others: Signals,
}

impl Watching {
    /// Adds a cursor.
    pub(super) fn add(&mut self, interest: Interest) -> Arc<Signal> {
        let of = self.0.entry(interest.resource.clone()).or_default();
        let signals = match &interest.field {
            _ if interest.exact => of.by_key.entry(interest.keys.clone()).or_default(),
            Some((name, value)) => of
                .by_field
                .entry(name.clone())
                .or_default()
                .entry(value.clone())
                .or_default(),
            None => &mut of.others,
        };
        let signal = Arc::new(Signal {
            interest,
            untold: Mutex::default(),
            notify: Notify::new(),
        });
        signals.push(signal.clone());
        signal
    }

    /// Removes a cursor.
    pub(super) fn remove(&mut self, signal: &Arc<Signal>) {
        let interest = &signal.interest;
        let Some(of) = self.0.get_mut(&interest.resource) else {
            return;
        };
        let drop_from = |signals: &mut Signals| signals.retain(|one| !Arc::ptr_eq(one, signal));
        match &interest.field {
            _ if interest.exact => {
                if let Some(signals) = of.by_key.get_mut(&interest.keys) {
                    drop_from(signals);
                    if signals.is_empty() {
                        of.by_key.remove(&interest.keys);
                    }
                }
            }
            Some((name, value)) => {
                if let Some(values) = of.by_field.get_mut(name)
                    && let Some(signals) = values.get_mut(value)
                {
                    drop_from(signals);
                    if signals.is_empty() {
                        values.remove(value);
                    }
                }
            }
            None => drop_from(&mut of.others),
        }
    }

    /// Queues a change for the cursors that it matches, and adds to `woken` those that must be woken.
    pub(super) fn tell(&self, resource: &ResourcePrefix, event: &Event, woken: &mut Signals) {
        let mut tell_if = |signal: &Arc<Signal>| {
            if concerns(&signal.interest, event) && signal.tell(event.rev) {
                woken.push(signal.clone());
            }
        };
        // A cursor without a resource sees all of them.
        for of in [self.0.get(resource), self.0.get("")].into_iter().flatten() {
            of.others.iter().for_each(&mut tell_if);
        }
        let Some(of) = self.0.get(resource) else {
            return;
        };
        let entries = [&event.old, &event.new].into_iter().flatten();
        // Both sides of a change have the same key.
        let key = entries.clone().next().map(|entry| &entry.key);
        let mut meant: Vec<&Signals> = key.and_then(|key| of.by_key.get(key)).into_iter().collect();
        for (name, values) in &of.by_field {
            let fields = entries.clone().flat_map(|entry| &entry.record.fields);
            let of_name = fields.filter(|(known, _)| known == name);
            meant.extend(of_name.filter_map(|(_, value)| values.get(value)));
        }
        meant.into_iter().flatten().for_each(tell_if);
    }
}

/// Whether a change of the interest's resource matches it.
pub(super) fn concerns(interest: &Interest, event: &Event) -> bool {
    let sides = [event.old.as_ref(), event.new.as_ref()];
    let Some(key) = sides.iter().flatten().next().map(|entry| &entry.key) else {
        return false;
    };
    let keys = if interest.exact {
        **key == *interest.keys
    } else {
        key.starts_with(&*interest.keys)
    };
    keys && interest.field.as_ref().is_none_or(|(name, value)| {
        sides.iter().flatten().any(|entry| {
            entry
                .record
                .fields
                .iter()
                .any(|(n, v)| n == name && v == value)
        })
    })
}
