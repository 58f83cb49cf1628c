//! OpenAPI documents of everything that is served, including custom resources.

mod connections;
mod custom;
mod gnostic;
mod operations;
mod parameters;
mod prose;
mod routes;
mod v2;
mod v3;
mod verbs;
mod writing;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Response, header};

use super::cached_documents::{Document, Documents};
use super::negotiate;
use super::query::Query;
use super::reply::{self, Body};
use crate::resources::Registry;
use crate::schema::{Object, Value, json};
use crate::value;

const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Caches must revalidate a document.
const ASK: &str = "no-cache, private";
/// A document requested by its hash never changes.
const KEEP: &str = "public, immutable";

/// The response to a path below `/openapi`; `None` for unknown paths.
pub fn answer(
    documents: &Documents,
    path: &[&str],
    parts: &Parts,
    registry: &Arc<Registry>,
) -> Option<Response<Body>> {
    match path {
        ["v2"] => Some(version_2(documents, parts, registry)),
        ["v3"] => {
            let root = documents.get("v3", registry, |registry| root(documents, registry));
            let response = root.send("text/plain; charset=utf-8", ASK, parts);
            Some(varying(response, None))
        }
        ["v3", path @ ..] => {
            let found = version_3(documents, path, parts, registry);
            Some(found.unwrap_or_else(|| reply::response(404, "", Vec::new(), &parts.headers)))
        }
        _ => None,
    }
}

/// A response that tells caches on which request header it depends.
fn varying(mut response: Response<Body>, on: Option<&'static str>) -> Response<Body> {
    let headers = response.headers_mut();
    match on {
        Some(on) => headers.insert(header::VARY, HeaderValue::from_static(on)),
        None => headers.remove(header::VARY),
    };
    response
}

/// The document at a path of version 3; `None` for unknown paths.
fn document_3(documents: &Documents, path: &[&str], registry: &Arc<Registry>) -> Option<Document> {
    let of_version = |group: &str, version: &str| {
        let mut served = registry.group(group)?.versions.iter();
        served.find(|served| ***served == *version)?;
        let make = |registry: &Arc<Registry>| {
            json::to_string(&v3::document(registry, group, version)).into_bytes()
        };
        Some(documents.get(&format!("v3/{group}/{version}"), registry, make))
    };
    match path {
        ["api", version] => return of_version("", version),
        ["apis", group, version] => return of_version(group, version),
        _ => {}
    }
    let path = path.join("/");
    let mut routes = routes::apart(registry).into_iter();
    let route = routes.find(|route| route.name() == path)?;
    let make = |_: &Arc<Registry>| json::to_string(&v3::route(&route)).into_bytes();
    Some(documents.get(&format!("v3//{path}"), registry, make))
}

/// Every group and version that is not defined by definitions.
fn built_in(registry: &Registry) -> Vec<(&str, &str)> {
    let groups = registry.groups().iter().filter(|group| !group.custom);
    groups
        .flat_map(|group| {
            group
                .versions
                .iter()
                .map(|version| (&*group.name, &**version))
        })
        .collect()
}

fn root(documents: &Documents, registry: &Arc<Registry>) -> Vec<u8> {
    let routes = routes::apart(registry);
    let mut paths: Vec<String> = routes.iter().map(|route| route.name().to_owned()).collect();
    for group in registry.groups() {
        let path = match &*group.name {
            "" => "api".to_owned(),
            group => format!("apis/{group}"),
        };
        let versions = group.versions.iter();
        paths.extend(versions.map(|version| format!("{path}/{version}")));
    }
    paths.sort_unstable();
    let mut out = Object::new();
    for path in paths {
        let segments: Vec<&str> = path.split('/').collect();
        if let Some(document) = document_3(documents, &segments, registry) {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            out.insert(path, value!({"serverRelativeURL": url}));
        }
    }
    json::to_string(&value!({"paths": (Value::Object(out))})).into_bytes()
}

/// A document of version 3. A request with an outdated hash is redirected to the current one.
fn version_3(
    documents: &Documents,
    path: &[&str],
    parts: &Parts,
    registry: &Arc<Registry>,
) -> Option<Response<Body>> {
    let document = document_3(documents, path, registry)?;
    if negotiate::accept_openapi(&parts.headers, 3).is_none() {
        let response = reply::response(406, "", Vec::new(), &parts.headers);
        return Some(varying(response, Some("Accept")));
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    match query.get("hash").filter(|hash| !hash.is_empty()) {
        None => Some(document.send("application/json", ASK, parts)),
        Some(hash) if *hash == *document.hash => {
            Some(document.send("application/json", KEEP, parts))
        }
        Some(_) => {
            let to = format!("/openapi/v3/{}?hash={}", path.join("/"), document.hash);
            Some(document.moved("application/json", &to, ASK, parts))
        }
    }
}

fn version_2(documents: &Documents, parts: &Parts, registry: &Arc<Registry>) -> Response<Body> {
    let response = match negotiate::accept_openapi(&parts.headers, 2) {
        None => reply::response(406, "", Vec::new(), &parts.headers),
        Some(protobuf) => document_2(documents, protobuf, parts, registry),
    };
    varying(response, Some("Accept-Encoding"))
}

fn document_2(
    documents: &Documents,
    protobuf: bool,
    parts: &Parts,
    registry: &Arc<Registry>,
) -> Response<Body> {
    if protobuf {
        let made = documents.get("v2/protobuf", registry, |registry| {
            gnostic::document(&v2::document(registry))
        });
        made.send(PROTOBUF_V2, ASK, parts)
    } else {
        let made = documents.get("v2", registry, |registry| {
            json::to_string(&v2::document(registry)).into_bytes()
        });
        made.send("application/json", ASK, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything below a prefix that is referred to.
    fn referred<'a>(value: &'a Value, prefix: &str, out: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object.iter() {
                    match value.as_str() {
                        Some(name) if key == "$ref" => {
                            out.push(name.strip_prefix(prefix).unwrap_or(name));
                        }
                        _ => referred(value, prefix, out),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| referred(item, prefix, out)),
            _ => {}
        }
    }

    fn check(document: &Value, prefix: &str, schemas: &Value) {
        let mut names = Vec::new();
        referred(document, prefix, &mut names);
        assert!(!names.is_empty());
        for name in names {
            assert!(schemas.get(name).is_some(), "{name} is not there");
        }
    }

    #[test]
    fn documents_hold_all_that_they_refer_to() {
        let registry = Registry::builtin();
        for group in registry.groups() {
            for version in &group.versions {
                let document = v3::document(registry, &group.name, version);
                let schemas = document.at("components").at("schemas");
                check(&document, writing::REFERENCE, schemas);
            }
        }
        let document = v2::document(registry);
        check(&document, "#/definitions/", document.at("definitions"));
    }

    #[test]
    fn clients_find_what_they_look_for() {
        let document = v2::document(Registry::builtin());
        let path = document
            .at("paths")
            .at("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        // kubectl checks whether a PATCH of the kind supports field validation.
        let mut parameters = path.at("patch").list("parameters").iter();
        assert!(parameters.any(|parameter| parameter.str("name") == "fieldValidation"));
        let kind = path.at("get").at("x-kubernetes-group-version-kind");
        assert_eq!(kind.str("kind"), "Deployment");
        let id = path.at("get").str("operationId");
        assert_eq!(id, "readAppsV1NamespacedDeployment");
        let all = document.at("paths").at("/apis/apps/v1/deployments");
        let id = all.at("get").str("operationId");
        assert_eq!(id, "listAppsV1DeploymentForAllNamespaces");
        // Strategic merges look up the merge keys of lists here.
        let spec = document.at("definitions").at("io.k8s.api.core.v1.PodSpec");
        let containers = spec.at("properties").at("containers");
        assert_eq!(containers.str("x-kubernetes-patch-merge-key"), "name");
    }
}
