//! The special cases of requests for custom resources: supported paths and methods, and decoding of bodies. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_handler.go.

use http::Method;
use http::request::Parts;

use super::negotiate::Format;
use super::query::{FieldValidation, WriteOptions};
use super::read::{self, Body, Expected};
use super::verbs::{Target, patch};
use crate::meta::errors::quoted;
use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};
use crate::resources::Resource;
use crate::schema::decode::Decoded;
use crate::schema::types::SchemaRef;
use crate::schema::{Value, json, structural};

use super::request_info::Info;

/// Whether a request's path fits the scope of a custom resource; other paths get a plain 404.
pub fn in_scope(resource: &Resource, info: &Info) -> bool {
    let somewhere = !info.namespace.is_empty();
    let anywhere = matches!(info.verb.as_str(), "list" | "watch");
    if resource.namespaced {
        somewhere || anywhere
    } else {
        !somewhere
    }
}

/// Checks whether the subresource and the method are served.
///
/// # Errors
/// 404 for a subresource that the version does not have, 405 for a method, 415 for a patch of an unsupported type, 400
/// for a missing name.
pub fn check_verb(target: &Target, parts: &Parts) -> Result<(), Status> {
    let info = &target.info;
    if !info.subresource.is_empty() && target.version().subresource(&info.subresource).is_none() {
        return Err(Status::not_found(target.about(&info.name)));
    }
    let verb = if parts.method == Method::OPTIONS {
        ""
    } else {
        info.verb.as_str()
    };
    let served: &[&str] = if info.subresource.is_empty() {
        &[
            "get",
            "list",
            "watch",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
        ]
    } else {
        &["get", "update", "patch"]
    };
    if !served.contains(&verb) {
        return Err(Status::verb_not_supported(verb, target.about("")));
    }
    if verb == "patch" {
        patch::kind(&parts.headers, &target.resource)?;
    }
    if matches!(verb, "update" | "patch") && info.name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    Ok(())
}

/// Decodes an object, pruned and with defaults, as for bodies and patched objects.
///
/// # Errors
/// Metadata has a wrong type: upstream's text.
pub fn decode(value: Value, target: &Target, report: bool) -> Result<Decoded, String> {
    decode_as(value, &target.version().schema, report)
}

/// The schema of the version that a body declares, or of the request's version if that does not exist.
fn schema_of<'a>(api_version: &str, target: &'a Target) -> &'a SchemaRef {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let custom = target.resource.custom.as_ref();
    custom
        .and_then(|custom| custom.schemas.get(version))
        .map_or(&target.version().schema, |schema| schema)
}

fn decode_as(value: Value, schema: &SchemaRef, report: bool) -> Result<Decoded, String> {
    let options = structural::Options {
        report,
        ..structural::Options::default()
    };
    structural::decode(value, schema, options).map(decoded)
}

fn decoded(read: structural::Decoded) -> Decoded {
    Decoded {
        value: read.value,
        unknown: read.unknown,
        ..Decoded::default()
    }
}

/// The result of an apply: with defaults, and with the nulls that remained.
///
/// # Errors
/// Metadata has a wrong type: upstream's text.
pub fn applied(value: Value, target: &Target) -> Result<Value, String> {
    let options = structural::Options {
        keep_nulls: true,
        ..structural::Options::default()
    };
    structural::decode(value, &target.version().schema, options).map(|decoded| decoded.value)
}

/// Decodes the body of a creation or an update.
///
/// # Errors
/// 400 for another version and for metadata of a wrong type, 422 for another kind, and (strictly) 400 for unknown or
/// duplicate members.
pub fn object(
    bytes: &[u8],
    format: Format,
    target: &Target,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let expected = Expected::of(&target.resource, &target.version().name);
    // For custom resources, duplicates are reported before unknown members.
    let Body {
        value, duplicates, ..
    } = read::parse(bytes, format, expected.kind)?;
    let report = options.validation != FieldValidation::Ignore;
    if let Some(status) = untyped(&value, bytes, expected, report) {
        return Err(status);
    }
    let said = value.str("apiVersion").to_owned();
    let kind = value.str("kind").to_owned();
    let refused = |handled_as: &str, cause: String| {
        let version = said.rsplit('/').next().unwrap_or_default();
        Status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {handled_as}: {cause}",
            quoted(version),
        ))
    };
    let cannot = |cause| refused(expected.kind, cause);
    // For an object of another kind only the metadata is decoded; the kind is rejected later.
    let ours = said.starts_with(&format!("{}/", expected.group)) && kind == expected.kind;
    let decoded = match ours {
        true => decode_as(value, schema_of(&said, target), report),
        false => structural::decode_foreign(value).map(decoded),
    }
    .map_err(cannot)?;
    let mut told = duplicates;
    told.extend(read::unknown(&decoded.unknown));
    // Strict decoding fails only after the declared kind is known.
    read::judge(told, options.validation, warnings).map_err(|cause| refused(&kind, cause))?;
    if said != expected.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({said}) does not match the expected API version ({})",
            expected.api_version()
        )));
    }
    Ok(decoded.value)
}

/// The error for a body that does not declare its type. If unknown members are not reported (`report`), the body is
/// decoded as the kind of the URL at once.
fn untyped(value: &Value, bytes: &[u8], expected: Expected<'_>, report: bool) -> Option<Status> {
    let unrecognized = |cause: String| {
        Some(match report {
            true => read::unrecognized(bytes, expected.kind, &cause),
            false => Status::bad_request(format!(
                "{0} in version {1} cannot be handled as a {0}: {cause}",
                expected.kind,
                quoted(expected.version)
            )),
        })
    };
    if value.str("kind").is_empty() {
        let shown = String::from_utf8_lossy(bytes);
        return unrecognized(format!("Object 'Kind' is missing in '{shown}'"));
    }
    let said = value.str("apiVersion");
    if said.matches('/').count() > 1 {
        return unrecognized(format!("unexpected GroupVersion string: {said}"));
    }
    None
}

/// Rejects an object of another kind or version, with a field error.
///
/// # Errors
/// 422, about the kind that the object declares.
pub fn check_type(object: &Value, target: &Target) -> Result<(), Status> {
    let expected = Expected::of(&target.resource, &target.version().name);
    let mut errors = Errors::default();
    let (kind, api_version) = (object.str("kind"), object.str("apiVersion"));
    if kind != expected.kind {
        errors.invalid(
            Path::ROOT.field("kind"),
            kind,
            format!("must be {}", expected.kind),
        );
    }
    let wanted = expected.api_version();
    if api_version != wanted {
        errors.invalid(
            Path::ROOT.field("apiVersion"),
            api_version,
            format!("must be {wanted}"),
        );
    }
    if errors.is_empty() {
        return Ok(());
    }
    let about = About {
        group: api_version.rsplit_once('/').map_or("", |(group, _)| group),
        kind,
        name: object.at("metadata").str("name"),
    };
    Err(Status::invalid(about, &errors))
}

/// The error for a new instance while its definition is being deleted.
pub fn forbid_creation(target: &Target, name: &str) -> Option<Status> {
    let custom = target.resource.custom.as_ref()?;
    custom.terminating.then(|| {
        Status::forbidden(
            target.about(name),
            "create not allowed while custom resource definition is terminating",
        )
    })
}

/// Rejects a patch, listing the supported media types.
///
/// # Errors
/// 415 for all others.
pub fn refuse_patch() -> Status {
    Status::failure(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

/// A value as upstream encodes it in responses: members sorted by name.
pub fn sorted(mut value: Value) -> Value {
    value.sort();
    value
}

/// The text of a list of custom resources before and after its items.
pub fn list_frame(resource: &Resource, api_version: &str, meta: Value) -> (String, String) {
    let text = |value: &str| json::to_string(&Value::from(value));
    (
        format!("{{\"apiVersion\":{},\"items\":[", text(api_version)),
        format!(
            "],\"kind\":{},\"metadata\":{}}}\n",
            text(&resource.list_kind),
            json::to_string(&meta)
        ),
    )
}
