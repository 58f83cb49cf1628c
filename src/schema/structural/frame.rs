//! Decodes what all objects share: the type and metadata.

use super::super::{Object, Value, builtin, decode};

/// Decodes what all objects share, the type and metadata; returns the unknown members of metadata.
pub(super) fn frame(object: &mut Object, lenient: bool) -> Result<Vec<String>, String> {
    for name in ["kind", "apiVersion"] {
        if let Some(other) = object.get(name).filter(|value| value.as_str().is_none()) {
            if !lenient && other.is_null() {
                return Err(format!(
                    ".{name} accessor error: <nil> is of the type <nil>, expected string"
                ));
            }
            if !lenient {
                return Err(format!(
                    "accessor error: {} is of the type {}, expected string",
                    crate::schema::json::to_string(other),
                    go_type(other)
                ));
            }
            object.remove(name);
        }
    }
    let mut unknown = Vec::new();
    if let Some(meta) = object.remove("metadata") {
        let meta = metadata(meta, lenient)?;
        unknown.extend(meta.unknown.iter().map(|path| format!("metadata.{path}")));
        unknown.sort();
        object.insert("metadata", meta.value);
    }
    Ok(unknown)
}

/// The Go name of a value's type, for error messages.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Decodes metadata; if `lenient`, members of a wrong type are dropped one by one.
pub(super) fn metadata(meta: Value, lenient: bool) -> Result<decode::Decoded, String> {
    let schema = builtin::object_meta();
    let meta = if meta.is_null() {
        Value::Object(Object::new())
    } else {
        meta
    };
    if !lenient {
        return decode::decode(meta, schema, "v1.ObjectMeta");
    }
    if let Ok(decoded) = decode::decode(meta.clone(), schema, "v1.ObjectMeta") {
        return Ok(decoded);
    }
    let kept: Object = match meta {
        Value::Object(members) => members
            .into_iter()
            .filter(|(name, value)| {
                let alone: Object = [(name.clone(), value.clone())].into_iter().collect();
                decode::decode(alone.into(), schema, "v1.ObjectMeta").is_ok()
            })
            .collect(),
        _ => Object::new(),
    };
    decode::decode(kept.into(), schema, "v1.ObjectMeta")
}
