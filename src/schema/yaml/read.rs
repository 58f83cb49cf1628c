//! Reads YAML: events to nodes, nodes to values. Follows go-yaml v2 in resolving scalars and in errors, and
//! `sigs.k8s.io/yaml` in the conversion through JSON.

mod nodes;
mod scalars;
mod values;

use self::nodes::Document;
use self::values::Reader;
use crate::schema::{Value, json};

/// A parsed body.
#[derive(Debug, Default, PartialEq)]
pub struct Yaml {
    /// The first document; null if there is none.
    pub value: Value,
    /// Duplicate keys: `line 7: key "k" already set in map`. The last one wins.
    pub duplicates: Vec<String>,
}

/// Reads the first document of a YAML stream; JSON is YAML too.
///
/// # Errors
/// The text upstream shows: `yaml: line 3: did not find expected ',' or '}'`.
pub fn parse(bytes: &[u8]) -> Result<Yaml, String> {
    if let Some(value) = as_json(bytes) {
        return Ok(Yaml {
            value,
            duplicates: Vec::new(),
        });
    }
    let text = decode(bytes)?;
    // The scanner panics if the text ends within an escape; go-yaml reads a NUL there, which is not a valid escape.
    if text.ends_with('\\')
        && let Err(why) = Document::read(&format!("{text}$"))
        && why.ends_with("found unknown escape character")
    {
        return Err(why);
    }
    let Some(document) = Document::read(&text)? else {
        return Ok(Yaml::default());
    };
    let mut reader = Reader {
        document: &document,
        duplicates: Vec::new(),
        decoded: 0,
        by_alias: 0,
        alias_depth: 0,
        bytes_by_alias: 0,
        depth: 0,
        open: Vec::new(),
    };
    let (_, value) = reader.node(document.root)?;
    Ok(Yaml {
        value: through_json(value)?,
        duplicates: reader.duplicates,
    })
}

/// The fast path for what clients send most: a JSON object without anything that YAML reads differently.
fn as_json(bytes: &[u8]) -> Option<Value> {
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace())?;
    if bytes[start] != b'{' || bytes.iter().any(|&b| b >= 0x7f) {
        return None;
    }
    if bytes
        .windows(3)
        .any(|w| matches!(w, [b'\\', b'u', b'd' | b'D']))
    {
        return None;
    }
    let parsed = json::parse(bytes).ok()?;
    if !parsed.duplicates.is_empty() || has_long_key(&parsed.value) {
        return None;
    }
    through_json(parsed.value).ok()
}

/// Whether there is a key that libyaml does not recognize, because it looks only 1024 bytes ahead for the colon.
fn has_long_key(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_long_key),
        Value::Object(object) => object
            .iter()
            .any(|(key, value)| key.len() > 150 || key == "<<" || has_long_key(value)),
        _ => false,
    }
}

/// The value after being printed as JSON and read again: whole floats become integers.
fn through_json(mut value: Value) -> Result<Value, String> {
    fn go(value: &mut Value) -> Result<(), String> {
        match value {
            Value::Float(number) if !number.is_finite() => {
                let shown = if number.is_nan() {
                    "NaN"
                } else if *number > 0.0 {
                    "+Inf"
                } else {
                    "-Inf"
                };
                Err(format!("json: unsupported value: {shown}"))
            }
            Value::Float(number)
                if number.fract() == 0.0 && number.abs() < 9_223_372_036_854_775_808.0 =>
            {
                #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
                let whole = *number as i64;
                *value = Value::Int(whole);
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(go),
            Value::Object(object) => object.iter_mut().try_for_each(|(_, value)| go(value)),
            _ => Ok(()),
        }
    }
    go(&mut value)?;
    Ok(value)
}

/// The stream as UTF-8 without a byte order mark.
fn decode(bytes: &[u8]) -> Result<std::borrow::Cow<'_, str>, String> {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units = bytes
            .chunks(2)
            .map(|pair| read([pair[0], pair.get(1).copied().unwrap_or(0)]));
        char::decode_utf16(units).collect::<Result<String, _>>()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes)
            .map(Into::into)
            .map_err(|_| "yaml: unexpected low surrogate area".to_owned()),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes)
            .map(Into::into)
            .map_err(|_| "yaml: unexpected low surrogate area".to_owned()),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            std::str::from_utf8(bytes).map(Into::into).map_err(|error| {
                let bad = &bytes[error.valid_up_to()..];
                let text = match (bad[0], error.error_len()) {
                    (0x80..0xc0 | 0xf8.., _) => "invalid leading UTF-8 octet",
                    (_, None) => "incomplete UTF-8 octet sequence",
                    (0xc0 | 0xc1, _) => "invalid length of a UTF-8 sequence",
                    (0xed, _) if bad.get(1).is_some_and(|b| (0xa0..0xc0).contains(b)) => {
                        "invalid Unicode character"
                    }
                    _ => "invalid trailing UTF-8 octet",
                };
                format!("yaml: {text}")
            })
        }
    }
}
