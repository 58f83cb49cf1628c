//! GET of one object.

use super::{Target, too_large};
use crate::api::reply::Reply;
use crate::meta::strconv::parse_uint;
use crate::meta::{Status, errors::quoted};
use crate::store::Entry;
use std::sync::Arc;

/// Reads the object that the request names.
///
/// # Errors
/// 404 if it does not exist; 500 and 504 for an invalid or a future resourceVersion.
pub async fn get(target: &Target) -> Result<Reply, Status> {
    if let Some(text) = target
        .query
        .get("resourceVersion")
        .filter(|text| !text.is_empty())
    {
        let asked = parse_uint(text).map_err(|error| {
            Status::unclassified(format!(
                "resourceVersion: Invalid value: {}: {error}",
                quoted(text)
            ))
        })?;
        super::list::until(target, asked)
            .await
            .map_err(|current| too_large(asked, current))?;
    }
    present(target).map(|entry| Reply::Entry(200, entry))
}

/// The current version of the object that the request names.
///
/// # Errors
/// 404 if it does not exist.
pub fn present(target: &Target) -> Result<Arc<Entry>, Status> {
    let key = target.resource.key(target.namespace(), &target.info.name);
    target
        .cluster
        .store
        .world()
        .get(&target.resource.prefix, &key)
        .cloned()
        .ok_or_else(|| Status::not_found(target.about(&target.info.name)))
}
