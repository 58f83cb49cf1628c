//! OpenAPI 2.0 (Swagger): one document for everything, for clients from before version 3.

use super::operations::Operation;
use super::parameters::Parameter;
use super::routes;
use super::verbs::{CUSTOM_MEDIA, PATCH_TYPE};
use super::writing::{Form, REFERENCE, REFERENCE_V2, Writing};
use crate::resources::Registry;
use crate::schema::{Object, Value};
use crate::value;

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

const FORM: Form = Form {
    v2: true,
    operation,
    parameter,
    schema,
};

/// The document of everything that is served.
pub fn document(registry: &Registry) -> Value {
    let mut writing = Writing::default();
    for group in registry.groups() {
        for version in &group.versions {
            writing.add(registry, &group.name, version, &FORM);
        }
    }
    for route in routes::all(registry) {
        route.write(&mut writing, &FORM);
    }
    let (paths, definitions) = writing.finish(&FORM, &super::built_in(registry));
    let bearer = vec![value!({"BearerToken": []})];
    value!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "1.37"},
        "paths": (Value::Object(paths)),
        "definitions": (Value::Object(definitions)),
        "securityDefinitions": {
            "BearerToken": {
                "description": "Bearer Token authentication",
                "type": "apiKey",
                "name": "authorization",
                "in": "header"
            }
        },
        "security": bearer
    })
}

/// Converts a schema of version 3 to version 2: plain references, no defaults, no alternatives.
fn schema(schema: &Value) -> Value {
    let Some(object) = schema.as_object() else {
        return schema.clone();
    };
    if object.get("x-kubernetes-int-or-string").is_some() || schema.str("format") == "int-or-string"
    {
        return value!({"type": "string", "format": "int-or-string"});
    }
    let mut out = Object::new();
    for (key, value) in object.iter() {
        match key.as_str() {
            "default" | "nullable" | "oneOf" | "anyOf" | "not" => {}
            "$ref" => {
                let name = value.as_str().unwrap_or_default();
                out.insert("$ref", name.replace(REFERENCE, REFERENCE_V2));
            }
            "allOf" => {
                if let Some((_, reference)) = value
                    .as_array()
                    .and_then(|all| all.first())
                    .map(self::schema)
                    .as_ref()
                    .and_then(Value::as_object)
                    .and_then(|object| object.iter().next())
                {
                    out.insert("$ref", reference.clone());
                }
            }
            "properties" => {
                let mut properties = Object::new();
                for (name, value) in value.as_object().into_iter().flat_map(Object::iter) {
                    properties.insert(name.clone(), self::schema(value));
                }
                out.insert("properties", properties);
            }
            "items" | "additionalProperties" => {
                out.insert(key.clone(), self::schema(value));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    if out.get("type").is_none() && out.get("$ref").is_none() && object.get("oneOf").is_some() {
        out.insert("type", "string");
    }
    Value::Object(out)
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = Object::new();
    out.insert("uniqueItems", true);
    out.insert("type", parameter.kind);
    out.insert("name", parameter.name);
    out.insert("in", if parameter.in_path { "path" } else { "query" });
    if parameter.in_path {
        out.insert("required", true);
    }
    Value::Object(out)
}

fn operation(operation: &Operation, tag: &str) -> Value {
    let texts =
        |texts: &[&str]| -> Vec<Value> { texts.iter().map(|text| (*text).into()).collect() };
    let mut out = Object::new();
    out.insert("description", operation.description.as_str());
    let patch = operation.body.as_deref() == Some(PATCH_TYPE);
    let consumes: &[&str] = match (patch, operation.custom) {
        (true, false) => PATCHES,
        (false, false) if operation.action.is_empty() => operation.produces,
        (false, false) => &["*/*"],
        (true, true) => CUSTOM_PATCHES,
        (false, true) => CUSTOM_MEDIA,
    };
    // For a path that only returns text, `consumes` is omitted.
    let texts_alone = operation.responses.iter().all(|(.., name)| name.is_none());
    if !(operation.action.is_empty() && texts_alone) {
        out.insert("consumes", texts(consumes));
    }
    out.insert("produces", texts(operation.produces));
    out.insert("schemes", texts(&["https"]));
    out.insert("tags", texts(&[tag]));
    out.insert("operationId", operation.id.as_str());
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(name) = &operation.body {
        let mut body = Object::new();
        body.insert("name", "body");
        body.insert("in", "body");
        if !operation.body_optional {
            body.insert("required", true);
        }
        body.insert("schema", FORM.refer(name, ""));
        parameters.push(Value::Object(body));
    }
    parameters.extend(operation.parameters.iter().map(parameter));
    if !parameters.is_empty() {
        out.insert("parameters", parameters);
    }
    let answer = |name: Option<&str>| match name {
        Some(name) => ("schema", FORM.refer(name, "")),
        None => ("schema", value!({"type": "string"})),
    };
    operation.finish(
        out,
        answer,
        |group, version, kind| value!({"group": group, "kind": kind, "version": version}),
    )
}
