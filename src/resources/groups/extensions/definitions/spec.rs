//! Validation of definitions, except their schemas. Follows
//! k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.

use std::collections::BTreeSet;

use super::lifted::Lifted;
use super::{fieldpath, schema, structural};
use crate::meta::errors::{Path, is_print, shown};
use crate::meta::{At, Errors, names};
use crate::resources::custom::{condition, conditions};
use crate::resources::groups::webhooks;
use crate::resources::{Cx, metadata};
use crate::schema::{Value, json};

/// How many fields of a version may be selectable.
const MAX_SELECTABLE: usize = 8;

/// What an update may keep though a creation may not have it.
pub(super) struct Options<'a> {
    /// The old definition; none for a creation.
    pub old: Option<&'a Value>,
    /// What may stand in schemas.
    pub schema: schema::Options,
}

impl<'a> Options<'a> {
    fn new(old: Option<&'a Value>) -> Self {
        Options {
            old,
            schema: schema::Options::new(old),
        }
    }

    fn was_established(&self) -> bool {
        self.old
            .is_some_and(|old| condition(old, "Established") == "True")
    }
}

/// Validates a definition.
pub(super) fn validate(new: At<'_>, old: Option<At<'_>>, _: &Cx<'_>, errors: &mut Errors) {
    metadata_again(new, old, errors);
    let old = old.map(|old| old.value);
    let options = Options::new(old);
    let spec = new.field("spec");
    if old.is_none() {
        let wanted = format!(
            "{}.{}",
            spec.value.at("names").str("plural"),
            spec.value.str("group")
        );
        let meta = new.field("metadata");
        for name in [meta.field("generateName"), meta.field("name")] {
            if name.str() != wanted && !name.str().is_empty() {
                name.invalid("must be spec.names.plural+\".\"+spec.group", errors);
            }
        }
    }
    validate_spec(spec, &options, errors);
    let status = new.field("status");
    let accepted = status.field("acceptedNames");
    names_of(accepted, errors);
    stored_versions(status.field("storedVersions"), spec.value, errors);
    approval(new.value, old, errors);
    let preserve = spec.field("preserveUnknownFields");
    let preserved = |old: &Value| old.at("spec").bool("preserveUnknownFields");
    if preserve.bool() && !old.is_some_and(preserved) {
        errors.invalid(
            preserve.path,
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
}

/// Validates the metadata of an update as those of all kinds are: upstream does it here, too, and tells causes twice.
fn metadata_again(new: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        metadata::validate_update(new.field("metadata"), old.field("metadata"), errors);
    }
}

/// Validates the status of a definition.
pub(super) fn validate_status(new: At<'_>, old: At<'_>, _: &Cx<'_>, errors: &mut Errors) {
    metadata_again(new, Some(old), errors);
    let status = new.field("status");
    let accepted = status.field("acceptedNames");
    names_of(accepted, errors);
}

fn validate_spec(spec: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    let group = spec.field("group");
    let wrong = names::dns1123_subdomain(group.str());
    if group.str().is_empty() {
        errors.required(group.path, "");
    } else if !wrong.is_empty() {
        errors.invalid(group.path, group.str(), wrong.join(","));
    } else if !group.str().contains('.') {
        errors.invalid(
            group.path,
            group.str(),
            "should be a domain with at least one dot",
        );
    }
    choice(spec.field("scope"), &["Cluster", "Namespaced"], errors);
    let lifted = Lifted::of(spec.value);
    let versions = spec.path.field("versions");
    let preserve = spec.field("preserveUnknownFields");
    let defaults = |version: &Value| has_default(version.path(&["schema", "openAPIV3Schema"]));
    if preserve.bool() && spec.value.list("versions").iter().any(defaults) {
        errors.invalid(
            preserve.path,
            true,
            "must be false in order to use defaults in the schema",
        );
    }
    if lifted.schema().get("openAPIV3Schema").is_none() {
        for (i, version) in lifted.versions.iter().enumerate() {
            if version.path(&["schema", "openAPIV3Schema"]).is_null()
                && (options.schema.required || version.bool("served"))
            {
                let version = versions.index(i);
                let why = if options.schema.required {
                    ""
                } else {
                    "because otherwise all fields are pruned"
                };
                errors.required(version.field("schema.openAPIV3Schema"), why);
            }
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut unique = true;
    for (i, version) in lifted.versions.iter().enumerate() {
        let path = versions.index(i);
        let name = version.str("name");
        unique &= !seen.contains(&name);
        seen.push(name);
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() {
            errors.invalid(path.field("name"), name, wrong.join(","));
        }
        let at = At {
            value: version,
            path,
        };
        let status = lifted.subresources_of(version).get("status").is_some();
        validate_version(at, status, options, errors);
    }
    if !unique {
        errors.invalid_shown(
            versions,
            &lifted.shown(spec.value),
            "must contain unique version names",
        );
    }
    let storages = lifted
        .versions
        .iter()
        .filter(|version| version.bool("storage"))
        .count();
    if storages != 1 {
        errors.invalid_shown(
            versions,
            &lifted.shown(spec.value),
            "must have exactly one version marked as storage version",
        );
    }
    if let Some(first) = lifted.versions.first() {
        let name = first.str("name");
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() && !name.is_empty() {
            errors.invalid(spec.path.field("version"), name, wrong.join(","));
        }
    }
    let naming = spec.field("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        naming.field(key).required("", errors);
    }
    names_of(naming, errors);
    let validation = At {
        value: lifted.schema(),
        path: spec.path.field("validation"),
    };
    schema::validate(validation, lifted.any_status(), &options.schema, errors);
    subresources(
        At {
            value: lifted.subresources(),
            path: spec.path.field("subresources"),
        },
        errors,
    );
    columns(
        At {
            value: lifted.columns(),
            path: spec.path.field("additionalPrinterColumns"),
        },
        errors,
    );
    let selectable = At {
        value: lifted.selectable(),
        path: spec.path.field("selectableFields"),
    };
    if !selectable.list().is_empty() {
        if lifted.schema().is_null() {
            errors.invalid(
                selectable.path,
                "",
                "may only be set when validations.schema is included",
            );
        } else {
            let schema = At {
                value: lifted.schema(),
                path: spec.path.field("schema"),
            };
            selectable_fields(selectable, schema, "", options, errors);
        }
    }
    let conversion = spec.field("conversion");
    let strategy = conversion.field("strategy");
    if !conversion.is_absent()
        && strategy.str() != "None"
        && spec.value.bool("preserveUnknownFields")
    {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.invalid(strategy.path, strategy.value, why);
    }
    self::conversion(conversion, options, errors);
    if let Some(old) = options.old {
        let old = old.at("spec");
        if options.was_established() {
            let scope = spec.field("scope");
            scope.immutable(old.at("scope"), errors);
            let kind = naming.field("kind");
            kind.immutable(old.at("names").at("kind"), errors);
        }
        group.immutable(old.at("group"), errors);
        let plural = naming.field("plural");
        plural.immutable(old.at("names").at("plural"), errors);
    }
}

fn choice(at: At<'_>, choices: &[&str], errors: &mut Errors) {
    if at.str().is_empty() {
        errors.required(at.path, "");
    } else {
        at.one_of(choices, errors);
    }
}

fn validate_version(version: At<'_>, status: bool, options: &Options<'_>, errors: &mut Errors) {
    deprecation(version, errors);
    schema::validate(version.field("schema"), status, &options.schema, errors);
    subresources(version.field("subresources"), errors);
    columns(version.field("additionalPrinterColumns"), errors);
    let selectable = version.field("selectableFields");
    if selectable.list().is_empty() {
        return;
    }
    let schema = version.field("schema");
    if schema.value.get("openAPIV3Schema").is_none() {
        errors.invalid(
            selectable.path,
            "",
            "may only be set when `version.schema.openAPIV3Schema` is not included",
        );
    } else {
        let name = version.value.str("name");
        selectable_fields(selectable, schema, name, options, errors);
    }
}

fn deprecation(version: At<'_>, errors: &mut Errors) {
    let warning = version.field("deprecationWarning");
    let Some(text) = warning.value.as_str() else {
        return;
    };
    if !version.value.bool("deprecated") {
        return warning.invalid_pointer("can only be set for deprecated versions", errors);
    }
    if text.len() > 256 {
        warning.invalid_pointer("must be <= 256 characters long", errors);
    }
    if text.is_empty() {
        warning.invalid_pointer("must not be an empty string", errors);
    }
    if let Some((index, _)) = text.char_indices().find(|(_, c)| !is_print(*c)) {
        warning.invalid_pointer(
            format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {index}"
            ),
            errors,
        );
    }
}

/// Validates names, be they asked for or accepted.
fn names_of(at: At<'_>, errors: &mut Errors) {
    for key in ["plural", "singular"] {
        label(at.field(key), false, errors);
    }
    let (kind, list_kind) = (at.field("kind"), at.field("listKind"));
    label(kind, true, errors);
    label(list_kind, true, errors);
    for name in at.field("shortNames").items() {
        whole_label(name, errors);
    }
    if !kind.str().is_empty() && kind.str() == list_kind.str() {
        errors.invalid(
            list_kind.path,
            list_kind.str(),
            "kind and listKind may not be the same",
        );
    }
    for name in at.field("categories").items() {
        whole_label(name, errors);
    }
}

fn label(at: At<'_>, mixed: bool, errors: &mut Errors) {
    if at.str().is_empty() {
        return;
    }
    if !mixed {
        return whole_label(at, errors);
    }
    let wrong = names::dns1035_label(&at.str().to_lowercase());
    if !wrong.is_empty() {
        errors.invalid(
            at.path,
            at.str(),
            format!(
                "may have mixed case, but should otherwise match: {}",
                wrong.join(",")
            ),
        );
    }
}

fn whole_label(at: At<'_>, errors: &mut Errors) {
    let wrong = names::dns1035_label(at.str());
    if !wrong.is_empty() {
        errors.invalid(at.path, at.str(), wrong.join(","));
    }
}

fn columns(columns: At<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    for column in columns.items() {
        column.field("name").required("", errors);
        let kind = column.field("type");
        let types = format!("must be one of {}", TYPES.join(","));
        if kind.str().is_empty() {
            errors.required(kind.path, &types);
        } else if !TYPES.contains(&kind.str()) {
            errors.invalid(kind.path, kind.str(), types);
        }
        let format = column.field("format");
        if !format.str().is_empty() && !FORMATS.contains(&format.str()) {
            errors.invalid(
                format.path,
                format.str(),
                format!("must be one of {}", FORMATS.join(",")),
            );
        }
        let path = At {
            value: column.value.at("jsonPath"),
            path: column.path.field("JSONPath"),
        };
        if path.required("", errors) {
            dotted(path, errors);
        }
    }
}

/// Rejects a path that does not begin with a dot; more of it is not validated. Whether it is a path.
fn dotted(at: At<'_>, errors: &mut Errors) -> bool {
    let fits = at.str().starts_with('.');
    if !fits {
        errors.invalid(
            at.path,
            at.str(),
            "must be a simple json path starting with .",
        );
    }
    fits
}

fn subresources(at: At<'_>, errors: &mut Errors) {
    let Some(scale) = at.value.get("scale") else {
        return;
    };
    let path = |key: &str| scale.str(key).to_owned();
    for (key, field, place) in [
        ("specReplicasPath", "scale.specReplicasPath", ".spec."),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status."),
    ] {
        let value = Value::from(path(key));
        let at = At {
            value: &value,
            path: at.path.field(field),
        };
        if at.required("", errors) && dotted(at, errors) && !at.str().starts_with(place) {
            errors.invalid(
                at.path,
                at.str(),
                format!(
                    "should be a json path under {}",
                    place.trim_end_matches('.')
                ),
            );
        }
    }
    let value = Value::from(path("labelSelectorPath"));
    let selector = At {
        value: &value,
        path: at.path.field("scale.labelSelectorPath"),
    };
    let text = selector.str();
    if !text.is_empty()
        && dotted(selector, errors)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        errors.invalid(
            selector.path,
            text,
            "should be a json path under either .spec or .status",
        );
    }
}

fn selectable_fields(
    fields: At<'_>,
    schema: At<'_>,
    version: &str,
    options: &Options<'_>,
    errors: &mut Errors,
) {
    let mut seen: Vec<String> = Vec::new();
    let schema = schema.field("openAPIV3Schema");
    if let Some(why) = structural::unsupported(schema.value) {
        errors.invalid(schema.path, "", why);
    }
    for field in fields.items() {
        let path = field.field("jsonPath");
        if !path.required("", errors) {
            continue;
        }
        match fieldpath::find(path.str(), schema.value, false) {
            Err(why) => {
                errors.invalid(path.path, path.str(), format!("is an invalid path: {why}"));
            }
            Ok((found, kind)) => {
                if found.split(['.', '[']).next() == Some("metadata") {
                    errors.invalid(
                        path.path,
                        path.str(),
                        "must not point to fields in metadata",
                    );
                }
                if !matches!(kind.str("type"), "string" | "boolean" | "integer") {
                    errors.invalid(
                        path.path,
                        path.str(),
                        "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                    );
                }
                if seen.contains(&found) {
                    errors.duplicate(path.path, path.str());
                } else {
                    seen.push(found);
                }
            }
        }
    }
    if seen.len() > MAX_SELECTABLE && !had_as_many(fields.value, version, options) {
        errors.too_many(fields.path, seen.len(), MAX_SELECTABLE);
    }
}

/// Whether the old definition had the same fields, too many as they are.
fn had_as_many(fields: &Value, version: &str, options: &Options<'_>) -> bool {
    let Some(old) = options.old else { return false };
    let lifted = Lifted::of(old.at("spec"));
    let before = if version.is_empty() {
        lifted.selectable()
    } else {
        let found = lifted
            .versions
            .iter()
            .find(|old| old.str("name") == version);
        found.map_or(&Value::Null, |old| old.at("selectableFields"))
    };
    before == fields
}

fn conversion(conversion: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    if conversion.is_absent() {
        return;
    }
    let strategy = conversion.field("strategy");
    choice(strategy, &["None", "Webhook"], errors);
    let webhook = conversion.field("webhook");
    let versions = At {
        value: webhook.value.at("conversionReviewVersions"),
        path: conversion.path.field("conversionReviewVersions"),
    };
    let client = At {
        value: webhook.value.at("clientConfig"),
        path: conversion.path.field("webhookClientConfig"),
    };
    if strategy.str() != "Webhook" {
        if !client.is_absent() {
            errors.forbidden(
                client.path,
                "should not be set when strategy is not set to Webhook",
            );
        }
        if !versions.list().is_empty() {
            errors.forbidden(
                versions.path,
                "should not be set when strategy is not set to Webhook",
            );
        }
        return;
    }
    if client.is_absent() {
        errors.required(client.path, "required when strategy is set to Webhook");
    } else {
        webhook_client(client, options, errors);
    }
    review_versions(versions, options, errors);
}

fn review_versions(versions: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    if versions.list().is_empty() {
        errors.required(versions.path, "");
        return;
    }
    let known = |list: &[Value]| {
        list.iter()
            .any(|version| matches!(version.as_str(), Some("v1" | "v1beta1")))
    };
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.invalid(version.path, version.str(), "duplicate version");
            continue;
        }
        seen.push(version.str());
        version.invalid_each(names::dns1035_label(version.str()), errors);
    }
    let before = options.old.map(|old| {
        old.path(&["spec", "conversion", "webhook"])
            .list("conversionReviewVersions")
    });
    let required = before.is_none_or(|before| before.is_empty() || known(before));
    if required && !known(versions.list()) {
        errors.invalid(
            versions.path,
            versions.value,
            "must include at least one of v1, v1beta1",
        );
    }
}

fn webhook_client(client: At<'_>, options: &Options<'_>, errors: &mut Errors) {
    webhooks::client(client, errors);
    let bundle = client.field("caBundle");
    let old = options
        .old
        .map(|old| old.path(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]));
    let was_wrong = old
        .and_then(Value::as_str)
        .is_some_and(|old| !conditions::is_bundle(old));
    if options.was_established() && !was_wrong && !conditions::is_bundle(bundle.str()) {
        errors.invalid_shown(
            bundle.path,
            &shown(bundle.value),
            "unable to load root certificates: unable to parse bytes as PEM block",
        );
    }
}

fn stored_versions(stored: At<'_>, spec: &Value, errors: &mut Errors) {
    if stored.list().is_empty() {
        errors.invalid_shown(stored.path, "null", "must have at least one stored version");
        return;
    }
    let names = |at: At<'_>| -> Vec<String> {
        at.list()
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    let list = names(stored);
    // A second version of the same name does not find its name any more.
    let mut known: BTreeSet<&str> = list.iter().map(String::as_str).collect();
    for version in spec.list("versions") {
        let name = version.str("name");
        if !known.remove(name) && version.bool("storage") {
            errors.invalid_shown(
                stored.path,
                &json::to_string(stored.value),
                format!("must have the storage version {name}"),
            );
        }
    }
    for (i, name) in list.iter().enumerate() {
        let there = spec
            .list("versions")
            .iter()
            .any(|version| version.str("name") == name);
        if !there {
            errors.invalid(
                stored.path.index(i),
                name.as_str(),
                format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
                ),
            );
        }
    }
}

/// Whether a schema, or one within it, says a default.
fn has_default(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else {
        return false;
    };
    members.iter().any(|(name, value)| match name.as_str() {
        "default" => true,
        "properties" | "patternProperties" | "definitions" | "dependencies" => value
            .as_object()
            .is_some_and(|schemas| schemas.iter().any(|(_, schema)| has_default(schema))),
        "allOf" | "anyOf" | "oneOf" => value
            .as_array()
            .is_some_and(|schemas| schemas.iter().any(has_default)),
        "items" | "not" | "additionalProperties" | "additionalItems" => has_default(value),
        _ => false,
    })
}

/// Definitions of the community's groups must say that they are approved; what an update leaves as it was is not
/// asked for again.
fn approval(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some((_, reason, message)) = conditions::approval(new) else {
        return;
    };
    if old
        .and_then(conditions::approval)
        .is_some_and(|(_, old, _)| old == reason)
    {
        return;
    }
    let annotations = Path::ROOT.field("metadata.annotations");
    let path = annotations.key(conditions::APPROVAL);
    match reason {
        "MissingAnnotation" => errors.required(path, &message),
        "InvalidAnnotation" => {
            let said = new
                .path(&["metadata", "annotations"])
                .str(conditions::APPROVAL);
            errors.invalid(path, said, message);
        }
        _ => {}
    }
}
