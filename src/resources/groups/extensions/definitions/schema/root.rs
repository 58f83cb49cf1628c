//! What may stand at the root of a schema.

use crate::meta::{At, Errors};
use crate::schema::internal;

/// The only keywords allowed at the root of a schema with the status subresource.
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

pub(super) fn root_members(root: At<'_>, errors: &mut Errors) {
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
