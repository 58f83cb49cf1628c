//! Types of custom resources in the documents. Follows
//! k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder/builder.go and v2/conversion.go beside it.

use super::prose;
use super::writing::Form;
use crate::resources::Resource;
use crate::resources::custom::Custom;
use crate::schema::{Object, Value};
use crate::value;

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
/// The component name of the metadata of objects.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The component name of a custom kind: `com.example.v1.Widget` for the group `example.com`.
pub fn name(group: &str, version: &str, kind: &str) -> String {
    let mut words: Vec<&str> = group.split('.').rev().collect();
    words.extend([version, kind]);
    words.join(".")
}

/// The types of objects and lists of a custom resource in one version, with their component names.
pub fn types(
    resource: &Resource,
    custom: &Custom,
    version: &str,
    form: &Form,
) -> [(String, Value); 2] {
    let spec = custom.definition.at("spec");
    let mut versions = spec.list("versions").iter();
    let declared = versions
        .find(|declared| declared.str("name") == version)
        .unwrap_or(&Value::Null);
    let schema = declared.path(&["schema", "openAPIV3Schema"]);
    let open = schema.bool(OPEN) || spec.bool("preserveUnknownFields");
    let mut one = if schema.is_null() || (form.v2 && open) {
        // kubectl assumes that there are no members besides the named ones.
        type_of("object")
    } else {
        let mut one = published(schema, form.v2);
        let properties = one.object_mut("properties");
        properties.insert("apiVersion", text(prose::API_VERSION));
        properties.insert("kind", text(prose::KIND));
        properties.insert("metadata", form.refer(OBJECT_META, prose::METADATA));
        embed(&mut one, form);
        one
    };
    let selectable: Vec<Value> = declared
        .list("selectableFields")
        .iter()
        .map(|field| field.str("jsonPath"))
        .map(|path| value!({"fieldPath": (path.strip_prefix('.').unwrap_or(path))}))
        .collect();
    let (group, kind, list_kind) = (&*resource.group, &*resource.kind, &*resource.list_kind);
    let is = |kind: &str, of: &mut Object| {
        let gvk = value!({"group": group, "kind": kind, "version": version});
        of.insert("x-kubernetes-group-version-kind", vec![gvk]);
        if !selectable.is_empty() {
            of.insert("x-kubernetes-selectable-fields", selectable.clone());
        }
    };
    is(kind, &mut one);
    let of_one = name(group, version, kind);
    let mut items = type_of("array");
    items.insert("description", format!("List of {}.", resource.plural));
    items.insert("items", form.refer(&of_one, ""));
    let mut list = type_of("object");
    list.insert("description", format!("{list_kind} is a list of {kind}"));
    list.insert("required", vec![Value::from("items")]);
    let properties = list.object_mut("properties");
    properties.insert("apiVersion", text(prose::API_VERSION));
    properties.insert("items", items);
    properties.insert("kind", text(prose::KIND));
    properties.insert("metadata", form.refer(LIST_META, prose::LIST_METADATA));
    is(list_kind, &mut list);
    [
        (of_one, one.into()),
        (name(group, version, list_kind), list.into()),
    ]
}

fn type_of(kind: &str) -> Object {
    let mut out = Object::new();
    out.insert("type", kind);
    out
}

fn text(description: &str) -> Object {
    let mut out = type_of("string");
    out.insert("description", description);
    out
}

/// A declared schema in the form that the documents use. Version 2 has neither alternatives nor nulls, and its clients
/// assume that there are no members besides the named ones.
fn published(schema: &Value, v2: bool) -> Object {
    let nullable = v2 && schema.bool("nullable");
    let bare = nullable || (v2 && schema.bool(OPEN));
    let mut out = Object::new();
    for (key, value) in schema.entries_of() {
        match key.as_str() {
            "nullable" | "default" | "allOf" | "anyOf" | "oneOf" | "not" if v2 => {}
            "items" | "properties" if bare => {}
            "properties" => {
                let properties = out.object_mut("properties");
                for (name, value) in value.entries_of() {
                    properties.insert(name.clone(), published(value, v2));
                }
            }
            "items" | "additionalProperties" if value.as_object().is_some() => {
                out.insert(key.clone(), published(value, v2));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    let untyped = match schema.str("type") {
        "object" => bare,
        "array" => nullable || !out.contains("items"),
        _ => nullable,
    };
    if v2 && untyped {
        out.remove("type");
    }
    if v2 && !bare {
        require_no_nulls(schema, &mut out);
    }
    if !v2 && schema.bool(INT_OR_STRING) {
        say_int_or_string(&mut out);
    }
    out
}

/// A nullable member is not required: version 2 has no nulls.
fn require_no_nulls(schema: &Value, out: &mut Object) {
    let required: Vec<Value> = schema
        .list("required")
        .iter()
        .filter(|name| {
            let member = schema
                .at("properties")
                .at(name.as_str().unwrap_or_default());
            !member.bool("nullable")
        })
        .cloned()
        .collect();
    if required.is_empty() || schema.at("additionalProperties").bool("nullable") {
        out.remove("required");
    } else {
        out.insert("required", required);
    }
}

/// Adds alternatives for integer or string, unless there are some.
fn say_int_or_string(out: &mut Object) {
    let alternatives = vec![
        Value::from(type_of("integer")),
        Value::from(type_of("string")),
    ];
    let said = |value: Option<&Value>| value.and_then(Value::as_array) == Some(&*alternatives);
    let all = out.get("allOf").and_then(Value::as_array);
    if said(out.get("anyOf")) || said(all.and_then(|all| all.first()?.get("anyOf"))) {
        return;
    }
    if out.contains("anyOf") {
        out.array_mut("allOf")
            .insert(0, value!({"anyOf": alternatives}));
    } else {
        out.insert("anyOf", alternatives);
    }
}

/// Adds the members of every object to embedded objects.
fn embed(schema: &mut Object, form: &Form) {
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (_, value) in properties.iter_mut() {
                    embed(value.object_mut(), form);
                }
            }
            ("items" | "additionalProperties", Value::Object(value)) => embed(value, form),
            _ => {}
        }
    }
    let set = |key: &str| schema.get(key).and_then(Value::as_bool) == Some(true);
    if !set(EMBEDDED) || (form.v2 && set(OPEN)) {
        return;
    }
    let properties = schema.object_mut("properties");
    properties.insert("apiVersion", text(prose::API_VERSION));
    properties.insert("kind", text(prose::KIND));
    properties.insert("metadata", form.refer(OBJECT_META, prose::METADATA));
    let required = schema.array_mut("required");
    for name in ["kind", "apiVersion"] {
        if !required.contains(&Value::from(name)) {
            required.push(name.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    /// Declared, published in version 3, and in version 2.
    const PUBLISHED: &[(&str, &str, &str)] = &[
        (
            r#"{"type":"string","default":"x","minLength":1}"#,
            r#"{"type":"string","default":"x","minLength":1}"#,
            r#"{"type":"string","minLength":1}"#,
        ),
        (
            r#"{"type":"object","nullable":true,"properties":{"a":{"type":"string"}}}"#,
            r#"{"type":"object","nullable":true,"properties":{"a":{"type":"string"}}}"#,
            "{}",
        ),
        (
            r#"{"type":"object","required":["a","b"],"properties":{"a":{"type":"string","nullable":true},"b":{"type":"string"}}}"#,
            r#"{"type":"object","required":["a","b"],"properties":{"a":{"type":"string","nullable":true},"b":{"type":"string"}}}"#,
            r#"{"type":"object","required":["b"],"properties":{"a":{},"b":{"type":"string"}}}"#,
        ),
        (
            r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"string"}}}"#,
            r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"string"}}}"#,
            r#"{"x-kubernetes-preserve-unknown-fields":true}"#,
        ),
        (
            r#"{"x-kubernetes-int-or-string":true}"#,
            r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}"#,
            r#"{"x-kubernetes-int-or-string":true}"#,
        ),
        (
            r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"minLength":3},{"maximum":4}]}"#,
            r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"minLength":3},{"maximum":4}],"allOf":[{"anyOf":[{"type":"integer"},{"type":"string"}]}]}"#,
            r#"{"x-kubernetes-int-or-string":true}"#,
        ),
        (
            r#"{"type":"array","items":{"type":"object","oneOf":[{"required":["a"]}]}}"#,
            r#"{"type":"array","items":{"type":"object","oneOf":[{"required":["a"]}]}}"#,
            r#"{"type":"array","items":{"type":"object"}}"#,
        ),
        (
            r#"{"type":"object","additionalProperties":true}"#,
            r#"{"type":"object","additionalProperties":true}"#,
            r#"{"type":"object","additionalProperties":true}"#,
        ),
    ];

    #[test]
    fn schemas_are_published_as_each_version_can_say_them() {
        let read = |text: &str| json::parse(text.as_bytes()).unwrap().value;
        for (declared, v3, v2) in PUBLISHED {
            let made = |v2| Value::from(published(&read(declared), v2));
            assert_eq!(made(false), read(v3), "{declared}");
            assert_eq!(made(true), read(v2), "{declared}");
        }
    }

    #[test]
    fn types_are_named_backwards() {
        let found = name("v5.example.com", "v1", "Gizmo");
        assert_eq!(found, "com.example.v5.v1.Gizmo");
    }
}
