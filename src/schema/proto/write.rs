//! Writes objects by their schemas.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::types::{Field, Schema, Shape, Struct};
use super::super::{Object, Value, json};
use crate::meta::time;

/// Writes an object in canonical form as a message.
pub fn write(value: &Value, schema: &Schema) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, value, schema);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(number) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_message(out: &mut Vec<u8>, value: &Value, schema: &Schema) {
    match (&schema.shape, value) {
        (Shape::Struct(fields), Value::Object(object)) => put_struct(out, object, fields, &[]),
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let (seconds, nanos) = time::parts(text).unwrap_or_default();
            put_number(out, 1, seconds.cast_unsigned());
            put_number(out, 2, nanos.cast_unsigned());
        }
        (Shape::Quantity, Value::String(text)) => put_bytes(out, 1, text.as_bytes()),
        (Shape::IntOrString, Value::String(text)) => {
            put_number(out, 1, 1);
            put_number(out, 2, 0);
            put_bytes(out, 3, text.as_bytes());
        }
        (Shape::IntOrString, value) => {
            put_number(out, 1, 0);
            put_number(out, 2, value.as_int().unwrap_or(0).cast_unsigned());
            put_bytes(out, 3, b"");
        }
        (Shape::Any, value) if !value.is_null() => {
            put_bytes(out, 1, json::to_string(value).as_bytes())
        }
        (Shape::List(items), Value::Array(list)) => {
            list.iter().for_each(|item| put_field(out, 1, item, items))
        }
        (Shape::OneOf(shapes), value) => put_one_of(out, value, shapes),
        _ => {}
    }
}

fn put_one_of(out: &mut Vec<u8>, value: &Value, shapes: &[super::super::types::SchemaRef]) {
    let boolean = shapes
        .iter()
        .any(|shape| matches!(shape.shape, Shape::Boolean));
    let schema = shapes
        .iter()
        .find(|shape| matches!(shape.shape, Shape::Struct(_)));
    match (value, schema) {
        (Value::Bool(allowed), _) => put_number(out, 1, u64::from(*allowed)),
        (Value::Object(_), Some(schema)) => {
            if boolean {
                put_number(out, 1, 1);
            }
            put_field(out, if boolean { 2 } else { 1 }, value, schema);
        }
        (Value::Array(list), _) => {
            if let Some(items) = shapes.iter().find_map(|shape| shape.items()) {
                list.iter().for_each(|item| put_field(out, 2, item, items));
            }
        }
        _ => {}
    }
}

fn put_field(out: &mut Vec<u8>, number: u32, value: &Value, schema: &Schema) {
    match (&schema.shape, value) {
        (_, Value::Null) => {}
        (Shape::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Shape::Bytes, Value::String(text)) => put_bytes(
            out,
            number,
            &STANDARD.decode(text.as_bytes()).unwrap_or_default(),
        ),
        (Shape::Integer(_), Value::Int(value)) => put_number(out, number, value.cast_unsigned()),
        (Shape::Boolean, Value::Bool(value)) => put_number(out, number, u64::from(*value)),
        (Shape::Number, value) => {
            let number_value = match value {
                Value::Int(value) => *value as f64,
                Value::Float(value) => *value,
                _ => return,
            };
            put_varint(out, (u64::from(number) << 3) | 1);
            out.extend_from_slice(&number_value.to_bits().to_le_bytes());
        }
        (_, value) => {
            let mut inner = Vec::new();
            put_message(&mut inner, value, schema);
            put_bytes(out, number, &inner);
        }
    }
}

/// Writes the members of a struct, or of what it embeds under the numbers `within`.
fn put_struct(out: &mut Vec<u8>, object: &Object, fields: &Struct, within: &[u32]) {
    let mut written: Vec<u32> = Vec::new();
    for (name, field) in &fields.fields {
        match field.within.strip_prefix(within) {
            Some([]) => match object.get(name) {
                Some(value) => put_member(out, value, field),
                None if !field.pointer => put_zero(out, field.proto.0, &field.schema),
                None => {}
            },
            Some([number, ..]) if !written.contains(number) => {
                written.push(*number);
                let mut inner = Vec::new();
                put_struct(&mut inner, object, fields, &[within, &[*number]].concat());
                put_bytes(out, *number, &inner);
            }
            _ => {}
        }
    }
}

/// Writes the zero value of a field that Go does not hold by pointer: upstream writes those, but no empty lists, maps
/// and bytes.
fn put_zero(out: &mut Vec<u8>, number: u32, schema: &Schema) {
    let zero = match &schema.shape {
        _ if number == 0 => return,
        Shape::Map(_) | Shape::List(_) | Shape::Bytes | Shape::OneOf(_) => return,
        Shape::Integer(_) => Value::Int(0),
        Shape::Boolean => Value::Bool(false),
        Shape::Number => Value::Float(0.0),
        Shape::Struct(_) => Object::new().into(),
        Shape::IntOrString => Value::Int(0),
        Shape::String => Value::from(""),
        Shape::Quantity => Value::from("0"),
        // A message without contents.
        Shape::Time | Shape::MicroTime | Shape::Any => return put_bytes(out, number, b""),
    };
    put_field(out, number, &zero, schema);
}

fn put_member(out: &mut Vec<u8>, value: &Value, field: &Field) {
    let number = field.proto.0;
    if number == 0 {
        return;
    }
    match (&field.schema.shape, value) {
        (Shape::Map(values), Value::Object(entries)) => {
            for (key, value) in entries.iter() {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put_field(&mut entry, 2, value, values);
                put_bytes(out, number, &entry);
            }
        }
        (Shape::List(items), Value::Array(list)) if field.is_repeated() => list
            .iter()
            .for_each(|item| put_field(out, number, item, items)),
        (Shape::Time | Shape::MicroTime, Value::Null) => put_bytes(out, number, b""),
        (_, value) => put_field(out, number, value, &field.schema),
    }
}
