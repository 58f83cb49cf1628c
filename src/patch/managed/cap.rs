//! How many updaters an object records: the oldest are merged into one. Follows
//! k8s.io/apimachinery/pkg/util/managedfields/internal/capmanagers.go.

use std::collections::{BTreeMap, HashMap};

use super::entries::{Entry, Identity, Managed, Manager, Operation, seconds};
use super::set::Set;
use crate::schema::Key;

/// How many updaters an object records separately.
const MAX_UPDATERS: usize = 10;

/// The updater into which the oldest are merged.
const ANCIENT: &str = "ancient-changes";

/// An entry, and the fields of those that were merged into it.
struct Slot {
    entry: Entry,
    merged: Vec<Set>,
}

impl Slot {
    fn of(entry: Entry) -> Slot {
        Slot {
            entry,
            merged: Vec::new(),
        }
    }
}

/// Merges the oldest updaters of a version until they are within the limit. A client may send tens of thousands of them,
/// so they are found by their names, and each set of fields is looked at a few times only.
pub(super) fn cap(managed: &mut Managed) {
    let updates = |entry: &&Entry| entry.manager.operation == Operation::Update;
    let mut updaters: Vec<&Entry> = managed.entries.iter().filter(updates).collect();
    if updaters.len() <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by_cached_key(|entry| (seconds(&entry.time), entry.manager.identifier()));
    let updaters: Vec<Manager> = updaters
        .into_iter()
        .map(|entry| entry.manager.clone())
        .collect();
    let mut left = updaters.len();
    let entries = std::mem::take(&mut managed.entries).into_iter();
    let mut slots: HashMap<Identity, Slot> = entries
        .map(|entry| (entry.manager.identity(), Slot::of(entry)))
        .collect();
    let mut first: BTreeMap<Key, Identity> = BTreeMap::new();
    for manager in updaters {
        if left <= MAX_UPDATERS {
            break;
        }
        let version = manager.api_version.clone();
        let Some(earlier) = first.get(&version) else {
            first.insert(version, manager.identity());
            continue;
        };
        let Some(newer) = slots.remove(&manager.identity()) else {
            continue;
        };
        let bucket = Manager {
            name: ANCIENT.into(),
            operation: Operation::Update,
            api_version: version,
            subresource: Key::default(),
        };
        let identity = bucket.identity();
        let old = slots.remove(&identity).or_else(|| slots.remove(earlier));
        let mut merged = newer.merged;
        if let Some(old) = old {
            // The longer list stays where it is.
            let own = std::mem::replace(&mut merged, old.merged);
            merged.extend(own);
            merged.push(old.entry.set);
        }
        let entry = Entry {
            manager: bucket,
            ..newer.entry
        };
        slots.insert(identity, Slot { entry, merged });
        left -= 1;
    }
    managed.entries = slots
        .into_values()
        .map(
            |Slot {
                 mut entry,
                 mut merged,
             }| {
                merged.push(std::mem::take(&mut entry.set));
                entry.set = Set::union_of(merged);
                entry
            },
        )
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updater(name: &str, time: &str) -> Entry {
        Entry {
            manager: Manager {
                name: name.into(),
                operation: Operation::Update,
                api_version: "v1".into(),
                subresource: Key::default(),
            },
            time: Some(time.into()),
            set: Set::of_fields(&[&["data", name]]),
        }
    }

    #[test]
    fn very_many_updaters_become_ten() {
        let entries = (0..30_000).map(|i| {
            let minute = i / 500;
            updater(
                &format!("m{i:05}"),
                &format!("2026-01-01T00:{minute:02}:00Z"),
            )
        });
        let mut managed = Managed {
            entries: entries.collect(),
        };
        cap(&mut managed);
        let Managed { mut entries } = managed;
        assert_eq!(entries.len(), MAX_UPDATERS);
        entries.sort_by_key(|entry| entry.set.paths().len());
        let ancient = entries.pop().unwrap();
        assert_eq!(&*ancient.manager.name, ANCIENT);
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:59:00Z"));
        assert_eq!(ancient.set.paths().len(), 29_991);
        assert!(entries.iter().all(|entry| *entry.manager.name >= *"m29991"));
    }
}
