//! `metadata.managedFields`: which managers own which fields, and since when. Follows
//! k8s.io/apimachinery/pkg/util/managedfields/internal (managedfields.go, buildmanagerinfo.go).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use super::fields;
use super::set::Set;
use crate::meta::time::parse;
use crate::schema::{Key, Object, Value, json};

/// The operation of a managedFields entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

impl Operation {
    /// Its name in managedFields.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// A field manager with its operation, version and subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its name.
    pub name: Key,
    /// Its operation.
    pub operation: Operation,
    /// The version of its field names. Updaters of different versions are distinct, appliers are not.
    pub api_version: Key,
    /// The subresource that it wrote; empty for the object itself.
    pub subresource: Key,
}

/// What identifies a manager: two are the same if these are equal.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity(Key, Operation, Key, Option<Key>);

impl Manager {
    pub(super) fn identity(&self) -> Identity {
        let version = (self.operation == Operation::Update).then(|| self.api_version.clone());
        Identity(
            self.name.clone(),
            self.operation,
            self.subresource.clone(),
            version,
        )
    }

    /// Whether both are the same manager.
    pub fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The text used as the last sort criterion of managers.
    pub fn identifier(&self) -> String {
        let mut out = Object::new();
        let version = match self.operation {
            Operation::Apply => "",
            Operation::Update => &self.api_version,
        };
        for (key, text) in [
            ("manager", self.name.as_str()),
            ("operation", self.operation.name()),
            ("apiVersion", version),
            ("subresource", &self.subresource),
        ] {
            if !text.is_empty() {
                out.insert(key, text);
            }
        }
        json::to_string(&out.into())
    }

    /// As shown in conflicts: `"m" with subresource "status" using apps/v1`.
    pub fn shown(&self) -> String {
        use crate::meta::errors::quoted;
        let mut out = quoted(&self.name);
        if !self.subresource.is_empty() {
            out.push_str(" with subresource ");
            out.push_str(&quoted(&self.subresource));
        }
        if self.operation == Operation::Update {
            out.push_str(" using ");
            out.push_str(&self.api_version);
        }
        out
    }
}

/// Replaces a client's `managedFields: []` by `[{}]`, which means the same but survives decoding.
pub fn keep_reset(object: &mut Value) {
    let list = object
        .get_mut("metadata")
        .and_then(|meta| meta.get_mut("managedFields"));
    if let Some(Value::Array(entries)) = list
        && entries.is_empty()
    {
        entries.push(Object::new().into());
    }
}

/// An entry of managedFields.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The field manager.
    pub manager: Manager,
    /// When it last changed something, in API format; `None` if it never did.
    pub time: Option<Key>,
    /// Its fields.
    pub set: Set,
}

/// All managers of an object, in no particular order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed {
    /// One entry per manager.
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Parses `metadata.managedFields`. Of two entries of one manager the last wins.
    ///
    /// # Errors
    /// An entry without a known operation, version or field format, or with invalid fields.
    pub fn read(list: &Value) -> Result<Managed, String> {
        let mut managed = Managed::default();
        let mut places = HashMap::new();
        for (i, entry) in list.as_array().unwrap_or(&[]).iter().enumerate() {
            let operation = match entry.str("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if entry.str("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match entry.str("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType {} in managed fields entry {i}",
                        crate::meta::errors::quoted(other)
                    ));
                }
            }
            let set = match entry.get("fieldsV1") {
                Some(fields) => {
                    fields::read(fields).map_err(|why| format!("error decoding set: {why}"))?
                }
                None => Set::default(),
            };
            let entry = Entry {
                manager: Manager {
                    name: entry.str("manager").into(),
                    operation,
                    api_version: entry.str("apiVersion").into(),
                    subresource: entry.str("subresource").into(),
                },
                time: entry.at("time").as_str().map(Key::from),
                set,
            };
            match places.entry(entry.manager.identity()) {
                Slot::Occupied(place) => managed.entries[*place.get()] = entry,
                Slot::Vacant(place) => {
                    place.insert(managed.entries.len());
                    managed.entries.push(entry);
                }
            }
        }
        Ok(managed)
    }

    /// Whether a client sent well-formed managedFields: a list whose items look like entries, whatever their contents.
    /// Upstream ignores anything else, because its accessor for untyped objects drops what it cannot read.
    pub fn is_said(list: &Value) -> bool {
        const TEXTS: [&str; 5] = [
            "manager",
            "operation",
            "apiVersion",
            "fieldsType",
            "subresource",
        ];
        let is_entry = |entry: &Value| {
            let text = |key: &str| entry.get(key).is_none_or(|value| value.as_str().is_some());
            let time = entry.get("time");
            entry.as_object().is_some()
                && TEXTS.into_iter().all(text)
                && time.is_none_or(|time| time.as_str().is_some_and(|text| parse(text).is_ok()))
        };
        list.as_array()
            .is_some_and(|entries| entries.iter().all(is_entry))
    }

    /// Whether a client's list resets all ownership: `[]` or `[{}]`.
    pub fn is_reset(list: &Value) -> bool {
        match list {
            Value::Array(entries) => match entries.as_slice() {
                [] => true,
                [Value::Object(entry)] => entry.is_empty(),
                _ => false,
            },
            _ => false,
        }
    }

    /// The entry of a manager.
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.manager.is(manager))
    }

    /// Removes and returns the entry of a manager.
    pub fn take(&mut self, manager: &Manager) -> Option<Entry> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.manager.is(manager))?;
        Some(self.entries.swap_remove(at))
    }

    /// Sets the entry of a manager, replacing its old one.
    pub fn put(&mut self, entry: Entry) {
        match self
            .entries
            .iter_mut()
            .find(|other| other.manager.is(&entry.manager))
        {
            Some(other) => *other = entry,
            None => self.entries.push(entry),
        }
    }

    /// Writes `metadata.managedFields`: appliers first, then by time, name, version and subresource; null if there are
    /// no entries.
    pub fn write(&self) -> Value {
        if self.entries.is_empty() {
            return Value::Null;
        }
        let mut sorted: Vec<&Entry> = self.entries.iter().collect();
        sorted.sort_by(|a, b| {
            let (x, y) = (&a.manager, &b.manager);
            x.operation
                .cmp(&y.operation)
                .then_with(|| seconds(&a.time).cmp(seconds(&b.time)))
                .then_with(|| x.name.cmp(&y.name))
                .then_with(|| x.api_version.cmp(&y.api_version))
                .then_with(|| x.subresource.cmp(&y.subresource))
        });
        Value::Array(sorted.into_iter().map(written).collect())
    }
}

/// A text that sorts by time in seconds; a missing time is 1970.
pub(super) fn seconds(time: &Option<Key>) -> &str {
    time.as_deref().unwrap_or("1970-01-01T00:00:00Z")
}

fn written(entry: &Entry) -> Value {
    let mut out = Object::with_capacity(7);
    let manager = &entry.manager;
    if !manager.name.is_empty() {
        out.insert("manager", &manager.name);
    }
    out.insert("operation", manager.operation.name());
    out.insert("apiVersion", &manager.api_version);
    if let Some(time) = &entry.time {
        out.insert("time", time);
    }
    out.insert("fieldsType", "FieldsV1");
    out.insert("fieldsV1", fields::write(&entry.set));
    if !manager.subresource.is_empty() {
        out.insert("subresource", &manager.subresource);
    }
    Value::Object(out)
}
