//! Field ownership after a write: `metadata.managedFields`. Follows
//! k8s.io/apimachinery/pkg/util/managedfields/internal/fieldmanager.go.

use super::Target;
use super::write::Write;
use crate::meta::time;
use crate::patch::managed::typing::Type;
use crate::patch::managed::validate::validate;
use crate::patch::managed::{Filter, Managed, Set, Writer};
use crate::resources::owners::Served;
use crate::resources::{Resource, Version, reset};
use crate::schema::{Object, Value, decode};
/// An empty object in a version, as it is written.
pub fn nothing(resource: &Resource, version: &Version) -> Value {
    let mut object = Object::with_capacity(2);
    object.insert("kind", &resource.kind);
    object.insert("apiVersion", resource.api_version(&version.name));
    let mut object = Value::Object(object);
    if !resource.is_custom() {
        decode::tidy(&mut object, &version.schema);
    }
    object
}

/// Calls `with` with the writer for a request.
pub fn writer<T>(write: &Write<'_>, with: impl FnOnce(&Writer<'_>) -> T) -> T {
    let target = write.target;
    let version = target.version();
    let subresource = target.info.subresource.as_str();
    let filter = reset::filter(&target.resource, version, subresource);
    with(&Writer {
        versions: &Served(&target.resource),
        api_version: &target.resource.api_version(&version.name),
        schema: &version.schema,
        filter,
        // For custom resources, fields that a version resets are only known for writes of the object itself.
        filter_elsewhere: if target.resource.is_custom() && subresource.is_empty() {
            &Filter::All
        } else {
            filter
        },
        manager: &write.options.manager,
        subresource,
        now: &time::print(target.now),
    })
}

/// Removes the managedFields from an object and returns them.
pub fn take(object: &mut Value) -> Value {
    object
        .get_mut("metadata")
        .and_then(|meta| meta.remove("managedFields"))
        .unwrap_or_default()
}

/// Sets the managedFields of an object.
pub fn put(object: &mut Value, list: Value) {
    if !list.is_null() {
        object
            .object_mut()
            .object_mut("metadata")
            .insert("managedFields", list);
    }
}

/// Updates the managedFields of `new` after a write other than an apply; `old` is the previous object. Both are in the
/// request's version and in canonical form.
pub fn track(write: &Write<'_>, old: Option<Value>, new: &mut Value) {
    let target = write.target;
    let said = take(new);
    let created = old.is_none();
    let mut old = old.unwrap_or_else(|| nothing(&target.resource, target.version()));
    let live = take(&mut old);
    if !fits(target, new) || !fits(target, &old) {
        put(new, live);
        return;
    }
    let known = |list: &Value| Managed::read(list).unwrap_or_default();
    let managed = if !target.info.subresource.is_empty() {
        known(&live)
    } else if Managed::is_reset(&said) {
        Managed::default()
    } else {
        match Managed::read(&said) {
            Ok(managed) if !managed.entries.is_empty() => no_owners_of_owners(managed, &live),
            _ => known(&live),
        }
    };
    match writer(write, |writer| writer.update(&old, new, managed, created)) {
        Ok(managed) => put(new, managed.write()),
        Err(_) => put(new, live),
    }
}

/// The managedFields that a client sent, without ownership of the managedFields themselves: these are removed during a
/// write, and so from their owners.
fn no_owners_of_owners(mut managed: Managed, live: &Value) -> Managed {
    if live.is_null() {
        return managed;
    }
    let list = Set::of_fields(&[&["metadata", "managedFields"]]);
    for entry in &mut managed.entries {
        entry.set = std::mem::take(&mut entry.set).difference(&list);
    }
    managed
}

/// Whether ownership of an object's fields can be recorded: some objects may have lists whose items cannot be
/// distinguished.
fn fits(target: &Target, object: &Value) -> bool {
    !(target.resource.is_custom() || target.resource.rules.keyless_items)
        || validate(object, Type::root(&target.version().schema), true).is_ok()
}

/// If only the times of managedFields changed, the old times are kept, so that the write changes nothing.
pub fn keep_times(new: &mut Value, old: &Value) {
    let path = ["metadata", "managedFields"];
    let (news, olds) = match (new.path(&path), old.path(&path)) {
        (Value::Array(news), Value::Array(olds)) if news.len() == olds.len() => (news, olds),
        _ => return,
    };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        entry.remove("time");
        entry
    };
    let moved = |(a, b): (&Value, &Value)| a.at("time") != b.at("time");
    if !news.iter().zip(olds).any(moved)
        || !news
            .iter()
            .zip(olds)
            .all(|(a, b)| timeless(a) == timeless(b))
    {
        return;
    }
    let list = take(new);
    let mut rest = old.clone();
    let before = take(&mut rest);
    put(new, if *new == rest { before } else { list });
}
