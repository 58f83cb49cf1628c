//! OpenAPI 3.0: a document for each group and version.

use super::operations::Operation;
use super::parameters::Parameter;
use super::routes::{self, Route};
use super::verbs::{CUSTOM_MEDIA, PATCH_TYPE};
use super::writing::{Form, REFERENCE, Writing};
use crate::resources::Registry;
use crate::schema::{Object, Value};
use crate::value;

const PATCH_MEDIA: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const FORM: Form = Form {
    v2: false,
    operation,
    parameter,
    schema: Value::clone,
};

/// The document of everything that a group serves in one version.
pub fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut writing = Writing::default();
    writing.add(registry, group, version, &FORM);
    let custom = registry.group(group).is_some_and(|group| group.custom);
    let (paths, schemas) = if custom {
        writing.finish(&FORM, &super::built_in(registry))
    } else {
        routes::resources(group, version).write(&mut writing, &FORM);
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
    whole(paths, schemas)
}

/// The document of a path that is not a resource.
pub fn route(route: &Route) -> Value {
    let mut writing = Writing::default();
    route.write(&mut writing, &FORM);
    let (paths, schemas) = writing.finish(&FORM, &[]);
    whole(paths, schemas)
}

fn whole(paths: Object, schemas: Object) -> Value {
    let mut components = Object::new();
    if !schemas.is_empty() {
        components.insert("schemas", schemas);
    }
    components.insert(
        "securitySchemes",
        value!({
            "BearerToken": {
                "type": "apiKey",
                "description": "Bearer Token authentication",
                "name": "authorization",
                "in": "header"
            }
        }),
    );
    value!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "1.37"},
        "paths": (Value::Object(paths)),
        "components": (Value::Object(components))
    })
}

/// The content of a body or response: a type by its component name, or text.
fn content(name: Option<&str>, media: &[&str]) -> Value {
    let mut media = media.to_vec();
    media.sort_unstable();
    let mut out = Object::new();
    for media in media {
        let schema = match name {
            Some(name) => value!({"$ref": (format!("{REFERENCE}{name}"))}),
            None => value!({"type": "string"}),
        };
        out.insert(media, value!({"schema": schema}));
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
        body.insert("content", content(Some(name), media));
        if !operation.body_optional {
            body.insert("required", true);
        }
        out.insert("requestBody", body);
    }
    let answer = |name: Option<&str>| ("content", content(name, operation.produces));
    operation.finish(
        out,
        answer,
        |group, version, kind| value!({"group": group, "version": version, "kind": kind}),
    )
}
