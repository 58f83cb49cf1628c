//! Resources: how each kind is stored, and how two are compared.

use std::collections::BTreeMap;

use super::doc;
use crate::fakehost::xml::Element;

/// A resource while it is being specified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resource {
    /// Simple properties by their property name (`ncpus` is kept as `min` and `max`).
    pub fields: BTreeMap<&'static str, String>,
    /// Mount options, resource control values, or network properties.
    pub list: Vec<Element>,
}

impl Resource {
    pub fn get(&self, property: &str) -> &str {
        self.fields.get(property).map_or("", String::as_str)
    }

    pub fn put(&mut self, kind: &str, property: &'static str, value: &str) {
        let value = doc::cut(value, doc::field_limit(kind, property));
        self.fields.insert(property, value);
    }
}

/// How a resource is stored: the element, and (property, attribute, always written) in order.
pub(super) struct Shape {
    pub element: &'static str,
    pub fields: &'static [(&'static str, &'static str, bool)],
}

pub(super) fn shape(kind: &str) -> Shape {
    let (element, fields): (_, &'static [_]) = match kind {
        "fs" => (
            "filesystem",
            &[
                ("special", "special", true),
                ("raw", "raw", false),
                ("dir", "directory", true),
                ("type", "type", true),
            ],
        ),
        "net" => (
            "network",
            &[
                ("address", "address", false),
                ("allowed-address", "allowed-address", false),
                ("physical", "physical", true),
                ("defrouter", "defrouter", false),
                ("mac-addr", "mac-addr", false),
                ("vlan-id", "vlan-id", false),
                ("global-nic", "global-nic", false),
            ],
        ),
        "device" => ("device", &[("match", "match", true)]),
        "rctl" => ("rctl", &[("name", "name", true)]),
        "attr" => (
            "attr",
            &[
                ("name", "name", true),
                ("type", "type", true),
                ("value", "value", true),
            ],
        ),
        "dataset" => ("dataset", &[("name", "name", true)]),
        "dedicated-cpu" => (
            "pset",
            &[("min", "ncpu_min", true), ("max", "ncpu_max", true)],
        ),
        "admin" => ("admin", &[("user", "user", true), ("auths", "auths", true)]),
        "security-flags" => (
            "security-flags",
            &[
                ("default", "default", true),
                ("lower", "lower", true),
                ("upper", "upper", true),
            ],
        ),
        "capped-memory" => ("mcap", &[("physical", "physcap", true)]),
        _ => ("", &[]),
    };
    Shape { element, fields }
}

/// The element's name for a resource type.
pub(super) fn element_name(kind: &str) -> &'static str {
    shape(kind).element
}

pub(super) fn to_element(kind: &str, resource: &Resource) -> Element {
    let shape = shape(kind);
    let mut element = Element::new(shape.element);
    for (property, attribute, always) in shape.fields {
        let value = resource.get(property);
        if *always || !value.is_empty() {
            element.set(attribute, value);
        }
    }
    element.children = resource.list.clone();
    element
}

/// The resources of a kind, in order.
pub(super) fn all(kind: &str, document: &Element) -> Vec<Resource> {
    let mut all: Vec<Resource> = document
        .named(element_name(kind))
        .map(|element| from_element(kind, element))
        .collect();
    let pool = document.named(TMP_POOL).last();
    if let ("dedicated-cpu", Some(pool), Some(first)) = (kind, pool, all.first_mut()) {
        let importance = pool.attr_or_empty("importance").to_owned();
        first.fields.insert("importance", importance);
    }
    all
}

/// The element beside `pset` with the importance of dedicated CPUs.
pub(super) const TMP_POOL: &str = "tmp_pool";

pub(super) fn from_element(kind: &str, element: &Element) -> Resource {
    let mut resource = Resource {
        list: element.children.clone(),
        ..Resource::default()
    };
    for (property, attribute, _) in shape(kind).fields {
        resource
            .fields
            .insert(property, element.attr_or_empty(attribute).to_string());
    }
    resource
}

/// The properties that `set` accepts in a resource without special rules.
pub(super) fn plain(kind: &str, property: &str) -> bool {
    match kind {
        "fs" => matches!(property, "dir" | "special" | "raw"),
        "net" => matches!(property, "mac-addr" | "vlan-id" | "global-nic"),
        "device" => property == "match",
        "attr" => matches!(property, "name" | "type" | "value"),
        "dataset" => property == "name",
        "admin" => matches!(property, "user" | "auths"),
        "security-flags" => matches!(property, "default" | "lower" | "upper"),
        _ => false,
    }
}

/// Whether a resource has a property's value, in the library's sense: addresses compare as
/// addresses, and those of the other kind of IP stack are not compared at all.
pub(super) fn matches_property(
    kind: &str,
    property: &str,
    value: &str,
    resource: &Resource,
    exclusive: bool,
) -> bool {
    let have = resource.get(property);
    match (kind, property) {
        ("net", "address") => exclusive || doc::same_address(value, have),
        ("net", "allowed-address") => !exclusive || doc::same_address(value, have),
        ("net", "defrouter") => doc::same_address(value, have),
        ("net", "mac-addr" | "global-nic") => !exclusive || value == have,
        ("net", "vlan-id") => true,
        _ => value == have,
    }
}
