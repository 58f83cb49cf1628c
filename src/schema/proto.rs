//! The Kubernetes protobuf encoding of built-in objects, based on the same schemas: an envelope that names the kind,
//! then the object by field numbers. Follows k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::types::{Field, Schema, Shape, Struct};
use super::{Object, Value, json};
use crate::meta::time;

/// The first bytes of every body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are not an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// They nest deeper than JSON may, or contain an unknown wire type.
    #[error("proto: wrong wireType")]
    Wire,
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
    for field in Fields(body) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => {
                            envelope.api_version = String::from_utf8_lossy(text).into_owned()
                        }
                        (2, Wire::Bytes(text)) => {
                            envelope.kind = String::from_utf8_lossy(text).into_owned()
                        }
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
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

/// A value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed::Ends)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Wire)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed::Ends)?;
        self.0 = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed::Wire)?;
        if number == 0 {
            return Err(Malformed::Wire);
        }
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(
                self.take(8)?
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| Malformed::Ends)?,
            ),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed::Ends)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(Malformed::Wire),
        };
        Ok((number, value))
    }
}

/// Reads a message as an object of a schema; the result must still be decoded like one read from JSON.
///
/// # Errors
/// [`Malformed`]
pub fn read(bytes: &[u8], schema: &Schema) -> Result<Value, Malformed> {
    message(bytes, schema, 0)
}

fn message(bytes: &[u8], schema: &Schema, depth: usize) -> Result<Value, Malformed> {
    if depth > json::MAX_DEPTH {
        return Err(Malformed::Wire);
    }
    match &schema.shape {
        Shape::Struct(fields) => {
            let mut out = Object::new();
            structure(bytes, fields, &[], &mut out, depth)?;
            Ok(Value::Object(out))
        }
        Shape::Time | Shape::MicroTime => {
            timestamp(bytes, matches!(schema.shape, Shape::MicroTime))
        }
        Shape::Quantity => Ok(first(bytes, 1)?.map_or(Value::Null, |wire| text(wire))),
        Shape::IntOrString => {
            let is_text = matches!(first(bytes, 1)?, Some(Wire::Varint(1)));
            Ok(if is_text {
                first(bytes, 3)?.map_or(Value::from(""), text)
            } else {
                first(bytes, 2)?.map_or(Value::Int(0), integer)
            })
        }
        Shape::Any => match first(bytes, 1)? {
            Some(Wire::Bytes(raw)) => Ok(json::parse(raw)
                .map(|parsed| parsed.value)
                .unwrap_or_default()),
            _ => Ok(Value::Null),
        },
        Shape::List(items) => {
            let mut out = Vec::new();
            for field in Fields(bytes) {
                if let (1, wire) = field? {
                    out.push(scalar(wire, items, depth)?);
                }
            }
            Ok(Value::Array(out))
        }
        Shape::OneOf(shapes) => one_of(bytes, shapes, depth),
        _ => Ok(Value::Null),
    }
}

/// Reads the unions of JSON schemas: a boolean at 1 with a schema at 2, or a schema at 1 with a list at 2.
fn one_of(
    bytes: &[u8],
    shapes: &[super::types::SchemaRef],
    depth: usize,
) -> Result<Value, Malformed> {
    let (mut single, mut many, mut allowed) = (None, Vec::new(), None);
    let boolean = shapes
        .iter()
        .any(|shape| matches!(shape.shape, Shape::Boolean));
    let schema = shapes
        .iter()
        .find(|shape| matches!(shape.shape, Shape::Struct(_)));
    for field in Fields(bytes) {
        match (field?, boolean) {
            ((1, Wire::Varint(value)), true) => allowed = Some(value != 0),
            ((2, Wire::Bytes(raw)), true) | ((1, Wire::Bytes(raw)), false) => {
                single = schema
                    .map(|schema| message(raw, schema, depth + 1))
                    .transpose()?
            }
            ((2, wire), false) => {
                if let Some(items) = shapes.iter().find_map(|shape| shape.items()) {
                    many.push(scalar(wire, items, depth)?);
                }
            }
            _ => {}
        }
    }
    Ok(match (single, many.is_empty()) {
        (Some(single), _) => single,
        (None, false) => Value::Array(many),
        (None, true) => allowed.map_or(Value::Null, Value::Bool),
    })
}

fn first(bytes: &[u8], number: u32) -> Result<Option<Wire<'_>>, Malformed> {
    let mut found = None;
    for field in Fields(bytes) {
        let (n, wire) = field?;
        if n == number {
            found = Some(wire);
        }
    }
    Ok(found)
}

fn text(wire: Wire<'_>) -> Value {
    match wire {
        Wire::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes).into_owned()),
        _ => Value::Null,
    }
}

fn integer(wire: Wire<'_>) -> Value {
    match wire {
        // Negative numbers are sign-extended to ten bytes.
        Wire::Varint(value) => Value::Int(value.cast_signed()),
        _ => Value::Null,
    }
}

/// Reads a time; an unset one is an empty message.
fn timestamp(bytes: &[u8], micro: bool) -> Result<Value, Malformed> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let number = |field: u32| -> Result<i64, Malformed> {
        Ok(first(bytes, field)?
            .map(integer)
            .and_then(|value| value.as_int())
            .unwrap_or(0))
    };
    let (seconds, nanos) = (number(1)?, number(2)?);
    Ok(if micro {
        time::print_micro(seconds, nanos)
    } else {
        time::print(seconds)
    }
    .into())
}

fn scalar(wire: Wire<'_>, schema: &Schema, depth: usize) -> Result<Value, Malformed> {
    Ok(match (&schema.shape, wire) {
        (Shape::String, Wire::Bytes(_)) => text(wire),
        (Shape::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Shape::Integer(_), Wire::Varint(_)) => integer(wire),
        (Shape::Boolean, Wire::Varint(value)) => Value::Bool(value != 0),
        (Shape::Number, Wire::Fixed64(bits)) => Value::Float(f64::from_bits(bits)),
        (Shape::Integer(_) | Shape::Boolean | Shape::Number, _) => return Err(Malformed::Wire),
        (_, Wire::Bytes(bytes)) => message(bytes, schema, depth + 1)?,
        _ => return Err(Malformed::Wire),
    })
}

/// Reads the fields of a struct, or of what it embeds under the numbers `within`, into `out`.
fn structure(
    bytes: &[u8],
    fields: &Struct,
    within: &[u32],
    out: &mut Object,
    depth: usize,
) -> Result<(), Malformed> {
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let found = fields
            .fields
            .iter()
            .find(|(_, field)| field.proto.0 == number && *field.within == *within);
        let Some((name, field)) = found else {
            let inner = [within, &[number]].concat();
            let embeds = |field: &Field| field.within.starts_with(&inner);
            if fields.fields.values().any(embeds)
                && let Wire::Bytes(bytes) = wire
            {
                structure(bytes, fields, &inner, out, depth + 1)?;
            }
            continue;
        };
        match &field.schema.shape {
            Shape::Map(values) => {
                let Wire::Bytes(entry) = wire else {
                    return Err(Malformed::Wire);
                };
                let key = first(entry, 1)?.map(text).unwrap_or_default();
                let value = match first(entry, 2)? {
                    Some(wire) => scalar(wire, values, depth)?,
                    None => Value::Null,
                };
                out.object_mut(name)
                    .insert(key.as_str().unwrap_or_default(), value);
            }
            Shape::List(items) if field.is_repeated() => {
                let item = scalar(wire, items, depth)?;
                out.array_mut(name).push(item);
            }
            // A message that is given in parts is all of them.
            Shape::Struct(inner) if depth < json::MAX_DEPTH => {
                let Wire::Bytes(bytes) = wire else {
                    return Err(Malformed::Wire);
                };
                structure(bytes, inner, &[], out.object_mut(name), depth + 1)?;
            }
            _ => {
                out.insert(name.clone(), scalar(wire, &field.schema, depth)?);
            }
        }
    }
    Ok(())
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
mod tests {
    use super::*;
    use crate::schema::{builtin, decode};

    #[test]
    fn an_object_is_the_same_after_a_round_trip() {
        let text = r#"{"metadata":{"name":"p","labels":{"a":"b"},"creationTimestamp":"2020-01-01T00:00:00Z","managedFields":[{"manager":"m","fieldsV1":{"f:a":{}}}]},
            "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"500m"}},
            "livenessProbe":{"httpGet":{"port":"http","path":"/"},"periodSeconds":5},"env":[{"name":"A","value":"B"}]}],
            "volumes":[{"name":"v","configMap":{"name":"c","defaultMode":420}}],"terminationGracePeriodSeconds":-1,"activeDeadlineSeconds":0,"hostNetwork":true}}"#;
        let schema = builtin::named("io.k8s.api.core.v1.Pod");
        let object = |value| decode::decode(value, schema, "v1.Pod").unwrap().value;
        let want = object(json::parse(text.as_bytes()).unwrap().value);
        let sealed = seal("v1", "Pod", &write(&want, schema));
        let envelope = open(&sealed).unwrap();
        assert_eq!(
            (envelope.api_version.as_str(), envelope.kind.as_str()),
            ("v1", "Pod")
        );
        assert_eq!(
            json::to_string(&object(read(envelope.raw, schema).unwrap())),
            json::to_string(&want)
        );
    }

    #[test]
    fn lists_with_a_type_of_their_own_are_messages() {
        let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource");
        let value = json::parse(br#"{"kind":"K","verbs":["get","list"]}"#)
            .unwrap()
            .value;
        let bytes = write(&value, schema);
        assert_eq!(bytes, b"\x1a\x01K\x22\x0b\x0a\x03get\x0a\x04list");
        assert_eq!(read(&bytes, schema).unwrap(), value);
    }

    #[test]
    fn slices_repeat_whatever_their_tags_say() {
        let schema = builtin::named("io.k8s.api.batch.v1.SuccessPolicy");
        let text = br#"{"rules":[{"succeededCount":1},{"succeededCount":2}]}"#;
        let value = json::parse(text).unwrap().value;
        let bytes = write(&value, schema);
        assert_eq!(bytes, b"\x0a\x02\x10\x01\x0a\x02\x10\x02");
        assert_eq!(read(&bytes, schema).unwrap(), value);
    }

    #[test]
    fn what_is_embedded_in_what_is_embedded_is_a_message_in_a_message() {
        let schema = builtin::named("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations");
        let text =
            br#"{"resourceNames":["n"],"operations":["*"],"apiGroups":[""],"resources":["pods"]}"#;
        let value = json::parse(text).unwrap().value;
        let bytes = write(&value, schema);
        assert_eq!(
            bytes,
            b"\x0a\x01n\x12\x0d\x0a\x01*\x12\x08\x0a\x00\x1a\x04pods"
        );
        assert_eq!(read(&bytes, schema).unwrap(), value);
    }

    #[test]
    fn a_time_that_is_not_set_is_empty() {
        let schema = builtin::named("io.k8s.apimachinery.pkg.apis.meta.v1.Condition");
        let value = json::parse(br#"{"lastTransitionTime":null}"#)
            .unwrap()
            .value;
        let bytes = write(&value, schema);
        assert_eq!(bytes, b"\x22\x00");
        assert_eq!(read(&bytes, schema).unwrap(), value);
    }

    #[test]
    fn zeros_are_written_but_of_what_go_holds_by_pointer() {
        let schema = builtin::named("io.k8s.api.core.v1.ContainerPort");
        let value = json::parse(br#"{"containerPort":80}"#).unwrap().value;
        let bytes = write(&value, schema);
        assert_eq!(bytes, b"\x0a\0\x10\0\x18\x50\x22\0\x2a\0");
        let schema = builtin::named("io.k8s.api.core.v1.HTTPGetAction");
        let bytes = write(&Object::new().into(), schema);
        assert_eq!(bytes, b"\x0a\0\x12\x06\x08\0\x10\0\x1a\0\x1a\0\x22\0");
        // Neither an optional object nor an empty list.
        let schema = builtin::named("io.k8s.api.apps.v1.DeploymentStrategy");
        assert_eq!(write(&Object::new().into(), schema), b"\x0a\0");
    }

    #[test]
    fn what_breaks_off_is_refused() {
        assert_eq!(open(b"{}").map(|_| ()), Err(Malformed::NoMagic));
        assert_eq!(open(b"k8s\0\x0a\x7f").map(|_| ()), Err(Malformed::Ends));
    }
}
