//! Encodes replies: stored objects as stored bytes if the client accepts that, otherwise converted to the version, kind
//! and encoding that it accepts.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use flate2::Compression;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};

use super::negotiate::{Accepted, Format, Shape};
use super::pieces::{self, Slices};
use super::{custom, table};
use crate::meta::Status;
use crate::resources::cluster;
use crate::resources::{Resource, Version, gvk_type};
use crate::schema::types::{Field, Schema, SchemaRef, Shape as Form, Struct};
use crate::schema::{Object, Value, builtin, json, proto, yaml};
use crate::store::{Entry, Revision};
use crate::value;

/// The body of a response.
pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Responses longer than this, in bytes, are compressed if the client accepts gzip, and lists are streamed.
const LONG: usize = 128 << 10;
/// The compression level: upstream's.
const LEVEL: Compression = Compression::new(1);

/// The result of a verb.
pub enum Reply {
    /// A stored object, with the HTTP status code.
    Entry(u16, Arc<Entry>),
    /// An object in the request's version.
    Object(u16, Value),
    /// An object of another kind than the resource's (a subresource's own).
    Other(u16, Value),
    /// A list.
    List(List),
    /// A success without an object.
    Status(Status),
    /// A stream with its own encoding.
    Stream(Response<Body>),
}

const PARTIAL_LIST_KIND: &str = "PartialObjectMetadataList";

/// A page of a list.
pub struct List {
    /// The list's resourceVersion.
    pub rev: Revision,
    /// In key order, in the version of the request.
    pub entries: Vec<Arc<Entry>>,
    /// The continue token; empty if there are no more.
    pub next: String,
    /// How many follow, if known.
    pub remaining: Option<usize>,
}

/// The group of the kinds that all objects have in common.
const META: &str = "meta.k8s.io";

/// The protobuf schema of PartialObjectMetadata and its list, which no OpenAPI document describes.
static PARTIAL: LazyLock<Schema> = LazyLock::new(|| {
    let meta = SchemaRef::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    message([("metadata", meta, 1, "b")])
});
static PARTIAL_LIST: LazyLock<Schema> = LazyLock::new(|| partial_list_message(1, 2));
/// In v1beta1 it has other field numbers.
static BETA_PARTIAL_LIST: LazyLock<Schema> = LazyLock::new(|| partial_list_message(2, 1));

fn partial_list_message(metadata: u32, items: u32) -> Schema {
    let meta = SchemaRef::named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    let list = Schema::of(Form::List(Box::new(PARTIAL.clone().into())));
    message([
        ("metadata", meta, metadata, "b"),
        ("items", list.into(), items, "br"),
    ])
}

fn message<const N: usize>(fields: [(&str, SchemaRef, u32, &str); N]) -> Schema {
    let mut message = Struct::default();
    for (name, schema, number, wire) in fields {
        let field = Field {
            schema,
            omit_empty: false,
            omit_zero: false,
            pointer: false,
            go_name: name.into(),
            go_type: "".into(),
            through: "".into(),
            proto: (number, wire.into()),
            within: Box::default(),
        };
        message.fields.insert(name.into(), field);
    }
    Schema::of(Form::Struct(message))
}

/// The PartialObjectMetadata of an object of a resource.
pub fn partial_of(resource: &Resource, object: &Value, beta: bool) -> Value {
    let mut out = partial(object, beta);
    (resource.rules.printing.drop_shown_annotations)(&mut out);
    out
}

/// `kind` and `metadata` of an object, as PartialObjectMetadata.
pub fn partial(object: &Value, beta: bool) -> Value {
    let mut out = Object::with_capacity(3);
    out.insert("kind", "PartialObjectMetadata");
    out.insert(
        "apiVersion",
        if beta {
            "meta.k8s.io/v1beta1"
        } else {
            "meta.k8s.io/v1"
        },
    );
    out.insert("metadata", object.at("metadata"));
    Value::Object(out)
}

/// Renders one stored object.
///
/// # Errors
/// 406 if a list representation is requested.
pub fn one(
    object: Value,
    accepted: Accepted,
    resource: &Resource,
    version: &Version,
    include: table::Include,
) -> Result<Value, Status> {
    match accepted.shape {
        Shape::Object => Ok(object),
        Shape::Partial { beta } => Ok(partial_of(resource, &object, beta)),
        // Some subresources produce their own tables.
        Shape::Table { .. } if object.str("kind") == "Table" => Ok(object),
        Shape::Table { beta } => Ok(table::of(&[object], resource, version, beta, include, true)),
        Shape::PartialList { .. } if object.str("kind") == PARTIAL_LIST_KIND => Ok(object),
        // Unstructured objects are only recognized as non-lists when they are converted.
        Shape::PartialList { .. } if resource.is_custom() => {
            Err(Status::unclassified("content is not a list"))
        }
        Shape::PartialList { .. } if object.str("kind") == "Scale" => {
            Err(not_a_list("*autoscaling.Scale"))
        }
        Shape::PartialList { .. } => Err(not_a_list(&go_type(resource, false))),
    }
}

/// A list of metadata; `items` is null if there are none.
pub fn partial_list(meta: Object, items: Vec<Value>, beta: bool) -> Value {
    let items = match items.is_empty() {
        true => Value::Null,
        false => Value::Array(items),
    };
    let api_version = match beta {
        true => "meta.k8s.io/v1beta1",
        false => "meta.k8s.io/v1",
    };
    value!({
        "kind": PARTIAL_LIST_KIND,
        "apiVersion": api_version,
        "metadata": (Value::Object(meta)),
        "items": items
    })
}

/// The error for requesting a list as a single object, by its Go type.
pub fn is_a_list(go_type: &str) -> Status {
    let why = format!(
        "you requested PartialObjectMetadata, but the requested object is a list ({go_type})"
    );
    Status::failure(406, "NotAcceptable", why)
}

/// The error for requesting a single object as a list, by its Go type.
pub fn not_a_list(go_type: &str) -> Status {
    let why = format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({go_type})"
    );
    Status::failure(406, "NotAcceptable", why)
}

/// The Go type of an object of another kind than the resource's, by its declared kind.
pub fn go_type_of(object: &Value) -> String {
    let package = object.str("apiVersion").split(['.', '/']).next();
    format!("*{}.{}", package.unwrap_or_default(), object.str("kind"))
}

/// The Go type of a resource, as named in some errors.
pub fn go_type(resource: &Resource, list: bool) -> String {
    let suffix = if list { "List" } else { "" };
    match resource.rules.internal {
        _ if resource.is_custom() => format!("*unstructured.Unstructured{suffix}"),
        "" => {
            let package = match &*resource.group {
                "" => "core",
                group => group.split('.').next().unwrap_or_default(),
            };
            format!("*{package}.{}{suffix}", resource.kind)
        }
        internal => format!("*{internal}{suffix}"),
    }
}

/// Renders a list.
///
/// # Errors
/// 406 if the representation of a single object is requested.
pub fn list(
    page: List,
    accepted: Accepted,
    resource: &Resource,
    version: &Version,
    include: table::Include,
    request: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let whole = |bytes: Vec<u8>| response(200, accepted.format.content_type(), bytes, request);
    let encoded = |value: &Value| whole(encoded(value, accepted));
    let mut meta = Object::new();
    let unstructured = resource.is_custom() && accepted.shape == Shape::Object;
    if unstructured || !page.next.is_empty() {
        meta.insert("continue", page.next.as_str());
    }
    if let Some(remaining) = page.remaining {
        meta.insert("remainingItemCount", remaining as i64);
    }
    meta.insert("resourceVersion", page.rev.to_string());
    let objects = |page: &List| -> Vec<Value> {
        page.entries
            .iter()
            .map(|entry| cluster::object(entry))
            .collect()
    };
    let (kind, api_version, items) = match accepted.shape {
        Shape::Object if accepted == Accepted::JSON => {
            let slices = slices(page, &meta, resource, version);
            if slices.size() <= LONG {
                return Ok(whole(slices.whole()));
            }
            let gzip = takes_gzip(request);
            let mut response = head(200, accepted.format.content_type(), gzip);
            *response.body_mut() = match gzip {
                true => pieces::body(pieces::packed(slices.pieces(), LEVEL)),
                false => pieces::body(slices.pieces()),
            };
            return Ok(response);
        }
        Shape::Object => {
            let mut items = objects(&page);
            if !resource.is_custom() {
                for item in &mut items {
                    item.remove("kind");
                    item.remove("apiVersion");
                }
            }
            (
                resource.list_kind.to_string(),
                resource.api_version(&version.name).to_string(),
                Value::Array(items),
            )
        }
        Shape::Table { beta } => {
            let mut value = table::of_list(&objects(&page), resource, version, beta, include);
            value.set("metadata", meta);
            // Upstream's generic printer returns nothing for an empty list.
            if page.entries.is_empty() && !resource.is_custom() && table::is_general(version) {
                value.set("rows", Value::Null);
            }
            return Ok(encoded(&value));
        }
        Shape::PartialList { beta } => {
            let objects = objects(&page);
            let items = objects
                .iter()
                .map(|object| partial_of(resource, object, beta));
            let list = partial_list(meta, items.collect(), beta);
            return Ok(encoded(&list));
        }
        Shape::Partial { .. } => return Err(is_a_list(&go_type(resource, true))),
    };
    let mut out = Object::with_capacity(4);
    out.insert("kind", kind);
    out.insert("apiVersion", api_version);
    out.insert("metadata", meta);
    out.insert("items", items);
    Ok(encoded(&Value::Object(out)))
}

fn slices(page: List, meta: &Object, resource: &Resource, version: &Version) -> Slices {
    let custom = resource.is_custom();
    let (head, tail) = if custom {
        let api_version = resource.api_version(&version.name);
        custom::list_frame(resource, &api_version, meta.clone().into())
    } else {
        let mut head = String::new();
        let mut top = Object::with_capacity(3);
        top.insert("kind", &resource.list_kind);
        top.insert("apiVersion", resource.api_version(&version.name));
        top.insert("metadata", meta.clone());
        json::write_object(&top, &mut head);
        head.pop();
        head.push_str(",\"items\":[");
        (head, "]}\n".to_owned())
    };
    Slices {
        head,
        tail,
        entries: page.entries,
        typed: custom,
    }
}

/// Encodes a value as a client accepts it. Indented JSON has no final newline.
pub fn encoded(value: &Value, accepted: Accepted) -> Vec<u8> {
    match accepted.indented {
        true => json::pretty(value, "  ").into_bytes(),
        false => bytes_of(value, accepted.format),
    }
}

/// Encodes a value, with upstream's final newline.
pub fn bytes_of(value: &Value, format: Format) -> Vec<u8> {
    match format {
        Format::Json => {
            let mut text = json::to_string(value);
            text.push('\n');
            text.into_bytes()
        }
        Format::Yaml => yaml::write(value).into_bytes(),
        Format::Protobuf => {
            let (api_version, kind) = (value.str("apiVersion"), value.str("kind"));
            let (group, version) = match api_version {
                // The list of the core group's resources has no apiVersion of its own.
                "" => ("", "v1"),
                own => own.split_once('/').unwrap_or(("", own)),
            };
            let schema = match kind {
                "PartialObjectMetadata" if group == META => &PARTIAL,
                PARTIAL_LIST_KIND if group == META && version == "v1beta1" => &BETA_PARTIAL_LIST,
                PARTIAL_LIST_KIND if group == META => &PARTIAL_LIST,
                _ => builtin::named(gvk_type(group, version, kind).unwrap_or_default()),
            };
            proto::seal(api_version, kind, &proto::write(value, schema))
        }
    }
}

/// A response with these bytes, compressed if the client accepts that and it is worthwhile.
pub fn response(
    code: u16,
    content_type: &str,
    bytes: impl Into<Bytes>,
    request: &HeaderMap,
) -> Response<Body> {
    let bytes = bytes.into();
    let gzip = bytes.len() > LONG && takes_gzip(request);
    let mut response = head(code, content_type, gzip);
    *response.body_mut() = match gzip {
        true => pieces::body(pieces::packed(pieces::cut(bytes), LEVEL)),
        false => Full::new(bytes).boxed_unsync(),
    };
    response
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get(header::ACCEPT_ENCODING);
    accepted
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(',')
                .any(|part| part.trim().split(';').next() == Some("gzip"))
        })
}

/// The head of a response.
fn head(code: u16, content_type: &str, gzip: bool) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    if !content_type.is_empty()
        && let Ok(value) = HeaderValue::from_str(content_type)
    {
        headers.insert(header::CONTENT_TYPE, value);
    }
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// An error or success without an object.
pub fn status(status: &Status, request: &Parts) -> Response<Body> {
    let accepted = super::negotiate::accept_status(request);
    let mut response = response(
        status.code,
        accepted.format.content_type(),
        encoded(&status.to_value(), accepted),
        &request.headers,
    );
    let retry = status
        .details
        .as_ref()
        .and_then(|details| details.at("retryAfterSeconds").as_int());
    if let Some(seconds) = retry.filter(|_| matches!(status.code, 429 | 503 | 504)) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to a request that its user may not make: it quotes what was asked for, so that browsers are told not to
/// guess its type. Follows responsewriters.RespondWithError.
pub fn refusal(status: &Status, request: &Parts) -> Response<Body> {
    let mut response = self::status(status, request);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The total length of warnings above which they are truncated, and the length of each then.
const WARNINGS: (usize, usize) = (4096, 256);

/// Removes duplicate warnings. If they are too long in total all are truncated, and those beyond the limit are dropped.
/// Follows k8s.io/apiserver/pkg/endpoints/filters/warning.go.
fn bounded(texts: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    let once = texts
        .iter()
        .map(String::as_str)
        .filter(|text| seen.insert(*text));
    let once: Vec<&str> = once.collect();
    let length = |text: &str| text.chars().count();
    if once.iter().map(|text| length(text)).sum::<usize>() <= WARNINGS.0 {
        return once;
    }
    let mut written = 0;
    let cut = |text: &'_ str| {
        text.char_indices()
            .nth(WARNINGS.1)
            .map_or(text.len(), |(at, _)| at)
    };
    // The warning that exceeds the limit is still added, with all before it; only then the limit is checked.
    let mut out = Vec::new();
    let mut sum = 0;
    for text in once {
        let replayed = sum <= WARNINGS.0;
        sum += length(text);
        if written >= WARNINGS.0 && !replayed {
            break;
        }
        let text = &text[..cut(text)];
        written += length(text);
        out.push(text);
    }
    out
}

/// Adds a `Warning` header for each text.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in bounded(warnings) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
