//! OpenAPI 3.0: a document for each group and version.

use super::operations::{self, Form, Operation, PATCH_TYPE, Parameter, PathItem, REFERENCE};
use crate::schema::{Object, Value};
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
const FORM: Form = Form {
    operation,
    parameter,
};

/// The document of paths and every schema that they lead to.
pub fn document(group: &str, version: &str, items: &[PathItem]) -> Value {
    let (mut paths, mut names) = (Object::new(), Vec::new());
    operations::write((group, version), items, &FORM, &mut paths, &mut names);
    let schemas = operations::schemas(names, Value::clone);
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
