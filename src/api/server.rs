//! One request from its first byte to its answer: subject, user, permission, verb, bytes.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};

use super::info::Info;
use super::negotiate::{self, Accepted, Format, Offer};
use super::query::{Query, WriteOptions};
use super::read::{self, Expected, MAX_BODY};
use super::reply::{self, Body, Reply};
use super::table::Include;
use super::verbs::delete::DeleteOptions;
use super::verbs::write::Write;
use super::verbs::{self, Target};
use super::{actions, custom, discovery, health};
use crate::admission::Plugin;
use crate::auth::{Authorizer, Decision, User};
use crate::meta::errors::quoted;
use crate::meta::status::About;
use crate::meta::{Status, time};
use crate::resources::cluster::Cluster;
use crate::resources::forms;
use crate::schema::Value;

/// The API over a cluster.
pub struct Server {
    /// The store, the registry, the settings.
    pub cluster: Arc<Cluster>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Admission plugins, in order.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// What `/version` says.
    pub version: Value,
    /// Connects to the agents of nodes; none where there are none to connect to.
    pub kubelets: Option<actions::kubelet::Kubelets>,
}

impl Server {
    /// Answers one request of a user.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>, user: User) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        let query = Arc::new(Query::parse(parts.uri.query().unwrap_or_default()));
        let info = Arc::new(Info::of(&parts.method, parts.uri.path(), &query));
        if let Err(status) = self.authorize(&user, &info, &query) {
            return reply::status(&status, &parts.headers);
        }
        if !info.is_resource {
            return self.document(&parts, &info).await;
        }
        let mut warnings = Vec::new();
        let result = self
            .resource(&mut parts, body, info, query, user, &mut warnings)
            .await;
        let mut response = result.unwrap_or_else(|status| reply::status(&status, &parts.headers));
        reply::warn(&mut response, &warnings);
        if parts.method == Method::HEAD {
            response = response.map(|_| http_body_util::Empty::new().boxed_unsync());
        }
        response
    }

    fn authorize(&self, user: &User, info: &Info, query: &Query) -> Result<(), Status> {
        let attributes = info.attributes(query);
        let reason = match self.authorizer.authorize(user, &attributes) {
            Decision::Allow(_) => return Ok(()),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => reason,
        };
        Err(forbidden(user, &attributes, &reason))
    }

    /// Paths that are no resources.
    async fn document(&self, parts: &Parts, info: &Info) -> Response<Body> {
        let path = info.path.as_str();
        let trimmed = path
            .strip_suffix('/')
            .filter(|trimmed| !trimmed.is_empty())
            .unwrap_or(path);
        if let Some(answer) = health::answer(
            path,
            &Query::parse(parts.uri.query().unwrap_or_default()),
            &parts.headers,
        ) {
            return answer;
        }
        let registry = self.cluster.registry();
        let segments: Vec<&str> = trimmed.trim_start_matches('/').split('/').collect();
        let wants_aggregated = || aggregated_wanted(&parts.headers);
        let value = match segments.as_slice() {
            ["version"] => Some(self.version.clone()),
            ["api"] if wants_aggregated() => return self.aggregated(parts, true),
            ["apis"] if wants_aggregated() => return self.aggregated(parts, false),
            ["api"] => Some(discovery::core_versions(&self.address())),
            ["apis"] => Some(discovery::groups(&registry)),
            ["api", version] => match discovery::resources(&registry, "", version) {
                Some(value) => Some(value),
                None => return reply::status(&Status::no_such_resource(), &parts.headers),
            },
            ["apis", group] => discovery::group(&registry, group),
            ["apis", group, version] => match discovery::resources(&registry, group, version) {
                Some(value) => Some(value),
                None if registry.group(group).is_some_and(|group| !group.custom) => {
                    return reply::status(&Status::no_such_resource(), &parts.headers);
                }
                None => None,
            },
            [""] => Some(root(&registry)),
            _ => None,
        };
        let Some(value) = value else {
            return not_found(&parts.headers);
        };
        if !matches!(parts.method, Method::GET | Method::POST)
            || (parts.method == Method::POST && segments.first() == Some(&"version"))
        {
            return reply::status(&Status::method_not_allowed(), &parts.headers);
        }
        match negotiate::accept(&parts.headers, Offer::Documents) {
            Ok(accepted) => reply::response(
                200,
                accepted.format.content_type(),
                reply::bytes_of(&value, accepted.format),
                &parts.headers,
            ),
            Err(status) => reply::status(&status, &parts.headers),
        }
    }

    fn aggregated(&self, parts: &Parts, core: bool) -> Response<Body> {
        let value = discovery::aggregated(&self.cluster.registry(), core);
        let bytes = reply::bytes_of(&value, Format::Json);
        let tag = ring::digest::digest(&ring::digest::SHA512, &bytes);
        let tag: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let mut response = reply::response(
            200,
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            bytes,
            &parts.headers,
        );
        if let Ok(value) = format!("\"{tag}\"").parse() {
            response.headers_mut().insert(header::ETAG, value);
        }
        response
            .headers_mut()
            .append(header::VARY, http::HeaderValue::from_static("Accept"));
        response
    }

    fn address(&self) -> String {
        format!(
            "{}:{}",
            self.cluster.settings.advertise_address, self.cluster.settings.secure_port
        )
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
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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
                        || &*resource.plural == "namespaces"
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
        if target.resource.is_custom() {
            custom::check_verb(&target, &parts.method)?;
        } else {
            self.check_verb(&target, parts)?;
        }
        warnings.extend(target.version().deprecation.iter().map(ToString::to_string));
        let offer = match (target.info.verb == "watch", target.resource.is_custom()) {
            (true, true) => Offer::CustomWatch,
            (true, false) => Offer::Watch,
            (false, true) if target.info.subresource != "scale" => Offer::Custom,
            (false, _) => Offer::Objects,
        };
        let accepted = negotiate::accept(&parts.headers, offer)?;
        let (resource, info) = (&target.resource, &target.info);
        let action = actions::find(resource, &info.subresource);
        let answer = match action {
            Some(action) => {
                let body = collect(body).await?;
                let call = actions::Call {
                    server: self,
                    target: &target,
                    parts,
                    accepted,
                    body,
                    warnings,
                };
                action(call).await?
            }
            None => self.verb(&target, parts, body, accepted, warnings).await?,
        };
        self.render(answer, &target, accepted, parts)
    }

    /// Whether the path, with its method, is served.
    fn check_verb(&self, target: &Target, parts: &Parts) -> Result<(), Status> {
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
        if parts.method == Method::HEAD || parts.method == Method::OPTIONS {
            return Err(Status::method_not_allowed());
        }
        if info.verb == "watch"
            && !verbs.iter().any(|verb| verb == "watch")
            && verbs.iter().any(|verb| verb == "list")
        {
            return Err(Status::verb_not_supported("watch", target.about("")));
        }
        if !verbs.iter().any(|verb| *verb == info.verb.as_str()) {
            return Err(Status::method_not_allowed());
        }
        // Objects are made in a collection, and changed by their names.
        let needs_name = matches!(info.verb.as_str(), "get" | "update" | "patch" | "delete");
        if info.subresource.is_empty()
            && (needs_name == info.path_name.is_empty()
                || (info.verb == "create") != info.path_name.is_empty() && info.verb == "create")
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
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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
                    custom::object(&bytes, format, target, &options, warnings)?
                } else {
                    let expected = Expected::of(&target.resource, &target.version().name);
                    read::object(
                        read::parse(&bytes, format, expected.kind)?,
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
                let applies = negotiate::content_type(&parts.headers) == verbs::apply::MEDIA_TYPE;
                let kind = if applies {
                    None
                } else {
                    Some(verbs::patch::kind(&parts.headers, &target.resource)?)
                };
                let bytes = collect(body).await?;
                let options = WriteOptions::read(&target.query, "PatchOptions", agent, applies)?;
                let mut write = self.write(target, &options);
                let result = match kind {
                    Some(kind) => verbs::patch::patch(&mut write, kind, &bytes).await,
                    None => verbs::apply::apply(&mut write, &bytes).await,
                };
                warnings.append(&mut write.warnings);
                result
            }
            verb @ ("delete" | "deletecollection") => {
                let bytes = collect(body).await?;
                let options = self.delete_options(target, parts, &bytes)?;
                let write_options = WriteOptions {
                    dry_run: options.dry_run,
                    ..WriteOptions::default()
                };
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
            done: Vec::new(),
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
        let body = read::parse(bytes, format, "DeleteOptions")?;
        let kind = body.value.str("kind").to_owned();
        if !matches!(kind.as_str(), "" | "DeleteOptions") {
            return Err(Status::bad_request(format!(
                "converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion"
            )));
        }
        let expected = Expected {
            group: "",
            version: "v1",
            kind: "DeleteOptions",
        };
        let ignore = super::query::FieldValidation::Ignore;
        let options = read::typed(
            body.value,
            Vec::new(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
            expected,
            ignore,
            &mut Vec::new(),
        )?;
        DeleteOptions::read(Some(&options), &target.query)
    }

    fn render(
        &self,
        answer: Reply,
        target: &Target,
        accepted: Accepted,
        parts: &Parts,
    ) -> Result<Response<Body>, Status> {
        let (resource, version) = (&target.resource, target.version());
        let include = Include::read(&target.query)?;
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
                let bytes = reply::list(list, accepted, resource, version, include)?;
                Ok(reply::response(
                    200,
                    accepted.format.content_type(),
                    bytes,
                    &parts.headers,
                ))
            }
            Reply::Other(code, value) => Ok(reply::response(
                code,
                accepted.format.content_type(),
                reply::bytes_of(&value, accepted.format),
                &parts.headers,
            )),
            Reply::Status(status) => Ok(reply::status(&status, &parts.headers)),
            Reply::Stream(response) => Ok(response),
        }
    }
}

/// The paths of the root document: what is served, sorted.
fn root(registry: &crate::resources::Registry) -> Value {
    let mut paths: Vec<String> = vec![
        "/api".into(),
        "/api/v1".into(),
        "/apis".into(),
        "/apis/".into(),
        "/healthz".into(),
        "/livez".into(),
        "/readyz".into(),
        "/version".into(),
    ];
    for group in registry
        .groups()
        .iter()
        .filter(|group| !group.name.is_empty())
    {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(
            group
                .versions
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

/// Whether the first type that discovery can serve is the aggregated one.
fn aggregated_wanted(headers: &http::HeaderMap) -> bool {
    let header = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for clause in header.split(',').map(|clause| clause.replace(' ', "")) {
        let mut words = clause.split(';');
        match words.next() {
            Some("application/json" | "*/*") => {}
            _ => continue,
        }
        let params: Vec<&str> = words.collect();
        if !params.iter().any(|param| param.starts_with("as=")) {
            return false;
        }
        if ["as=APIGroupDiscoveryList", "v=v2", "g=apidiscovery.k8s.io"]
            .iter()
            .all(|wanted| params.contains(wanted))
        {
            return true;
        }
    }
    false
}

/// What upstream answers for a path it does not know at all.
fn not_found(request: &http::HeaderMap) -> Response<Body> {
    reply::response(
        404,
        "text/plain; charset=utf-8",
        b"404 page not found\n".to_vec(),
        request,
    )
}

/// The body of a request.
async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Limited::new(body, MAX_BODY)
        .collect()
        .await
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

/// The refusal of what a user may not do.
pub fn forbidden(user: &User, attributes: &crate::auth::Attributes<'_>, reason: &str) -> Status {
    let name = quoted(&user.name);
    let tail = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    if attributes.resource.is_empty() {
        let why = format!(
            "User {name} cannot {} path {}{tail}",
            attributes.verb,
            quoted(attributes.path)
        );
        return Status::forbidden(
            About {
                group: "",
                kind: "",
                name: "",
            },
            &why,
        );
    }
    let resource = if attributes.subresource.is_empty() {
        attributes.resource.to_owned()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    let place = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {}", quoted(attributes.namespace))
    };
    let why = format!(
        "User {name} cannot {} resource {} in API group {} {place}{tail}",
        attributes.verb,
        quoted(&resource),
        quoted(attributes.group)
    );
    Status::forbidden(
        About {
            group: attributes.group,
            kind: attributes.resource,
            name: attributes.name,
        },
        &why,
    )
}
