//! Finds the resource of a path, and checks whether path and method are served.

use std::sync::Arc;

use http::Method;

use super::negotiate::Offer;
use super::request_info::Info;
use super::verbs::Target;
use super::{custom, table};
use crate::meta::Status;
use crate::meta::status::key_name;
use crate::resources::Resource;
use crate::resources::registry::{Group, Registry};

/// The resource of a path in a group, and the index of its version; None if no such path is served.
pub(super) fn find(
    registry: &Registry,
    group: &Group,
    info: &Info,
) -> Option<(Arc<Resource>, usize)> {
    if !group.versions.contains(&info.version.as_str().into()) {
        return None;
    }
    let resource = registry.get(&info.group, &info.resource)?;
    let mut versions = resource.versions.iter();
    let version = versions.position(|version| version.name == info.version)?;
    let in_scope = match resource.is_custom() {
        true => custom::in_scope(resource, info),
        false => resource.namespaced || !info.within,
    };
    in_scope.then(|| (resource.clone(), version))
}

/// The representations that the path offers.
pub(super) fn offer(target: &Target) -> Offer {
    match &*target.info.subresource {
        "" | "status" if target.resource.is_custom() => Offer::Custom,
        "attach" | "exec" | "portforward" | "proxy" => Offer::Connections,
        "log" => Offer::Log,
        _ if target.is_only_made() => Offer::Answers,
        name if !table::is_printed(&target.resource, name) => Offer::Answers,
        _ if matches!(&*target.info.verb, "list" | "watch") => Offer::Lists,
        _ => Offer::Objects,
    }
}

/// Checks whether the path is served with its method.
pub(super) fn check_verb(
    target: &Target,
    method: &Method,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let info = &target.info;
    let version = target.version();
    let verbs = if info.subresource.is_empty() {
        &version.verbs
    } else {
        &version
            .subresource(&info.subresource)
            .ok_or_else(Status::no_such_resource)?
            .verbs
    };
    // A proxy accepts any method.
    let has_no_verb = *method == Method::HEAD || *method == Method::OPTIONS;
    let is_passed_on = has_no_verb && info.subresource == "proxy";
    let of_one = |verb: &str| matches!(verb, "get" | "update" | "patch" | "delete");
    if !info.subresource.is_empty() && info.path_name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    // A resource that can only be created has no paths for single objects.
    if info.subresource.is_empty()
        && !info.path_name.is_empty()
        && !version.verbs.iter().any(|verb| of_one(verb))
    {
        return Err(Status::no_such_resource());
    }
    // The old paths name a collection, or one object by namespace and name.
    let unnamed = target.resource.namespaced && !info.within;
    // A resource that cannot be listed has no path for all namespaces, and proxies had other paths.
    let lists = version.verbs.iter().any(|verb| verb == "list");
    let nowhere = info.verb == "proxy"
        || (unnamed && !lists && info.subresource.is_empty() && info.path_name.is_empty());
    if nowhere {
        return Err(Status::no_such_resource());
    }
    let watches = version.verbs.iter().any(|verb| verb == "watch");
    let is_misnamed = !info.subresource.is_empty() || (unnamed && !info.path_name.is_empty());
    if info.old_watch && (!watches || is_misnamed) {
        return Err(Status::no_such_resource());
    }
    // Only proxies have paths behind them.
    if !info.rest.is_empty() && info.subresource != "proxy" {
        return Err(Status::no_such_resource());
    }
    // A namespaced object has no path without a namespace.
    if unnamed && !info.path_name.is_empty() && info.subresource.is_empty() {
        return Err(Status::no_such_resource());
    }
    if has_no_verb && !is_passed_on {
        return Err(Status::method_not_allowed());
    }
    if info.verb == "watch"
        && !verbs.iter().any(|verb| verb == "watch")
        && verbs.iter().any(|verb| verb == "list")
    {
        warnings.extend(version.deprecation.iter().map(ToString::to_string));
        return Err(Status::verb_not_supported("watch", target.about("")));
    }
    // The verb of the old paths is `watch` with any method, but only GET is served there.
    let misused = info.old_watch && *method != Method::GET;
    let is_verb = verbs.iter().any(|verb| *verb == info.verb.as_str());
    if misused || !(is_verb || is_passed_on) {
        return Err(Status::method_not_allowed());
    }
    // Objects are created in a collection, and changed by name.
    if info.subresource.is_empty()
        && !info.old_watch
        && of_one(&info.verb) == info.path_name.is_empty()
    {
        return Err(Status::method_not_allowed());
    }
    if unnamed
        && matches!(
            info.verb.as_str(),
            "create" | "get" | "update" | "patch" | "delete" | "deletecollection"
        )
    {
        return Err(if info.path_name.is_empty() {
            Status::method_not_allowed()
        } else {
            Status::no_such_resource()
        });
    }
    Ok(())
}

/// Rejects invalid names, and options that are no longer supported.
pub(super) fn check_name(target: &Target) -> Result<(), Status> {
    let info = &target.info;
    // For writes the body is read first.
    match &*info.verb {
        _ if info.path_name.is_empty() => {}
        "update" | "patch" => {}
        // What else it may be named after is known to the action.
        "create" => key_name(&info.path_name)?,
        _ if info.subresource == "proxy" => key_name(&info.path_name)?,
        _ => target.check_key(&info.path_name)?,
    }
    if info.verb == "get" && target.query.bool("export") == Some(true) {
        return Err(Status::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        ));
    }
    Ok(())
}
