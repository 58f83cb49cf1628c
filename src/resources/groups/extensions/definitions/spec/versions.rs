//! Validation of the versions in a definition, except their schemas.

use super::super::lifted::Lifted;
use super::super::{fieldpath, schema, structural};
use super::Options;
use crate::meta::errors::is_print;
use crate::meta::{At, Errors};
use crate::schema::Value;

/// The maximum number of selectable fields per version.
const MAX_SELECTABLE: usize = 8;

pub(super) fn validate_version(
    version: At<'_>,
    status: bool,
    options: &Options<'_>,
    errors: &mut Errors,
) {
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

pub(super) fn columns(columns: At<'_>, errors: &mut Errors) {
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

/// Requires that a path begins with a dot. Returns whether it does.
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

pub(super) fn subresources(at: At<'_>, errors: &mut Errors) {
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

pub(super) fn selectable_fields(
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

/// Whether the old definition had the same fields, even if they are too many.
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
