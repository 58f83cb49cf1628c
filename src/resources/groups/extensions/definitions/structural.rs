//! Validation that a schema is structural: types are declared outside of `allOf`, `anyOf`, `oneOf` and `not`. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema (validation.go, complete.go, convert.go).

use crate::meta::errors::{FieldError, Path};
use crate::meta::{At, Errors, regexp};
use crate::schema::{Object, Value};

/// Why a schema cannot be represented as a structural schema.
pub(super) fn unsupported(schema: &Value) -> Option<String> {
    // With upstream's name in errors.
    const NEVER: [(&str, &str); 7] = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    schema.as_object()?;
    let there = |key: &str| match schema.get(key) {
        None => false,
        Some(value) => !value.is_empty() || key == "additionalItems",
    };
    if let Some((_, name)) = NEVER.iter().find(|(key, _)| there(key)) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    let each = |key: &str| schema.list(key).iter().find_map(unsupported);
    if let Some(why) = unsupported(schema.at("not"))
        .or_else(|| each("allOf"))
        .or_else(|| each("anyOf"))
        .or_else(|| each("oneOf"))
    {
        return Some(why);
    }
    if schema.at("x-kubernetes-preserve-unknown-fields") == &Value::Bool(false) {
        return Some(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
                .to_owned(),
        );
    }
    if !schema.list("items").is_empty() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    unsupported(schema.at("items"))
        .or_else(|| {
            schema
                .entries("properties")
                .find_map(|(_, property)| unsupported(property))
        })
        .or_else(|| unsupported(schema.at("additionalProperties")))
}

/// Where a schema is, for errors about a missing type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Validates a schema. Errors are sorted by text.
pub(super) fn validate(schema: At<'_>, errors: &mut Errors) {
    let mut found = Errors::default();
    invariants(schema, Level::Root, &mut found);
    completeness(
        schema.value,
        Some(schema.value),
        schema.path,
        schema.path,
        &mut found,
    );
    let text = |error: &FieldError| format!("{}: {}", error.field, error.message);
    found.0.sort_by_key(text);
    errors.append(found);
}

fn is_branch_of_type(branch: &Value, kind: &str) -> bool {
    branch.str("type") == kind
        && branch
            .entries_of()
            .filter(|(_, value)| !value.is_empty())
            .count()
            == 1
}

/// Whether this is `anyOf: [{type: integer}, {type: string}]`.
fn is_int_or_string(branches: &[Value]) -> bool {
    matches!(branches, [a, b] if is_branch_of_type(a, "integer") && is_branch_of_type(b, "string"))
}

fn invariants(at: At<'_>, level: Level, errors: &mut Errors) {
    let schema = at.value;
    let kind = at.field("type");
    let items = at.field("items");
    if kind.str() == "array" && items.is_absent() {
        errors.required(items.path, "must be specified");
    }
    if !items.is_absent() {
        invariants(items, Level::Item, errors);
    }
    let properties = at.field("properties");
    for (_, property) in properties.entries() {
        invariants(property, Level::Field, errors);
    }
    let additional = at.field("additionalProperties");
    if !additional.is_absent() {
        if level == Level::Root {
            errors.forbidden(additional.path, "must not be used at the root");
        }
        if additional.value.as_object().is_some() {
            invariants(additional, Level::Field, errors);
        }
    }
    let union = schema.bool("x-kubernetes-int-or-string");
    let preserve = at.field("x-kubernetes-preserve-unknown-fields");
    let embedded = at.field("x-kubernetes-embedded-resource");
    if union {
        for extension in [preserve, embedded] {
            if extension.bool() {
                errors.invalid(
                    extension.path,
                    true,
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
        }
    }
    let skip = Skip {
        any_of: is_int_or_string(schema.list("anyOf")),
        first_all_of: schema
            .list("allOf")
            .first()
            .is_some_and(|first| is_int_or_string(first.list("anyOf"))),
    };
    values(at, skip, errors);
    let embeds = embedded.bool();
    let typed = level == Level::Root || embeds;
    if embeds && kind.str() != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.str().is_empty() {
            errors.required(kind.path, why);
        } else {
            errors.invalid(kind.path, kind.str(), why);
        }
    } else if kind.str().is_empty() && !union && !preserve.bool() {
        errors.required(
            kind.path,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embeds && !additional.is_absent() {
        errors.forbidden(
            additional.path,
            "must not be used if x-kubernetes-embedded-resource is set",
        );
    }
    if level == Level::Root && !kind.str().is_empty() && kind.str() != "object" {
        errors.invalid(kind.path, kind.str(), "must be object at the root");
    }
    if typed {
        for name in ["kind", "apiVersion"] {
            if let Some(property) = properties.value.get(name)
                && property.str("type") != "string"
            {
                let path = properties.path.key(name);
                errors.invalid(path.field("type"), property.str("type"), "must be string");
            }
        }
    }
    if let Some(metadata) = properties.value.get("metadata") {
        let path = properties.path.key("metadata");
        if typed && metadata.str("type") != "object" {
            errors.invalid(path.field("type"), metadata.str("type"), "must be object");
        }
        if level == Level::Root && !only_names(metadata) {
            errors.forbidden(
                path,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }
    let named = properties
        .value
        .as_object()
        .is_some_and(|properties| !properties.is_empty());
    if embeds && !preserve.bool() && !named {
        errors.required(
            properties.path,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
}

/// Whether a schema of metadata restricts only names.
fn only_names(metadata: &Value) -> bool {
    metadata
        .entries_of()
        .filter(|(_, value)| !value.is_empty())
        .all(|(key, value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => value
                .entries_of()
                .all(|(name, _)| matches!(name.as_str(), "name" | "generateName")),
            _ => false,
        })
}

/// Which branches may specify types, because they stand for int-or-string.
#[derive(Clone, Copy, Default)]
struct Skip {
    any_of: bool,
    first_all_of: bool,
}

/// Validates the value restrictions of a schema.
fn values(at: At<'_>, skip: Skip, errors: &mut Errors) {
    if !skip.any_of {
        for branch in at.field("anyOf").items() {
            nested(branch, Skip::default(), errors);
        }
    }
    for (i, branch) in at.field("allOf").items().enumerate() {
        let skip = Skip {
            any_of: skip.first_all_of && i == 0,
            first_all_of: false,
        };
        nested(branch, skip, errors);
    }
    for branch in at.field("oneOf").items() {
        nested(branch, Skip::default(), errors);
    }
    nested(at.field("not"), Skip::default(), errors);
    let pattern = at.field("pattern");
    if !pattern.str().is_empty()
        && let Err(why) = regexp::compile(pattern.str())
    {
        errors.invalid(
            pattern.path,
            pattern.str(),
            format!("must be a valid regular expression, but isn't: {why}"),
        );
    }
}

/// Validates a schema within a logical keyword, which must not specify structure.
fn nested(at: At<'_>, skip: Skip, errors: &mut Errors) {
    if at.value.as_object().is_none() {
        return;
    }
    values(at, skip, errors);
    nested(at.field("items"), Skip::default(), errors);
    let properties = at.field("properties");
    for (_, property) in properties.entries() {
        nested(property, Skip::default(), errors);
    }
    const NEVER: [(&str, &str); 13] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-embedded-resource",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-int-or-string",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-list-map-keys",
            "must be empty to be structural",
        ),
        (
            "x-kubernetes-list-type",
            "must be undefined to be structural",
        ),
        (
            "x-kubernetes-map-type",
            "must be undefined to be structural",
        ),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (key, why) in NEVER {
        let there = match at.value.get(key) {
            None => false,
            // `additionalProperties: false` has no effect.
            Some(Value::Bool(value)) => *value,
            Some(value) => !value.is_empty() || key == "default" || key == "additionalProperties",
        };
        if there {
            errors.forbidden(at.path.field(key), why);
        }
    }
    if properties.value.get("metadata").is_some() {
        errors.forbidden(
            properties.path.key("metadata"),
            "must not be specified in a nested context",
        );
    }
}

/// Fields named within logical keywords must also be specified outside of them.
fn completeness(
    schema: &Value,
    structure: Option<&Value>,
    place: Path<'_>,
    from: Path<'_>,
    errors: &mut Errors,
) {
    let not = from.field("not");
    named(schema.at("not"), structure, place, not, errors);
    for key in ["allOf", "anyOf", "oneOf"] {
        let list = from.field(key);
        for (i, branch) in schema.list(key).iter().enumerate() {
            named(branch, structure, place, list.index(i), errors);
        }
    }
}

fn named(
    nested: &Value,
    structure: Option<&Value>,
    place: Path<'_>,
    from: Path<'_>,
    errors: &mut Errors,
) {
    if nested.as_object().is_none() {
        return;
    }
    let Some(schema) = structure else {
        errors.required(place, &format!("because it is defined in {from}"));
        return;
    };
    completeness(nested, structure, place, from, errors);
    let is_schema = |value: &&Value| value.as_object().is_some();
    named(
        nested.at("items"),
        schema.get("items").filter(is_schema),
        place.field("items"),
        from.field("items"),
        errors,
    );
    let (places, froms) = (place.field("properties"), from.field("properties"));
    let members = nested.at("properties").as_object();
    for (name, property) in members.into_iter().flat_map(Object::iter) {
        let (place, from) = (places.key(name), froms.key(name));
        match schema.at("properties").get(name) {
            None => errors.required(place, &format!("because it is defined in {from}")),
            known => named(property, known, place, from, errors),
        }
    }
}
