//! Converts managedFields between a Scale and its parent: the one field of a Scale has another path in its parent.
//! Follows k8s.io/apimachinery/pkg/util/managedfields/scalehandler.go.

use super::entries::{Entry, Managed, Manager, Operation};
use super::set::Set;
use crate::schema::Value;

/// The version of a Scale.
pub const SCALE_VERSION: &str = "autoscaling/v1";

/// The path of the replicas in a Scale.
const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// The path of the replicas in each version of the parent: `None` for an unknown version, an empty path for one
/// without a scale subresource.
pub type Places<'a> = &'a dyn Fn(&str) -> Option<Vec<&'a str>>;

/// The managedFields of a Scale: the managers that own the replicas of its parent.
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

/// `metadata.managedFields` of the parent after a write to its Scale. Managers that own the replicas in the Scale own
/// them in the parent; appliers that still own them keep their entries, all others lose the field. (Upstream does not
/// recognize updaters that kept it: they get an additional entry until the next write.)
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
