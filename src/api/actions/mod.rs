//! Requests other than reading and writing stored objects: reviews, bindings, evictions, tokens, logs.
//!
//! The pipeline of verbs knows no kind. An [`Action`] is the exception: it handles one subresource (or one resource
//! that is never stored), in its own file, and is found here by name.

mod binding;
mod components;
mod eviction;
mod forward;
pub mod kubelet;
mod links;
mod options;
mod proxy;
mod reviews;
pub mod scale;
mod tokens;
mod unstored;
mod usage;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;

use super::BoxError;
use super::negotiate::{self, Accepted};
use super::query::WriteOptions;
use super::read::{self, Expected};
use super::reply::Reply;
use super::server::Server;
use super::verbs::Target;
use super::verbs::write::Write;
use crate::meta::Status;
use crate::resources::Resource;
use crate::resources::registry::METRICS;
use crate::schema::Value;

/// Handles a request for a subresource, or for a resource that is never stored.
pub type Action = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Reply, Status>>;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Every action: group, plural, subresource (empty for the resource itself).
const ACTIONS: &[(&str, &str, &str, Action)] = &[
    ("", "bindings", "", binding::bind),
    ("", "componentstatuses", "", components::answer),
    ("", "nodes", "proxy", kubelet::proxy),
    ("", "pods", "attach", kubelet::attach),
    ("", "pods", "binding", binding::bind),
    ("", "pods", "eviction", eviction::evict),
    ("", "pods", "exec", kubelet::exec),
    ("", "pods", "log", kubelet::log),
    ("", "pods", "portforward", kubelet::port_forward),
    ("", "pods", "proxy", proxy::pod),
    ("", "services", "proxy", proxy::service),
    ("", "serviceaccounts", "token", tokens::request),
    (AUTHENTICATION, "tokenreviews", "", tokens::review),
    (
        AUTHENTICATION,
        "selfsubjectreviews",
        "",
        reviews::own_identity,
    ),
    (
        AUTHORIZATION,
        "localsubjectaccessreviews",
        "",
        reviews::local_access,
    ),
    (
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "",
        reviews::own_access,
    ),
    (
        AUTHORIZATION,
        "selfsubjectrulesreviews",
        "",
        reviews::own_rules,
    ),
    (AUTHORIZATION, "subjectaccessreviews", "", reviews::access),
    (METRICS, "nodes", "", usage::nodes),
    (METRICS, "pods", "", usage::pods),
];

/// The action of a resource (`subresource` empty) or subresource, if it is not served by the verbs.
pub fn find(resource: &Resource, subresource: &str) -> Option<Action> {
    if subresource == "scale" {
        return Some(scale::answer);
    }
    if resource.is_custom() {
        return None;
    }
    let (group, plural) = (&*resource.group, &*resource.plural);
    ACTIONS
        .iter()
        .find(|(g, p, s, _)| (*g, *p, *s) == (group, plural, subresource))
        .map(|(.., action)| *action)
}

/// One request for an action. The user is authorized, and the method is one that discovery lists.
pub struct Call<'a> {
    /// The server.
    pub server: &'a Server,
    /// The resource, the request, the user.
    pub target: &'a Target,
    /// Method, path, headers.
    pub parts: &'a mut Parts,
    /// The accepted format.
    pub accepted: Accepted,
    /// The whole body; empty for connections and forwarded requests.
    pub body: Bytes,
    /// The streamed body of a forwarded request; can be taken once.
    pub stream: Mutex<Option<UnsyncBoxBody<Bytes, BoxError>>>,
    /// Texts for `Warning` headers.
    pub warnings: &'a mut Vec<String>,
    /// A version whose bodies are accepted as if they had the expected one.
    pub also: &'static str,
}

impl Call<'_> {
    /// The kind of bodies, from discovery.
    pub fn expected(&self) -> Expected<'_> {
        let version = self.target.version();
        match version.subresource(&self.target.info.subresource) {
            Some(sub) => Expected {
                group: &sub.group,
                version: &sub.version,
                kind: &sub.kind,
            },
            None => Expected::of(&self.target.resource, &version.name),
        }
    }

    /// The options of a write.
    ///
    /// # Errors
    /// 400 and 422, as for any write with an invalid query.
    pub fn options(&self, kind: &str) -> Result<WriteOptions, Status> {
        WriteOptions::read(&self.target.query, kind, self.agent(), false)
    }

    fn agent(&self) -> &str {
        self.parts
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The options of a patch.
    ///
    /// # Errors
    /// As [`Call::options`].
    pub fn patch_options(&self, applies: bool) -> Result<WriteOptions, Status> {
        WriteOptions::read(&self.target.query, "PatchOptions", self.agent(), applies)
    }

    /// The body as an object of the expected kind.
    ///
    /// # Errors
    /// 400 and 415, as for any write with an invalid body.
    pub fn object(&mut self, options: &WriteOptions) -> Result<Value, Status> {
        let format = negotiate::body_format(&self.parts.headers)?;
        let mut body = read::parse_versioned(&self.body, format, self.expected())?;
        if !self.also.is_empty() && body.value.str("apiVersion") == self.also {
            let api_version = self.expected().api_version();
            body.value.set("apiVersion", api_version);
        }
        let mut warnings = Vec::new();
        let object = read::object(body, self.expected(), options, &mut warnings);
        self.warnings.append(&mut warnings);
        Ok(object?.value)
    }

    /// The write pipeline for the resource, for actions that change one of its objects.
    pub fn write<'b>(&'b self, options: &'b WriteOptions) -> Write<'b> {
        self.server.write(self.target, options)
    }
}
