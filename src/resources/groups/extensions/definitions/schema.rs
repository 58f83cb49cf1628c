//! Validation of the schemas in a definition: the allowed keywords. Follows
//! ValidateCustomResourceDefinitionOpenAPISchema in
//! k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.

mod lists;
mod root;
mod warnings;

use self::lists::{list_items, map_list};
use self::root::root_members;
use super::{default, fieldpath, structural};
use crate::meta::errors::Reason;
use crate::meta::{At, Errors};
use crate::resources::custom::definition::any;
use crate::schema::{Value, json};

pub(super) use self::warnings::warnings;

/// The types of schemas.
pub(super) const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Options for validation. An update may keep violations of the old definition.
pub(super) struct Options {
    /// Every version needs a schema.
    pub required: bool,
    valid_types: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    map_keys: bool,
}

impl Options {
    /// The options for a definition that replaces `old`.
    pub fn new(old: Option<&Value>) -> Options {
        let versions = old.map_or(&[][..], |old| old.at("spec").list("versions"));
        let schemas = || {
            versions
                .iter()
                .filter_map(|version| version.at("schema").get("openAPIV3Schema"))
        };
        let none = |wanted: &dyn Fn(&Value) -> bool| !schemas().any(|schema| any(schema, wanted));
        Options {
            required: schemas().count() == versions.len(),
            valid_types: none(&|schema| {
                let kind = schema.str("type");
                !kind.is_empty() && !TYPES.contains(&kind)
            }),
            pruned_defaults: !schemas().any(default::has_unpruned),
            atomic_sets: none(&has_loose_set),
            map_keys: none(&|schema| {
                let mut errors = Errors::default();
                list_items(At::root(schema), &mut errors);
                !errors.is_empty()
            }),
        }
    }
}

/// Whether a set has items that are neither scalar nor atomic.
fn has_loose_set(schema: &Value) -> bool {
    let items = schema.at("items");
    schema.str("x-kubernetes-list-type") == "set"
        && match items.str("type") {
            "array" => !matches!(items.str("x-kubernetes-list-type"), "" | "atomic"),
            "object" => items.str("x-kubernetes-map-type") != "atomic",
            _ => false,
        }
}

/// Validates the `schema` of a version. `status` is whether it has the status subresource.
pub(super) fn validate(schema: At<'_>, status: bool, options: &Options, errors: &mut Errors) {
    let root = schema.field("openAPIV3Schema");
    if root.is_absent() {
        return;
    }
    let before = errors.0.len();
    if status {
        root_members(root, errors);
    }
    if root.value.bool("nullable") {
        errors.forbidden(
            root.path.field("nullable"),
            "nullable cannot be true at the root",
        );
    }
    let unstructured = structural::unsupported(root.value);
    if unstructured.is_none() {
        let mut found = Errors::default();
        structural::validate(root, &mut found);
        if found.is_empty() {
            default::validate(root, options.pruned_defaults, &mut found);
        }
        errors.append(found);
    }
    let place = Place {
        root: true,
        ..Place::default()
    };
    walk(root, &place, options, errors);
    if errors.0.len() == before
        && let Some(why) = unstructured
    {
        errors.invalid(root.path, "", why);
    }
}

/// Where a schema is within the whole.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Within metadata or the type of a resource.
    in_meta: bool,
    /// Why defaults are not allowed.
    no_defaults: Option<String>,
}

fn walk(at: At<'_>, place: &Place, options: &Options, errors: &mut Errors) {
    let schema = at.value;
    if schema.as_object().is_none() {
        return;
    }
    plain(at, place, options, errors);
    let inner = Place {
        root: false,
        ..place.clone()
    };
    if schema.bool("uniqueItems") {
        errors.forbidden(
            at.path.field("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    let additional = at.field("additionalProperties");
    let has_properties = schema
        .at("properties")
        .as_object()
        .is_some_and(|properties| !properties.is_empty());
    if !additional.is_absent() {
        if has_properties && additional.value != &Value::Bool(true) {
            errors.forbidden(
                additional.path,
                "additionalProperties and properties are mutual exclusive",
            );
        }
        let mut below = inner.clone();
        if place.in_meta {
            below.no_defaults =
                Some("inside additionalProperties applying to object metadata".to_owned());
        }
        walk(additional, &below, options, errors);
    }
    let properties = at.field("properties");
    for (name, property) in properties.entries() {
        let mut below = inner.clone();
        let typed = matches!(name, "metadata" | "kind" | "apiVersion");
        if typed && (place.root || schema.bool("x-kubernetes-embedded-resource")) {
            below.in_meta = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        walk(property, &below, options, errors);
    }
    walk(at.field("not"), &inner, options, errors);
    for key in ["allOf", "oneOf", "anyOf"] {
        for branch in at.field(key).items() {
            walk(branch, &inner, options, errors);
        }
    }
    for (_, definition) in at.field("definitions").entries() {
        walk(definition, &inner, options, errors);
    }
    let items = at.field("items");
    walk(items, &inner, options, errors);
    for item in items.items() {
        walk(item, &inner, options, errors);
    }
    for (_, dependency) in at.field("dependencies").entries() {
        walk(dependency, &inner, options, errors);
    }
    extensions(at, options, errors);
    if options.map_keys {
        list_items(at, errors);
    }
    expressions(at, errors);
}

/// Rejects OpenAPI keywords that definitions do not support.
fn plain(at: At<'_>, place: &Place, options: &Options, errors: &mut Errors) {
    let schema = at.value;
    let kind = at.field("type");
    if options.valid_types && !kind.str().is_empty() && !TYPES.contains(&kind.str()) {
        errors.not_supported(kind.path, kind.str(), &TYPES);
    }
    if schema.get("default").is_some()
        && let Some(why) = &place.no_defaults
    {
        errors.forbidden(at.path.field("default"), format!("must not be set {why}"));
    }
    let mut refuse = |key: &str, there: bool, why: &str| {
        if there {
            errors.forbidden(at.path.field(key), why);
        }
    };
    let there = |key: &str| schema.get(key).is_some();
    let filled = |key: &str| schema.get(key).is_some_and(|value| !value.is_empty());
    refuse("id", filled("id"), "id is not supported");
    refuse(
        "additionalItems",
        there("additionalItems"),
        "additionalItems is not supported",
    );
    refuse(
        "patternProperties",
        filled("patternProperties"),
        "patternProperties is not supported",
    );
    refuse(
        "definitions",
        filled("definitions"),
        "definitions is not supported",
    );
    refuse(
        "dependencies",
        there("dependencies"),
        "dependencies is not supported",
    );
    refuse("$ref", there("$ref"), "$ref is not supported");
    refuse(
        "type",
        kind.str() == "null",
        "type cannot be set to null, use nullable as an alternative",
    );
    refuse(
        "items",
        !schema.list("items").is_empty(),
        "items must be a schema object and not an array",
    );
    refuse(
        "x-kubernetes-embedded-resource",
        place.in_meta && schema.bool("x-kubernetes-embedded-resource"),
        "must not be used inside of resource meta",
    );
}

fn extensions(at: At<'_>, options: &Options, errors: &mut Errors) {
    let schema = at.value;
    let kind = at.field("type");
    let preserve = at.field("x-kubernetes-preserve-unknown-fields");
    if preserve.value == &Value::Bool(false) {
        errors.invalid(preserve.path, false, "must be true or undefined");
    }
    let (map_type, list_type) = (
        at.field("x-kubernetes-map-type"),
        at.field("x-kubernetes-list-type"),
    );
    let typed = |wanted: &str, extension: &str, errors: &mut Errors| {
        let why = format!("must be {wanted} if {extension} is specified");
        if kind.str().is_empty() {
            errors.required(kind.path, &why);
        } else {
            errors.invalid(kind.path, kind.str(), why);
        }
    };
    if !map_type.is_absent() {
        if kind.str() != "object" {
            typed("object", "x-kubernetes-map-type", errors);
        }
        map_type.one_of(&["atomic", "granular"], errors);
    }
    let items = at.field("items");
    if !list_type.is_absent() && kind.str() != "array" {
        typed("array", "x-kubernetes-list-type", errors);
    } else if options.atomic_sets && has_loose_set(schema) {
        let extension = match items.value.str("type") {
            "array" => "x-kubernetes-list-type",
            _ => "x-kubernetes-map-type",
        };
        errors.invalid_shown(
            items.path.field(extension),
            &json::to_string(items.value.at("x-kubernetes-list-type")),
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        );
    }
    if !list_type.is_absent() {
        list_type.one_of(&["atomic", "set", "map"], errors);
    }
    let keys = at.field("x-kubernetes-list-map-keys");
    if !keys.list().is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if list_type.is_absent() {
            errors.required(list_type.path, why);
        } else if list_type.str() != "map" {
            errors.invalid(list_type.path, list_type.str(), why);
        }
    }
    if list_type.str() == "map" {
        map_list(keys, items, errors);
    }
}

/// Validates rules without compiling them.
fn expressions(at: At<'_>, errors: &mut Errors) {
    let broken = |text: &str| text.contains(['\n', '\r']);
    for rule in at.field("x-kubernetes-validations").items() {
        let (expression, message) = (rule.field("rule"), rule.field("message"));
        let trimmed = message.str().trim();
        if expression.str().trim().is_empty() {
            errors.required(expression.path, "rule is not specified");
        } else if !message.str().is_empty() && trimmed.is_empty() {
            errors.invalid(
                message.path,
                message.str(),
                "must be non-empty if specified",
            );
        } else if broken(trimmed) {
            errors.invalid(message.path, message.str(), "must not contain line breaks");
        } else if broken(expression.str().trim()) && trimmed.is_empty() {
            errors.required(
                message.path,
                "message must be specified if rule contains line breaks",
            );
        }
        let computed = rule.field("messageExpression");
        if !computed.str().is_empty() && computed.str().trim().is_empty() {
            errors.required(
                computed.path,
                "messageExpression must be non-empty if specified",
            );
        }
        let reason = rule.field("reason");
        if !reason.is_absent() {
            reason.one_of(
                &[
                    Reason::Duplicate.as_str(),
                    Reason::Forbidden.as_str(),
                    Reason::Invalid.as_str(),
                    Reason::Required.as_str(),
                ],
                errors,
            );
        }
        let path = rule.field("fieldPath");
        if !path.str().is_empty() && path.str().trim().is_empty() {
            errors.invalid(path.path, path.str(), "must be non-empty if specified");
        }
        if broken(path.str()) {
            errors.invalid(path.path, path.str(), "must not contain line breaks");
        }
        let supported = structural::unsupported(at.value).is_none();
        if !path.str().is_empty()
            && supported
            && fieldpath::find(path.str(), at.value, true).is_err()
        {
            errors.invalid(path.path, path.str(), "must be a valid path");
        }
    }
}
