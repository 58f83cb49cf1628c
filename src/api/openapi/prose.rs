//! Descriptions in the documents: only of the fields that all objects have, in our own words.

use super::custom::OBJECT_META;
use crate::schema::{Object, Value};

pub const API_VERSION: &str =
    "APIVersion defines the group and the version of the schema that the object is written in.";
pub const KIND: &str = "Kind is the type of the object, in CamelCase.";
pub const METADATA: &str = "Standard object's metadata.";
pub const LIST_METADATA: &str = "Standard list metadata.";

/// The fields of object metadata.
const OF_METADATA: &[(&str, &str)] = &[
    (
        "annotations",
        "Annotations are notes that tools keep with the object; selectors do not see them.",
    ),
    (
        "creationTimestamp",
        "CreationTimestamp is a timestamp of when the server made the object.",
    ),
    (
        "deletionGracePeriodSeconds",
        "Seconds that the object may take to end before it is removed, once it is being deleted.",
    ),
    (
        "deletionTimestamp",
        "DeletionTimestamp is when the object will be gone, once it is being deleted.",
    ),
    (
        "finalizers",
        "What must be done, and taken off this list, before the object is removed.",
    ),
    (
        "generateName",
        "What a name begins with that the server makes up, if none is given.",
    ),
    (
        "generation",
        "A number that grows with each change of what is desired.",
    ),
    ("labels", "Names and values by which objects are selected."),
    (
        "managedFields",
        "Which manager set which fields, for server-side apply.",
    ),
    (
        "name",
        "Name is unique among the objects of the resource in a namespace, and does not change.",
    ),
    (
        "namespace",
        "Namespace is where the object lives; empty for what belongs to the whole cluster.",
    ),
    (
        "ownerReferences",
        "The objects that this one depends on: it is deleted when all of them are gone.",
    ),
    (
        "resourceVersion",
        "An opaque value that changes with every write, for watches and for writes that must not overlook others.",
    ),
    ("selfLink", "Deprecated and no longer set."),
    (
        "uid",
        "UID is unique among all objects of all times, and set by the server.",
    ),
];

/// Adds descriptions of the fields that all kinds share to the type called `name`.
pub fn describe(name: &str, schema: &mut Object) {
    let of_kind: &[(&str, &str)] = &[
        ("apiVersion", API_VERSION),
        ("kind", KIND),
        ("metadata", METADATA),
    ];
    let words = match name {
        OBJECT_META => OF_METADATA,
        _ if schema.contains("x-kubernetes-group-version-kind") => of_kind,
        _ => return,
    };
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for (name, words) in words {
        if let Some(Value::Object(property)) = properties.get_mut(name) {
            property.set_default("description", *words);
        }
    }
}
