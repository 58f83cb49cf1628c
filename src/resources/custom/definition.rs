//! CustomResourceDefinitions in the store, and shared queries on them.

use std::sync::Arc;

use imbl::OrdMap;

use super::super::cluster;
use super::super::registry::Resource;
use crate::schema::{Key, Value};
use crate::store::Entry;
use crate::store::view::Derived;

/// The key prefix of definitions.
pub const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// Every definition, and the resources of the established ones.
#[derive(Clone, Default)]
pub struct Definitions {
    /// Objects by name, with resourceVersion.
    pub objects: OrdMap<Key, Arc<Value>>,
    /// Resources by the name of their definition.
    pub resources: OrdMap<Key, Arc<Resource>>,
}

impl Derived for Definitions {
    fn apply(&mut self, _: usize, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(entry) = new.or(old) else { return };
        let name = Key::from(entry.key.strip_prefix(PREFIX).unwrap_or_default());
        let Some(entry) = new else {
            self.objects.remove(&name);
            self.resources.remove(&name);
            return;
        };
        let object = Arc::new(cluster::object(entry));
        // Upstream restarts the history if the spec or the names change.
        let same = |path: &[&str]| {
            let before = self.objects.get(&name);
            before.is_some_and(|before| before.path(path) == object.path(path))
        };
        let since = self
            .resources
            .get(&name)
            .and_then(|resource| resource.custom.as_ref())
            .filter(|_| same(&["spec"]) && same(&["status", "acceptedNames"]))
            .map_or(entry.rev, |custom| custom.since);
        match super::resource(&object, since) {
            Some(resource) => {
                self.resources.insert(name.clone(), Arc::new(resource));
            }
            None => {
                self.resources.remove(&name);
            }
        }
        self.objects.insert(name, object);
    }
}

/// Whether `wanted` holds for a JSON schema or any schema within it.
pub fn any(schema: &Value, wanted: &dyn Fn(&Value) -> bool) -> bool {
    if schema.as_object().is_none() {
        return false;
    }
    let each = |key: &str| schema.list(key).iter().any(|inner| any(inner, wanted));
    wanted(schema)
        || any(schema.at("items"), wanted)
        || each("items")
        || each("allOf")
        || each("anyOf")
        || each("oneOf")
        || any(schema.at("not"), wanted)
        || schema
            .entries("properties")
            .any(|(_, inner)| any(inner, wanted))
        || any(schema.at("additionalProperties"), wanted)
}
