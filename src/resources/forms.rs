//! The forms of an object: as it is stored, as rules and admission work on it, and as a version shows it.
//!
//! Built-in kinds are worked on in their storage version, custom resources in the version that a request speaks. What
//! a version shows is bytes: the stored ones where they are in that form already, else bytes made when they are first
//! asked for and kept for a while.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::custom::{self, Custom};
use super::registry::{Resource, Version};
use super::{cluster, record};
use crate::schema::types::Field;
use crate::schema::{Shape, Value, builtin, decode, structural};
use crate::store::{Entry, Revision};

/// How many bytes of made forms a version keeps.
const BUDGET: usize = 16 << 20;

/// Entries in the form that one version shows, by revision.
#[derive(Debug, Default)]
pub struct Forms(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    entries: HashMap<Revision, Arc<Entry>>,
    bytes: usize,
}

impl Forms {
    fn get(&self, entry: &Entry) -> Option<Arc<Entry>> {
        let made = self.0.lock();
        made.entries
            .get(&entry.rev)
            .filter(|form| form.key == entry.key)
            .cloned()
    }

    fn keep(&self, form: &Arc<Entry>) {
        let mut made = self.0.lock();
        let size = form.record.body.len() + 256;
        if made.bytes + size > BUDGET {
            *made = Made::default();
        }
        made.bytes += size;
        made.entries.insert(form.rev, form.clone());
    }
}

/// Whether stored bytes are what a version shows.
fn is_stored_form(resource: &Resource, version: &Version, entry: &Entry) -> bool {
    version.name == resource.storage_version
        && match &resource.custom {
            Some(custom) => entry.record.epoch == custom.epoch,
            None => version.conversion.is_none(),
        }
}

/// The entry as a version shows it: its body, and its selectable fields.
pub fn shown(resource: &Resource, version: &Version, entry: &Arc<Entry>) -> Arc<Entry> {
    if is_stored_form(resource, version, entry) {
        return entry.clone();
    }
    if let Some(form) = version.forms.get(entry) {
        return form;
    }
    let object = match &resource.custom {
        Some(custom) => custom_form(resource, custom, version, entry),
        None => from_storage(cluster::stored(entry), resource, version),
    };
    let mut record = record::encode_shown(resource, &object);
    record.fields = match &version.custom {
        Some(served) => custom::fields(&served.selectable, &object),
        None => entry.record.fields.clone(),
    };
    let form = Arc::new(Entry {
        key: entry.key.clone(),
        rev: entry.rev,
        record,
        expires: entry.expires,
    });
    version.forms.keep(&form);
    form
}

/// A custom resource as it would be stored now: decoded by the schema of the version it was stored in, where that has
/// changed since.
pub fn restored(resource: &Resource, custom: &Custom, entry: &Entry) -> Value {
    let mut object = cluster::stored(entry);
    if entry.record.epoch != custom.epoch {
        let stored_in = object
            .str("apiVersion")
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let schema = custom
            .schemas
            .get(stored_in)
            .or_else(|| custom.schemas.get(&resource.storage_version));
        if let Some(schema) = schema {
            object = lenient(object, schema, false);
        }
    }
    object
}

/// A custom resource as a version shows it: pruned by its schema, unless it is the version that is stored.
fn custom_form(resource: &Resource, custom: &Custom, version: &Version, entry: &Entry) -> Value {
    in_version(restored(resource, custom, entry), resource, version)
}

fn in_version(mut object: Value, resource: &Resource, version: &Version) -> Value {
    let api_version = resource.api_version(&version.name);
    if object.str("apiVersion") != api_version {
        object = lenient(object, &version.schema, true);
        object.set("apiVersion", api_version);
    }
    object
}

/// Whether writing what a version shows of an entry would leave the store as it is. A custom resource may be stored by
/// another version's schema, or by one that has changed since.
pub fn is_stored_so(object: &Value, resource: &Resource, version: &Version, entry: &Entry) -> bool {
    !resource.is_custom()
        || is_stored_form(resource, version, entry)
        || record::encode(resource, object).body == entry.record.body
}

/// What would have been written, as the version shows it once it is read back: what a dry run answers.
pub fn unwritten(object: Value, resource: &Resource, version: &Version) -> Value {
    if !resource.is_custom() || version.name == resource.storage_version {
        return object;
    }
    in_version(to_storage(&object, resource), resource, version)
}

/// Decodes what was accepted before: nothing is refused.
fn lenient(object: Value, schema: &crate::schema::Schema, prune_only: bool) -> Value {
    let options = structural::Options {
        lenient: true,
        prune_only,
        ..structural::Options::default()
    };
    structural::decode(object, schema, options)
        .map(|decoded| decoded.value)
        .unwrap_or_default()
}

/// An object of a built-in kind's storage version in another version.
pub fn from_storage(value: Value, resource: &Resource, version: &Version) -> Value {
    let mut value = match version.conversion {
        Some(conversion) => (conversion.from_storage)(value),
        None => value,
    };
    if version.name != resource.storage_version || version.conversion.is_some() {
        value.set("apiVersion", resource.api_version(&version.name));
    }
    value
}

/// An entry as a version shows it, as a value; its resourceVersion is `rev`.
pub fn versioned(
    entry: &Arc<Entry>,
    rev: Revision,
    resource: &Resource,
    version: &Version,
) -> Value {
    let form = shown(resource, version, entry);
    let mut value = cluster::stored(&form);
    cluster::set_revision(&mut value, rev);
    value
}

/// An entry as rules and admission work on it in a request that speaks `version`.
pub fn working(entry: &Arc<Entry>, resource: &Resource, version: &Version) -> Value {
    if resource.is_custom() {
        versioned(entry, entry.rev, resource, version)
    } else {
        cluster::object(entry)
    }
}

/// What a version shows, as rules and admission work on it.
pub fn to_working(object: Value, resource: &Resource, version: &Version) -> Value {
    if resource.is_custom() {
        return object;
    }
    let mut object = match version.conversion {
        Some(conversion) => (conversion.to_storage)(object),
        None => object,
    };
    object.set("apiVersion", resource.stored_api_version());
    tidy(&mut object, resource);
    object
}

/// What rules and admission worked on, as a version shows it.
pub fn from_working(object: Value, resource: &Resource, version: &Version) -> Value {
    if resource.is_custom() {
        return object;
    }
    from_storage(object, resource, version)
}

/// Brings an object that rules or admission have changed back into canonical form.
pub fn tidy(object: &mut Value, resource: &Resource) {
    if resource.is_custom() {
        if let Some(meta) = object.get_mut("metadata") {
            decode::tidy(meta, builtin::object_meta());
        }
    } else if let Some(schema) = resource.stored_schema() {
        match resource.group.as_str() {
            // Upstream stores these in JSON.
            "apiextensions.k8s.io" | "apiregistration.k8s.io" => decode::tidy_json(object, schema),
            _ => decode::tidy(object, schema),
        }
    }
}

/// A custom resource as it is read back: an apply can leave nulls, which are judged with it but not kept.
pub fn settle(object: &mut Value, resource: &Resource, version: &Version) {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(has_null),
            Value::Object(members) => members.values().any(has_null),
            _ => false,
        }
    }
    if resource.is_custom() && has_null(object) {
        *object = lenient(std::mem::take(object), &version.schema, false);
    }
}

/// A new custom resource as it is read back: its status, which nobody could say when it was made, has its default.
pub fn read_back(object: &mut Value, version: &Version) {
    let Shape::Struct(whole) = &version.schema.shape else {
        return;
    };
    let has_default = |field: &Field| field.schema.default.is_some();
    if version.custom.is_some()
        && object.get("status").is_none()
        && whole.fields.get("status").is_some_and(has_default)
    {
        *object = lenient(std::mem::take(object), &version.schema, false);
    }
}

/// What rules and admission worked on, as it is stored.
pub fn to_storage(object: &Value, resource: &Resource) -> Value {
    let mut object = object.clone();
    let Some(custom) = &resource.custom else {
        return object;
    };
    let api_version = resource.api_version(&resource.storage_version);
    if object.str("apiVersion") != api_version {
        object.set("apiVersion", api_version);
        if let Some(schema) = custom.schemas.get(&resource.storage_version) {
            object = lenient(object, schema, false);
        }
    }
    object
}
