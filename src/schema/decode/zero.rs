//! Zero values: what Go writes for fields that were never set, and what it omits.

use super::super::types::{Field, Schema, Shape, Struct};
use super::super::{Object, Value};

/// The value that Go writes for a field that was never set; `None` if it omits it.
pub fn zero(field: &Field) -> Option<Value> {
    has_zero(field).then(|| match &field.schema.shape {
        _ if field.pointer => Value::Null,
        // Unset bytes are null; null bytes in a map are read back from storage as empty.
        Shape::Bytes => Value::Null,
        _ => zero_of(&field.schema),
    })
}

/// Whether a field that accepts any JSON is a Go struct by value, which `omitempty` does not omit.
fn is_struct_any(field: &Field) -> bool {
    &*field.go_type == "runtime.RawExtension"
}

/// Whether Go writes the field even if it was never set, that is, whether it has a [`zero`].
pub(super) fn has_zero(field: &Field) -> bool {
    if field.pointer {
        return !field.omit_empty;
    }
    !field.omit_zero
        && match &field.schema.shape {
            Shape::Struct(_)
            | Shape::Time
            | Shape::MicroTime
            | Shape::Quantity
            | Shape::IntOrString => true,
            Shape::Any if is_struct_any(field) => true,
            _ => !field.omit_empty,
        }
}

fn zero_struct(fields: &Struct) -> Object {
    fields
        .fields
        .iter()
        .filter_map(|(name, field)| Some((name.clone(), zero(field)?)))
        .collect()
}

/// Go's zero value for a list item or map value.
pub(super) fn zero_of(schema: &Schema) -> Value {
    match &schema.shape {
        Shape::Struct(fields) => Value::Object(zero_struct(fields)),
        Shape::String | Shape::Bytes => Value::from(""),
        Shape::Integer(_) | Shape::Number | Shape::IntOrString => Value::Int(0),
        Shape::Boolean => Value::Bool(false),
        Shape::Quantity => Value::from("0"),
        _ => Value::Null,
    }
}

/// Whether Go writes this value of the field once it was set.
pub(super) fn written(value: &Value, field: &Field) -> bool {
    if value.is_null() {
        return false;
    }
    if field.pointer || !field.omit_empty {
        return true;
    }
    match &field.schema.shape {
        Shape::Struct(_) if field.omit_zero => !value.is_empty(),
        Shape::Struct(_)
        | Shape::Time
        | Shape::MicroTime
        | Shape::Quantity
        | Shape::IntOrString
        | Shape::Any => true,
        _ => !value.is_empty(),
    }
}
