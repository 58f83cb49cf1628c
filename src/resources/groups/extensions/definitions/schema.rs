//! Validation of the schemas in a definition: the allowed keywords. Follows
//! ValidateCustomResourceDefinitionOpenAPISchema in
//! k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.

use super::{default, fieldpath, structural};
use crate::meta::errors::Reason;
use crate::meta::{At, Errors};
use crate::resources::custom::definition::any;
use crate::schema::{Value, internal, json};

/// Types that a schema may name.
pub(super) const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What schemas must keep to. An update may keep what the old definition did wrong.
pub(super) struct Options {
    /// Every version needs a schema.
    pub required: bool,
    valid_types: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    map_keys: bool,
}

impl Options {
    /// What is demanded of a definition that takes the place of `old`.
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

/// Whether the items of a set are neither scalars nor atomic.
fn has_loose_set(schema: &Value) -> bool {
    let items = schema.at("items");
    schema.str("x-kubernetes-list-type") == "set"
        && match items.str("type") {
            "array" => !matches!(items.str("x-kubernetes-list-type"), "" | "atomic"),
            "object" => items.str("x-kubernetes-map-type") != "atomic",
            _ => false,
        }
}

/// Validates the `schema` of a version. `status` is whether the status subresource is on.
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

/// With the status subresource only these may stand at the root: what is told of status is not lost then.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "XPreserveUnknownFields",
    ),
    ("x-kubernetes-validations", "XValidations"),
];

fn root_members(root: At<'_>, errors: &mut Errors) {
    let allowed = |name: &str| AT_ROOT.iter().any(|(known, _)| *known == name);
    for (name, _) in root.value.entries_of() {
        if name == "type" && root.value.str("type") != "object" {
            errors.invalid(
                root.path.field("type"),
                root.value.str("type"),
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            );
            return;
        }
        if !allowed(name) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            errors.invalid_shown(
                root.path,
                &internal::shown(root.value, "apiextensions.JSONSchemaProps"),
                format!(
                    "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                    names.join(" ")
                ),
            );
            return;
        }
    }
}

/// Where in a schema a schema stands.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Within the metadata or type of a resource.
    in_meta: bool,
    /// Why there may be no defaults.
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

/// What OpenAPI has and definitions have not.
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

fn map_list(keys: At<'_>, items: At<'_>, errors: &mut Errors) {
    if keys.list().is_empty() {
        errors.required(
            keys.path,
            "must not be empty if x-kubernetes-list-type is map",
        );
    }
    if items.is_absent() {
        errors.required(
            items.path,
            "must have a schema if x-kubernetes-list-type is map",
        );
        return;
    }
    if items.value.as_object().is_none() {
        errors.invalid_shown(
            items.path,
            &internal::shown(items.value, "*apiextensions.JSONSchemaPropsOrArray"),
            "must only have a single schema if x-kubernetes-list-type is map",
        );
        return;
    }
    let kind = items.field("type");
    if kind.str() != "object" {
        errors.invalid(
            kind.path,
            kind.str(),
            "must be object if parent array's x-kubernetes-list-type is map",
        );
        return;
    }
    let properties = items.field("properties");
    let mut seen: Vec<&str> = Vec::new();
    for key in keys.list().iter().filter_map(Value::as_str) {
        match properties.value.get(key) {
            Some(property) if matches!(property.str("type"), "array" | "object") => {
                let property = properties.path.key(key);
                errors.invalid(
                    property.field("type"),
                    kind.str(),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                );
            }
            Some(_) => {}
            None => errors.invalid(
                keys.path,
                keys.value,
                "entries must all be names of item properties",
            ),
        }
        if seen.contains(&key) {
            errors.invalid(keys.path, keys.value, "must not contain duplicate entries");
        }
        seen.push(key);
    }
}

/// Items that are told apart must not be null, and their keys must be there.
fn list_items(at: At<'_>, errors: &mut Errors) {
    let list_type = at.value.str("x-kubernetes-list-type");
    let items = at.field("items");
    if !matches!(list_type, "set" | "map") || items.value.as_object().is_none() {
        return;
    }
    if items.value.bool("nullable") {
        errors.forbidden(
            items.path.field("nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
        );
    }
    if list_type != "map" {
        return;
    }
    let properties = items.field("properties");
    for key in at.value.list("x-kubernetes-list-map-keys") {
        let Some(name) = key.as_str() else { continue };
        let Some(property) = properties.value.get(name) else {
            continue;
        };
        let path = properties.path.key(name);
        if !items.value.list("required").contains(key) && property.get("default").is_none() {
            errors.required(
                path.field("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
        if property.bool("nullable") {
            errors.forbidden(
                path.field("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}

/// Rules that are expressions: what can be validated without compiling them.
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

/// Texts for `Warning` headers: formats that are not known, and sets that apply cannot merge.
pub(super) fn warnings(spec: &Value) -> (Vec<String>, Vec<String>) {
    let (mut formats, mut sets) = (Vec::new(), Vec::new());
    for version in spec.list("versions") {
        let schema = version.path(&["schema", "openAPIV3Schema"]);
        collect(schema, &mut formats, &mut sets);
    }
    sets.sort();
    sets.dedup();
    (formats, sets)
}

fn collect(schema: &Value, formats: &mut Vec<String>, sets: &mut Vec<String>) {
    let found = std::cell::RefCell::new((formats, sets));
    any(schema, &|schema| {
        let (formats, sets) = &mut *found.borrow_mut();
        let (format, kind) = (schema.str("format"), schema.str("type"));
        if !format.is_empty() {
            let types: &[&str] = if kind.is_empty() { &[] } else { &[kind] };
            if !crate::schema::check::formats::recognized(format, types) {
                formats.push(format!(
                    "unrecognized format {}",
                    crate::meta::errors::quoted(format)
                ));
            }
        }
        let items = schema.at("items").str("type");
        if schema.str("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
            sets.push(format!(
                "x-kubernetes-list-type: set for items of type \"{items}\" is not supported by server-side apply or CEL validation rules"
            ));
        }
        false
    });
}
