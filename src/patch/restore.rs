//! Typed objects from untyped ones, as in strategic merge patch and apply. Upstream does not decode JSON there but
//! fills the Go struct from a map, with other texts and a few other rules: integers are truncated, whole floats are
//! integers. Follows FromUnstructured in k8s.io/apimachinery/pkg/runtime/converter.go.

use super::go::{kind_of, type_of};
use crate::schema::decode::{self, Decoded};
use crate::schema::emptied;
use crate::schema::json::go_int;
use crate::schema::types::{Schema, Shape, Struct};
use crate::schema::{Object, Value};

/// Brings `value` into canonical form; members for which `is_said` is false are canonical already. If `report`, returns
/// the paths of unknown members in order, without map keys in the paths.
///
/// # Errors
/// Upstream's text for the first member of a wrong type: `cannot convert float64 to int32`.
pub fn restore(
    mut value: Value,
    schema: &Schema,
    report: bool,
    is_said: impl Fn(&str) -> bool,
) -> Result<Decoded, String> {
    let mut restorer = Restorer {
        report,
        path: String::new(),
        unknown: Vec::new(),
    };
    match (&schema.shape, &mut value) {
        (Shape::Struct(fields), Value::Object(object)) => {
            restorer.structure(object, fields, &is_said)?;
        }
        (_, value) => restorer.value(value, schema, "")?,
    }
    let mut unknown = restorer.unknown;
    unknown.sort();
    let emptied = emptied::within(&value, schema);
    decode::tidy_said(&mut value, schema, is_said);
    Ok(Decoded {
        value,
        unknown,
        emptied,
    })
}

struct Restorer {
    report: bool,
    path: String,
    unknown: Vec<String>,
}

impl Restorer {
    fn value(&mut self, value: &mut Value, schema: &Schema, go_type: &str) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match (&schema.shape, &mut *value) {
            (Shape::Struct(fields), Value::Object(object)) => {
                self.structure(object, fields, |_| true)
            }
            (Shape::Struct(_), other) => {
                Err(format!("cannot restore struct from: {}", kind_of(other)))
            }
            (Shape::Map(values), Value::Object(object)) => {
                let go_type = go_type.split_once(']').map_or("", |(_, element)| element);
                object
                    .iter_mut()
                    .try_for_each(|(_, member)| self.value(member, values, go_type))
            }
            (Shape::Map(_), other) => Err(format!("cannot restore map from {}", kind_of(other))),
            (Shape::List(items), Value::Array(array)) => {
                let go_type = go_type.strip_prefix("[]").unwrap_or_default();
                let length = self.path.len();
                for (index, item) in array.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(item, items, go_type)?;
                    self.path.truncate(length);
                }
                Ok(())
            }
            (Shape::Bytes, Value::String(text)) if text.is_empty() => Ok(()),
            (Shape::Bytes, Value::String(_)) => unmarshal(value, schema, go_type)
                .map_err(|error| format!("error decoding from json: {error}")),
            (Shape::Bytes, Value::Array(_)) => unmarshal_into(value, schema, go_type),
            (Shape::List(_) | Shape::Bytes, other) => {
                Err(format!("cannot restore slice from {}", kind_of(other)))
            }
            (Shape::String, Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => Ok(()),
            (Shape::String, Value::Int(_)) => Err(format!(
                "cannot convert int64 to {}",
                named(go_type, "string")
            )),
            (Shape::String, _) => Err("unrecognized type: string".to_owned()),
            (Shape::Boolean, _) => Err("unrecognized type: bool".to_owned()),
            (Shape::Integer(bits), Value::Int(number)) => {
                *number = cut(*number, *bits);
                Ok(())
            }
            (Shape::Integer(bits), Value::Float(number)) if number.fract() == 0.0 => {
                *value = Value::Int(cut(go_int(*number), *bits));
                Ok(())
            }
            (Shape::Integer(bits), other) => {
                let kind = if *bits == 32 { "int32" } else { "int64" };
                Err(match other {
                    Value::Float(_) => {
                        format!("cannot convert float64 to {}", named(go_type, kind))
                    }
                    _ => format!("unrecognized type: {kind}"),
                })
            }
            (Shape::Number, Value::Int(_) | Value::Float(_)) => Ok(()),
            (Shape::Number, _) => Err("unrecognized type: float64".to_owned()),
            // These types have their own JSON decoders.
            (
                Shape::Any
                | Shape::IntOrString
                | Shape::Quantity
                | Shape::Time
                | Shape::MicroTime
                | Shape::OneOf(_),
                other,
            ) => unmarshal(other, schema, go_type),
        }
    }

    fn structure(
        &mut self,
        object: &mut Object,
        fields: &Struct,
        meant: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let length = self.path.len();
        let mut members: Vec<_> = object
            .iter_mut()
            .filter(|(name, _)| meant(name))
            .filter_map(|(name, member)| {
                let (index, _, field) = fields.fields.get_full(name.as_str())?;
                Some((index, name, member, field))
            })
            .collect();
        // In the order of the struct, so that the same one of several errors is reported as upstream.
        members.sort_unstable_by_key(|(index, ..)| *index);
        for (_, name, member, field) in members {
            self.step(name);
            self.value(member, &field.schema, &field.go_type)?;
            self.path.truncate(length);
        }
        if self.report {
            for name in object.keys() {
                if !fields.fields.contains_key(name.as_str()) {
                    self.step(name);
                    self.unknown.push(self.path.clone());
                    self.path.truncate(length);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }
}

/// The Go type, or its kind if the type is unknown.
fn named<'a>(go_type: &'a str, kind: &'a str) -> &'a str {
    if go_type.is_empty() { kind } else { go_type }
}

/// Go's conversion keeps the low bits.
fn cut(number: i64, bits: u8) -> i64 {
    if bits == 32 {
        i64::from(number as i32)
    } else {
        number
    }
}

fn unmarshal(value: &mut Value, schema: &Schema, go_type: &str) -> Result<(), String> {
    if matches!(schema.shape, Shape::Any) {
        return Ok(());
    }
    decode::decode(value.clone(), schema, named(go_type, type_of(value))).map(drop)
}

/// [`unmarshal`] for a type whose decoded form is not canonical.
fn unmarshal_into(value: &mut Value, schema: &Schema, go_type: &str) -> Result<(), String> {
    let decoded = decode::decode(value.clone(), schema, named(go_type, type_of(value)))?;
    *value = decoded.value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_no_integer_holds_become_the_smallest_one() {
        for (number, size, cut_to) in [
            (3.0, 32, 3),
            (9_223_372_036_854_775_808.0, 32, 0),
            (9_223_372_036_854_775_808.0, 64, i64::MIN),
            (-1e30, 64, i64::MIN),
            (4_294_967_298.0, 32, 2),
        ] {
            assert_eq!(cut(go_int(number), size), cut_to, "{number}");
        }
    }
}
