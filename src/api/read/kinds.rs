//! Bodies of other kinds than the expected one, in upstream's words.

use super::Expected;
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::resources::{gvk_type, registry};
use crate::schema::Value;

/// The error for a body of another kind or version.
pub(super) fn foreign(group: &str, version: &str, kind: &str, expected: Expected<'_>) -> Status {
    let said = registry::api_version(group, version);
    let known = gvk_type(group, version, kind).is_some();
    if kind == expected.kind && (known || is_past(group, version, kind)) {
        return Status::bad_request(format!(
            "the API version in the data ({said}) does not match the expected API version ({})",
            expected.api_version()
        ));
    }
    let cause = not_of_kind(group, version, kind, expected);
    Status::bad_request(format!(
        "{kind} in version {} cannot be handled as a {}: {cause}",
        quoted(version),
        expected.kind
    ))
}

/// The kinds that exist in any version.
const UNVERSIONED: [&str; 8] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "CreateOptions",
    "DeleteOptions",
    "Status",
    "UpdateOptions",
];

/// The other kinds of `meta.k8s.io/v1`.
const META: [&str; 8] = [
    "GetOptions",
    "ListOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Table",
    "TableOptions",
    "WatchEvent",
];

/// Rejects deletion options that declare another kind, for resources that know only the shared kinds.
///
/// # Errors
/// Upstream's text.
pub fn deletes(value: &Value) -> Result<(), String> {
    let said = match value.str("apiVersion") {
        "" => "meta.k8s.io/v1",
        said => said,
    };
    let kind = value.str("kind");
    if said.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {said}"));
    }
    if matches!(kind, "" | "DeleteOptions") {
        return Ok(());
    }
    if UNVERSIONED.contains(&kind) || (said == "meta.k8s.io/v1" && META.contains(&kind)) {
        return Err(format!(
            "converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion"
        ));
    }
    let (group, version) = said.split_once('/').unwrap_or(("", said));
    Err(unregistered(group, version, kind))
}

fn unregistered(group: &str, version: &str, kind: &str) -> String {
    format!(
        "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
        quoted(kind),
        quoted(&registry::api_version(group, version))
    )
}

/// Why an object of another kind cannot be decoded as the expected one.
pub(super) fn not_of_kind(
    group: &str,
    version: &str,
    kind: &str,
    expected: Expected<'_>,
) -> String {
    if gvk_type(group, version, kind).is_none() && !is_past(group, version, kind) {
        return unregistered(group, version, kind);
    }
    format!(
        "converting ({version}.{kind}) to ({}.{}): unknown conversion",
        package(expected.group),
        expected.kind
    )
}

/// Why an object of another kind cannot be decoded as the expected one, if it declares no version.
pub(super) fn not_of_internal_kind(kind: &str, expected: Expected<'_>) -> String {
    let Expected { group, version, .. } = expected;
    if gvk_type(group, version, kind).is_none() {
        return format!(
            "no kind {} is registered for the internal version of group {} in scheme \"pkg/runtime/scheme.go:111\"",
            quoted(kind),
            quoted(group)
        );
    }
    let package = package(group);
    format!(
        "converting ({package}.{kind}) to ({package}.{}): unknown conversion",
        expected.kind
    )
}

/// The Go package of a group's internal types.
fn package(group: &str) -> &str {
    match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    }
}

/// Kinds of versions that upstream still decodes but does not serve: a line for each version.
const PAST: &str = include_str!("../past_kinds.txt");

/// Whether a kind is one of those in [`PAST`]. Only used for errors.
fn is_past(group: &str, version: &str, kind: &str) -> bool {
    let api_version = registry::api_version(group, version);
    PAST.lines().any(|line| {
        let mut words = line.split(' ');
        words.next() == Some(&*api_version) && words.any(|word| word == kind)
    })
}
