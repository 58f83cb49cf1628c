//! The Kubernetes protobuf encoding of built-in objects, based on the same schemas: an envelope that names the kind,
//! then the object by field numbers. Follows k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::types::{Field, Schema, Shape, Struct};
use super::{Object, Value, json};
use crate::meta::time;
pub use read::read;
use read::{Fields, Wire};

/// The first bytes of every body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are not an object, in upstream's words: those of the code that gogo/protobuf generates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There are no bytes.
    #[error("empty data")]
    Empty,
    /// They do not begin with the magic.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// Nothing stands behind the magic.
    #[error("empty body")]
    NoBody,
    /// It breaks off.
    #[error("unexpected EOF")]
    Ends,
    /// A number has more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A length is greater than any.
    #[error("proto: negative length found during unmarshaling")]
    Negative,
    /// There is no such wire type.
    #[error("proto: illegal wireType {0}")]
    Unknown(u8),
    /// A field has another wire type than its own.
    #[error("proto: wrong wireType = {found} for field {field}")]
    Wrong {
        /// The wire type.
        found: u8,
        /// The name of the field in Go.
        field: String,
    },
    /// A field has a number that none may have.
    #[error("proto: {of}: illegal tag {number} (wire type {tag})")]
    Tag {
        /// The name of the message in Go.
        of: String,
        /// The number.
        number: i32,
        /// Number and wire type.
        tag: u64,
    },
    /// A group ends that did not begin.
    #[error("proto: {0}: wiretype end group for non-group")]
    Group(String),
    /// They nest deeper than JSON may.
    #[error("proto: exceeded max depth")]
    Deep,
}

/// The contents of an envelope.
pub struct Envelope<'a> {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// The encoded object.
    pub raw: &'a [u8],
}

/// Decodes an envelope.
///
/// # Errors
/// [`Malformed`]
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::Empty);
    }
    let body = bytes.strip_prefix(MAGIC).ok_or(Malformed::NoMagic)?;
    if body.is_empty() {
        return Err(Malformed::NoBody);
    }
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
    };
    for field in Fields::of(body, "Unknown") {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields::of(meta, "TypeMeta") {
                    match field? {
                        (1, wire) => envelope.api_version = wire.string("APIVersion")?,
                        (2, wire) => envelope.kind = wire.string("Kind")?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            (1, wire) => return Err(wire.wrong("TypeMeta")),
            (2, wire) => return Err(wire.wrong("Raw")),
            _ => {}
        }
    }
    Ok(envelope)
}

/// Puts an encoded object into an envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 32);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Appends a watch event as a frame of a stream: its length in four bytes, big-endian, then a `WatchEvent`
/// message that contains the object in its envelope.
pub fn event(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    let mut raw = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut raw, 1, object);
    let mut message = Vec::with_capacity(raw.len() + 24);
    put_bytes(&mut message, 1, kind.as_bytes());
    put_bytes(&mut message, 2, &raw);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.append(&mut message);
}

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

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
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

fn put_one_of(out: &mut Vec<u8>, value: &Value, shapes: &[super::types::SchemaRef]) {
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

#[cfg(test)]
mod tests;
