//! Persistent volumes and claims, and parts shared with other kinds.

pub(super) mod claims;
pub(super) mod persistent;
mod sources;

#[cfg(test)]
mod tests;

use crate::meta::{At, Errors, names};
use crate::resources::groups::core::pods::defaults;
use crate::schema::Value;

pub(in crate::resources::groups) use persistent::inline_spec;

const MODES: [&str; 2] = ["Block", "Filesystem"];
/// Access modes and their abbreviations, in the order of tables.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
/// The annotation that preceded the field for the storage class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Sets the defaults of a volume's source and capacity.
pub(in crate::resources::groups) fn source_defaults(spec: &mut Value) {
    for (kind, source) in spec
        .as_object_mut()
        .into_iter()
        .flat_map(crate::schema::Object::iter_mut)
        .filter(|(_, source)| source.as_object().is_some())
    {
        match kind.as_str() {
            "capacity" => defaults::round_up(source),
            "hostPath" => defaults::absent(source, "type", ""),
            _ => defaults::shared_source(kind, source),
        }
    }
}

/// `RWO,ROX`
fn shown_modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|m| m.as_str() == Some(mode));
    ACCESS_MODES
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

/// The storage class of a volume or claim; the annotation has precedence over the field.
fn class(object: &Value) -> &str {
    match object
        .at("metadata")
        .at("annotations")
        .at(CLASS_ANNOTATION)
        .as_str()
    {
        Some(class) => class,
        None => object.at("spec").str("storageClassName"),
    }
}

/// Validates that a quantity is positive, in the two ways of upstream.
fn positive_quantity(amount: At<'_>, errors: &mut Errors) {
    if amount.quantity().is_some_and(|amount| amount.sign() <= 0) {
        errors.invalid(amount.path, amount.value, "must be greater than zero");
    }
}

/// validateBasicResource
fn basic_quantity(amount: At<'_>, errors: &mut Errors) {
    let units = amount.quantity().map_or(0, |amount| amount.value());
    if units < 0 {
        errors.invalid(amount.path, units, "must be a valid resource quantity");
    }
}

/// Validates a subdomain, such as the name of a storage class.
fn subdomain(name: &str) -> Vec<String> {
    names::subdomain_name(name, false)
}
