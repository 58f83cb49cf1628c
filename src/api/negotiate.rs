//! Content negotiation: the media types of responses and bodies.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;

use super::query::Query;
use crate::meta::{Status, strconv};
use crate::schema::Object;

/// An encoding of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Format {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => PROTOBUF,
        }
    }
}

/// The kind of object that a response is converted to before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Unchanged.
    Object,
    /// A `Table`, of `meta.k8s.io/v1` or (when set) `v1beta1`.
    Table { beta: bool },
    /// `PartialObjectMetadata`.
    Partial { beta: bool },
    /// `PartialObjectMetadataList`.
    PartialList { beta: bool },
}

/// The accepted representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The encoding.
    pub format: Format,
    /// The kind of object.
    pub shape: Shape,
    /// JSON is indented, for people. Streams never are.
    pub indented: bool,
}

impl Accepted {
    /// Plain JSON.
    pub const JSON: Accepted = Accepted {
        format: Format::Json,
        shape: Shape::Object,
        indented: false,
    };
}

/// One clause of an Accept header.
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f64,
}

impl Clause<'_> {
    /// The value of a parameter; if it is repeated, the last one counts.
    fn param(&self, name: &str) -> Option<&str> {
        let named = self.params.iter().rev().find(|(key, _)| *key == name);
        named.map(|(_, value)| *value)
    }

    /// Whether it includes a media type.
    fn names(&self, kind: &str, subtype: &str) -> bool {
        match (self.kind, self.subtype) {
            ("*", "*") => true,
            (own, "*") => own == kind,
            (own, of_own) => own == kind && of_own == subtype,
        }
    }

    /// Whether it sorts before another clause: goautoneg's comparison, which is not a strict order.
    fn before(&self, other: &Clause<'_>) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }

    fn parse(text: &str) -> Option<Clause<'_>> {
        let trim = |text| str::trim_matches(text, ' ');
        let (media, rest) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subtype) = match media.split_once('/') {
            Some((kind, subtype)) if !subtype.is_empty() => (trim(kind), trim(subtype)),
            _ if trim(media.trim_end_matches('/')) == "*" => ("*", "*"),
            _ => return None,
        };
        if subtype.contains('/') {
            return None;
        }
        let mut clause = Clause {
            kind,
            subtype,
            params: Vec::new(),
            quality: 1.0,
        };
        for param in rest.split(';') {
            match param.split_once('=') {
                Some((_, value)) if value.is_empty() || value.contains('=') => {}
                Some((key, value)) if trim(key) == "q" => {
                    clause.quality = value.parse().unwrap_or(0.0);
                }
                Some((key, value)) => clause.params.push((trim(key), trim(value))),
                None => {}
            }
        }
        Some(clause)
    }
}

/// How many clauses Go sorts by insertion.
const INSERTED: usize = 12;

/// The clauses of an Accept header, in order of preference. Follows github.com/munnerz/goautoneg.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let texts = header.split(',').map(|text| text.trim_matches(' '));
    let mut clauses: Vec<Clause<'_>> = texts.filter_map(Clause::parse).collect();
    // With such a comparison the result depends on the algorithm. Short lists are sorted by insertion, as Go does it; a
    // header of a megabyte has too many clauses for that, and no client that sends so many expects an order.
    if clauses.len() <= INSERTED {
        for end in 1..clauses.len() {
            let mut place = end;
            while place > 0 && clauses[place].before(&clauses[place - 1]) {
                clauses.swap(place, place - 1);
                place -= 1;
            }
        }
    } else {
        let stars = |clause: &Clause<'_>| (clause.kind == "*", clause.subtype == "*");
        clauses.sort_by(|a, b| {
            let by_quality = b.quality.total_cmp(&a.quality);
            by_quality.then_with(|| stars(a).cmp(&stars(b)))
        });
    }
    clauses
}

/// The representations that a path offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Objects, also as tables and metadata.
    Objects,
    /// Lists of objects, and watches, which have the same paths.
    Lists,
    /// Objects that are never stored, like reviews: no tables.
    Answers,
    /// The log of a container.
    Log,
    /// Documents and errors: unchanged only.
    Documents,
    /// Documents outside upstream's router.
    Unrouted,
    /// Custom resources: protobuf for metadata only, and no router.
    Custom,
    /// Connections, which have their own protocol.
    Connections,
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAMS: &str =
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// The encodings of objects, in order of preference.
const FORMATS: [(Format, &str, &str); 3] = [
    (Format::Json, "application", "json"),
    (Format::Yaml, "application", "yaml"),
    (Format::Protobuf, "application", "vnd.kubernetes.protobuf"),
];

/// The first Accept header.
fn accept_header(headers: &HeaderMap) -> &str {
    let header = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    header.unwrap_or_default()
}

/// Whether upstream's router accepts the request. Follows github.com/emicklei/go-restful.
///
/// # Errors
/// 406, with all types that the path offers.
pub fn routed(headers: &HeaderMap, offer: Offer) -> Result<(), Status> {
    match offer {
        Offer::Objects | Offer::Answers | Offer::Documents => route(headers, TYPES),
        Offer::Lists => route(headers, &format!("{TYPES}, {STREAMS}")),
        Offer::Log => route(headers, &format!("text/plain, {TYPES}")),
        Offer::Unrouted | Offer::Custom | Offer::Connections => Ok(()),
    }
}

/// Chooses a representation: that of the first clause that can be satisfied. Follows
/// k8s.io/apiserver/pkg/endpoints/handlers/negotiation.
///
/// # Errors
/// 406 if there is none.
pub fn accept(request: &Parts, offer: Offer) -> Result<Accepted, Status> {
    let header = accept_header(&request.headers);
    if header.is_empty() || offer == Offer::Connections {
        return Ok(plain(request));
    }
    for clause in clauses(header) {
        for (format, kind, subtype) in FORMATS {
            if clause.names(kind, subtype)
                && let Some(shape) = shape(&clause, format, offer)
            {
                let wanted = || clause.param("pretty") == Some("1") || is_for_people(request);
                return Ok(Accepted {
                    format,
                    shape,
                    indented: format == Format::Json && wanted(),
                });
            }
        }
    }
    Err(not_accepted(TYPES))
}

/// JSON without conversion.
fn plain(request: &Parts) -> Accepted {
    Accepted {
        indented: is_for_people(request),
        ..Accepted::JSON
    }
}

/// Whether a request asks for indented JSON: by its option `pretty`, otherwise by its User-Agent.
fn is_for_people(request: &Parts) -> bool {
    let query = request.uri.query().unwrap_or_default();
    if query.contains("pretty") {
        let query = Query::parse(query);
        if let Some(pretty) = query.get("pretty").filter(|pretty| !pretty.is_empty()) {
            return strconv::parse_bool(pretty).unwrap_or_default();
        }
    }
    let agent = request.headers.get(USER_AGENT);
    let agent = agent.map_or(&b""[..], |agent| agent.as_bytes());
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|known| agent.starts_with(known.as_bytes()))
}

/// Whether a router that offers `types` accepts the request: it ignores parameters, and knows no wildcard except `*/*`.
///
/// # Errors
/// 406, with those types.
pub fn route(headers: &HeaderMap, types: &str) -> Result<(), Status> {
    let header = accept_header(headers);
    let served = header.split(',').any(|clause| {
        let media = clause.split(';').next().unwrap_or_default();
        let media = media.trim_matches(' ');
        media == "*/*" || types.split(", ").any(|known| known == media)
    });
    if header.is_empty() || served {
        return Ok(());
    }
    let why = format!("406: Not Acceptable\n\nAvailable representations: {types}");
    Err(Status::failure(406, "NotAcceptable", why).with_details(Object::new()))
}

/// The error for a watch in an encoding without streaming.
pub fn no_stream() -> Status {
    not_accepted(STREAMS)
}

fn not_accepted(types: &str) -> Status {
    let why = format!("only the following media types are accepted: {types}");
    Status::failure(406, "NotAcceptable", why)
}

/// The kind of object that a clause requests in an encoding; None if that is not available in it.
fn shape(clause: &Clause<'_>, format: Format, offer: Offer) -> Option<Shape> {
    let documents = matches!(offer, Offer::Documents | Offer::Unrouted);
    if let Some(stream) = clause.param("stream")
        && (format == Format::Yaml || stream != "watch")
    {
        return None;
    }
    if let Some(version) = clause.param("sv")
        && (documents || version != "v1")
    {
        return None;
    }
    if ["as", "g", "v"]
        .iter()
        .all(|key| clause.param(key).is_none())
    {
        // Custom resources have no protobuf.
        let is_there = offer != Offer::Custom || format != Format::Protobuf;
        return is_there.then_some(Shape::Object);
    }
    let beta = match (clause.param("g"), clause.param("v")) {
        (Some("meta.k8s.io"), Some("v1")) => false,
        (Some("meta.k8s.io"), Some("v1beta1")) => true,
        _ => return None,
    };
    let tables = !matches!(offer, Offer::Answers | Offer::Log) && format != Format::Protobuf;
    match clause.param("as")? {
        _ if documents => None,
        "Table" if tables => Some(Shape::Table { beta }),
        "PartialObjectMetadata" => Some(Shape::Partial { beta }),
        "PartialObjectMetadataList" => Some(Shape::PartialList { beta }),
        _ => None,
    }
}

/// Whether an OpenAPI document of a version (2 or 3) is requested as protobuf; None if neither that nor JSON is accepted.
pub fn accept_openapi(headers: &HeaderMap, version: u8) -> Option<bool> {
    let header = accept_header(headers);
    let protobuf = ["@", "."]
        .map(|joint| format!("com.github.proto-openapi.spec.v{version}{joint}v1.0+protobuf"));
    let known = clauses(header).into_iter().find_map(|clause| {
        let names = |subtype: &str| clause.names("application", subtype);
        match names("json") {
            true => Some(false),
            false => protobuf.iter().any(|known| names(known)).then_some(true),
        }
    });
    known.or_else(|| header.is_empty().then_some(false))
}

/// The encoding of an error: the requested one if possible, otherwise JSON.
pub fn accept_status(request: &Parts) -> Accepted {
    accept(request, Offer::Unrouted).unwrap_or_else(|_| plain(request))
}

/// The media type of a body as it was sent, without parameters; JSON if there is none.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim();
    if media.is_empty() {
        "application/json".to_owned()
    } else {
        media.to_owned()
    }
}

/// The encoding of an object in a body.
///
/// # Errors
/// 415 for anything except JSON, YAML and protobuf.
pub fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    let header = headers.get(CONTENT_TYPE);
    let text = header.and_then(|value| value.to_str().ok());
    let text = text.unwrap_or_default();
    if text.is_empty() && header.is_none_or(|value| value.is_empty()) {
        return Ok(Format::Json);
    }
    let known = media_type(text).and_then(|media| {
        let mut known = FORMATS.iter();
        known.find(|(format, ..)| format.content_type() == media)
    });
    match known {
        Some((format, ..)) => Ok(*format),
        None => Err(Status::failure(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {TYPES}"
            ),
        )),
    }
}

/// The media type of a header, in lower case; None if it or one of its parameters is malformed or repeated. Follows
/// Go's mime.ParseMediaType.
fn media_type(text: &str) -> Option<String> {
    let (media, mut rest) = match text.find(';') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let media = media.trim().to_ascii_lowercase();
    let parts: Vec<&str> = media.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_token(part)) {
        return None;
    }
    let mut seen: HashSet<String> = HashSet::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() || rest.trim() == ";" {
            return Some(media);
        }
        let (key, value) = rest.strip_prefix(';')?.split_once('=')?;
        let key = key.trim_start().to_ascii_lowercase();
        if !is_token(&key) || !seen.insert(key) {
            return None;
        }
        rest = after_value(value.trim_start())?;
    }
}

/// The text after a parameter's value, a token or a quoted string; None if there is no value.
fn after_value(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|it| !is_token_char(it)).unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    let mut escaped = false;
    for (at, it) in quoted.char_indices() {
        match it {
            '"' if !escaped => return Some(&quoted[at + 1..]),
            '\r' | '\n' => return None,
            _ => escaped = !escaped && it == '\\',
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

/// Whether RFC 2045 allows a character in a token.
fn is_token_char(it: char) -> bool {
    it.is_ascii_graphic() && !r#"()<>@,;:\"/[]?="#.contains(it)
}

#[cfg(test)]
mod tests;
