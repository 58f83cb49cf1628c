//! Renders a response in the accepted representation.

use http::Response;
use http::request::Parts;

use super::custom;
use super::negotiate::{Accepted, Shape};
use super::reply::{self, Body, Reply};
use super::table::Include;
use super::verbs::Target;
use crate::meta::Status;
use crate::resources::{forms, record};
use crate::schema::Value;

/// Renders a response in the accepted representation.
///
/// # Errors
/// 406 if that is not available.
pub(super) fn render(
    answer: Reply,
    target: &Target,
    accepted: Accepted,
    request: &Parts,
) -> Result<Response<Body>, Status> {
    let (resource, version) = (&target.resource, target.version());
    let include = Include::read(&target.query, accepted.shape)?;
    let object = |code: u16, value: Value| {
        let value = reply::one(value, accepted, resource, version, include)?;
        Ok(reply::response(
            code,
            accepted.format.content_type(),
            reply::encoded(&value, accepted),
            &request.headers,
        ))
    };
    match answer {
        Reply::Entry(code, entry) if accepted == Accepted::JSON => {
            let entry = forms::shown(resource, version, &entry);
            let mut bytes = Vec::with_capacity(entry.record.body.len() + 48);
            record::write_body(&entry, entry.rev, true, &mut bytes);
            bytes.push(b'\n');
            Ok(reply::response(
                code,
                "application/json",
                bytes,
                &request.headers,
            ))
        }
        Reply::Entry(code, entry) => {
            object(code, forms::versioned(&entry, entry.rev, resource, version))
        }
        Reply::Object(code, value)
            if resource.is_custom() && value.str("kind") == resource.kind =>
        {
            object(code, custom::sorted(value))
        }
        Reply::Object(code, value) => object(code, value),
        Reply::List(list) => {
            reply::list(list, accepted, resource, version, include, &request.headers)
        }
        Reply::Other(code, value) => {
            let value = match accepted.shape {
                Shape::Partial { beta } => reply::partial(&value, beta),
                Shape::PartialList { .. } => {
                    return Err(reply::not_a_list(&reply::go_type_of(&value)));
                }
                _ => value,
            };
            Ok(reply::response(
                code,
                accepted.format.content_type(),
                reply::encoded(&value, accepted),
                &request.headers,
            ))
        }
        Reply::Status(status) => Ok(reply::status(&status, request)),
        Reply::Stream(response) => Ok(response),
    }
}
