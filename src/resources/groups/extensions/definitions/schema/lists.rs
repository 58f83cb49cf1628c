//! Lists that are maps, and their items.

use crate::meta::{At, Errors};
use crate::schema::{Value, internal};

pub(super) fn map_list(keys: At<'_>, items: At<'_>, errors: &mut Errors) {
    if keys.list().is_empty() {
        errors.required(
            keys.path,
            "must not be empty if x-kubernetes-list-type is map",
        );
    }
    if items.is_absent() {
        errors.required(
            items.path,
            "must have a schema if x-kubernetes-list-type is map",
        );
        return;
    }
    if items.value.as_object().is_none() {
        errors.invalid_shown(
            items.path,
            &internal::shown(items.value, "*apiextensions.JSONSchemaPropsOrArray"),
            "must only have a single schema if x-kubernetes-list-type is map",
        );
        return;
    }
    let kind = items.field("type");
    if kind.str() != "object" {
        errors.invalid(
            kind.path,
            kind.str(),
            "must be object if parent array's x-kubernetes-list-type is map",
        );
        return;
    }
    let properties = items.field("properties");
    let mut seen: Vec<&str> = Vec::new();
    for key in keys.list().iter().filter_map(Value::as_str) {
        match properties.value.get(key) {
            Some(property) if matches!(property.str("type"), "array" | "object") => {
                let property = properties.path.key(key);
                errors.invalid(
                    property.field("type"),
                    kind.str(),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                );
            }
            Some(_) => {}
            None => errors.invalid(
                keys.path,
                keys.value,
                "entries must all be names of item properties",
            ),
        }
        if seen.contains(&key) {
            errors.invalid(keys.path, keys.value, "must not contain duplicate entries");
        }
        seen.push(key);
    }
}

/// In sets and maps, items must not be nullable, and a map's keys must be required or have defaults.
pub(super) fn list_items(at: At<'_>, errors: &mut Errors) {
    let list_type = at.value.str("x-kubernetes-list-type");
    let items = at.field("items");
    if !matches!(list_type, "set" | "map") || items.value.as_object().is_none() {
        return;
    }
    if items.value.bool("nullable") {
        errors.forbidden(
            items.path.field("nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
        );
    }
    if list_type != "map" {
        return;
    }
    let properties = items.field("properties");
    for key in at.value.list("x-kubernetes-list-map-keys") {
        let Some(name) = key.as_str() else { continue };
        let Some(property) = properties.value.get(name) else {
            continue;
        };
        let path = properties.path.key(name);
        if !items.value.list("required").contains(key) && property.get("default").is_none() {
            errors.required(
                path.field("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
        if property.bool("nullable") {
            errors.forbidden(
                path.field("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}
