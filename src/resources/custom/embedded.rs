//! Objects within objects (`x-kubernetes-embedded-resource`). Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go.

use crate::meta::{At, Errors, names};
use crate::resources::metadata;
use crate::schema::{Schema, Shape, Value};

/// Validates apiVersion, kind and metadata of every embedded object below `at`.
pub fn validate(at: At<'_>, schema: &Schema, errors: &mut Errors) {
    match at.value {
        Value::Object(members) => {
            if schema.embedded.is_some() {
                resource(at, errors);
            }
            for (name, value) in members.iter() {
                match &schema.shape {
                    Shape::Struct(structure) => {
                        if let Some(field) = structure.fields.get(name) {
                            let path = at.path.field(name);
                            validate(At { value, path }, &field.schema, errors);
                        }
                    }
                    Shape::Map(values) => {
                        let path = at.path.key(name);
                        validate(At { value, path }, values, errors);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(_) => {
            if let Some(items) = schema.items() {
                for item in at.items() {
                    validate(item, items, errors);
                }
            }
        }
        _ => {}
    }
}

fn resource(at: At<'_>, errors: &mut Errors) {
    let has = |name: &str| {
        at.value
            .as_object()
            .is_some_and(|members| members.contains(name))
    };
    for name in ["apiVersion", "kind"] {
        if !has(name) {
            errors.required(at.path.field(name), "");
        }
    }
    let api_version = at.field("apiVersion");
    if has("apiVersion") {
        if api_version.value.as_str().is_none() {
            errors.invalid(api_version.path, api_version.value, "must be a string");
        } else if api_version.str().is_empty() {
            errors.invalid(api_version.path, "", "must not be empty");
        } else if api_version.str().matches('/').count() > 1 {
            let text = api_version.str();
            errors.invalid(
                api_version.path,
                text,
                format!("unexpected GroupVersion string: {text}"),
            );
        }
    }
    let kind = at.field("kind");
    if has("kind") {
        let wrong = names::dns1035_label(&kind.str().to_lowercase());
        if kind.value.as_str().is_none() {
            errors.invalid(kind.path, kind.value, "must be a string");
        } else if kind.str().is_empty() {
            errors.invalid(kind.path, "", "must not be empty");
        } else if !wrong.is_empty() {
            errors.invalid(
                kind.path,
                kind.str(),
                format!(
                    "may have mixed case, but should otherwise match: {}",
                    wrong.join(",")
                ),
            );
        }
    }
    let meta = at.field("metadata");
    if !meta.is_absent() {
        let mut value = meta.value.clone();
        let namespaced = !value.str("namespace").is_empty();
        if value.str("name").is_empty() {
            value.set("name", "fakename");
        }
        let name = |name: &str, prefix: bool| {
            if prefix {
                names::path_segment_prefix(name)
            } else {
                names::path_segment(name)
            }
        };
        let path = meta.path;
        metadata::validate(
            At {
                value: &value,
                path,
            },
            namespaced,
            name,
            errors,
        );
    }
}
