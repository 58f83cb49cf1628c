//! OpenAPI documents, made when first asked for and kept while what is served stays the same.

mod gnostic;
mod operations;
mod v2;
mod v3;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::request::Parts;
use http::{Response, header};
use parking_lot::Mutex;

use super::negotiate;
use super::reply::{self, Body};
use crate::meta::Status;
use crate::resources::Registry;
use crate::schema::{Object, Value, json};
use crate::value;

const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document as it is sent.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    /// SHA-512 of the JSON form, in upper-case hexadecimal.
    hash: Arc<str>,
}

impl Document {
    fn of(bytes: Vec<u8>) -> Document {
        let hash = super::documents::hash(&bytes).into();
        let bytes = bytes.into();
        Document { bytes, hash }
    }
}

/// The documents of one registry.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<(Weak<Registry>, HashMap<String, Document>)>,
}

impl OpenApi {
    /// Answers a path below `/openapi`; `None` for paths that are none of ours.
    pub fn answer(
        &self,
        path: &[&str],
        parts: &Parts,
        registry: &Arc<Registry>,
    ) -> Option<Response<Body>> {
        match path {
            ["v2"] => Some(self.v2(parts, registry)),
            ["v3"] => {
                let root = self.document("v3", registry, |registry| self.root(registry));
                Some(send(&root, "text/plain; charset=utf-8", parts))
            }
            ["v3", "api", version] => self.v3("", version, parts, registry),
            ["v3", "apis", group, version] => self.v3(group, version, parts, registry),
            _ => None,
        }
    }

    /// Takes a document from those that are made, or makes it.
    fn document(
        &self,
        name: &str,
        registry: &Arc<Registry>,
        make: impl FnOnce(&Arc<Registry>) -> Vec<u8>,
    ) -> Document {
        {
            let mut made = self.made.lock();
            if made.0.as_ptr() != Arc::as_ptr(registry) {
                *made = (Arc::downgrade(registry), HashMap::new());
            }
            if let Some(document) = made.1.get(name) {
                return document.clone();
            }
        }
        let document = Document::of(make(registry));
        let mut made = self.made.lock();
        if made.0.as_ptr() == Arc::as_ptr(registry) {
            made.1.insert(name.to_owned(), document.clone());
        }
        document
    }

    fn group_version(&self, group: &str, version: &str, registry: &Arc<Registry>) -> Document {
        self.document(&format!("v3/{group}/{version}"), registry, |registry| {
            let paths = operations::paths(registry, group, version);
            json::to_string(&v3::document(group, version, &paths)).into_bytes()
        })
    }

    fn root(&self, registry: &Arc<Registry>) -> Vec<u8> {
        let mut paths = Object::new();
        for group in registry.groups() {
            for version in &group.versions {
                let hash = self.group_version(&group.name, version, registry).hash;
                let path = match &*group.name {
                    "" => format!("api/{version}"),
                    group => format!("apis/{group}/{version}"),
                };
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path, value!({"serverRelativeURL": url}));
            }
        }
        json::to_string(&value!({"paths": (Value::Object(paths))})).into_bytes()
    }

    fn v3(
        &self,
        group: &str,
        version: &str,
        parts: &Parts,
        registry: &Arc<Registry>,
    ) -> Option<Response<Body>> {
        let served = registry.group(group)?.versions.iter();
        served.clone().find(|served| ***served == *version)?;
        let document = self.group_version(group, version, registry);
        let query = parts.uri.query().unwrap_or_default();
        let mut response = send(&document, "application/json", parts);
        // A document asked for by its hash never changes.
        if query.contains(&*document.hash) {
            response.headers_mut().insert(
                header::CACHE_CONTROL,
                http::HeaderValue::from_static("public, immutable"),
            );
        }
        Some(response)
    }

    fn v2(&self, parts: &Parts, registry: &Arc<Registry>) -> Response<Body> {
        let protobuf = match negotiate::accept_openapi(&parts.headers) {
            Ok(protobuf) => protobuf,
            Err(status) => return reply::status(&status, &parts.headers),
        };
        let whole = |registry: &Arc<Registry>| {
            let mut all = Vec::new();
            for group in registry.groups() {
                for version in &group.versions {
                    all.push(v2::Part {
                        group: &group.name,
                        version,
                        items: operations::paths(registry, &group.name, version),
                    });
                }
            }
            v2::document(&all)
        };
        if protobuf {
            let document = self.document("v2/protobuf", registry, |registry| {
                gnostic::document(&whole(registry))
            });
            send(&document, PROTOBUF_V2, parts)
        } else {
            let document = self.document("v2", registry, |registry| {
                json::to_string(&whole(registry)).into_bytes()
            });
            send(&document, "application/json", parts)
        }
    }
}

/// Sends a document, or 304 to who has it already.
fn send(document: &Document, content_type: &str, parts: &Parts) -> Response<Body> {
    let tag = format!("\"{}\"", document.hash);
    let known = parts
        .headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let (code, bytes) = if known {
        (304, Vec::new())
    } else {
        (200, document.bytes.to_vec())
    };
    let mut response = reply::response(code, content_type, bytes, &parts.headers);
    if let Ok(value) = tag.parse() {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
        .headers_mut()
        .append(header::VARY, http::HeaderValue::from_static("Accept"));
    response
}

/// The refusal of media types in which there is no OpenAPI document.
pub(super) fn not_acceptable() -> Status {
    Status::failure(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )
}
