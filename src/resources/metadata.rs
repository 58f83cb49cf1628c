//! Validation of object metadata, the same for every kind. Follows k8s.io/apimachinery/pkg/api/validation/objectmeta.go
//! and pkg/apis/meta/v1/validation.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::meta::errors::{Path, Reason, is_print, quoted};
use crate::meta::{At, Errors, names, time};
use crate::schema::Value;

/// Limit for the total size of keys and values of all annotations, in bytes.
pub const ANNOTATIONS_MAX: usize = 256 << 10;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;

/// Removes annotations, and the member `annotations` if it becomes empty.
pub fn drop_annotations(object: &mut Value, names: &[&str]) {
    let Some(meta) = object.get_mut("metadata") else {
        return;
    };
    if let Some(annotations) = meta.get_mut("annotations") {
        for name in names {
            annotations.remove(name);
        }
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
}

/// The annotations that mark the default storage class.
pub const DEFAULT_STORAGE_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The index of the newest object for which one of the annotations is `true`; of equally old ones the first
/// by name.
pub fn newest_marked<V: Borrow<Value>>(objects: &[V], annotations: &[&str]) -> Option<usize> {
    let meta = |at: &usize| {
        let object: &Value = objects[*at].borrow();
        object.at("metadata")
    };
    (0..objects.len())
        .filter(|at| {
            let marks = meta(at).at("annotations");
            annotations.iter().any(|mark| marks.str(mark) == "true")
        })
        .min_by_key(|at| {
            let created = time::parse(meta(at).str("creationTimestamp")).unwrap_or(i64::MIN);
            (Reverse(created), meta(at).str("name"))
        })
}

/// Validates the metadata of an object to be created, like ValidateObjectMeta; `name` checks its name, or with `true` a
/// name prefix. A name must have been generated already.
pub fn validate(
    meta: At<'_>,
    namespaced: bool,
    name: fn(&str, bool) -> Vec<String>,
    errors: &mut Errors,
) {
    let prefix = meta.field("generateName");
    if !prefix.str().is_empty() {
        prefix.invalid_each(name(prefix.str(), true), errors);
    }
    let own = meta.field("name");
    if own.str().is_empty() {
        errors.required(own.path, "name or generateName is required");
    } else {
        own.invalid_each(name(own.str(), false), errors);
    }
    namespace(meta, namespaced, errors);
    meta.field("generation").non_negative(errors);
    meta.field("labels").labels(errors);
    annotations(meta.field("annotations"), errors);
    owners(meta.field("ownerReferences"), errors);
    finalizers(meta.field("finalizers"), errors);
    managed_fields(meta.field("managedFields"), errors);
}

/// Validates the parts of an update that are common to all kinds, before those shared with creation.
pub fn validate_any_update(
    new: At<'_>,
    old: At<'_>,
    resource: &super::Resource,
    errors: &mut Errors,
) {
    validate(new, resource.namespaced, as_segment, errors);
    validate_update(new, old, errors);
    own_finalizers(new, resource, errors);
}

/// Validates that the names of an object to be created can be part of a path: upstream's check for all kinds, after
/// their own rules, which may not restrict names.
pub fn names_in_paths(meta: At<'_>, errors: &mut Errors) {
    for (field, prefix) in [("generateName", true), ("name", false)] {
        let name = meta.field(field);
        name.invalid_each(as_segment(name.str(), prefix), errors);
    }
}

fn as_segment(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        names::path_segment_prefix(name)
    } else {
        names::path_segment(name)
    }
}

/// Validates the metadata on update by the rules for creation, for kinds that do both. Does not repeat
/// errors.
pub fn again(object: At<'_>, old: Option<At<'_>>, cx: &super::Cx<'_>, errors: &mut Errors) {
    if old.is_some() {
        let resource = cx.resource;
        let meta = object.field("metadata");
        validate(
            meta,
            resource.namespaced,
            resource.rules.naming.validate,
            errors,
        );
    }
}

/// Validates the metadata of an update of `old`, like ValidateObjectMetaUpdate. The caller has already rejected an
/// update without a required resourceVersion.
pub fn validate_update(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    let listed = new.field("finalizers");
    if !old.field("deletionTimestamp").is_absent() {
        no_new_finalizers(listed, old.field("finalizers"), errors);
    }
    let generation = new.field("generation");
    generation.non_negative(errors);
    let now = generation.int().unwrap_or(0);
    if now < old.value.int("generation") {
        errors.invalid(generation.path, now, "must not be decremented");
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (new, old) = (new.field(field), old.value.at(field));
        // Absent text is empty in Go.
        if new.value != old && !(new.value.is_empty() && old.is_empty() && new.int().is_none()) {
            let absent_text = new.is_absent() && matches!(field, "name" | "namespace" | "uid");
            let shown = if absent_text {
                Value::from("")
            } else {
                new.value.clone()
            };
            errors.invalid(new.path, shown, "field is immutable");
        }
    }
    new.field("labels").labels(errors);
    annotations(new.field("annotations"), errors);
    owners(new.field("ownerReferences"), errors);
    managed_fields(new.field("managedFields"), errors);
}

fn namespace(meta: At<'_>, namespaced: bool, errors: &mut Errors) {
    let namespace = meta.field("namespace");
    match (namespaced, namespace.str().is_empty()) {
        (true, true) => errors.required(namespace.path, ""),
        (true, false) => {
            namespace.invalid_each(names::dns1123_label(namespace.str()), errors);
        }
        (false, false) => errors.forbidden(namespace.path, "not allowed on this type"),
        (false, true) => {}
    }
}

/// Validates annotations, like ValidateAnnotations. Keys are case-insensitive.
pub fn annotations(annotations: At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.str().len();
        for wrong in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(annotations.path, key, wrong);
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(annotations.path, ANNOTATIONS_MAX);
    }
}

fn owners(owners: At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        owned_by(owner, errors);
        if !owner.value.bool("controller") {
            continue;
        }
        let this = format!("{}/{}", owner.value.str("kind"), owner.value.str("name"));
        match &controller {
            None => controller = Some(this),
            Some(first) => errors.invalid(
                owners.path,
                owners.value,
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                ),
            ),
        }
    }
}

fn owned_by(owner: At<'_>, errors: &mut Errors) {
    let api_version = owner.field("apiVersion");
    let parts: Vec<&str> = api_version.str().split('/').collect();
    let (group, version) = match parts[..] {
        [version] => ("", version),
        [group, version] => (group, version),
        _ => ("", ""),
    };
    if api_version.str().is_empty() {
        errors.required(api_version.path, "must not be empty");
    } else if version.is_empty() {
        errors.invalid(
            api_version.path,
            api_version.str(),
            "must be <group>/<version> or <version>",
        );
    }
    for field in ["kind", "name", "uid"] {
        owner.field(field).required("must not be empty", errors);
    }
    if group.is_empty() && version == "v1" && owner.value.str("kind") == "Event" {
        errors.invalid(
            owner.path,
            owner.value,
            "/v1, Kind=Event is disallowed from being an owner",
        );
    }
}

/// Validates finalizers, like ValidateFinalizers.
pub fn finalizers(finalizers: At<'_>, errors: &mut Errors) {
    for finalizer in finalizers.items() {
        for wrong in names::qualified_name(finalizer.str()) {
            errors.invalid(finalizers.path, finalizer.str(), wrong);
        }
    }
    let has = |name: &str| finalizers.list().iter().any(|f| f.as_str() == Some(name));
    if has(ORPHAN) && has(FOREGROUND) {
        errors.invalid(
            finalizers.path,
            finalizers.value,
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        );
    }
}

/// Validates that finalizers are standard or domain-qualified, as most built-in kinds require.
pub fn own_finalizers(meta: At<'_>, resource: &super::Resource, errors: &mut Errors) {
    const WITHOUT: [&str; 6] = [
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "policy",
    ];
    let judged = !resource.is_custom() && !resource.rules.metadata_last;
    if judged && !WITHOUT.contains(&resource.group.as_str()) {
        let finalizers = meta.field("finalizers");
        finalizers
            .items()
            .for_each(|name| own_finalizer(name, errors));
    }
}

/// Validates that a finalizer is standard or domain-qualified, like validateKubeFinalizerName.
pub fn own_finalizer(name: At<'_>, errors: &mut Errors) {
    if !name.str().contains('/') && !matches!(name.str(), "kubernetes" | ORPHAN | FOREGROUND) {
        errors.invalid(
            name.path,
            name.str(),
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

fn no_new_finalizers(new: At<'_>, old: At<'_>, errors: &mut Errors) {
    let texts = |at: At<'_>| -> BTreeSet<String> {
        at.list()
            .iter()
            .filter_map(|f| f.as_str().map(str::to_owned))
            .collect()
    };
    let old = texts(old);
    let extra: Vec<String> = texts(new)
        .difference(&old)
        .map(|name| quoted(name))
        .collect();
    if !extra.is_empty() {
        errors.forbidden(
            new.path,
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                extra.join(", ")
            ),
        );
    }
}

fn managed_fields(entries: At<'_>, errors: &mut Errors) {
    for entry in entries.items() {
        let operation = entry.field("operation");
        if operation.str().is_empty() {
            errors.required(operation.path, "must not be empty");
        } else {
            operation.one_of(&["Apply", "Update"], errors);
        }
        let kind = entry.field("fieldsType");
        if !matches!(kind.str(), "" | "FieldsV1") {
            errors.invalid(kind.path, kind.str(), "must be `FieldsV1`");
        }
        let manager = entry.field("manager");
        field_manager(manager.str(), manager.path, errors);
        let subresource = entry.field("subresource");
        if subresource.str().len() > SUBRESOURCE_MAX {
            errors.too_long(subresource.path, SUBRESOURCE_MAX);
        }
    }
}

/// Validates a field manager's name, like ValidateFieldManager: not too long, and printable.
pub fn field_manager(name: &str, path: Path<'_>, errors: &mut Errors) {
    if name.len() > MANAGER_MAX {
        errors.too_long(path, MANAGER_MAX);
    }
    for (at, c) in name.char_indices() {
        if !is_print(c) {
            errors.push(
                Reason::Invalid,
                path,
                format!(
                    "Invalid value: {}: invalid character U+{:04X} (at position {at})",
                    quoted(name),
                    c as u32
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests;
