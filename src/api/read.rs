//! Decodes bodies to objects: the declared kind, and typed decoding, with upstream's errors.

mod kinds;
mod strict;

use self::kinds::{foreign, not_of_internal_kind, not_of_kind};
use self::strict::{STRICT, as_written, in_order};
use super::negotiate::Format;
use super::query::{FieldValidation, WriteOptions};
use crate::meta::Status;
use crate::meta::errors::quoted;
use crate::patch::managed::keep_reset;
use crate::resources::{Resource, gvk_type, registry};
use crate::schema::decode::{self, Decoded};
use crate::schema::{Object, Value, builtin, json, proto, yaml};

pub use self::kinds::deletes;
pub use self::strict::{judge, unknown};

/// The largest accepted body, in bytes.
pub const MAX_BODY: usize = 3 << 20;
/// The kind that a body must have.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    /// `v1`
    pub version: &'a str,
    /// `Pod`
    pub kind: &'a str,
}

impl<'a> Expected<'a> {
    /// The kind of a resource in one of its versions.
    pub fn of(resource: &'a Resource, version: &'a str) -> Self {
        Expected {
            group: &resource.group,
            version,
            kind: &resource.kind,
        }
    }

    /// The error for a body of this kind whose content it cannot hold.
    pub fn cannot_hold(&self, cause: &str) -> Status {
        Status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {kind}: {cause}",
            quoted(self.version),
            kind = self.kind
        ))
    }

    /// `apps/v1`
    pub fn api_version(&self) -> String {
        registry::api_version(self.group, self.version).into()
    }
}

/// A parsed body.
pub struct Body {
    /// The value; null for an empty YAML document.
    pub value: Value,
    /// Messages about duplicate members: complete for YAML, `duplicate field "x"` for JSON.
    pub duplicates: Vec<String>,
    /// The paths of all members in document order, if JSON has duplicates.
    pub order: Vec<String>,
    /// The digits of numbers in JSON that do not fit an `i64`.
    pub floats: Vec<Box<str>>,
}

/// The error for a body whose kind cannot be determined, with its beginning.
pub fn unrecognized(bytes: &[u8], kind: &str, cause: &str) -> Status {
    let head = &bytes[..bytes.len().min(30)];
    let shown = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect(),
    };
    let more = if bytes.len() > 30 { " ..." } else { "" };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {cause} ({shown}{more})"
    ))
}

/// The Go type that upstream decodes first, to determine the kind of a body.
const TYPE_META: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Parses a body for a built-in kind.
///
/// # Errors
/// 400 in upstream's words, with the beginning of the body.
pub fn parse(bytes: &[u8], format: Format, kind: &str) -> Result<Body, Status> {
    value(bytes, format).map_err(|cause| unrecognized(bytes, kind, &cause))
}

/// Parses a body that may declare the version of a built-in kind.
///
/// # Errors
/// As [`parse`], and for an invalid version.
pub fn parse_versioned(
    bytes: &[u8],
    format: Format,
    expected: Expected<'_>,
) -> Result<Body, Status> {
    let body = match format {
        Format::Protobuf => parse_enveloped(bytes, expected)?,
        Format::Json | Format::Yaml => parse(bytes, format, expected.kind)?,
    };
    let said = body.value.str("apiVersion");
    if said.matches('/').count() > 1 {
        let cause = format!("unexpected GroupVersion string: {said}");
        return Err(unrecognized(bytes, expected.kind, &cause));
    }
    if said.len() > 1 && said.ends_with('/') {
        let kind = match body.value.str("kind") {
            "" => expected.kind,
            kind => kind,
        };
        return Err(Status::bad_request(format!(
            "{kind} in version \"\" cannot be handled as a {}: Object 'apiVersion' is missing in '{}'",
            expected.kind,
            String::from_utf8_lossy(bytes)
        )));
    }
    Ok(body)
}

/// Parses a body: null, or an object whose `kind` and `apiVersion`, if present, are strings.
///
/// # Errors
/// What is wrong, in upstream's words.
pub fn value(bytes: &[u8], format: Format) -> Result<Body, String> {
    let body = syntax(bytes, format)?;
    let cannot = |value: &Value, into: &str| {
        Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go {into}",
            value.type_name()
        ))
    };
    let Some(object) = body.value.as_object() else {
        return if body.value.is_null() {
            Ok(body)
        } else {
            cannot(&body.value, &format!("value of type {TYPE_META}"))
        };
    };
    let wrong = object.iter().find(|(key, value)| {
        matches!(key.as_str(), "kind" | "apiVersion")
            && !value.is_null()
            && value.as_str().is_none()
    });
    match wrong {
        Some((key, value)) => cannot(value, &format!("struct field .{key} of type string")),
        None => Ok(body),
    }
}

/// Parses a body with any content.
///
/// # Errors
/// The parser's text.
pub fn syntax(bytes: &[u8], format: Format) -> Result<Body, String> {
    match format {
        Format::Json => {
            let parsed = json::parse(bytes)
                .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
            let order = match parsed.duplicates.is_empty() {
                true => Vec::new(),
                false => json::members(bytes),
            };
            Ok(Body {
                value: parsed.value,
                duplicates: parsed
                    .duplicates
                    .iter()
                    .map(|path| format!("duplicate field {}", quoted(path)))
                    .collect(),
                order,
                floats: parsed.floats,
            })
        }
        Format::Yaml => {
            let parsed = yaml::parse(bytes)?;
            Ok(Body {
                value: parsed.value,
                duplicates: parsed.duplicates,
                order: Vec::new(),
                floats: Vec::new(),
            })
        }
        Format::Protobuf => {
            let envelope = proto::open(bytes).map_err(|error| error.to_string())?;
            enveloped(envelope).map_err(|error| error.to_string())
        }
    }
}

/// Reads the object in an envelope, of the type that the envelope names.
fn enveloped(envelope: proto::Envelope<'_>) -> Result<Body, proto::Malformed> {
    let (group, version) = envelope
        .api_version
        .split_once('/')
        .unwrap_or(("", &envelope.api_version));
    let schema = builtin::named(gvk_type(group, version, &envelope.kind).unwrap_or_default());
    let mut value = proto::read(envelope.raw, schema)?;
    let object = value.object_mut();
    object.insert("apiVersion", envelope.api_version);
    object.insert("kind", envelope.kind);
    Ok(Body {
        value,
        duplicates: Vec::new(),
        order: Vec::new(),
        floats: Vec::new(),
    })
}

/// Decodes an envelope with a built-in kind; without a type it has the expected one.
///
/// # Errors
/// Like [`parse`], and 400 for an invalid object in a valid envelope, because its kind is known.
fn parse_enveloped(bytes: &[u8], expected: Expected<'_>) -> Result<Body, Status> {
    let mut envelope = proto::open(bytes)
        .map_err(|error| unrecognized(bytes, expected.kind, &error.to_string()))?;
    if envelope.kind.is_empty() {
        envelope.kind = expected.kind.to_owned();
    }
    if envelope.api_version.is_empty() {
        envelope.api_version = expected.api_version();
    }
    let (version, kind) = (
        envelope.api_version.rsplit('/').next().unwrap_or_default(),
        &envelope.kind,
    );
    let beginning = format!(
        "{kind} in version {} cannot be handled as a {}",
        quoted(version),
        expected.kind
    );
    enveloped(envelope).map_err(|error| Status::bad_request(format!("{beginning}: {error}")))
}

/// Decodes a body as the built-in kind that it declares.
///
/// # Errors
/// 400 for another kind or version, for members of a wrong type, and (strictly) for unknown or duplicate ones.
pub fn object(
    mut body: Body,
    expected: Expected<'_>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Decoded, Status> {
    let mut value = std::mem::take(&mut body.value);
    if value.is_null() {
        value = Value::Object(Object::new());
    }
    let said = (
        value.str("apiVersion").to_owned(),
        value.str("kind").to_owned(),
    );
    let (group, version) = match said.0.split_once('/') {
        // Go parses a lone slash as empty.
        None | Some(("", "")) if matches!(said.0.as_str(), "" | "/") => {
            (expected.group, expected.version)
        }
        Some((group, version)) => (group, version),
        None => ("", said.0.as_str()),
    };
    let kind = if said.1.is_empty() {
        expected.kind
    } else {
        &said.1
    };
    if (group, version, kind) != (expected.group, expected.version, expected.kind) {
        return Err(foreign(group, version, kind, expected));
    }
    let type_name = gvk_type(group, version, kind).unwrap_or_default();
    keep_reset(&mut value);
    body.value = value;
    typed(body, type_name, expected, options.validation, warnings)
}

/// Decodes a body as a named type.
///
/// # Errors
/// As [`object`], after the kind was checked.
fn typed(
    body: Body,
    type_name: &str,
    expected: Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Decoded, Status> {
    let cannot = |cause: String| expected.cannot_hold(&cause);
    let go_type = format!("{}.{}", expected.version, expected.kind);
    let mut decoded = decode::decode_written(
        body.value,
        builtin::named(type_name),
        &go_type,
        &body.floats,
    )
    .map_err(|cause| cannot(as_written(cause, &body.floats)))?;
    let mut told = body.duplicates;
    told.retain(|text| !is_passed_over(text, &decoded.unknown));
    told.extend(unknown(&decoded.unknown));
    in_order(&mut told, &body.order);
    told.truncate(STRICT);
    judge(told, validation, warnings).map_err(cannot)?;
    let object = decoded.value.object_mut();
    object.remove("kind");
    object.remove("apiVersion");
    object.insert_first("apiVersion", expected.api_version());
    object.insert_first("kind", expected.kind);
    Ok(decoded)
}

/// Whether a duplicate is an unknown member or within one: Go does not look at those.
fn is_passed_over(text: &str, unknown: &[String]) -> bool {
    let path = text
        .strip_prefix("duplicate field \"")
        .and_then(|rest| rest.strip_suffix('"'));
    path.is_some_and(|path| {
        unknown.iter().any(|unknown| {
            path.strip_prefix(unknown.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    })
}

/// Decodes a patched object as the kind that it declares, which must be the expected one. Without a version it is
/// decoded as upstream's internal type, whose fields have no JSON names: all fields are unknown.
///
/// # Errors
/// It is invalid for its kind, or has another kind.
pub fn patched(mut value: Value, expected: Expected<'_>) -> Result<Decoded, String> {
    keep_reset(&mut value);
    let untold = |why: String| format!("couldn't get version/kind; json parse error: {why}");
    if !value.is_null() && value.as_object().is_none() {
        return Err(untold(format!(
            "json: cannot unmarshal {} into Go value of type {TYPE_META}",
            value.type_name()
        )));
    }
    for name in ["apiVersion", "kind"] {
        if let Some(said) = value.get(name)
            && !said.is_null()
            && said.as_str().is_none()
        {
            return Err(untold(format!(
                "json: cannot unmarshal {} into Go struct field .{name} of type string",
                said.type_name()
            )));
        }
    }
    let kind = match value.str("kind") {
        "" => expected.kind.to_owned(),
        said => said.to_owned(),
    };
    let api_version = value.str("apiVersion").to_owned();
    if api_version.is_empty() {
        if kind != expected.kind {
            return Err(not_of_internal_kind(&kind, expected));
        }
        let members = value
            .as_object()
            .into_iter()
            .flat_map(|object| object.iter());
        let mut unknown: Vec<String> = members
            .map(|(name, _)| name.to_string())
            .filter(|name| !matches!(name.as_str(), "kind" | "apiVersion"))
            .collect();
        unknown.sort();
        return Ok(Decoded {
            value: Value::Object(Object::new()),
            unknown,
            ..Decoded::default()
        });
    }
    if api_version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let ours = (group, version, kind.as_str()) == (expected.group, expected.version, expected.kind);
    let refusal = || not_of_kind(group, version, &kind, expected);
    let type_name = gvk_type(group, version, &kind).ok_or_else(refusal)?;
    let go_type = format!("{version}.{kind}");
    let decoded = decode::decode(value, builtin::named(type_name), &go_type)?;
    if ours { Ok(decoded) } else { Err(refusal()) }
}
