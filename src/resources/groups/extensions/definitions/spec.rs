//! Validation of definitions, except their schemas. Follows
//! k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.

mod conversion;
mod naming;
mod versions;

use std::collections::BTreeSet;

use self::conversion::conversion;
use self::naming::names_of;
use self::versions::{columns, selectable_fields, subresources, validate_version};
use super::lifted::Lifted;
use super::schema;
use crate::meta::errors::Path;
use crate::meta::{At, Errors, names};
use crate::resources::custom::{condition, conditions};
use crate::resources::{Cx, metadata};
use crate::schema::{Value, json};

/// What an update may keep from the old definition.
pub(super) struct Options<'a> {
    /// The old definition; `None` for a creation.
    pub old: Option<&'a Value>,
    /// The options for schemas.
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

/// Validates the metadata of an update once more, as upstream does, so that errors are reported twice.
fn metadata_again(new: At<'_>, old: Option<At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        metadata::validate_update(new.field("metadata"), old.field("metadata"), errors);
    }
}

/// Validates a definition's status.
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
    // Upstream removes names as it goes, so a second version with the same name counts as not stored.
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

/// Whether a schema, or one within it, has a default.
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

/// Definitions in the community's groups require an annotation about their approval, except in updates that leave it
/// unchanged.
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
