//! Handles one request from its first byte to the response: parsing, authentication, seats, authorization, verb, encoding.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::authenticate::Authentication;
use super::body::{collect, until_dropped};
use super::cached_documents::Documents;
use super::flow::{Flow, Remote};
use super::metrics::{Labels, Metrics};
use super::negotiate::{self, Accepted, Offer};
use super::node_metrics::NodeMetrics;
use super::query::{Query, WriteOptions};
use super::read::{self, Expected};
use super::render::render;
use super::reply::{self, Body, Reply};
use super::request_info::Info;
use super::verbs::delete::DeleteOptions;
use super::verbs::list::ListOptions;
use super::verbs::write::Write;
use super::verbs::{self, Target};
use super::{BoxError, actions, custom, plain_text, route, watch_websocket};
use crate::admission::Plugin;
use crate::auth::User;
use crate::auth::authorize::{Authorizers, check};
use crate::auth::impersonate::{self, Impersonation};
use crate::auth::tokens::Tokens;
use crate::meta::{Status, time};
use crate::resources::cluster::Cluster;
use crate::schema::check::formats::parse_duration;
use crate::schema::{Value, builtin, decode};
use crate::supervise::Health;

/// The API over a cluster.
pub struct Server {
    /// The store, the registry, the settings.
    pub cluster: Arc<Cluster>,
    /// Decides what users may do.
    pub authorizer: Arc<Authorizers>,
    /// Decides who may impersonate whom.
    pub impersonation: Impersonation,
    /// Creates and verifies tokens.
    pub tokens: Arc<Tokens>,
    /// Verifies credentials, for token reviews.
    pub authentication: Arc<Authentication>,
    /// Admission plugins, in order.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// The content of `/version`.
    pub version: Value,
    /// Connects to the agents of nodes; None if there are none.
    pub kubelets: Option<actions::kubelet::Kubelets>,
    /// Resource usage of nodes, if `metrics.k8s.io` is served.
    pub node_metrics: Option<NodeMetrics>,
    /// Generated documents.
    pub documents: Documents,
    /// The server's metrics.
    pub metrics: Arc<Metrics>,
    /// Admits requests from the network by priority.
    pub flow: Flow,
    /// The state of its own tasks.
    pub tasks: Health,
    /// Cancelled on shutdown.
    pub ends: CancellationToken,
}

/// The body of a request, from the network or from within this process.
pub trait Sent: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> Sent for B {}

impl Server {
    /// Handles one request of a user, or one whose credentials are refused: upstream looks at those after the path and
    /// the time limit.
    pub async fn handle<B: Sent>(
        self: Arc<Self>,
        request: Request<B>,
        user: Result<User, Status>,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let query = Arc::new(Query::parse(parts.uri.query().unwrap_or_default()));
        let info = Arc::new(Info::of(&parts.method, parts.uri.path(), &query));
        let applies = info.verb == "patch" && verbs::apply::is(&parts.headers);
        let labels = Labels::of(&info, &query, applies, &self.cluster.registry());
        let started = Instant::now();
        let underway = self.metrics.begin(&info);
        let response = self
            .answer(&mut parts, body, info.clone(), query.clone(), user, started)
            .await;
        drop(underway);
        let response = self.metrics.end(labels, started.elapsed(), response);
        let watches = info.verb == "watch" && response.status() == StatusCode::OK;
        match watches.then(|| self.flow.watches(&info, &query)).flatten() {
            Some(open) => response.map(|body| until_dropped(body, open)),
            None => response,
        }
    }

    /// Answers a request that arrived at `started`, in time.
    async fn answer<B: Sent>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: Result<User, Status>,
        started: Instant,
    ) -> Response<Body> {
        // CONNECT and OPTIONS may have no path.
        if !parts.uri.path().starts_with('/') {
            return plain_text::not_found(&parts.headers);
        }
        if info.undetermined {
            return plain_text::undetermined(parts);
        }
        let limit = match limit(&info, &query) {
            Ok(limit) => limit,
            Err(status) => return reply::status(&status, parts),
        };
        let patience = limit.unwrap_or(LIMIT) / 4;
        let Some(limit) = limit else {
            return self
                .admitted(parts, body, info, query, user, patience)
                .await;
        };
        // A timer may be late, and what it limits is begun before it is looked at.
        let left = limit.saturating_sub(started.elapsed());
        if !left.is_zero() {
            let answered = self.admitted(parts, body, info, query, user, patience);
            if let Ok(response) = tokio::time::timeout(left, answered).await {
                return response;
            }
        }
        plain_text::too_late(&parts.headers)
    }

    /// Answers a request once it is let in, for which it waits no longer than `patience`.
    async fn admitted<B: Sent>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: Result<User, Status>,
        patience: Duration,
    ) -> Response<Body> {
        let user = match user {
            Ok(user) => user,
            Err(status) => return reply::status(&status, parts),
        };
        let user = match self.impersonate(user, &info, &query, &mut parts.headers) {
            Ok(user) => user,
            Err(status) => return reply::refusal(&status, parts),
        };
        if parts.extensions.get::<Remote>().is_none() {
            return self.permitted(parts, body, info, query, user).await;
        }
        // The body is not read before the request has seats.
        let width = |most| self.flow.width(&self.cluster, &info, &query, most);
        let entry = self.flow.enter(&user, &info, patience, width).await;
        let mut response = match entry.seats {
            Ok(_seats) => self.permitted(parts, body, info, query, user).await,
            Err(seconds) => plain_text::too_many(seconds, &parts.headers),
        };
        if let Some(uids) = entry.uids {
            let headers = response.headers_mut();
            headers.insert(FLOW_SCHEMA, uids.schema);
            headers.insert(PRIORITY_LEVEL, uids.level);
        }
        response
    }

    /// Handles an admitted request, if it is authorized.
    async fn permitted<B: Sent>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: User,
    ) -> Response<Body> {
        if let Err(status) = check(&*self.authorizer, &user, &info.attributes(&query)) {
            return reply::refusal(&status, parts);
        }
        if !info.is_resource {
            return self.document(parts, &info);
        }
        let mut warnings = Vec::new();
        let result = self
            .resource(parts, body, info, query, user, &mut warnings)
            .await;
        let mut response = result.unwrap_or_else(|status| reply::status(&status, parts));
        reply::warn(&mut response, &warnings);
        if parts.method == Method::HEAD {
            response = response.map(|_| http_body_util::Empty::new().boxed_unsync());
        }
        response
    }

    /// The user to continue with, after impersonation.
    fn impersonate(
        &self,
        user: User,
        info: &Info,
        query: &Query,
        headers: &mut http::HeaderMap,
    ) -> Result<User, Status> {
        let Some(wanted) = impersonate::wanted(headers)? else {
            return Ok(user);
        };
        let wants = info.attributes(query);
        self.impersonation
            .become_user(&*self.authorizer, &user, &wants, &wanted)
    }

    async fn resource<B: Sent>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: User,
        warnings: &mut Vec<String>,
    ) -> Result<Response<Body>, Status> {
        let registry = self.cluster.registry();
        let Some(group) = registry.group(&info.group) else {
            return Ok(plain_text::not_found(&parts.headers));
        };
        let made = group.custom;
        let Some((resource, version)) = route::find(&registry, group, &info) else {
            return if made {
                Ok(plain_text::not_found(&parts.headers))
            } else {
                Err(Status::no_such_resource())
            };
        };
        let target = Target {
            cluster: self.cluster.clone(),
            resource,
            version,
            info,
            query,
            user: Arc::new(user),
            now: time::now(),
        };
        // Deprecation warnings of a version of a custom resource apply to all its requests.
        let deprecation = || target.version().deprecation.iter().map(ToString::to_string);
        if target.resource.is_custom() {
            warnings.extend(deprecation());
            custom::check_verb(&target, parts)?;
        } else {
            route::check_verb(&target, &parts.method, warnings)?;
        }
        route::check_name(&target)?;
        let offer = route::offer(&target);
        negotiate::routed(&parts.headers, offer)?;
        if !target.resource.is_custom() {
            warnings.extend(deprecation());
        }
        if offer == Offer::Connections && target.query.get("dryRun").is_some() {
            return Err(Status::bad_request("dryRun is not supported"));
        }
        let accepted = negotiate::accept(parts, offer)?;
        let (resource, info) = (&target.resource, &target.info);
        let action = actions::find(resource, &info.subresource);
        let answer = match action {
            Some(action) => {
                // A proxied request may have any size and take any time.
                let (body, stream) = match &*info.subresource {
                    "proxy" => (Bytes::new(), Some(body.map_err(Into::into).boxed_unsync())),
                    _ => (collect(body).await?, None),
                };
                let call = actions::Call {
                    server: self,
                    target: &target,
                    parts,
                    accepted,
                    body,
                    stream: parking_lot::Mutex::new(stream),
                    warnings,
                    also: "",
                };
                action(call).await?
            }
            None => self.verb(&target, parts, body, accepted, warnings).await?,
        };
        let response = render(answer, &target, accepted, parts)?;
        let spoken = target.info.verb == "watch" && watch_websocket::asked(&parts.headers);
        Ok(match spoken {
            true => watch_websocket::watch(response, parts, &self.ends),
            false => response,
        })
    }

    async fn verb<B: Sent>(
        &self,
        target: &Target,
        parts: &Parts,
        body: B,
        accepted: Accepted,
        warnings: &mut Vec<String>,
    ) -> Result<Reply, Status> {
        let agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        match target.info.verb.as_str() {
            "get" => verbs::get::get(target).await,
            "list" => verbs::list::list(target).await,
            "watch" => verbs::watch::watch(target, accepted).await,
            verb @ ("create" | "update") => {
                let format = negotiate::body_format(&parts.headers)?;
                let bytes = collect(body).await?;
                let options = WriteOptions::read(
                    &target.query,
                    if verb == "create" {
                        "CreateOptions"
                    } else {
                        "UpdateOptions"
                    },
                    agent,
                    false,
                )?;
                let object = if target.resource.is_custom() {
                    custom::object(&bytes, format, target, &options, warnings)?.into()
                } else {
                    let expected = Expected::of(&target.resource, &target.version().name);
                    read::object(
                        read::parse_versioned(&bytes, format, expected)?,
                        expected,
                        &options,
                        warnings,
                    )?
                };
                let mut write = self.write(target, &options);
                let result = if verb == "create" {
                    write.create(object).await
                } else {
                    write.put(object).await
                };
                warnings.append(&mut write.warnings);
                result
            }
            "patch" => {
                let kind = verbs::patch::kind(&parts.headers, &target.resource)?;
                let bytes = collect(body).await?;
                let options =
                    WriteOptions::read(&target.query, "PatchOptions", agent, kind.is_none())?;
                let mut write = self.write(target, &options);
                let result = match kind {
                    Some(kind) => verbs::patch::patch(&mut write, kind, &bytes).await,
                    None => verbs::apply::apply(&mut write, &bytes).await,
                };
                warnings.append(&mut write.warnings);
                result
            }
            verb @ ("delete" | "deletecollection") => {
                if verb == "deletecollection" {
                    // Upstream parses what to delete before how to delete it.
                    ListOptions::read(target, false)?;
                }
                let bytes = collect(body).await?;
                let options = self.delete_options(target, parts, &bytes)?;
                let write_options = WriteOptions {
                    dry_run: options.dry_run,
                    ..WriteOptions::default()
                };
                if options.propagation.is_none() && options.orphan.is_none() {
                    let warning = target.resource.rules.deletion.orphan_warning;
                    warnings.extend(warning.map(str::to_owned));
                }
                let mut write = self.write(target, &write_options);
                let result = if verb == "delete" {
                    write.delete(&options).await
                } else {
                    write.delete_collection(&options).await
                };
                warnings.append(&mut write.warnings);
                result
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// The write pipeline for a target.
    pub(super) fn write<'a>(&'a self, target: &'a Target, options: &'a WriteOptions) -> Write<'a> {
        static NULL: Value = Value::Null;
        Write {
            target,
            options,
            plugins: &self.plugins,
            options_object: &NULL,
            authorizer: &*self.authorizer,
            asked: None,
            warnings: Vec::new(),
        }
    }

    fn delete_options(
        &self,
        target: &Target,
        parts: &Parts,
        bytes: &[u8],
    ) -> Result<DeleteOptions, Status> {
        if bytes.is_empty() {
            return DeleteOptions::read(None, &target.query);
        }
        let format = negotiate::body_format(&parts.headers)?;
        let body = read::value(bytes, format).map_err(Status::bad_request)?;
        read::deletes(&body.value).map_err(Status::bad_request)?;
        let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
        let body = match body.value {
            Value::Null => crate::schema::Object::new().into(),
            value => value,
        };
        let options =
            decode::decode(body, schema, "v1.DeleteOptions").map_err(Status::bad_request)?;
        DeleteOptions::read(Some(&options.value), &target.query)
    }
}

/// The response headers with the UIDs of the flow schema and the priority level.
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// How long a request may take that does not say how long, as upstream.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a request may take; None if that has no limit. Its `timeout` counts if it is less than what any request has.
/// Follows k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go.
///
/// # Errors
/// 400 for a `timeout` that is not a duration.
fn limit(info: &Info, query: &Query) -> Result<Option<Duration>, Status> {
    if info.is_long_running() {
        return Ok(None);
    }
    let timeout = query.get("timeout").unwrap_or_default();
    if timeout.is_empty() {
        return Ok(Some(LIMIT));
    }
    let nanos = parse_duration(timeout).map_err(|why| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - {why}"
        ))
    })?;
    let given = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0);
    Ok(Some(given.map_or(LIMIT, |nanos| {
        LIMIT.min(Duration::from_nanos(nanos))
    })))
}

#[cfg(test)]
mod tests;
