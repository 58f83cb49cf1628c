//! The forms of an object: as stored, as rules and admission use it (the working form), and as shown by a version.
//!
//! The working form of built-in kinds is their storage version, that of custom resources the version of the request.
//! The form shown by a version is bytes: the stored ones if they are in that form already, otherwise made at first
//! use and cached for a while.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::custom::{self, Custom};
use super::registry::{Resource, Version};
use super::{cluster, record};
use crate::schema::types::Field;
use crate::schema::{Shape, Value, builtin, decode, structural};
use crate::store::{Entry, Revision};

/// The maximum size of the cached forms of a version, in bytes.
const BUDGET: usize = 16 << 20;

/// Cached entries in the form shown by one version, by revision.
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

/// Whether stored bytes are in the form shown by a version.
fn is_stored_form(resource: &Resource, version: &Version, entry: &Entry) -> bool {
    version.name == resource.storage_version
        && match &resource.custom {
            Some(custom) => entry.record.epoch == custom.epoch,
            None => version.conversion.is_none(),
        }
}

/// The entry as shown by a version: its body, and its selectable fields.
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

/// A custom resource as it would be stored now: decoded with the schema of its stored version, if that has changed
/// since.
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

/// A custom resource as shown by a version: pruned with its schema, unless it is the storage version.
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

/// Whether writing the shown form of an entry would not change the store. A custom resource may be stored with another
/// version's schema, or with one that has changed since; a new object of a built-in kind may be incomplete.
pub fn is_stored_so(object: &Value, resource: &Resource, version: &Version, entry: &Entry) -> bool {
    match resource.is_custom() {
        true => {
            is_stored_form(resource, version, entry)
                || record::encode(resource, object).body == entry.record.body
        }
        false => record::is_complete(&entry.record),
    }
}

/// The object that would have been written, in the form shown by the version: the response to a dry run.
pub fn unwritten(object: Value, resource: &Resource, version: &Version) -> Value {
    if !resource.is_custom() || version.name == resource.storage_version {
        return object;
    }
    in_version(to_storage(&object, resource), resource, version)
}

/// Decodes an object that was accepted before: rejects nothing.
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

/// Converts an object of a built-in kind from the storage version to another version.
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

/// An entry as shown by a version, as a value with resourceVersion `rev`.
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

/// An entry in working form for a request in `version`.
pub fn working(entry: &Arc<Entry>, resource: &Resource, version: &Version) -> Value {
    if resource.is_custom() {
        versioned(entry, entry.rev, resource, version)
    } else {
        cluster::object(entry)
    }
}

/// Converts an object from the form shown by a version to working form.
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

/// Converts an object from working form to the form shown by a version.
pub fn from_working(object: Value, resource: &Resource, version: &Version) -> Value {
    if resource.is_custom() {
        return object;
    }
    from_storage(object, resource, version)
}

/// Restores canonical form after rules or admission have changed an object.
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

/// Decodes a custom resource as if read back: nulls left by an apply are validated but not stored.
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

/// A new custom resource as if read back: its status, which clients cannot set on creation, gets its default.
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

/// Converts an object from working form to the stored form.
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
