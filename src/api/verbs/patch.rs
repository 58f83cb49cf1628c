//! PATCH: which kind of patch, and the object that it makes.

use http::HeaderMap;

use super::write::Write;
use crate::api::negotiate::content_type;
use crate::api::query::FieldValidation;
use crate::api::read::{self, Expected};
use crate::api::reply::Reply;
use crate::meta::Status;
use crate::schema::json;

/// A kind of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/merge-patch+json`, RFC 7386
    Merge,
}

impl Kind {
    /// Reads the content type.
    ///
    /// # Errors
    /// 415 for a type that is not served.
    pub fn of(headers: &HeaderMap) -> Result<Kind, Status> {
        match content_type(headers).as_str() {
            "application/merge-patch+json" => Ok(Kind::Merge),
            _ => Err(
                Status::failure(415, "UnsupportedMediaType", "415: Unsupported Media Type")
                    .with_details(crate::schema::Object::new()),
            ),
        }
    }
}

/// Patches the named object.
///
/// # Errors
/// 400 for a patch that is none, 404, 409, and 422 for what it makes.
pub async fn patch(write: &mut Write<'_>, kind: Kind, bytes: &[u8]) -> Result<Reply, Status> {
    let Kind::Merge = kind;
    let patch = json::parse(bytes)
        .map_err(|_| Status::bad_request("invalid JSON patch"))?
        .value;
    if patch.as_object().is_none() {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            patch.type_name()
        )));
    }
    let target = write.target;
    let expected = Expected::of(&target.resource, &target.version().name);
    let type_name = target.version().type_name.clone();
    let mut warnings = Vec::new();
    let result = write
        .update(200, |old| {
            warnings.clear();
            let mut new = old.clone();
            crate::patch::merge(&mut new, &patch);
            read::typed(
                new,
                Vec::new(),
                &type_name,
                expected,
                FieldValidation::Warn,
                &mut warnings,
            )
        })
        .await;
    write.warnings.append(&mut warnings);
    result
}
