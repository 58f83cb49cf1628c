//! GET of one object.

use super::{Target, too_large};
use crate::api::query::parse_uint;
use crate::api::reply::Reply;
use crate::meta::{Status, errors::quoted};

/// Reads the object that the request names.
///
/// # Errors
/// 404 where there is none; 500 and 504 for a resourceVersion that is none or is in the future.
pub async fn get(target: &Target) -> Result<Reply, Status> {
    let world = target.cluster.store.world();
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
    let world = if target.query.get("resourceVersion").is_some() {
        target.cluster.store.world()
    } else {
        world
    };
    let key = target.resource.key(target.namespace(), &target.info.name);
    match world.get(&target.resource.prefix, &key) {
        Some(entry) => Ok(Reply::Entry(200, entry.clone())),
        None => Err(Status::not_found(target.about(&target.info.name))),
    }
}
