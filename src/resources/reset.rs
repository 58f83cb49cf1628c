//! The fields reset by a write to a resource or one of its subresources, which are thus not owned by it: upstream's
//! GetResetFields and GetResetFieldsFilter. Writes to the object reset its status, and writes to the status
//! reset the spec; `documents/reset-fields.txt` lists the exceptions (`-` is the object itself).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::registry::{Resource, Version};
use crate::patch::managed::{Filter, Set};

static STATUS: LazyLock<Filter> = LazyLock::new(|| except(&["status"]));
static SPEC: LazyLock<Filter> = LazyLock::new(|| except(&["spec"]));
static METADATA_AND_SPEC: LazyLock<Filter> = LazyLock::new(|| except(&["metadata", "spec"]));
static ALL: Filter = Filter::All;

/// By resource and subresource.
static TABLE: LazyLock<HashMap<String, Filter>> = LazyLock::new(|| {
    include_str!("documents/reset-fields.txt")
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let place = format!("{} {}", words.next()?, words.next()?);
            let fields: Vec<&str> = words.collect();
            Some((place, except(&fields)))
        })
        .collect()
});

fn except(paths: &[&str]) -> Filter {
    let mut set = Set::default();
    for path in paths {
        set.insert_fields(&path.split('.').collect::<Vec<_>>());
    }
    Filter::Except(set)
}

/// The fields tracked for a write; `subresource` is empty for the object itself.
pub fn filter(resource: &Resource, version: &Version, subresource: &str) -> &'static Filter {
    if !resource.is_custom() {
        let dot = if resource.group.is_empty() { "" } else { "." };
        let sub = if subresource.is_empty() {
            "-"
        } else {
            subresource
        };
        let place = format!("{}{dot}{} {sub}", resource.plural, resource.group);
        if let Some(filter) = TABLE.get(place.as_str()) {
            return filter;
        }
    }
    match subresource {
        "" if version.has_status() => &STATUS,
        "status" if resource.is_custom() => &METADATA_AND_SPEC,
        "status" => &SPEC,
        _ => &ALL,
    }
}
