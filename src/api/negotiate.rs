//! Media types: what a client wants to read, and what it sends.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::meta::Status;
use crate::schema::Object;

/// A way to write an answer.
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

/// Into what an answer is turned before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Itself.
    Object,
    /// A `Table`, of `meta.k8s.io/v1` or (when set) `v1beta1`.
    Table { beta: bool },
    /// `PartialObjectMetadata`.
    Partial { beta: bool },
    /// `PartialObjectMetadataList`.
    PartialList { beta: bool },
}

/// What a client accepts, chosen among what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The bytes.
    pub format: Format,
    /// The form.
    pub shape: Shape,
}

impl Accepted {
    /// Plain JSON.
    pub const JSON: Accepted = Accepted {
        format: Format::Json,
        shape: Shape::Object,
    };
}

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut words = clause.split(';').map(str::trim);
            let media = words.next().filter(|media| !media.is_empty())?;
            let params: Vec<(&str, &str)> = words
                .filter_map(|word| word.split_once('='))
                .map(|(k, v)| (k.trim(), v.trim().trim_matches('"')))
                .collect();
            let quality = params
                .iter()
                .find(|(k, _)| *k == "q")
                .and_then(|(_, v)| v.parse().ok())
                .unwrap_or(1.0);
            Some(Clause {
                media,
                params,
                quality,
            })
        })
        .collect();
    clauses.retain(|clause| clause.quality > 0.0);
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// Which representations a path offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Objects: tables and metadata too.
    Objects,
    /// Answers to what is asked and never stored: no tables.
    Answers,
    /// A watch.
    Watch,
    /// Documents and refusals: themselves only.
    Documents,
    /// Documents that there are in JSON only.
    Json,
    /// Custom resources: nothing but metadata in protobuf, other refusals.
    Custom,
    /// A watch of custom resources.
    CustomWatch,
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Chooses how to answer.
///
/// # Errors
/// 406, as upstream words it for media types and for their parameters.
pub fn accept(headers: &HeaderMap, offer: Offer) -> Result<Accepted, Status> {
    let header: String = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",");
    if header.trim().is_empty() {
        return Ok(Accepted::JSON);
    }
    let watch = matches!(offer, Offer::Watch | Offer::CustomWatch);
    let mut known_media = false;
    for clause in clauses(&header) {
        let format = match clause.media {
            "application/json" | "*/*" => Format::Json,
            "application/yaml" if !watch && offer != Offer::Json => Format::Yaml,
            PROTOBUF if offer != Offer::Json => Format::Protobuf,
            // There are objects in YAML, but no streams of them: the first choice decides.
            "application/yaml" if offer == Offer::Watch && shape(&clause, offer).is_some() => {
                known_media = true;
                break;
            }
            "application/yaml" | PROTOBUF => {
                known_media = offer != Offer::Json;
                continue;
            }
            "application/*" if matches!(offer, Offer::Documents) => Format::Json,
            _ => continue,
        };
        known_media = true;
        if let Some(shape) = shape(&clause, offer)
            .filter(|shape| format != Format::Protobuf || in_protobuf(*shape, offer))
        {
            return Ok(Accepted { format, shape });
        }
    }
    let types = if watch {
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch".to_owned()
    } else if offer == Offer::Json {
        "application/json".to_owned()
    } else {
        TYPES.to_owned()
    };
    if known_media || matches!(offer, Offer::Custom | Offer::CustomWatch) {
        return Err(Status::failure(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {types}"),
        ));
    }
    let available = if watch {
        format!("{TYPES}, {types}")
    } else {
        types
    };
    Err(Status::failure(
        406,
        "NotAcceptable",
        format!("406: Not Acceptable\n\nAvailable representations: {available}"),
    )
    .with_details(Object::new()))
}

/// Whether upstream has a protobuf type of what is asked for: there is none of tables and custom resources.
fn in_protobuf(shape: Shape, offer: Offer) -> bool {
    match shape {
        Shape::Object => !matches!(offer, Offer::Custom | Offer::CustomWatch),
        Shape::Partial { .. } | Shape::PartialList { .. } => true,
        Shape::Table { .. } => false,
    }
}

fn shape(clause: &Clause<'_>, offer: Offer) -> Option<Shape> {
    let param = |name: &str| {
        clause
            .params
            .iter()
            .find(|(k, _)| *k == name)
            .map(|(_, v)| *v)
    };
    if let Some(stream) = param("stream")
        && stream != "watch"
    {
        return None;
    }
    let Some(form) = param("as") else {
        return Some(Shape::Object);
    };
    if matches!(offer, Offer::Documents | Offer::Json) {
        return None;
    }
    let beta = match (param("g"), param("v")) {
        (Some("meta.k8s.io"), Some("v1")) => false,
        (Some("meta.k8s.io"), Some("v1beta1")) => true,
        _ => return None,
    };
    match form {
        "Table" if offer == Offer::Answers => None,
        "Table" => Some(Shape::Table { beta }),
        "PartialObjectMetadata" => Some(Shape::Partial { beta }),
        "PartialObjectMetadataList" => Some(Shape::PartialList { beta }),
        _ => None,
    }
}

/// Whether an OpenAPI 2.0 document is asked for as protobuf.
///
/// # Errors
/// 406 where neither that nor JSON is accepted.
pub fn accept_openapi(headers: &HeaderMap) -> Result<bool, Status> {
    let header = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let known = clauses(header)
        .iter()
        .find_map(|clause| match clause.media {
            "application/json" | "*/*" | "application/*" => Some(false),
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" => Some(true),
            _ => None,
        });
    match known {
        Some(protobuf) => Ok(protobuf),
        None if header.trim().is_empty() => Ok(false),
        None => Err(super::openapi::not_acceptable()),
    }
}

/// Whether a document that there is in one form only is accepted in it.
pub fn takes(headers: &HeaderMap, media: &str) -> bool {
    let header: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter(|value| !value.trim().is_empty())
        .collect();
    header.is_empty()
        || clauses(&header.join(","))
            .iter()
            .any(|clause| clause.media == "*/*" || clause.media == media)
}

/// How to write a refusal: as the client asked where that is possible, else JSON.
pub fn accept_status(headers: &HeaderMap) -> Format {
    let header = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    clauses(header)
        .iter()
        // A refusal has no other form than its own.
        .filter(|clause| clause.params.iter().all(|(key, _)| *key != "as"))
        .find_map(|clause| match clause.media {
            "application/json" | "*/*" => Some(Format::Json),
            "application/yaml" => Some(Format::Yaml),
            PROTOBUF => Some(Format::Protobuf),
            _ => None,
        })
        .unwrap_or(Format::Json)
}

/// The media type of a body, without parameters, as it was written; JSON where none is named.
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

/// How to read an object in a body.
///
/// # Errors
/// 415 for what is neither JSON nor YAML.
pub fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    match content_type(headers).to_ascii_lowercase().as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        PROTOBUF => Ok(Format::Protobuf),
        _ => Err(Status::failure(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {TYPES}"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_never_stored_have_no_tables() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
        const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        for (accepts, offer, shape) in [
            (TABLE, Offer::Objects, Ok(Shape::Table { beta: false })),
            (TABLE, Offer::Answers, Err(406)),
            (PARTIAL, Offer::Answers, Ok(Shape::Partial { beta: false })),
            ("*/*", Offer::Answers, Ok(Shape::Object)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accepts.parse().unwrap());
            let told = accept(&headers, offer);
            let told = told.map(|it| it.shape).map_err(|status| status.code);
            assert_eq!(told, shape, "{accepts} {offer:?}");
        }
    }
}
