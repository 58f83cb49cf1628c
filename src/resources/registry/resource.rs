//! One resource and its versions.

use std::sync::Arc;

use compact_str::CompactString;

use super::super::Rules;
use super::api_version;
use crate::schema::types::SchemaRef;
use crate::schema::{Key, Value};
use crate::store::ResourcePrefix;

/// One resource: a place in the store, served in one or more versions.
#[derive(Clone)]
pub struct Resource {
    /// The API group; empty for core.
    pub group: Key,
    /// `pods`
    pub plural: Key,
    /// `pod`
    pub singular: Key,
    /// `Pod`
    pub kind: Key,
    /// `PodList`
    pub list_kind: Key,
    /// `po`
    pub short_names: Vec<Key>,
    /// `all`
    pub categories: Vec<Key>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The key prefix of its objects.
    pub prefix: ResourcePrefix,
    /// The version in which objects are stored.
    pub storage_version: Key,
    /// apiVersion and schema of stored objects, if they belong to another group (events).
    pub stored_as: Option<(CompactString, Arc<SchemaRef>)>,
    /// Served versions, the most preferred first.
    pub versions: Vec<Version>,
    /// Behavior specific to the kind.
    pub rules: Rules,
    /// The definition of a custom resource.
    pub custom: Option<Arc<super::super::custom::Custom>>,
}

/// One served version of a resource.
#[derive(Clone)]
pub struct Version {
    /// `v1`
    pub name: Key,
    /// The schema of its objects.
    pub schema: Arc<SchemaRef>,
    /// The component name of the schema (`io.k8s.api.core.v1.Pod`), empty for custom resources.
    pub type_name: CompactString,
    /// In the order in which discovery shows them.
    pub verbs: Vec<Key>,
    /// Served subresources.
    pub subresources: Vec<Subresource>,
    /// Table columns.
    pub columns: Arc<[Column]>,
    /// `storageVersionHash` of discovery.
    pub hash: CompactString,
    /// The deprecation warning sent with every response.
    pub deprecation: Option<CompactString>,
    /// Conversion to and from the storage version; `None` if only apiVersion differs.
    pub conversion: Option<Conversion>,
    /// Validation and presentation of a custom resource in this version.
    pub custom: Option<Arc<super::super::custom::Served>>,
    /// Cached objects in the form shown by this version.
    pub forms: Arc<super::super::forms::Forms>,
}

/// Converts between a version and the storage version.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// To the storage version.
    pub to_storage: fn(Value) -> Value,
    /// From the storage version.
    pub from_storage: fn(Value) -> Value,
}

/// A served subresource.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`
    pub name: Key,
    /// Group of the body's kind.
    pub group: Key,
    /// Version of the body's kind.
    pub version: Key,
    /// Kind of the body.
    pub kind: Key,
    /// In the order in which discovery shows them.
    pub verbs: Vec<Key>,
}

/// A table column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading.
    pub name: CompactString,
    /// `string`, `integer`, `number`, `boolean`, `date`
    pub kind: CompactString,
    /// `name` for the first, else mostly empty.
    pub format: CompactString,
    /// What it shows.
    pub description: CompactString,
    /// 0 for always shown.
    pub priority: i64,
    /// The path of its value in a custom resource.
    pub path: CompactString,
}

impl Resource {
    /// The served version called `name`.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// `group/version` or just the version.
    pub fn api_version(&self, version: &str) -> CompactString {
        api_version(&self.group, version)
    }

    /// The version in which objects are stored.
    pub fn storage(&self) -> Option<&Version> {
        self.version(&self.storage_version)
    }

    /// `group/version` of stored objects, which rules and admission use.
    pub fn stored_api_version(&self) -> CompactString {
        match &self.stored_as {
            Some((api_version, _)) => api_version.clone(),
            None => self.api_version(&self.storage_version),
        }
    }

    /// The schema of stored objects.
    pub fn stored_schema(&self) -> Option<&Arc<SchemaRef>> {
        match &self.stored_as {
            Some((_, schema)) => Some(schema),
            None => self.storage().map(|version| &version.schema),
        }
    }

    /// The group with which errors name the kind: that of the internal type.
    pub fn kind_group(&self) -> &str {
        match &self.stored_as {
            Some((api_version, _)) => api_version.split_once('/').map_or("", |(group, _)| group),
            None => &self.group,
        }
    }

    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix).into()
        } else {
            format!("{}{name}", self.prefix).into()
        }
    }

    /// The prefix of all keys in a namespace (of all objects if empty).
    pub fn keys(&self, namespace: &str) -> Arc<str> {
        if self.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.prefix).into()
        } else {
            self.prefix.clone()
        }
    }

    /// The namespace and name in an object's key.
    pub fn split_key<'a>(&self, key: &'a str) -> (&'a str, &'a str) {
        let rest = key.strip_prefix(&*self.prefix).unwrap_or(key);
        if self.namespaced {
            rest.split_once('/').unwrap_or(("", rest))
        } else {
            ("", rest)
        }
    }

    /// The cells of an object's table row in a version.
    pub fn cells(&self, version: &Version, object: &Value, now: i64) -> Vec<Value> {
        match &version.custom {
            Some(served) => super::super::custom::cells(version, served, object, now),
            None => match &version.conversion {
                // Upstream prints internal objects, which have the fields of all versions.
                Some(conversion) => {
                    (self.rules.printing.cells)(&(conversion.to_storage)(object.clone()), now)
                }
                None => (self.rules.printing.cells)(object, now),
            },
        }
    }

    /// Whether this comes from a CustomResourceDefinition.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
}

impl Version {
    /// The served subresource called `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether field selectors support a field, besides metadata.
    pub fn selects(&self, resource: &Resource, field: &str) -> bool {
        match &self.custom {
            Some(served) => served.selectable.iter().any(|(name, _)| name == field),
            None => resource.rules.selection.field_called(field).is_some(),
        }
    }

    /// Whether the version has a status subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}
