//! Scalars and keys, as go-yaml resolves them.

use super::super::resolve::{Tag, resolve};
use super::super::write::shortest;
use super::values::Read;
use crate::schema::{Key, Object, Value, json};

pub(super) fn scalar(tag: Option<&str>, text: &str, plain: bool) -> Result<Read, String> {
    let string = |text: &str| Ok((Tag::Str, Value::from(text)));
    let Some(tag) = tag.filter(|tag| !tag.is_empty()) else {
        if !plain {
            return string(text);
        }
        let (tag, value) = resolve(text);
        return Ok((tag, value));
    };
    let wanted = match tag.strip_prefix("tag:yaml.org,2002:") {
        Some("str") => return string(text),
        Some("binary") => {
            use base64::Engine as _;
            // Go's decoder skips line breaks.
            let packed: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(packed)
                .map_err(|_| "yaml: !!binary value contains invalid base64 data".to_owned())?;
            let mut out = String::new();
            json::push_lossy(&bytes, &mut out);
            return string(&out);
        }
        Some("null") => return Ok((Tag::Null, Value::Null)),
        Some("bool") => Tag::Bool,
        Some("int") => Tag::Int,
        Some("float") => Tag::Float,
        Some("timestamp") => Tag::Timestamp,
        _ => return string(text),
    };
    let (found, value) = resolve(text);
    match (found, &value) {
        _ if found == wanted => Ok((found, value)),
        #[allow(clippy::cast_precision_loss, reason = "asked for as a float")]
        (Tag::Int, Value::Int(number)) if wanted == Tag::Float => {
            Ok((Tag::Float, Value::Float(*number as f64)))
        }
        _ => Err(format!(
            "yaml: cannot decode {} `{text}` as a {}",
            found.short(),
            wanted.short()
        )),
    }
}

/// A key as in JSON, and as shown in errors.
pub(super) fn key_text(tag: Tag, key: &Value, value: &Value) -> Result<(Key, String), String> {
    Ok(match key {
        Value::String(text) => (text.clone(), format!("{:?}", text.as_str())),
        Value::Bool(flag) => (
            if *flag { "true" } else { "false" }.into(),
            flag.to_string(),
        ),
        Value::Int(number) => {
            let text = number.to_string();
            (text.as_str().into(), text)
        }
        Value::Float(number) if tag == Tag::Int => {
            return Err(format!(
                "unsupported map key of type: uint64, key: {number:.0}, value: {}",
                json::to_string(value)
            ));
        }
        Value::Float(number) => (single(*number).into(), shortest(*number, 21)),
        Value::Null => {
            return Err(format!(
                "unsupported map key of type: %!s(<nil>), key: <nil>, value: {}",
                json::to_string(value)
            ));
        }
        Value::Array(items) => {
            return Err(format!("yaml: invalid map key: {}", go_syntax_list(items)));
        }
        Value::Object(object) => {
            return Err(format!("yaml: invalid map key: {}", go_syntax_map(object)));
        }
    })
}

/// A number with the digits that a float32 needs: the text of float keys.
fn single(number: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "single precision is what upstream keeps"
    )]
    let digits = format!("{:e}", number as f32);
    digits.parse().map_or(digits, |number| shortest(number, 6))
}

/// A value as printed by Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{:?}", text.as_str()),
        Value::Float(number) => shortest(*number, 21),
        Value::Array(items) => go_syntax_list(items),
        Value::Object(object) => go_syntax_map(object),
        other => json::to_string(other),
    }
}

fn go_syntax_list(items: &[Value]) -> String {
    format!(
        "[]interface {{}}{{{}}}",
        items.iter().map(go_syntax).collect::<Vec<_>>().join(", ")
    )
}

fn go_syntax_map(object: &Object) -> String {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_unstable_by_key(|(key, _)| key.as_str());
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, value)| format!("{:?}:{}", key.as_str(), go_syntax(value)))
        .collect();
    format!(
        "map[interface {{}}]interface {{}}{{{}}}",
        members.join(", ")
    )
}
