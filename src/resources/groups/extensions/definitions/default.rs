//! Validation of defaults: each must be valid for its own schema. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go.

use crate::meta::errors::{Path, shown};
use crate::meta::{At, Errors};
use crate::resources::custom::embedded;
use crate::schema::check::{Check, validate as checked};
use crate::schema::{Schema, Value, structural};

/// Validates all defaults in a schema.
pub(super) fn validate(root: At<'_>, pruned: bool, errors: &mut Errors) {
    let around = Around {
        resource: root.value,
        steps: Vec::new(),
        in_meta: false,
        root: true,
        pruned,
    };
    walk(root, &around, errors);
}

/// Whether a schema has a default with fields that the schema does not specify.
pub(super) fn has_unpruned(schema: &Value) -> bool {
    crate::resources::custom::definition::any(schema, &|schema| {
        schema
            .get("default")
            .is_some_and(|default| is_unpruned(default, &structural::part(schema)))
    })
}

fn is_unpruned(default: &Value, schema: &Schema) -> bool {
    structural::pruned(default.clone(), schema) != *default
}

/// The surroundings of a schema: the resource that contains it, and the path in it.
#[derive(Clone)]
struct Around<'a> {
    resource: &'a Value,
    /// Names of members; `None` for an item of a list.
    steps: Vec<Option<&'a str>>,
    in_meta: bool,
    root: bool,
    pruned: bool,
}

impl<'a> Around<'a> {
    fn step(&self, step: Option<&'a str>) -> Around<'a> {
        let mut inner = self.clone();
        inner.steps.push(step);
        inner.root = false;
        inner
    }

    /// The resource with nothing but this value at the path.
    fn object(&self, value: &Value) -> Value {
        let mut value = value.clone();
        for step in self.steps.iter().rev() {
            value = match step {
                None => Value::Array(vec![value]),
                Some(name) => {
                    let mut object = crate::schema::Object::new();
                    object.insert(*name, value);
                    object.into()
                }
            };
        }
        let object = value.object_mut();
        object.set_default("kind", "Validation");
        object.set_default("apiVersion", "validation/v1");
        value
    }
}

fn walk<'a>(at: At<'a>, around: &Around<'a>, errors: &mut Errors) {
    let schema = at.value;
    if schema.as_object().is_none() {
        return;
    }
    let mut around = around.clone();
    let resource = around.root || schema.bool("x-kubernetes-embedded-resource");
    if schema.bool("x-kubernetes-embedded-resource") {
        around.resource = schema;
        around.steps.clear();
        around.in_meta = false;
    }
    if let Some(default) = schema.get("default") {
        let path = at.path.field("default");
        if around.in_meta {
            in_metadata(default, schema, &around, path, errors);
        } else {
            elsewhere(default, schema, resource, around.pruned, path, errors);
        }
    }
    let items = at.field("items");
    walk_inner(items.value, items.path, &around.step(None), errors);
    let properties = at.field("properties");
    for (name, property) in schema.entries("properties") {
        let mut inner = around.step(Some(name));
        if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.in_meta = true;
        }
        walk_inner(property, properties.path.key(name), &inner, errors);
    }
}

/// [`walk`], for a path that lives shorter than the schema.
fn walk_inner<'a>(schema: &'a Value, path: Path<'_>, around: &Around<'a>, errors: &mut Errors) {
    let mut found = Errors::default();
    walk(At::root(schema), around, &mut found);
    for mut error in found.0 {
        let below = if error.field.is_empty() {
            path.to_string()
        } else {
            path.field(&error.field).to_string()
        };
        error.field = below;
        errors.add(error);
    }
}

fn elsewhere(
    default: &Value,
    schema: &Value,
    resource: bool,
    pruned: bool,
    path: Path<'_>,
    errors: &mut Errors,
) {
    let compiled = if resource {
        structural::resource_part(schema)
    } else {
        structural::part(schema)
    };
    if pruned && is_unpruned(default, &compiled) {
        // Go prints maps sorted.
        let mut shown = default.clone();
        shown.sort();
        errors.invalid(path, shown, "must not have unknown fields");
    }
    let coerced = match structural::coerced(default.clone(), &compiled) {
        Ok(coerced) => coerced,
        Err(error) => {
            let field = path.field(&error.field).to_string();
            errors.add(crate::meta::FieldError { field, ..error });
            return;
        }
    };
    let mut found = Errors::default();
    embedded::validate(
        At {
            value: &coerced,
            path,
        },
        &compiled,
        &mut found,
    );
    if found.is_empty() {
        checked(
            &Check::compile_single(schema),
            &coerced,
            None,
            path,
            &mut found,
        );
    }
    errors.append(found);
}

fn in_metadata(
    default: &Value,
    schema: &Value,
    around: &Around<'_>,
    path: Path<'_>,
    errors: &mut Errors,
) {
    let object = around.object(default);
    let compiled = structural::resource_part(around.resource);
    let wrong = match structural::coerced(object, &compiled) {
        Err(error) => Some(error.to_string()),
        Ok(coerced) => {
            let mut found = Errors::default();
            embedded::validate(At::root(&coerced), &compiled, &mut found);
            (!found.is_empty()).then(|| crate::meta::status::aggregate(&found.0))
        }
    };
    match wrong {
        Some(why) => errors.invalid_shown(
            path,
            &shown(default),
            format!("must result in valid metadata: {why}"),
        ),
        None => checked(&Check::compile_single(schema), default, None, path, errors),
    }
}
