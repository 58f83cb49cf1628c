//! OpenAPI 3.0: a document for each group and version.

use super::operations::{Operation, PATCH_TYPE, Parameter, PathItem, group_name};
use crate::schema::{Object, Value, builtin};
use crate::value;

const MEDIA: [&str; 3] = [
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
const PATCH_MEDIA: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const REFERENCE: &str = "#/components/schemas/";

/// The document of paths and every schema that they lead to.
pub fn document(group: &str, version: &str, items: &[PathItem]) -> Value {
    let tag = format!("{}_{version}", group_name(group));
    let mut names: Vec<String> = Vec::new();
    let mut paths = Object::new();
    for item in items {
        let mut operations = Object::new();
        for operation in &item.operations {
            names.extend(operation.body.clone());
            names.extend(operation.responses.iter().map(|(.., name)| name.clone()));
            operations.insert(operation.method, self::operation(operation, &tag));
        }
        let parameters: Vec<Value> = item.parameters.iter().map(parameter).collect();
        operations.insert("parameters", parameters);
        paths.insert(item.path.as_str(), operations);
    }
    let document = &*builtin::DOCUMENT;
    let mut schemas = Object::new();
    for name in closure(names, |name| document.get(name)) {
        if let Some(schema) = document.get(&name) {
            schemas.insert(name, schema.clone());
        }
    }
    value!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.37"},
        "paths": (Value::Object(paths)),
        "components": {
            "schemas": (Value::Object(schemas)),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "description": "Bearer Token authentication",
                    "name": "authorization",
                    "in": "header"
                }
            }
        }
    })
}

/// The names and all that they refer to, sorted.
pub fn closure<'a>(
    mut open: Vec<String>,
    schema: impl Fn(&str) -> Option<&'a Value>,
) -> Vec<String> {
    let mut known = std::collections::BTreeSet::new();
    while let Some(name) = open.pop() {
        if known.insert(name.clone())
            && let Some(schema) = schema(&name)
        {
            references(schema, &mut open);
        }
    }
    known.into_iter().collect()
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter() {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(name)) => {
                        out.extend(name.strip_prefix(REFERENCE).map(str::to_owned));
                    }
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

fn content(name: &str, media: &[&str]) -> Value {
    let mut out = Object::new();
    for media in media {
        out.insert(
            *media,
            value!({"schema": {"$ref": (format!("{REFERENCE}{name}"))}}),
        );
    }
    Value::Object(out)
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = Object::new();
    out.insert("name", parameter.name);
    out.insert("in", if parameter.in_path { "path" } else { "query" });
    if parameter.in_path {
        out.insert("required", true);
    }
    out.insert(
        "schema",
        value!({"type": (parameter.kind), "uniqueItems": true}),
    );
    Value::Object(out)
}

fn operation(operation: &Operation, tag: &str) -> Value {
    let mut out = Object::new();
    out.insert("tags", vec![Value::from(tag)]);
    out.insert("description", operation.description.as_str());
    out.insert("operationId", operation.id.as_str());
    let parameters: Vec<Value> = operation.parameters.iter().map(parameter).collect();
    if !parameters.is_empty() {
        out.insert("parameters", parameters);
    }
    if let Some(name) = &operation.body {
        let media: &[&str] = if name == PATCH_TYPE {
            &PATCH_MEDIA
        } else {
            &["*/*"]
        };
        let mut body = Object::new();
        body.insert("content", content(name, media));
        if !operation.body_optional {
            body.insert("required", true);
        }
        out.insert("requestBody", body);
    }
    let mut responses = Object::new();
    for (code, description, name) in &operation.responses {
        let content = content(name, &MEDIA);
        responses.insert(
            code.to_string(),
            value!({"description": (*description), "content": content}),
        );
    }
    responses.insert("401", value!({"description": "Unauthorized"}));
    out.insert("responses", responses);
    out.insert("x-kubernetes-action", operation.action);
    let (group, version, kind) = &operation.gvk;
    out.insert(
        "x-kubernetes-group-version-kind",
        value!({"group": (group.as_str()), "version": (version.as_str()), "kind": (kind.as_str())}),
    );
    Value::Object(out)
}
