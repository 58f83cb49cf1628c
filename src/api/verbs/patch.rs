//! PATCH: the kinds of patches, and the patched object.

use http::HeaderMap;

use super::apply;
use super::write::Write;
use crate::api::custom;
use crate::api::negotiate::content_type;
use crate::api::query::FieldValidation;
use crate::api::read::{self, Expected};
use crate::api::reply::Reply;
use crate::meta::Status;
use crate::patch::{Kind, Patch, PatchError};
use crate::resources::Resource;
use crate::schema::Value;
use crate::schema::decode::Decoded;

/// The kind of a patch, by content type; None for an apply.
///
/// # Errors
/// 415 for an unsupported type.
pub fn kind(headers: &HeaderMap, resource: &Resource) -> Result<Option<Kind>, Status> {
    if apply::is(headers) {
        return Ok(None);
    }
    let kind = Kind::of(&content_type(headers));
    if resource.is_custom() {
        return kind
            .filter(|kind| *kind != Kind::Strategic)
            .map(Some)
            .ok_or_else(custom::refuse_patch);
    }
    kind.map(Some).ok_or_else(|| {
        Status::failure(415, "UnsupportedMediaType", "415: Unsupported Media Type")
            .with_details(crate::schema::Object::new())
    })
}

/// Patches the named object.
///
/// # Errors
/// 400 for an invalid patch, 404, 409, and 422 for an invalid result.
pub async fn patch(write: &mut Write<'_>, kind: Kind, bytes: &[u8]) -> Result<Reply, Status> {
    let patch = Patch::read(kind, bytes)?;
    let target = write.target;
    let version = target.version();
    let schema = &**version.schema;
    let expected = Expected::of(&target.resource, &version.name);
    let validation = write.options.validation;
    let checked = validation != FieldValidation::Ignore;
    let mut warnings = Vec::new();
    let result = write
        .update(200, |old| {
            let is_custom = target.resource.is_custom();
            // Custom resources are maps, and shown in Go's notation of maps.
            let refused = |why: String| match is_custom {
                true => patch.refused(&custom::sorted(old.clone()), schema, why),
                false => patch.refused(old, schema, why),
            };
            let mut patched = patch
                .apply(
                    old,
                    schema,
                    |outcome| match is_custom {
                        true => custom::decode(outcome, target, checked),
                        false => read::patched(outcome, expected),
                    },
                    checked,
                )
                .map_err(|error| match error {
                    PatchError::Undecodable { why, .. } if is_custom => refused(why),
                    error => error,
                })?;
            (target.resource.rules.convert)(&mut patched.value).map_err(|why| match kind {
                // Upstream converts the object that it has decoded itself, and does not classify the error.
                Kind::Strategic => PatchError::Unclassified(why),
                _ => refused(why),
            })?;
            warnings.clear();
            read::judge(patched.strict, validation, &mut warnings).map_err(refused)?;
            let mut new = Decoded {
                value: patched.value,
                emptied: patched.emptied,
                ..Decoded::default()
            };
            if is_custom {
                belongs(&mut new.value, &target.info.name, target.namespace())?;
                return Ok(new);
            }
            let object = new.value.object_mut();
            object.remove("kind");
            object.remove("apiVersion");
            object.insert_first("apiVersion", target.resource.api_version(&version.name));
            object.insert_first("kind", &target.resource.kind);
            (target.resource.rules.defaults)(&mut new.value, &target.cx());
            belongs(&mut new.value, &target.info.name, target.namespace())?;
            Ok(new)
        })
        .await;
    // Warnings of decoding come before those of the kind.
    warnings.append(&mut write.warnings);
    write.warnings = warnings;
    result
}

/// Rejects an object with another name or namespace than the request's. A missing namespace is set, and that of a
/// cluster-scoped object removed.
///
/// # Errors
/// 400.
pub fn belongs(object: &mut Value, name: &str, namespace: &str) -> Result<(), Status> {
    let meta = object.object_mut().object_mut("metadata");
    if namespace.is_empty() {
        meta.remove("namespace");
    }
    match meta.get("namespace").and_then(Value::as_str) {
        None | Some("") if !namespace.is_empty() => {
            meta.insert("namespace", namespace);
        }
        Some(said) if !namespace.is_empty() && said != namespace => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        _ => {}
    }
    match meta.get("name").and_then(Value::as_str).unwrap_or_default() {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        said if said != name => Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}
