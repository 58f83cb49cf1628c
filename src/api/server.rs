//! One request from its first byte to its answer: subject, user, permission, verb, bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use tokio_util::sync::CancellationToken;

use super::authenticate::Authentication;
use super::inflight::{InFlight, Remote};
use super::info::Info;
use super::made::Documents;
use super::metrics::{Labels, Metrics};
use super::negotiate::{self, Accepted, Offer, Shape};
use super::node_metrics::NodeMetrics;
use super::query::{Query, WriteOptions};
use super::read::{self, Expected, MAX_BODY};
use super::reply::{self, Body, Reply};
use super::table::{self, Include};
use super::verbs::delete::DeleteOptions;
use super::verbs::list::ListOptions;
use super::verbs::write::Write;
use super::verbs::{self, Target};
use super::{BoxError, actions, custom, spoken};
use crate::admission::Plugin;
use crate::auth::authorize::{Authorizers, check};
use crate::auth::impersonate::{self, Impersonation};
use crate::auth::tokens::Tokens;
use crate::auth::{MASTERS, User};
use crate::meta::errors::quoted;
use crate::meta::status::key_name;
use crate::meta::{Status, time};
use crate::resources::cluster::Cluster;
use crate::resources::forms;
use crate::schema::check::formats::parse_duration;
use crate::schema::{Value, builtin, decode};
use crate::supervise::Health;

/// The API over a cluster.
pub struct Server {
    /// The store, the registry, the settings.
    pub cluster: Arc<Cluster>,
    /// Who may do what.
    pub authorizer: Arc<Authorizers>,
    /// Who may act as whom.
    pub impersonation: Impersonation,
    /// Judges and makes tokens.
    pub tokens: Arc<Tokens>,
    /// Judges credentials, for reviews of them.
    pub authentication: Arc<Authentication>,
    /// Admission plugins, in order.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// What `/version` says.
    pub version: Value,
    /// Connects to the agents of nodes; none where there are none to connect to.
    pub kubelets: Option<actions::kubelet::Kubelets>,
    /// What nodes use, where `metrics.k8s.io` is served.
    pub node_metrics: Option<NodeMetrics>,
    /// Documents about what is served.
    pub documents: Documents,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Places for requests from the network.
    pub in_flight: InFlight,
    /// Which of its own tasks run.
    pub tasks: Health,
    /// Cancelled when the server is to end.
    pub ends: CancellationToken,
}

impl Server {
    /// Answers one request of a user.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>, user: User) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let query = Arc::new(Query::parse(parts.uri.query().unwrap_or_default()));
        let info = Arc::new(Info::of(&parts.method, parts.uri.path(), &query));
        let applies = info.verb == "patch" && verbs::apply::is(&parts.headers);
        let labels = Labels::of(&info, &query, applies, &self.cluster.registry());
        let started = Instant::now();
        let underway = self.metrics.begin(&info);
        let response = self.answer(&mut parts, body, info, query, user).await;
        drop(underway);
        self.metrics.end(labels, started.elapsed(), response)
    }

    async fn answer<B>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: User,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // CONNECT and OPTIONS may ask for no path at all.
        if !parts.uri.path().starts_with('/') {
            return not_found(&parts.headers);
        }
        if info.undetermined {
            return undetermined(parts);
        }
        if let Err(status) = check_timeout(&info, &query) {
            return reply::status(&status, &parts.headers);
        }
        let user = match self.authorize(user, &info, &query, &mut parts.headers) {
            Ok(user) => user,
            Err(status) => return reply::status(&status, &parts.headers),
        };
        if !info.is_resource {
            return self.document(parts, &info);
        }
        let limited = parts.extensions.get::<Remote>().is_some()
            && !info.is_long_running()
            && !user.groups.iter().any(|group| group == MASTERS);
        let _place = match limited {
            false => None,
            true => match self.in_flight.enter(&user.name).await {
                Some(place) => Some(place),
                None => return too_many(&parts.headers),
            },
        };
        let mut warnings = Vec::new();
        let result = self
            .resource(parts, body, info, query, user, &mut warnings)
            .await;
        let mut response = result.unwrap_or_else(|status| reply::status(&status, &parts.headers));
        reply::warn(&mut response, &warnings);
        if parts.method == Method::HEAD {
            response = response.map(|_| http_body_util::Empty::new().boxed_unsync());
        }
        response
    }

    /// Who the request is to be answered as, if it may be made.
    fn authorize(
        &self,
        mut user: User,
        info: &Info,
        query: &Query,
        headers: &mut http::HeaderMap,
    ) -> Result<User, Status> {
        let wants = info.attributes(query);
        let authorizer = &*self.authorizer;
        if let Some(wanted) = impersonate::wanted(headers)? {
            user = self
                .impersonation
                .become_user(authorizer, &user, &wants, &wanted)?;
        }
        check(authorizer, &user, &wants)?;
        Ok(user)
    }

    async fn resource<B>(
        &self,
        parts: &mut Parts,
        body: B,
        info: Arc<Info>,
        query: Arc<Query>,
        user: User,
        warnings: &mut Vec<String>,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let registry = self.cluster.registry();
        let Some(group) = registry.group(&info.group) else {
            return Ok(not_found(&parts.headers));
        };
        let made = group.custom;
        let served = group.versions.contains(&info.version.as_str().into());
        let Some((resource, version)) = registry
            .get(&info.group, &info.resource)
            .filter(|_| served)
            .and_then(|resource| {
                Some((
                    resource.clone(),
                    resource
                        .versions
                        .iter()
                        .position(|version| version.name == info.version)?,
                ))
            })
            .filter(|(resource, _)| match resource.is_custom() {
                true => custom::in_scope(resource, &info),
                false => {
                    resource.namespaced
                        || info.namespace.is_empty()
                        || (&*resource.plural == "namespaces" && !info.name.is_empty())
                }
            })
        else {
            return if made {
                Ok(not_found(&parts.headers))
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
        // What is said of a version of custom resources is said of all that is asked of it.
        let deprecation = || target.version().deprecation.iter().map(ToString::to_string);
        if target.resource.is_custom() {
            warnings.extend(deprecation());
            custom::check_verb(&target, &parts.method)?;
        } else {
            self.check_verb(&target, parts, warnings)?;
        }
        check_name(&target)?;
        let offer = match &*target.info.subresource {
            "" | "status" if target.resource.is_custom() => Offer::Custom,
            "attach" | "exec" | "portforward" | "proxy" => Offer::Connections,
            "log" => Offer::Log,
            _ if target.is_only_made() => Offer::Answers,
            name if !table::is_printed(&target.resource, name) => Offer::Answers,
            _ if matches!(&*target.info.verb, "list" | "watch") => Offer::Lists,
            _ => Offer::Objects,
        };
        negotiate::routed(&parts.headers, offer)?;
        if !target.resource.is_custom() {
            warnings.extend(deprecation());
        }
        if offer == Offer::Connections && target.query.get("dryRun").is_some() {
            return Err(Status::bad_request("dryRun is not supported"));
        }
        let accepted = negotiate::accept(&parts.headers, offer)?;
        let (resource, info) = (&target.resource, &target.info);
        let action = actions::find(resource, &info.subresource);
        let answer = match action {
            Some(action) => {
                // What stands behind a proxy may take what it likes, for as long as it likes.
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
        let response = self.render(answer, &target, accepted, parts)?;
        let spoken = target.info.verb == "watch" && spoken::asked(&parts.headers);
        Ok(match spoken {
            true => spoken::watch(response, parts, &self.ends),
            false => response,
        })
    }

    /// Whether the path, with its method, is served.
    fn check_verb(
        &self,
        target: &Target,
        parts: &Parts,
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
        // What stands behind a proxy is asked with any of them.
        let has_no_verb = parts.method == Method::HEAD || parts.method == Method::OPTIONS;
        let is_passed_on = has_no_verb && info.subresource == "proxy";
        let of_one = |verb: &str| matches!(verb, "get" | "update" | "patch" | "delete");
        if !info.subresource.is_empty() && info.path_name.is_empty() {
            return Err(Status::bad_request("name must be provided"));
        }
        // What is only made has no paths of its own.
        if info.subresource.is_empty()
            && !info.path_name.is_empty()
            && !version.verbs.iter().any(|verb| of_one(verb))
        {
            return Err(Status::no_such_resource());
        }
        // The old paths name a collection or one object by its full name.
        let unnamed = target.resource.namespaced && info.namespace.is_empty();
        // What cannot be listed has no path over all namespaces, and proxies are not what they were.
        let lists = version.verbs.iter().any(|verb| verb == "list");
        let nowhere = info.verb == "proxy"
            || (unnamed && !lists && info.subresource.is_empty() && info.path_name.is_empty());
        if nowhere {
            return Err(Status::no_such_resource());
        }
        if info.old_watch
            && (!info.subresource.is_empty() || (unnamed && !info.path_name.is_empty()))
        {
            return Err(Status::no_such_resource());
        }
        // Only proxies have paths behind them.
        if !info.rest.is_empty() && info.subresource != "proxy" {
            return Err(Status::no_such_resource());
        }
        // An object of a namespace has no path without one.
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
            if info.old_watch {
                return Err(Status::no_such_resource());
            }
            warnings.extend(version.deprecation.iter().map(ToString::to_string));
            return Err(Status::verb_not_supported("watch", target.about("")));
        }
        // The verb of the old paths is `watch` with any method, and but one is served there.
        let misused = info.old_watch && parts.method != Method::GET;
        let is_verb = verbs.iter().any(|verb| *verb == info.verb.as_str());
        if misused || !(is_verb || is_passed_on) {
            return Err(Status::method_not_allowed());
        }
        // Objects are made in a collection, and changed by their names.
        if info.subresource.is_empty()
            && !info.old_watch
            && of_one(&info.verb) == info.path_name.is_empty()
        {
            return Err(Status::method_not_allowed());
        }
        if target.resource.namespaced
            && info.namespace.is_empty()
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

    async fn verb<B>(
        &self,
        target: &Target,
        parts: &Parts,
        body: B,
        accepted: Accepted,
        warnings: &mut Vec<String>,
    ) -> Result<Reply, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
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
                    // Upstream reads what is to be deleted before it reads how.
                    ListOptions::read(target, false)?;
                }
                let bytes = collect(body).await?;
                let options = self.delete_options(target, parts, &bytes)?;
                let write_options = WriteOptions {
                    dry_run: options.dry_run,
                    ..WriteOptions::default()
                };
                if options.propagation.is_none() && options.orphan.is_none() {
                    let warning = target.resource.rules.orphan_warning;
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

    /// The pipeline of writes over a target.
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

    fn render(
        &self,
        answer: Reply,
        target: &Target,
        accepted: Accepted,
        parts: &Parts,
    ) -> Result<Response<Body>, Status> {
        let (resource, version) = (&target.resource, target.version());
        let include = Include::read(&target.query, accepted.shape)?;
        let object = |code: u16, value: Value| {
            let value = reply::one(value, accepted, resource, version, include)?;
            Ok(reply::response(
                code,
                accepted.format.content_type(),
                reply::bytes_of(&value, accepted.format),
                &parts.headers,
            ))
        };
        match answer {
            Reply::Entry(code, entry) if accepted == Accepted::JSON => {
                let entry = forms::shown(resource, version, &entry);
                let mut bytes = Vec::with_capacity(entry.record.body.len() + 48);
                crate::resources::record::write_body(&entry, entry.rev, true, &mut bytes);
                bytes.push(b'\n');
                Ok(reply::response(
                    code,
                    "application/json",
                    bytes,
                    &parts.headers,
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
                reply::list(list, accepted, resource, version, include, &parts.headers)
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
                    reply::bytes_of(&value, accepted.format),
                    &parts.headers,
                ))
            }
            Reply::Status(status) => Ok(reply::status(&status, &parts.headers)),
            Reply::Stream(response) => Ok(response),
        }
    }
}

/// How long a client would wait has to be a span of time, whether or not anything takes so long.
fn check_timeout(info: &Info, query: &Query) -> Result<(), Status> {
    let timeout = query.get("timeout").unwrap_or_default();
    if timeout.is_empty() || info.is_long_running() {
        return Ok(());
    }
    parse_duration(timeout).map(drop).map_err(|why| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - {why}"
        ))
    })
}

/// What upstream answers where too many requests are under way.
fn too_many(request: &http::HeaderMap) -> Response<Body> {
    let mut response = reply::response(
        429,
        "text/plain; charset=utf-8",
        b"Too many requests, please try again later.\n".to_vec(),
        request,
    );
    let seconds = http::HeaderValue::from_static("1");
    response
        .headers_mut()
        .insert(http::header::RETRY_AFTER, seconds);
    response
}

/// What upstream answers for a path it does not know at all.
pub(super) fn not_found(request: &http::HeaderMap) -> Response<Body> {
    reply::response(
        404,
        "text/plain; charset=utf-8",
        b"404 page not found\n".to_vec(),
        request,
    )
}

/// What Go's net/http answers for a path that cannot be read, before anybody looks at the request.
pub(super) fn unreadable() -> Response<Body> {
    let mut response = Response::new(http_body_util::Full::from("400 Bad Request").boxed_unsync());
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    let close = http::HeaderValue::from_static("close");
    headers.insert(header::CONNECTION, close);
    response
}

/// What upstream answers for a path that ends before it names what it is about.
fn undetermined(request: &Parts) -> Response<Body> {
    let uri = request
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let text = format!(
        "Internal Server Error: {}: failed to create RequestInfo: unable to determine kind and namespace from url, {uri}\n",
        quoted(uri)
    )
    .replace('&', "&amp;")
    .replace('<', "&lt;")
    .replace('>', "&gt;");
    reply::response(
        500,
        "text/plain; charset=utf-8",
        text.into_bytes(),
        &request.headers,
    )
}

/// How long a client may take to send a body: as long as upstream lets a whole request take.
const BODY: Duration = Duration::from_secs(60);

/// The body of a request.
async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    tokio::time::timeout(BODY, Limited::new(body, MAX_BODY).collect())
        .await
        .map_err(|_| {
            let message = "Timeout: request did not complete within the allotted timeout";
            Status::failure(504, "Timeout", message)
        })?
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| {
            if error
                .downcast_ref::<http_body_util::LengthLimitError>()
                .is_some()
            {
                Status::failure(
                    413,
                    "RequestEntityTooLarge",
                    format!("Request entity too large: limit is {MAX_BODY}"),
                )
            } else {
                Status::bad_request(format!("unable to read the body of the request: {error}"))
            }
        })
}

/// Refuses names that no object can have, and options that are served no more.
fn check_name(target: &Target) -> Result<(), Status> {
    let info = &target.info;
    // Of what is written the body is read first.
    if !info.path_name.is_empty() && !matches!(&*info.verb, "update" | "patch") {
        key_name(&info.path_name)?;
    }
    if info.verb == "get" && target.query.bool("export") == Some(true) {
        return Err(Status::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
        let refused = collect(http_body_util::StreamBody::new(never)).await;
        assert_eq!(refused.map_err(|status| status.code), Err(504));
    }
}
