//! OpenAPI 3.0: a document for each group and version.

use super::operations::{Form, Operation, PATCH_TYPE, Parameter, REFERENCE, Writing};
use crate::resources::Registry;
use crate::schema::{Object, Value};
use crate::value;

const MEDIA: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
const PATCH_MEDIA: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// Media of custom resources.
const CUSTOM_MEDIA: &[&str] = &["application/json", "application/yaml"];
const FORM: Form = Form {
    v2: false,
    operation,
    parameter,
    schema: Value::clone,
};

/// The document of all that a group serves in one version.
pub fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut writing = Writing::default();
    writing.add(registry, group, version, &FORM);
    let custom = registry.group(group).is_some_and(|group| group.custom);
    let (paths, schemas) = if custom {
        writing.finish(&FORM, &super::built_in(registry))
    } else {
        let own = [("", "v1"), (group, version)];
        writing.finish(&FORM, &own[usize::from(group.is_empty())..])
    };
    if custom {
        return value!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
            "paths": (Value::Object(paths)),
            "components": {"schemas": (Value::Object(schemas))}
        });
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
        let media = match (name == PATCH_TYPE, operation.custom) {
            (true, false) => PATCH_MEDIA,
            (true, true) => PATCH_MEDIA
                .split_last()
                .map_or(PATCH_MEDIA, |(_, media)| media),
            (false, false) => &["*/*"],
            (false, true) => CUSTOM_MEDIA,
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
        let content = content(
            name,
            if operation.custom {
                CUSTOM_MEDIA
            } else {
                MEDIA
            },
        );
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
