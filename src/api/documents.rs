//! Paths that are not resources: discovery, OpenAPI, health, the version.

use http::request::Parts;
use http::{Method, Response, header};

use super::negotiate::{self, Accepted, Format, Offer};
use super::plain_text::not_found;
use super::query::Query;
use super::reply::{self, Body};
use super::request_info::Info;
use super::server::Server;
use super::{discovery, health, openapi};
use crate::meta::Status;
use crate::resources::Registry;
use crate::schema::Value;

/// The first segments of such paths.
pub(super) const PATHS: [&str; 11] = [
    ".well-known",
    "api",
    "apis",
    "debug",
    "healthz",
    "livez",
    "metrics",
    "openapi",
    "openid",
    "readyz",
    "version",
];

const AGGREGATED: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

impl Server {
    /// Handles paths that are not resources.
    pub(super) fn document(&self, parts: &Parts, info: &Info) -> Response<Body> {
        let path = info.path.as_str();
        // Upstream's router ignores empty segments at the end of a path.
        let routed = ["/api/", "/apis/"]
            .iter()
            .any(|root| path.starts_with(root) && !path.starts_with("/apis//"));
        let trimmed = match routed {
            true => path.trim_end_matches('/'),
            false => path.strip_suffix('/').unwrap_or(path),
        };
        let trimmed = if trimmed.is_empty() { path } else { trimmed };
        if let Some(answer) = health::answer(
            self,
            path,
            &Query::parse(parts.uri.query().unwrap_or_default()),
            &parts.headers,
        ) {
            return answer;
        }
        let registry = self.cluster.registry();
        let segments: Vec<&str> = trimmed[1..].split('/').collect();
        // Paths that upstream serves outside its router accept any method.
        let any_method = matches!(
            segments.as_slice(),
            [""] | ["index.html"]
                | ["apis"]
                | ["apis", _]
                | ["metrics", ..]
                | ["openapi", "v2"]
                | ["openapi", "v3", ..]
        ) || matches!(
            segments.as_slice(),
            ["apis", group, _] if registry.group(group).is_some_and(|group| group.custom)
        );
        // The group of API services is in the aggregator's own router.
        let any_method = any_method && segments != ["apis", "apiregistration.k8s.io"];
        let counted = match segments.as_slice() {
            ["metrics"] if path == "/metrics" && parts.method != Method::DELETE => {
                Some(self.metrics.text(&self.cluster))
            }
            ["metrics", "slis"] if path == "/metrics/slis" => Some(health::slis(self)),
            _ => None,
        };
        if let Some(text) = counted {
            return reply::response(
                200,
                "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
                text.into_bytes(),
                &parts.headers,
            );
        }
        if let Some(name) = path.strip_prefix("/debug/api_priority_and_fairness/") {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            let asked = query.get("includeRequestDetails").unwrap_or_default();
            return match self.flow.dump(name, !asked.is_empty()) {
                Some(text) => {
                    let kind = "text/plain; charset=utf-8";
                    reply::response(200, kind, text.into_bytes(), &parts.headers)
                }
                None => not_found(&parts.headers),
            };
        }
        if path.starts_with("/apis//") || path == "//" {
            return not_found(&parts.headers);
        }
        if let ["openapi", document @ ..] = path[1..].split('/').collect::<Vec<_>>().as_slice()
            && (any_method || parts.method == Method::GET)
        {
            return openapi::answer(&self.documents, document, parts, &registry)
                .unwrap_or_else(|| not_found(&parts.headers));
        }
        let of_issuer = match segments.as_slice() {
            [".well-known", "openid-configuration"] => {
                Some((self.tokens.configuration(), "application/json"))
            }
            ["openid", "v1", "jwks"] => Some((self.tokens.key_set(), "application/jwk-set+json")),
            _ => None,
        };
        if let Some((document, media)) = of_issuer {
            return match parts.method {
                Method::GET => issuer_document(document, media, parts),
                _ => reply::status(&Status::method_not_allowed(), parts),
            };
        }
        // The aggregated format is not served at the path with a trailing slash.
        let aggregated = match path {
            "/apis/" => None,
            _ => aggregated_wanted(&parts.headers),
        };
        if let (Some(format), [root @ ("api" | "apis")]) = (aggregated, segments.as_slice()) {
            return self.aggregated(parts, *root == "api", format);
        }
        let value = match segments.as_slice() {
            ["version"] => Some(self.version.clone()),
            ["api"] => Some(discovery::core_versions(&self.address())),
            ["apis"] => Some(discovery::groups(&registry)),
            ["api", version] => match discovery::resources(&registry, "", version) {
                Some(value) => Some(value),
                None => return reply::status(&Status::no_such_resource(), parts),
            },
            ["apis", group] => discovery::group(&registry, group),
            ["apis", group, version] => match discovery::resources(&registry, group, version) {
                Some(value) => Some(value),
                None if registry.group(group).is_some_and(|group| !group.custom) => {
                    return reply::status(&Status::no_such_resource(), parts);
                }
                None => None,
            },
            [""] | ["index.html"] => Some(root(&registry)),
            _ => None,
        };
        let Some(value) = value else {
            if segments.first() == Some(&"version") {
                return reply::status(&Status::no_such_resource(), parts);
            }
            return not_found(&parts.headers);
        };
        if !any_method && parts.method != Method::GET {
            return reply::status(&Status::method_not_allowed(), parts);
        }
        let accepted = match segments.as_slice() {
            [""] | ["index.html"] => Ok(Accepted::JSON),
            ["version"] => {
                let indented = Accepted {
                    indented: true,
                    ..Accepted::JSON
                };
                negotiate::route(&parts.headers, "application/json").map(|()| indented)
            }
            ["apis"] | ["apis", _] => negotiate::accept(parts, Offer::Unrouted),
            _ => negotiate::routed(&parts.headers, Offer::Documents)
                .and_then(|()| negotiate::accept(parts, Offer::Documents)),
        };
        match accepted {
            Ok(accepted) => reply::response(
                200,
                accepted.format.content_type(),
                reply::encoded(&value, accepted),
                &parts.headers,
            ),
            Err(status) => reply::status(&status, parts),
        }
    }

    fn aggregated(&self, parts: &Parts, core: bool, format: Format) -> Response<Body> {
        let name = format!("discovery/{core}/{format:?}");
        let document = self
            .documents
            .get(&name, &self.cluster.registry(), |registry| {
                reply::bytes_of(&discovery::aggregated(registry, core), format)
            });
        let content_type = format!("{}{AGGREGATED}", format.content_type());
        document.send(&content_type, "public", parts)
    }

    fn address(&self) -> String {
        let settings = &self.cluster.settings;
        std::net::SocketAddr::new(settings.advertise_address, settings.secure_port).to_string()
    }
}

/// The paths of the root document, sorted.
fn root(registry: &Registry) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    paths.extend(health::paths());
    for group in registry
        .groups()
        .iter()
        .filter(|group| !group.name.is_empty())
    {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(
            group
                .listed
                .iter()
                .map(|version| format!("/apis/{}/{version}", group.name)),
        );
    }
    paths.sort();
    let paths: Vec<Value> = paths.into_iter().map(Value::from).collect();
    let mut out = crate::schema::Object::new();
    out.insert("paths", paths);
    Value::Object(out)
}

/// The format of aggregated discovery, if that is the first acceptable type.
fn aggregated_wanted(headers: &http::HeaderMap) -> Option<Format> {
    let header = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for clause in header.split(',').map(|clause| clause.replace(' ', "")) {
        let mut words = clause.split(';');
        let format = match words.next() {
            Some("application/json" | "*/*") => Format::Json,
            Some("application/yaml") => Format::Yaml,
            _ => continue,
        };
        let params: Vec<&str> = words.collect();
        if !params.iter().any(|param| param.starts_with("as=")) {
            return None;
        }
        if ["as=APIGroupDiscoveryList", "v=v2", "g=apidiscovery.k8s.io"]
            .iter()
            .all(|wanted| params.contains(wanted))
        {
            return Some(format);
        }
    }
    None
}

/// A document about the token issuer, in its only format.
fn issuer_document(
    document: Result<Value, String>,
    media: &'static str,
    request: &Parts,
) -> Response<Body> {
    if let Err(status) = negotiate::route(&request.headers, media) {
        return reply::status(&status, request);
    }
    let document = match document {
        Ok(document) => document,
        Err(why) => return reply::status(&Status::internal(&why), request),
    };
    let text = crate::schema::json::to_string(&document);
    let mut response = reply::response(200, media, text.into_bytes(), &request.headers);
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        http::HeaderValue::from_static("public, max-age=3600"),
    );
    response
}
