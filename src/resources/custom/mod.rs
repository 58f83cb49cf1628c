//! Custom resources: the registry entries that definitions make, compiled once for each version of a definition.

pub mod conditions;
pub mod definition;
pub mod embedded;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use compact_str::{CompactString, format_compact};

use super::registry::{Column, Resource, Subresource, Version};
use super::scale::Scale;
use crate::meta::jsonpath::JsonPath;
use crate::meta::table::since;
use crate::meta::{time, version};
use crate::schema::check::Check;
use crate::schema::types::SchemaRef;
use crate::schema::{Key, Value, json, structural};
use crate::store::{Pairs, Revision};

/// The data of a definition needed by its registry entry.
#[derive(Debug)]
pub struct Custom {
    /// The CustomResourceDefinition.
    pub definition: Value,
    /// The revision at which the history of instances starts: earlier watches get 410 Expired.
    pub since: Revision,
    /// No new instances may be created.
    pub terminating: bool,
    /// Identifies the schema, defaults and selectable fields with which objects are stored now.
    pub epoch: u32,
    /// The schemas of all versions, served or not.
    pub schemas: HashMap<Key, Arc<SchemaRef>>,
    /// The selectable fields of all versions.
    pub selectable: Vec<(Key, JsonPath)>,
}

/// Validation and presentation of one version of a custom resource.
#[derive(Debug)]
pub struct Served {
    /// Validates its objects.
    pub check: Check,
    /// The schema has CEL rules.
    pub expressions: bool,
    /// The schema has embedded objects.
    pub embeds: bool,
    /// The paths of table cells, except the name.
    pub cells: Vec<JsonPath>,
    /// Its selectable fields.
    pub selectable: Vec<(Key, JsonPath)>,
    /// The scale subresource.
    pub scale: Option<Scale>,
}

/// The status of the condition `kind` of a definition.
pub fn condition<'a>(definition: &'a Value, kind: &str) -> &'a str {
    definition
        .at("status")
        .list("conditions")
        .iter()
        .find(|condition| condition.str("type") == kind)
        .map_or("", |condition| condition.str("status"))
}

/// The storage version of a definition, if it has one.
pub fn storage_version(definition: &Value) -> Option<&str> {
    definition
        .at("spec")
        .list("versions")
        .iter()
        .find(|version| version.bool("storage"))
        .map(|version| version.str("name"))
}

/// The registry entry of a definition, with a history that starts at revision `since`; `None` until it is
/// established.
pub fn resource(definition: &Value, since: Revision) -> Option<Resource> {
    if condition(definition, "Established") != "True" {
        return None;
    }
    let spec = definition.at("spec");
    let names = definition.path(&["status", "acceptedNames"]);
    let (group, plural) = (spec.str("group"), names.str("plural"));
    let storage = storage_version(definition).unwrap_or_default();
    let terminating = condition(definition, "Terminating") == "True";
    let versions = spec.list("versions");
    let schemas = versions
        .iter()
        .map(|version| {
            let schema = structural::compile(version.path(&["schema", "openAPIV3Schema"]));
            (
                Key::from(version.str("name")),
                Arc::new(SchemaRef::from(schema)),
            )
        })
        .collect();
    let mut selectable: Vec<(Key, JsonPath)> = Vec::new();
    for field in versions.iter().flat_map(selectable_of) {
        if !selectable.iter().any(|(name, _)| *name == field.0) {
            selectable.push(field);
        }
    }
    let custom = Custom {
        terminating: terminating || definition.at("metadata").get("deletionTimestamp").is_some(),
        epoch: epoch(versions, storage),
        schemas,
        selectable,
        definition: definition.clone(),
        since,
    };
    let mut served: Vec<Version> = versions
        .iter()
        .filter(|version| version.bool("served"))
        .map(|version| served(spec, names, version, storage, terminating, &custom))
        .collect();
    served.sort_by(|a, b| version::compare(&b.name, &a.name));
    let texts = |key: &str| {
        names
            .list(key)
            .iter()
            .filter_map(Value::as_str)
            .map(Key::from)
            .collect()
    };
    Some(Resource {
        group: group.into(),
        plural: plural.into(),
        singular: names.str("singular").into(),
        kind: names.str("kind").into(),
        list_kind: names.str("listKind").into(),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: spec.str("scope") == "Namespaced",
        prefix: format!("/registry/{group}/{plural}/").into(),
        storage_version: storage.into(),
        stored_as: None,
        versions: served,
        rules: rules::RULES,
        custom: Some(Arc::new(custom)),
    })
}

fn served(
    spec: &Value,
    names: &Value,
    version: &Value,
    storage: &str,
    terminating: bool,
    custom: &Custom,
) -> Version {
    let (group, name) = (spec.str("group"), version.str("name"));
    let schema = version.path(&["schema", "openAPIV3Schema"]);
    let subresources = version.at("subresources");
    let keys = |verbs: &[&str]| {
        verbs
            .iter()
            .map(|verb| Key::from(*verb))
            .collect::<Vec<_>>()
    };
    let subresource = |sub: &str, (group, version, kind): (&str, &str, &str)| Subresource {
        name: sub.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        verbs: keys(&["get", "patch", "update"]),
    };
    let mut subs = Vec::new();
    if subresources.get("status").is_some() {
        subs.push(subresource("status", (group, name, names.str("kind"))));
    }
    if subresources.get("scale").is_some() {
        subs.push(subresource("scale", ("autoscaling", "v1", "Scale")));
    }
    let (columns, cells) = columns(version);
    Version {
        name: name.into(),
        schema: custom
            .schemas
            .get(name)
            .cloned()
            .unwrap_or_else(|| Arc::new(structural::compile(schema).into())),
        type_name: CompactString::default(),
        verbs: if terminating {
            keys(&["delete", "deletecollection", "get", "list", "watch"])
        } else {
            keys(&[
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "create",
                "update",
                "watch",
            ])
        },
        subresources: subs,
        columns: columns.into(),
        hash: hash(group, storage, names.str("kind")),
        deprecation: version
            .bool("deprecated")
            .then(|| deprecation(spec, version)),
        conversion: None,
        custom: Some(Arc::new(Served {
            check: Check::compile(schema),
            expressions: definition::any(schema, &|schema| {
                !schema.list("x-kubernetes-validations").is_empty()
            }),
            embeds: definition::any(schema, &|schema| {
                schema.bool("x-kubernetes-embedded-resource")
            }),
            cells,
            selectable: selectable_of(version).collect(),
            scale: subresources.get("scale").map(Scale::new),
        })),
        forms: Arc::default(),
    }
}

/// Upstream's StorageVersionHash: the beginning of a digest of the storage version's name.
fn hash(group: &str, version: &str, kind: &str) -> CompactString {
    let text = format!("{group}/{version}/{kind}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD
        .encode(&digest.as_ref()[..8])
        .into()
}

/// A number that changes with anything that affects stored objects. Never 0, which built-in kinds use.
fn epoch(versions: &[Value], storage: &str) -> u32 {
    let mut text = storage.to_owned();
    for version in versions {
        if version.bool("storage") {
            json::write(version.at("schema"), &mut text);
        }
        json::write(version.at("selectableFields"), &mut text);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes = digest.as_ref();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).max(1)
}

fn deprecation(spec: &Value, version: &Value) -> CompactString {
    if let Some(warning) = version.at("deprecationWarning").as_str() {
        return warning.into();
    }
    let (group, name) = (spec.str("group"), version.str("name"));
    let kind = spec.at("names").str("kind");
    let better = spec
        .list("versions")
        .iter()
        .filter(|other| other.bool("served") && !other.bool("deprecated"))
        .map(|other| other.str("name"))
        .filter(|other| version::compare(name, other).is_lt())
        .max_by(|a, b| version::compare(a, b));
    match better {
        Some(better) => {
            format_compact!("{group}/{name} {kind} is deprecated; use {group}/{better} {kind}")
        }
        None => format_compact!("{group}/{name} {kind} is deprecated"),
    }
}

fn selectable_of(version: &Value) -> impl Iterator<Item = (Key, JsonPath)> + '_ {
    version
        .list("selectableFields")
        .iter()
        .map(|field| field.str("jsonPath"))
        .map(|path| {
            let name = path.strip_prefix('.').unwrap_or(path);
            (name.into(), JsonPath::parse(path).unwrap_or_default())
        })
}

/// The table columns of a version, the name first, and the paths of the other cells. Like upstream, columns after one
/// with an invalid path are dropped.
fn columns(version: &Value) -> (Vec<Column>, Vec<JsonPath>) {
    let column = |name: &str, kind: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: "".into(),
        description: name.into(),
        priority: 0,
        path: "".into(),
    };
    let mut columns = vec![Column {
        format: "name".into(),
        ..column("Name", "string")
    }];
    let mut cells = Vec::new();
    let declared = version.list("additionalPrinterColumns");
    if declared.is_empty() {
        let path = ".metadata.creationTimestamp";
        columns.push(Column {
            path: path.into(),
            ..column("Age", "date")
        });
        cells.extend(JsonPath::parse(path));
    }
    for declared in declared {
        let path = declared.str("jsonPath");
        let Ok(parsed) = JsonPath::parse(path) else {
            break;
        };
        let description = match declared.str("description") {
            "" => format_compact!("Custom resource definition column (in JSONPath format): {path}"),
            text => text.into(),
        };
        columns.push(Column {
            format: declared.str("format").into(),
            description,
            priority: declared.int("priority"),
            path: path.into(),
            ..column(declared.str("name"), declared.str("type"))
        });
        cells.push(parsed);
    }
    (columns, cells)
}

/// The cells of a row: the name and the values of the columns.
pub fn cells(version: &Version, served: &Served, object: &Value, now: i64) -> Vec<Value> {
    let mut row = Vec::with_capacity(served.cells.len() + 1);
    row.push(object.at("metadata").str("name").into());
    for (path, column) in served.cells.iter().zip(version.columns.iter().skip(1)) {
        let found = path.find(object).unwrap_or_default();
        row.push(
            found
                .first()
                .map_or(Value::Null, |value| cell(&column.kind, value, now)),
        );
    }
    row
}

fn cell(kind: &str, value: &Value, now: i64) -> Value {
    match (kind, value) {
        ("string", value) => printed(value).into(),
        ("integer", Value::Float(number)) => Value::Int(json::go_int(*number)),
        // All numbers in such a column are floats.
        ("number", Value::Int(number)) => Value::Int(*number as f64 as i64),
        ("integer", Value::Int(_)) | ("number", Value::Float(_)) | ("boolean", Value::Bool(_)) => {
            value.clone()
        }
        ("date", Value::String(text)) => match text.as_str() {
            "" => "<unknown>".into(),
            text if time::parse(text).is_ok() => since(value, now),
            _ => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// A value as text, as printed by Go.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.to_string(),
        Value::Float(number) => json::go_float(*number),
        other => json::to_string(other),
    }
}

/// The values of selectable fields in an object, sorted by name.
pub fn fields(selectable: &[(Key, JsonPath)], object: &Value) -> Pairs {
    let mut pairs: Vec<(CompactString, CompactString)> = selectable
        .iter()
        .map(|(name, path)| {
            let found = path.find(object).unwrap_or_default();
            let text = found
                .first()
                .filter(|value| !value.is_null())
                .map(|value| printed(value).into())
                .unwrap_or_default();
            (name.clone(), text)
        })
        .collect();
    pairs.sort();
    pairs.into()
}

#[cfg(test)]
mod tests;
