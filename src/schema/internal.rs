//! Canonical values in the form of upstream's internal Go structs: some errors print such a struct as JSON, and some
//! show a unified diff of two. `documents/internal.txt` lists their fields in order; the schemas of the served types
//! give the location and zero value of each field.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::{Field, Schema, Shape};
use super::{Object, Value, builtin, json};

mod unified;

/// One field of an internal struct.
struct Member {
    /// The Go name, which is also the JSON name.
    name: &'static str,
    /// Its fields appear among those of its owner.
    embedded: bool,
    go_type: &'static str,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Member>>> = LazyLock::new(|| {
    let mut types: HashMap<&'static str, Vec<Member>> = HashMap::new();
    let mut current = "";
    for line in include_str!("documents/internal.txt").lines() {
        let Some(rest) = line.strip_prefix(' ') else {
            current = line;
            types.insert(line, Vec::new());
            continue;
        };
        let mut words = rest.split(' ');
        let name = words.next().unwrap_or_default();
        let go_type = words.nth(1).unwrap_or_default();
        if let Some(members) = types.get_mut(current) {
            members.push(Member {
                name: name.trim_start_matches('^'),
                embedded: name.starts_with('^'),
                go_type,
            });
        }
    }
    types
});

/// A canonical value as printed by upstream's internal type. `go_type` is a Go type such as `core.PodSpec` or
/// `[]core.Container`; values of types without an internal form are returned unchanged.
pub fn dump(value: &Value, go_type: &str) -> Value {
    match (go_type.strip_prefix("[]"), value) {
        (Some(item), Value::Array(items)) => {
            Value::Array(items.iter().map(|value| dump(value, item)).collect())
        }
        _ => convert(value, go_type, served(go_type)),
    }
}

/// [`dump`] as compact JSON: the text after `Invalid value: `.
pub fn shown(value: &Value, go_type: &str) -> String {
    json::to_string(&dump(value, go_type))
}

/// The difference between two canonical values of an internal type, as a unified diff with three lines of context.
/// Empty if they are equal.
pub fn diff(old: &Value, new: &Value, go_type: &str) -> String {
    let text = |value| json::pretty(&dump(value, go_type), " ");
    unified::diff(&text(old), &text(new))
}

/// The served type that corresponds to an internal one.
pub(super) fn served(go_type: &str) -> Option<&'static Schema> {
    let (package, name) = element(go_type).split_once('.')?;
    // Fields of structs that Go embeds are served among those of their owner.
    let name = match name {
        "PersistentVolumeSource" => "PersistentVolumeSpec",
        "VolumeSource" => "Volume",
        name => name,
    };
    let prefix = match package {
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis.apiregistration",
        _ => "io.k8s.api",
    };
    // autoscaling's internal types are those of v2; some groups are only served in a beta version.
    ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]
        .iter()
        .map(|version| match package {
            "apiextensions" | "apiregistration" => format!("{prefix}.{version}.{name}"),
            _ => format!("{prefix}.{package}.{version}.{name}"),
        })
        .find(|name| builtin::knows(name))
        .map(|name| builtin::named(&name))
}

/// The type without pointers, lists and maps around it.
fn element(go_type: &str) -> &str {
    let stripped = go_type
        .strip_prefix('*')
        .or_else(|| go_type.strip_prefix("[]"))
        .or_else(|| {
            let rest = go_type.strip_prefix("map[")?;
            Some(rest.split_once(']')?.1)
        });
    stripped.map_or(go_type, element)
}

fn convert(value: &Value, go_type: &str, schema: Option<&Schema>) -> Value {
    if let Some(inner) = go_type.strip_prefix('*') {
        return match value {
            Value::Null => Value::Null,
            value => convert(value, inner, schema),
        };
    }
    let items = go_type.strip_prefix("[]");
    let values = go_type
        .strip_prefix("map[")
        .and_then(|rest| Some(rest.split_once(']')?.1));
    match (value, items, values) {
        (Value::Array(array), Some(item), _) => {
            let schema = items_of(schema);
            let convert = |value| convert(value, item, schema);
            Value::Array(array.iter().map(convert).collect())
        }
        (Value::Object(object), _, Some(value_type)) => {
            let schema = items_of(schema);
            let convert = |(key, value): (&super::Key, &Value)| {
                (key.clone(), convert(value, value_type, schema))
            };
            Value::Object(object.iter().map(convert).collect())
        }
        // Bytes are written in base64, as served.
        (Value::String(_), Some("byte" | "uint8"), _) => value.clone(),
        (_, Some(_), _) | (_, _, Some(_)) => Value::Null,
        _ if go_type.starts_with("apiextensions.JSONSchemaPropsOr") => either(value, go_type),
        _ => match TYPES.get(go_type) {
            Some(members) => {
                let mut out = Object::with_capacity(members.len());
                structure(value, members, schema, &mut out);
                Value::Object(out)
            }
            None if value.is_null() => zero(go_type, schema),
            None => value.clone(),
        },
    }
}

/// A union of a schema and another type: one value when served, two fields in the internal type.
fn either(value: &Value, go_type: &str) -> Value {
    let schema = |value: &Value| dump(value, "*apiextensions.JSONSchemaProps");
    let own = value.as_object().map_or(Value::Null, |_| schema(value));
    let list = |convert: &dyn Fn(&Value) -> Value| match value.as_array() {
        Some(items) => Value::Array(items.iter().map(convert).collect()),
        None => Value::Null,
    };
    let mut out = Object::with_capacity(2);
    match go_type.rsplit("Or").next() {
        Some("Bool") => {
            out.insert("Allows", value.as_bool().unwrap_or(true));
            out.insert("Schema", own);
        }
        Some("StringArray") => {
            out.insert("Schema", own);
            out.insert("Property", list(&Value::clone));
        }
        _ => {
            out.insert("Schema", own);
            out.insert("JSONSchemas", list(&schema));
        }
    }
    out.into()
}

/// The schema of the items of a list or the values of a map.
fn items_of(schema: Option<&Schema>) -> Option<&Schema> {
    match &schema?.shape {
        Shape::List(item) | Shape::Map(item) => Some(item),
        _ => None,
    }
}

fn structure(value: &Value, members: &[Member], schema: Option<&Schema>, out: &mut Object) {
    for member in members {
        if member.embedded {
            embedded(value, member, schema, out);
            continue;
        }
        let (name, field) = match place(schema, member.name) {
            Some((name, field)) => (name, Some(field)),
            None => (member.name, None),
        };
        let schema = field.map(|field| &*field.schema);
        out.insert(member.name, convert(value.at(name), member.go_type, schema));
    }
}

fn embedded(value: &Value, member: &Member, schema: Option<&Schema>, out: &mut Object) {
    match TYPES.get(member.go_type) {
        Some(members) => structure(value, members, schema, out),
        // Metadata is written as served; kind and apiVersion are empty in internal types.
        None if matches!(member.name, "ObjectMeta" | "ListMeta") => {
            for (key, value) in value.entries("metadata") {
                let holds = matches!(value, Value::Array(_) | Value::Object(_));
                if !holds || !value.is_empty() {
                    out.insert(key.clone(), value.clone());
                }
            }
        }
        None => {}
    }
}

/// The served field with the Go name `name`, and its JSON name.
fn place<'s>(schema: Option<&'s Schema>, name: &str) -> Option<(&'s str, &'s Field)> {
    let Shape::Struct(fields) = &schema?.shape else {
        return None;
    };
    let same = |field: &Field| &*field.go_name == name;
    fields
        .fields
        .iter()
        .find(|(_, field)| same(field))
        .or_else(|| {
            // A few internal names differ in case or equal the JSON name.
            fields
                .fields
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
        })
        .map(|(key, field)| (key.as_str(), field))
}

/// The zero value of a type that is not an internal struct.
fn zero(go_type: &str, schema: Option<&Schema>) -> Value {
    match go_type {
        "string" | "types.UID" => return Value::from(""),
        "bool" => return Value::Bool(false),
        "int" | "int32" | "int64" | "float64" => return Value::Int(0),
        "resource.Quantity" => return Value::from("0"),
        "intstr.IntOrString" => return Value::Int(0),
        "interface" => return Value::Null,
        _ => {}
    }
    match schema.map(|schema| &schema.shape) {
        Some(Shape::Struct(_)) => Value::Object(Object::new()),
        Some(Shape::Integer(_) | Shape::Number | Shape::IntOrString) => Value::Int(0),
        Some(Shape::Boolean) => Value::Bool(false),
        Some(Shape::Quantity) => Value::from("0"),
        Some(Shape::String) => Value::from(""),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn a_struct_is_dumped_in_gos_order_with_its_zero_values() {
        assert_eq!(
            shown(
                &value!({"type": "RuntimeDefault", "localhostProfile": "x"}),
                "core.SeccompProfile"
            ),
            r#"{"Type":"RuntimeDefault","LocalhostProfile":"x"}"#
        );
        assert_eq!(
            shown(&value!([{"ip": "10.0.0.1"}]), "[]core.PodIP"),
            r#"[{"IP":"10.0.0.1"}]"#
        );
        assert_eq!(
            shown(&value!({"name": "a"}), "core.PodResourceClaim"),
            r#"{"Name":"a","ResourceClaimName":null,"ResourceClaimTemplateName":null}"#
        );
    }

    #[test]
    fn embedded_structs_stand_in_their_owner_and_maps_and_lists_are_null_when_absent() {
        let volume = value!({"name": "v", "configMap": {"name": "c"}});
        let dumped = dump(&volume, "core.Volume");
        assert_eq!(dumped.at("ConfigMap").str("Name"), "c");
        assert_eq!(*dumped.at("ConfigMap").at("Items"), Value::Null);
        assert!(dumped.as_object().is_some_and(|o| o.contains("HostPath")));
        assert_eq!(
            shown(&Value::Null, "core.ResourceRequirements"),
            r#"{"Limits":null,"Requests":null,"Claims":null}"#
        );
    }

    #[test]
    fn labels_of_a_template_stand_beside_its_spec() {
        let template = value!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"}});
        let text = shown(&template, "core.PodTemplateSpec");
        assert!(
            text.starts_with(r#"{"labels":{"a":"b"},"Spec":{"Volumes":null,"#),
            "{text}"
        );
        assert!(
            text.contains(r#""NodeName":"n","HostNetwork":false,"#),
            "{text}"
        );
    }

    #[test]
    fn a_diff_has_three_lines_of_context() {
        let old = value!({"accessModes": ["ReadWriteOnce"], "volumeName": "a"});
        let new = value!({"accessModes": ["ReadWriteMany"], "volumeName": "a"});
        assert_eq!(
            diff(&old, &new, "core.PersistentVolumeClaimSpec"),
            "@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n+  \"ReadWriteMany\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n"
        );
        assert_eq!(diff(&old, &old, "core.PersistentVolumeClaimSpec"), "");
    }
}
