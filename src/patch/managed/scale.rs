//! Owners across a Scale and what it scales: the one field of a Scale is a field of its parent under another name.
//! Follows k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go.

use super::entries::{Entry, Managed, Manager, Operation};
use super::set::Set;
use crate::schema::Value;

/// The version of a Scale.
pub const SCALE_VERSION: &str = "autoscaling/v1";

/// Where the replicas of a Scale are.
const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// Where the replicas are in each version of the parent: none for a version that is not known, an empty path for one
/// without a Scale.
pub type Places<'a> = &'a dyn Fn(&str) -> Option<Vec<&'a str>>;

/// The owners of a Scale: those who own the replicas of its parent.
pub fn to_scale(parent: &Managed, places: Places<'_>) -> Managed {
    let owns = |entry: &&Entry| {
        places(&entry.manager.api_version).is_some_and(|path| entry.set.has_fields(&path))
    };
    let entries = parent
        .entries
        .iter()
        .filter(owns)
        .map(|entry| Entry {
            manager: Manager {
                api_version: SCALE_VERSION.into(),
                ..entry.manager.clone()
            },
            time: entry.time.clone(),
            set: Set::of_fields(&[&REPLICAS]),
        })
        .collect();
    Managed { entries }
}

/// `metadata.managedFields` of the parent after its Scale was written. Who owns the replicas by the Scale owns them in
/// the parent; appliers who still do keep their entries, all others lose them. (Upstream does not know updaters again
/// that kept them: they get an entry more, until the next write.)
pub fn to_parent(
    parent: &Managed,
    mut scale: Managed,
    api_version: &str,
    places: Places<'_>,
) -> Value {
    let mut out = Managed::default();
    for entry in &parent.entries {
        let Some(path) = places(&entry.manager.api_version) else {
            continue;
        };
        let applies = entry.manager.operation == Operation::Apply;
        let keeps =
            !entry.set.has_fields(&path) || (applies && scale.take(&entry.manager).is_some());
        let set = if keeps {
            entry.set.clone()
        } else {
            entry.set.clone().difference(&Set::of_fields(&[&path]))
        };
        if !set.is_empty() {
            out.entries.push(Entry {
                set,
                ..entry.clone()
            });
        }
    }
    let place = places(api_version).unwrap_or_default();
    for entry in scale.entries {
        if entry.set.has_fields(&REPLICAS) {
            let time = parent
                .get(&entry.manager)
                .and_then(|entry| entry.time.clone());
            out.entries.push(Entry {
                manager: Manager {
                    api_version: api_version.into(),
                    ..entry.manager
                },
                time,
                set: Set::of_fields(&[&place]),
            });
        }
    }
    out.write()
}
