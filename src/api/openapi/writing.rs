//! Writes documents: the operations of paths, and the types that they use, in the form of either OpenAPI version.

use std::collections::BTreeMap;

use super::operations::{Operation, PathItem, group_name, paths};
use super::parameters::Parameter;
use super::{custom, prose};
use crate::resources::Registry;
use crate::schema::{Key, Object, Value, builtin};
use crate::value;

/// How an OpenAPI version encodes a document.
pub struct Form {
    /// Whether it is version 2, not 3.
    pub v2: bool,
    /// An operation under a tag.
    pub operation: fn(&Operation, &str) -> Value,
    /// A parameter.
    pub parameter: fn(&Parameter) -> Value,
    /// A schema of a built-in type, given in version 3.
    pub schema: fn(&Value) -> Value,
}

/// The prefix of references to schemas in version 3.
pub const REFERENCE: &str = "#/components/schemas/";
/// The prefix of references to schemas in version 2.
pub const REFERENCE_V2: &str = "#/definitions/";

impl Form {
    /// A schema that refers to a type, with its own description unless that is empty.
    pub fn refer(&self, name: &str, words: &str) -> Value {
        if self.v2 {
            let mut out = value!({"$ref": (format!("{REFERENCE_V2}{name}"))});
            if !words.is_empty() {
                out.set("description", words);
            }
            return out;
        }
        let reference = value!({"$ref": (format!("{REFERENCE}{name}"))});
        match words {
            "" => reference,
            words => value!({"description": words, "allOf": (vec![reference])}),
        }
    }
}

/// A document being written: the operations of paths, and the types that they use.
#[derive(Default)]
pub struct Writing {
    paths: Object,
    names: Vec<String>,
    /// The types of custom resources, in the form of the document.
    custom: BTreeMap<String, Value>,
}

impl Writing {
    /// Adds everything that a group serves in one version.
    pub fn add(&mut self, registry: &Registry, group: &str, version: &str, form: &Form) {
        let tag = format!("{}_{version}", group_name(group));
        for resource in registry
            .resources()
            .filter(|resource| *resource.group == *group)
        {
            if let (Some(custom), Some(_)) = (&resource.custom, resource.version(version)) {
                self.custom
                    .extend(custom::types(resource, custom, version, form));
            }
        }
        for item in paths(registry, group, version) {
            self.item(item, &tag, form);
        }
    }

    /// Adds a path.
    pub fn item(&mut self, item: PathItem, tag: &str, form: &Form) {
        let (shared, operations) = share(item.parameters, item.operations);
        let mut written = Object::new();
        for operation in &operations {
            self.names.extend(operation.body.clone());
            let answers = operation.responses.iter();
            self.names
                .extend(answers.filter_map(|(.., name)| name.clone()));
            written.insert(operation.method, (form.operation)(operation, tag));
        }
        if !shared.is_empty() {
            let parameters: Vec<Value> = shared.iter().map(form.parameter).collect();
            written.insert("parameters", parameters);
        }
        self.paths.insert(item.path, written);
    }

    /// The paths, and the schemas of all types that they use, sorted by name. `everywhere` are the groups and versions
    /// for which shared types are listed.
    pub fn finish(self, form: &Form, everywhere: &[(&str, &str)]) -> (Object, Object) {
        let mut names = self.names;
        let document = &*builtin::DOCUMENT;
        let mut known = self.custom;
        known
            .values()
            .for_each(|schema| references(schema, &mut names));
        while let Some(name) = names.pop() {
            if let Some(schema) = document.get(&name).filter(|_| !known.contains_key(&name)) {
                references(schema, &mut names);
                let mut schema = (form.schema)(schema);
                belong(&name, schema.object_mut(), everywhere);
                prose::describe(&name, schema.object_mut());
                known.insert(name, schema);
            }
        }
        let schemas = known.into_iter();
        let schemas = schemas.map(|(name, schema)| (Key::from(name), schema));
        (self.paths, schemas.collect())
    }
}

/// Moves parameters that all operations of a path share to the path, sorted by name.
fn share(
    mut shared: Vec<Parameter>,
    mut operations: Vec<Operation>,
) -> (Vec<Parameter>, Vec<Operation>) {
    if let Some((first, others)) = operations.split_first() {
        let all = first.parameters.iter().filter(|parameter| {
            others
                .iter()
                .all(|operation| operation.parameters.contains(parameter))
        });
        shared.extend(all);
    }
    shared.sort_by_key(|parameter| parameter.name);
    for operation in &mut operations {
        operation
            .parameters
            .retain(|parameter| !shared.contains(parameter));
    }
    (shared, operations)
}

/// Lists the kinds of a type that is part of many groups.
fn belong(name: &str, schema: &mut Object, everywhere: &[(&str, &str)]) {
    const GVK: &str = "x-kubernetes-group-version-kind";
    if schema.get(GVK).and_then(Value::as_str).is_none() {
        return;
    }
    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
    let kinds = everywhere.iter();
    let kinds = kinds
        .map(|(group, version)| value!({"group": (*group), "kind": kind, "version": (*version)}));
    schema.insert(GVK, kinds.collect::<Vec<Value>>());
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter() {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(name)) => {
                        let name = name
                            .strip_prefix(REFERENCE)
                            .or(name.strip_prefix(REFERENCE_V2));
                        out.extend(name.map(str::to_owned));
                    }
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}
