//! Tables: what `kubectl get` shows.

use crate::meta::{Status, time};
use crate::resources::{Resource, Version};
use crate::schema::{Object, Value};

use super::negotiate::Shape;
use super::query::Query;

/// The object in a table row besides its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// PartialObjectMetadata.
    #[default]
    Metadata,
    /// The object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads `includeObject`, which only tables support.
    ///
    /// # Errors
    /// 400 for an invalid value.
    pub fn read(query: &Query, shape: Shape) -> Result<Include, Status> {
        if !matches!(shape, Shape::Table { .. }) {
            return Ok(Include::default());
        }
        match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            "None" => Ok(Include::None),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                crate::meta::errors::quoted(other)
            ))),
        }
    }
}

/// The table of a list of objects (in the request's version).
pub fn of_list(
    objects: &[Value],
    resource: &Resource,
    version: &Version,
    beta: bool,
    include: Include,
) -> Value {
    let mut table = of(objects, resource, version, beta, include, true);
    let name = (resource.rules.printing.default_row)(objects)
        .and_then(|at| table.get_mut("rows")?.as_array_mut()?.get_mut(at))
        .and_then(|row| row.get_mut("cells")?.as_array_mut()?.first_mut());
    if let Some(name) = name {
        *name = format!("{} (default)", name.as_str().unwrap_or_default()).into();
    }
    table
}

/// The table of several objects (in the request's version); `columns` adds the column definitions.
pub fn of(
    objects: &[Value],
    resource: &Resource,
    version: &Version,
    beta: bool,
    include: Include,
    columns: bool,
) -> Value {
    let now = time::now();
    let mut ordered: Vec<&Value> = objects.iter().collect();
    ordered.sort_by_key(|object| (resource.rules.printing.row_order)(object));
    let rows: Vec<Value> = ordered
        .into_iter()
        .map(|object| {
            let mut row = Object::with_capacity(3);
            row.insert("cells", resource.cells(version, object, now));
            let conditions = (resource.rules.printing.row_conditions)(object);
            if !conditions.is_empty() {
                row.insert("conditions", conditions);
            }
            row.insert(
                "object",
                match include {
                    Include::Metadata => super::reply::partial_of(resource, object, beta),
                    Include::Object => object.clone(),
                    Include::None => Value::Null,
                },
            );
            Value::Object(row)
        })
        .collect();
    let mut meta = Object::new();
    // The object of a dry run has no version.
    if let [one] = objects
        && let Some(rev) = one.at("metadata").get("resourceVersion")
    {
        meta.insert("resourceVersion", rev);
    }
    let mut table = Object::with_capacity(5);
    table.insert("kind", "Table");
    table.insert(
        "apiVersion",
        if beta {
            "meta.k8s.io/v1beta1"
        } else {
            "meta.k8s.io/v1"
        },
    );
    table.insert("metadata", meta);
    table.insert(
        "columnDefinitions",
        if columns {
            Value::Array(headings(version))
        } else {
            Value::Null
        },
    );
    table.insert("rows", rows);
    Value::Object(table)
}

/// The table of one object with its own columns: name, type and format of each.
pub fn single(
    object: &Value,
    columns: &[(&str, &str, &str)],
    cells: Vec<Value>,
    beta: bool,
) -> Value {
    let heading = |(name, kind, format): &(&str, &str, &str)| {
        crate::value!({
            "name": (*name),
            "type": (*kind),
            "format": (*format),
            "description": (*name),
            "priority": 0i64
        })
    };
    let mut meta = Object::new();
    meta.insert(
        "resourceVersion",
        object.at("metadata").at("resourceVersion"),
    );
    let headings: Vec<Value> = columns.iter().map(heading).collect();
    let row = crate::value!({"cells": cells, "object": (super::reply::partial(object, beta))});
    crate::value!({
        "kind": "Table",
        "apiVersion": (if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }),
        "metadata": meta,
        "columnDefinitions": headings,
        "rows": [row]
    })
}

/// Whether a version of a built-in kind uses the columns of kinds without their own printer.
pub fn is_general(version: &Version) -> bool {
    matches!(&*version.columns, [_, made] if made.name == "Created At")
}

/// Subresources without tables: group, plural, subresource.
const UNPRINTED: &[(&str, &str, &str)] = &[
    ("", "namespaces", "finalize"),
    ("", "pods", "ephemeralcontainers"),
    ("", "pods", "resize"),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "status",
    ),
    ("apiregistration.k8s.io", "apiservices", "status"),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        "approval",
    ),
    ("resource.k8s.io", "resourceclaims", "status"),
];

/// Whether the response of a path can be a table.
pub fn is_printed(resource: &Resource, subresource: &str) -> bool {
    let path = (&*resource.group, &*resource.plural, subresource);
    !UNPRINTED.contains(&path)
}

fn headings(version: &Version) -> Vec<Value> {
    version
        .columns
        .iter()
        .map(|column| {
            let mut heading = Object::with_capacity(5);
            heading.insert("name", &column.name);
            heading.insert("type", &column.kind);
            heading.insert("format", &column.format);
            heading.insert("description", &column.description);
            heading.insert("priority", column.priority);
            Value::Object(heading)
        })
        .collect()
}
