//! Decodes messages, with upstream's errors for broken ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Malformed;
use crate::meta::time;
use crate::schema::types::{SchemaRef, Struct};
use crate::schema::{Object, Schema, Shape, Value, json};

/// A value on the wire.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Group,
    Fixed32,
}

impl<'a> Wire<'a> {
    /// The error for the field `name`, which has another wire type than this.
    pub(super) fn wrong(self, name: &str) -> Malformed {
        let found = match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64(_) => 1,
            Wire::Bytes(_) => 2,
            Wire::Group => 3,
            Wire::Fixed32 => 5,
        };
        Malformed::Wrong {
            found,
            field: name.to_owned(),
        }
    }

    /// The bytes that the field `name` has.
    fn bytes(self, name: &str) -> Result<&'a [u8], Malformed> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong(name)),
        }
    }

    /// The text that the field `name` has.
    pub(super) fn string(self, name: &str) -> Result<String, Malformed> {
        let bytes = self.bytes(name)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The number that the field `name` has. Negative ones are sign-extended to ten bytes.
    fn number(self, name: &str) -> Result<i64, Malformed> {
        match self {
            Wire::Varint(value) => Ok(value.cast_signed()),
            _ => Err(self.wrong(name)),
        }
    }
}

/// The fields of a message, one after another.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    /// The name of the message in Go.
    of: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8], of: &'a str) -> Fields<'a> {
        Fields { bytes, of }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or(Malformed::Ends)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Overflow)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(Malformed::Ends)?;
        self.bytes = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), Malformed> {
        let tag = self.varint()?;
        // Go keeps 32 bits of it.
        let number = (tag >> 3) as i32;
        match (tag & 7, u32::try_from(number)) {
            (4, _) => Err(Malformed::Group(self.of.to_owned())),
            (_, Err(_) | Ok(0)) => Err(Malformed::Tag {
                of: self.of.to_owned(),
                number,
                tag,
            }),
            (wire, Ok(number)) => Ok((number, self.value(wire)?)),
        }
    }

    fn value(&mut self, wire: u64) -> Result<Wire<'a>, Malformed> {
        Ok(match wire {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(
                self.take(8)?
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| Malformed::Ends)?,
            ),
            2 => {
                let len = self.varint()?.cast_signed();
                let len = usize::try_from(len).map_err(|_| Malformed::Negative)?;
                Wire::Bytes(self.take(len)?)
            }
            3 => {
                self.skip_group()?;
                Wire::Group
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(Malformed::Unknown(other as u8)),
        })
    }

    /// Skips the rest of a group, with the groups in it.
    fn skip_group(&mut self) -> Result<(), Malformed> {
        let mut open = 1;
        while open > 0 {
            match self.varint()? & 7 {
                3 => open += 1,
                4 => open -= 1,
                wire => drop(self.value(wire)?),
            }
        }
        Ok(())
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
        return Err(Malformed::Deep);
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
        Shape::Quantity => {
            let text = last(bytes, "Quantity", 1, |wire| wire.string("String_"))?;
            Ok(text.map_or(Value::Null, Value::from))
        }
        Shape::IntOrString => int_or_string(bytes),
        Shape::Any => match last(bytes, "RawExtension", 1, |wire| wire.bytes("Raw"))? {
            Some(raw) => Ok(json::parse(raw)
                .map(|parsed| parsed.value)
                .unwrap_or_default()),
            None => Ok(Value::Null),
        },
        Shape::List(items) => {
            let mut out = Vec::new();
            for field in Fields::of(bytes, "") {
                if let (1, wire) = field? {
                    out.push(scalar(wire, items, "", depth)?);
                }
            }
            Ok(Value::Array(out))
        }
        Shape::OneOf(shapes) => one_of(bytes, shapes, depth),
        _ => Ok(Value::Null),
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut kind, mut number, mut text) = (0, 0, String::new());
    for field in Fields::of(bytes, "IntOrString") {
        match field? {
            (1, wire) => kind = wire.number("Type")?,
            (2, wire) => number = wire.number("IntVal")?,
            (3, wire) => text = wire.string("StrVal")?,
            _ => {}
        }
    }
    Ok(match kind {
        1 => Value::from(text),
        _ => Value::Int(number),
    })
}

/// Reads the unions of JSON schemas: a boolean at 1 with a schema at 2, or a schema at 1 with a list at 2.
fn one_of(bytes: &[u8], shapes: &[SchemaRef], depth: usize) -> Result<Value, Malformed> {
    let (mut single, mut many, mut allowed) = (None, Vec::new(), None);
    let boolean = shapes
        .iter()
        .any(|shape| matches!(shape.shape, Shape::Boolean));
    let schema = shapes
        .iter()
        .find(|shape| matches!(shape.shape, Shape::Struct(_)));
    for field in Fields::of(bytes, "") {
        match (field?, boolean) {
            ((1, wire), true) => allowed = Some(wire.number("Allows")? != 0),
            ((2, wire), true) | ((1, wire), false) => {
                let raw = wire.bytes("Schema")?;
                single = schema
                    .map(|schema| message(raw, schema, depth + 1))
                    .transpose()?
            }
            ((2, wire), false) => {
                if let Some(items) = shapes.iter().find_map(|shape| shape.items()) {
                    many.push(scalar(wire, items, "JSONSchemas", depth)?);
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

/// What `read` makes of the last field of that number in a message that Go calls `of`.
fn last<'a, T>(
    bytes: &'a [u8],
    of: &'a str,
    number: u32,
    read: impl Fn(Wire<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    let mut found = None;
    for field in Fields::of(bytes, of) {
        let (n, wire) = field?;
        if n == number {
            found = Some(read(wire)?);
        }
    }
    Ok(found)
}

/// Reads a time; an unset one is an empty message.
fn timestamp(bytes: &[u8], micro: bool) -> Result<Value, Malformed> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::of(bytes, "Timestamp") {
        match field? {
            (1, wire) => seconds = wire.number("Seconds")?,
            (2, wire) => nanos = wire.number("Nanos")?,
            _ => {}
        }
    }
    Ok(if micro {
        time::print_micro(seconds, nanos)
    } else {
        time::print(seconds)
    }
    .into())
}

/// Reads the value of the field `name`.
fn scalar(wire: Wire<'_>, schema: &Schema, name: &str, depth: usize) -> Result<Value, Malformed> {
    Ok(match &schema.shape {
        Shape::String => wire.string(name)?.into(),
        Shape::Bytes => STANDARD.encode(wire.bytes(name)?).into(),
        Shape::Integer(_) => Value::Int(wire.number(name)?),
        Shape::Boolean => Value::Bool(wire.number(name)? != 0),
        Shape::Number => match wire {
            Wire::Fixed64(bits) => Value::Float(f64::from_bits(bits)),
            _ => return Err(wire.wrong(name)),
        },
        _ => message(wire.bytes(name)?, schema, depth + 1)?,
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
    for field in Fields::of(bytes, message_name(fields, within)) {
        let (number, wire) = field?;
        let found = fields
            .fields
            .iter()
            .find(|(_, field)| field.proto.0 == number && *field.within == *within);
        let Some((name, field)) = found else {
            let inner = [within, &[number]].concat();
            if fields
                .fields
                .values()
                .any(|field| field.within.starts_with(&inner))
            {
                let bytes = wire.bytes(message_name(fields, &inner))?;
                structure(bytes, fields, &inner, out, depth + 1)?;
            }
            continue;
        };
        let called = &*field.go_name;
        match &field.schema.shape {
            Shape::Map(values) => {
                let (mut key, mut value) = (String::new(), Value::Null);
                for field in Fields::of(wire.bytes(called)?, called) {
                    match field? {
                        (1, wire) => key = wire.string(called)?,
                        (2, wire) => value = scalar(wire, values, called, depth)?,
                        _ => {}
                    }
                }
                out.object_mut(name).insert(key.as_str(), value);
            }
            Shape::List(items) if field.is_repeated() => {
                let item = scalar(wire, items, called, depth)?;
                out.array_mut(name).push(item);
            }
            // A message that occurs several times is merged.
            Shape::Struct(inner) if depth < json::MAX_DEPTH => {
                let bytes = wire.bytes(called)?;
                structure(bytes, inner, &[], out.object_mut(name), depth + 1)?;
            }
            _ => {
                out.insert(name.clone(), scalar(wire, &field.schema, called, depth)?);
            }
        }
    }
    Ok(())
}

/// The name in Go of a struct, or of what it embeds under the numbers `within`.
fn message_name<'a>(fields: &'a Struct, within: &[u32]) -> &'a str {
    let Some(depth) = within.len().checked_sub(1) else {
        return &fields.go_name;
    };
    let mut inner = fields.fields.values();
    let inner = inner.find(|field| field.within.starts_with(within));
    let through = inner.and_then(|field| field.through.split('.').nth(depth));
    through.unwrap_or(&fields.go_name)
}
