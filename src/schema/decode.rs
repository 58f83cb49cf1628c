//! Typed decoding: brings any JSON value into the form in which upstream would write the object back after decoding
//! it into its Go struct. Unknown members are dropped and reported, nulls and empty optional fields omitted, zero
//! values that Go always writes added, members put in Go's order, quantities, times and base64 made canonical.
//! Everything above works on this form: absent and zero mean the same wherever they do in Go.

mod errors;
mod scalars;
mod zero;

use std::collections::HashMap;

use self::errors::described;
use self::scalars::number_of;
use self::zero::{has_zero, written, zero_of};
use super::emptied::{Emptied, Empty};
use super::types::{Field, Schema, Shape, Struct};
use super::{Key, Object, Value};
use crate::meta::budget::Budget;
use crate::meta::time;

pub use self::zero::zero;

/// A decoded object.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// In canonical form.
    pub value: Value,
    /// Paths of unknown members, in the order of the body: `spec.containers[0].imaeg`. At most a hundred.
    pub unknown: Vec<String>,
    /// Fields that the client set to an empty value, which canonical form does not show.
    pub emptied: Vec<Emptied>,
}

impl From<Value> for Decoded {
    /// An object in canonical form.
    fn from(value: Value) -> Decoded {
        Decoded {
            value,
            ..Decoded::default()
        }
    }
}

/// Decodes `value` as `schema`; `go_type` (`v1.Pod`) names the object itself in errors.
///
/// # Errors
/// Go's text for the first member that its custom decoder rejects (`quantities must match ...`), else for the first
/// of a wrong type: `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
pub fn decode(value: Value, schema: &Schema, go_type: &str) -> Result<Decoded, String> {
    decode_written(value, schema, go_type, &[])
}

/// Like [`decode`], with the texts of numbers that do not fit an `i64`: quantities keep them (`1e3`).
///
/// # Errors
/// As [`decode`].
pub fn decode_written(
    value: Value,
    schema: &Schema,
    go_type: &str,
    floats: &[Box<str>],
) -> Result<Decoded, String> {
    let mut decoder = Decoder {
        report: true,
        said: true,
        floats,
        ..Decoder::default()
    };
    let value = decoder.value(
        value,
        schema,
        Place {
            go_type,
            structure: "",
        },
    );
    match decoder.failure.or(decoder.mismatch) {
        Some(error) => Err(error),
        None => Ok(Decoded {
            value,
            unknown: decoder.unknown,
            emptied: decoder.emptied,
        }),
    }
}

/// Restores canonical form after code has changed an object, as if it were read back from protobuf storage.
pub fn tidy(value: &mut Value, schema: &Schema) {
    let stored = Decoder {
        stored: true,
        ..Decoder::default()
    };
    stored.tidy(value, schema);
}

/// Brings an object from a request, whose members already have the right types, into canonical form. Members for which
/// `is_said` is false are canonical already, and are not inspected.
pub fn tidy_said(value: &mut Value, schema: &Schema, is_said: impl Fn(&str) -> bool) {
    let mut said = Decoder {
        stored: true,
        said: true,
        ..Decoder::default()
    };
    if let (Shape::Struct(fields), Value::Object(object)) = (&schema.shape, &mut *value)
        && in_order(object, fields)
        && said.members(object, fields, is_said)
    {
        return;
    }
    said.tidy(value, schema);
}

/// Restores canonical form after code has changed an object, as if it were read back from JSON storage.
pub fn tidy_json(value: &mut Value, schema: &Schema) {
    Decoder::default().tidy(value, schema);
}

#[derive(Clone, Copy)]
struct Place<'a> {
    go_type: &'a str,
    /// The Go struct that the field belongs to.
    structure: &'a str,
}

/// A step of the path to the current value.
enum Step<'s> {
    /// A member, and the Go structs through which it is embedded.
    Field(Key, &'s str),
    Index(usize),
    Key(Key),
}

/// How many different unknown members are reported, as in `sigs.k8s.io/json`.
const MAX_UNKNOWN: usize = 100;

#[derive(Default)]
struct Decoder<'s> {
    report: bool,
    /// Empty lists still matter to defaulting.
    said: bool,
    /// Empty lists count as never set: protobuf storage does not distinguish them.
    stored: bool,
    floats: &'s [Box<str>],
    /// The same by the number that each is, once a quantity is written as a number.
    written: Option<HashMap<u64, &'s str>>,
    path: Vec<Step<'s>>,
    unknown: Vec<String>,
    emptied: Vec<Emptied>,
    /// How many of the unknown and of the emptied members are told.
    budgets: [Budget; 2],
    /// The error for the first member of a wrong type: Go goes on decoding after it.
    mismatch: Option<String>,
    /// The error of a custom decoder: Go stops there.
    failure: Option<String>,
}

impl<'s> Decoder<'s> {
    fn tidy(mut self, value: &mut Value, schema: &'s Schema) {
        let place = Place {
            go_type: "",
            structure: "",
        };
        self.settle(value, schema, place);
    }

    /// Decodes a value in place, with the result of [`Decoder::value`]. Most of an object that code has changed is
    /// still canonical: that is only inspected, and not moved.
    fn settle(&mut self, value: &mut Value, schema: &'s Schema, place: Place<'_>) {
        match (&schema.shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::String, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Integer(_), Value::Int(_)) => {}
            (Shape::Struct(fields), Value::Object(object)) => {
                if !in_order(object, fields) || !self.members(object, fields, |_| true) {
                    *object = self.structure(std::mem::take(object), fields);
                }
            }
            (Shape::Map(values), Value::Object(object)) => {
                let go_type = value_of(place.go_type);
                for (_, value) in object.iter_mut() {
                    if value.is_null() {
                        *value = zero_of(values);
                    } else {
                        self.settle(value, values, Place { go_type, ..place });
                    }
                }
                object.sort();
            }
            (Shape::List(items), Value::Array(array)) => {
                let go_type = place.go_type.strip_prefix("[]").unwrap_or(place.go_type);
                for value in array {
                    if value.is_null() && !go_type.starts_with('*') {
                        *value = zero_of(items);
                    } else {
                        self.settle(value, items, Place { go_type, ..place });
                    }
                }
            }
            (_, value) => *value = self.value(std::mem::take(value), schema, place),
        }
    }

    /// Settles the `meant` members of an object that is [`in_order`]; false if one must be omitted afterwards.
    fn members(
        &mut self,
        object: &mut Object,
        fields: &'s Struct,
        meant: impl Fn(&str) -> bool,
    ) -> bool {
        let mut known = fields.fields.iter();
        for (name, value) in object.iter_mut().filter(|(_, value)| !value.is_null()) {
            let Some((_, field)) = known.find(|(field, _)| *field == name) else {
                return false;
            };
            if !meant(name) {
                continue;
            }
            let place = Place {
                go_type: &field.go_type,
                structure: &fields.go_name,
            };
            self.settle(value, &field.schema, place);
            if !written(value, field) || self.never_set(value, field) {
                return false;
            }
        }
        true
    }

    /// Whether storage forgets that the field was set.
    fn never_set(&self, value: &Value, field: &Field) -> bool {
        self.stored
            && matches!(value, Value::Array(items) if items.is_empty())
            && matches!(field.schema.shape, Shape::List(_))
    }

    fn value(&mut self, value: Value, schema: &'s Schema, place: Place<'_>) -> Value {
        match (&schema.shape, value) {
            (Shape::Any, value) => value,
            (_, Value::Null) => Value::Null,
            (Shape::Struct(fields), Value::Object(object)) => {
                Value::Object(self.structure(object, fields))
            }
            (Shape::Map(values), Value::Object(object)) => self.map(object, values, place),
            (Shape::List(items), Value::Array(array)) => self.list(array, items, place),
            (Shape::String, value @ Value::String(_))
            | (Shape::Boolean, value @ Value::Bool(_)) => value,
            (Shape::Number, Value::Int(number)) => Value::Int(number),
            (Shape::Number, Value::Float(number)) => number_of(number),
            (Shape::Integer(bits), Value::Int(number)) => {
                if *bits == 32 && i32::try_from(number).is_err() {
                    self.mismatch(&format!("number {number}"), place);
                }
                Value::Int(number)
            }
            (Shape::Bytes, Value::String(text)) => self.bytes(&text),
            (Shape::Bytes, Value::Array(array)) => self.byte_list(array, place),
            (Shape::IntOrString, value) => self.int_or_string(value, place),
            (Shape::Quantity, value) => self.quantity(value),
            (Shape::Time, value) => self.time(value, time::canonical, place),
            (Shape::MicroTime, value) => self.time(value, time::canonical_micro, place),
            (Shape::OneOf(shapes), value) => match shapes.iter().find(|shape| takes(shape, &value))
            {
                Some(shape) => {
                    // Such a type has its own decoder, which reports no unknown members.
                    let told = self.unknown.len();
                    let value = self.value(value, shape, place);
                    self.unknown.truncate(told);
                    value
                }
                None => {
                    // Of Go's union types only JSONSchemaPropsOrBool rejects a value of another type.
                    if shapes
                        .iter()
                        .any(|shape| matches!(shape.shape, Shape::Boolean))
                    {
                        self.fail("boolean or JSON schema expected".to_owned());
                    }
                    Value::Null
                }
            },
            (Shape::Integer(_) | Shape::Number, value) => {
                self.mismatch(&described(&value), place);
                Value::Null
            }
            (_, value) => {
                self.mismatch(value.type_name(), place);
                Value::Null
            }
        }
    }

    fn structure(&mut self, object: Object, fields: &'s Struct) -> Object {
        let mut out = Object::with_capacity(object.len());
        let mut found: Vec<(usize, Value)> = Vec::with_capacity(object.len());
        for (name, value) in object {
            match fields.fields.get_full(name.as_str()) {
                Some((index, _, field)) => {
                    if value.is_null() {
                        continue;
                    }
                    self.path.push(Step::Field(name, &field.through));
                    let place = Place {
                        go_type: &field.go_type,
                        structure: &fields.go_name,
                    };
                    let mut value = value;
                    if self.report {
                        value = self.value(value, &field.schema, place);
                        if value.is_empty() {
                            // Selectors are shown as they are served, without empty fields.
                            let shown = !fields.go_name.starts_with("LabelSelector");
                            self.note_empty(&value, &field.schema, shown);
                        }
                    } else {
                        self.settle(&mut value, &field.schema, place);
                    }
                    self.path.pop();
                    found.push((index, value));
                }
                None if self.report
                    && self.unknown.len() < MAX_UNKNOWN
                    && !self.budgets[0].is_spent() =>
                {
                    self.path.push(Step::Field(name, ""));
                    let path = self.indexed_path();
                    self.path.pop();
                    if !self.unknown.contains(&path) {
                        self.budgets[0].spend(path.len());
                        self.unknown.push(path);
                    }
                }
                None => {}
            }
        }
        found.sort_unstable_by_key(|(index, _)| *index);
        let mut found = found.into_iter().peekable();
        for (index, (name, field)) in fields.fields.iter().enumerate() {
            match found
                .next_if(|(at, _)| *at == index)
                .map(|(_, value)| value)
            {
                // A time set to zero: the pointer to it is not nil.
                Some(Value::Null)
                    if field.pointer
                        && matches!(field.schema.shape, Shape::Time | Shape::MicroTime) =>
                {
                    out.push(name.clone(), Value::Null);
                }
                Some(value) if self.said && value.is_empty() && emptied(fields, name) => {
                    out.push(name.clone(), value);
                }
                Some(value) if self.never_set(&value, field) => {
                    if let Some(value) = zero(field) {
                        out.push(name.clone(), value);
                    }
                }
                Some(value) if written(&value, field) => {
                    out.push(name.clone(), value);
                }
                _ => {
                    if let Some(value) = zero(field) {
                        out.push(name.clone(), value);
                    }
                }
            }
        }
        out
    }

    fn note_empty(&mut self, value: &Value, schema: &Schema, shown: bool) {
        if let Value::Array(_) | Value::Object(_) = value {
            let step = |step: &Step<'_>| match step {
                Step::Field(name, _) | Step::Key(name) => name.clone(),
                Step::Index(index) => index.to_string().into(),
            };
            if self.budgets[1].is_spent() {
                return;
            }
            let path: Vec<Key> = self.path.iter().map(step).collect();
            self.budgets[1].spend(path.iter().map(|key| size_of::<Key>() + key.len()).sum());
            self.emptied.push(Emptied {
                path,
                what: Empty::of(value, schema),
                shown,
            });
        }
    }

    fn map(&mut self, object: Object, values: &'s Schema, place: Place<'_>) -> Value {
        let go_type = value_of(place.go_type);
        let mut out = Object::with_capacity(object.len());
        for (key, value) in object {
            self.path.push(Step::Key(key.clone()));
            let value = if value.is_null() {
                zero_of(values)
            } else {
                self.value(value, values, Place { go_type, ..place })
            };
            self.path.pop();
            out.insert(key, value);
        }
        out.sort();
        Value::Object(out)
    }

    fn list(&mut self, array: Vec<Value>, items: &'s Schema, place: Place<'_>) -> Value {
        let go_type = match place.go_type.strip_prefix("[]") {
            Some(item) => item,
            // A list with a named Go type.
            None if matches!(items.shape, Shape::String) => "string",
            None => place.go_type,
        };
        let mut out = Vec::with_capacity(array.len());
        for (index, value) in array.into_iter().enumerate() {
            self.path.push(Step::Index(index));
            let value = if value.is_null() && !go_type.starts_with('*') {
                zero_of(items)
            } else {
                self.value(value, items, Place { go_type, ..place })
            };
            self.path.pop();
            out.push(value);
        }
        Value::Array(out)
    }
}

/// The Go type of a map's values.
fn value_of(go_type: &str) -> &str {
    match go_type.strip_prefix("map[") {
        Some(rest) => rest.split_once(']').map_or("string", |(_, values)| values),
        None if go_type == "v1.ResourceList" => "resource.Quantity",
        None => "string",
    }
}

/// Whether an object's members are those that the struct would write: in its order, without unknown ones, with all that
/// are always written, and null only where that means unset. Does not look at their values.
fn in_order(object: &Object, fields: &Struct) -> bool {
    let mut known = fields.fields.iter();
    for (name, value) in object.iter() {
        loop {
            match known.next() {
                None => return false,
                Some((field, its)) if field == name => {
                    if value.is_null() && zero(its) != Some(Value::Null) {
                        return false;
                    }
                    break;
                }
                Some((_, its)) if has_zero(its) => return false,
                Some(_) => {}
            }
        }
    }
    !known.any(|(_, field)| has_zero(field))
}

/// Whether a present but empty list matters to defaulting: elsewhere only its length counts.
fn emptied(fields: &Struct, name: &str) -> bool {
    name == "policies" && &*fields.go_name == "HPAScalingRules"
}

fn takes(schema: &Schema, value: &Value) -> bool {
    matches!(
        (&schema.shape, value),
        (Shape::Any, _)
            | (Shape::Struct(_) | Shape::Map(_), Value::Object(_))
            | (Shape::List(_), Value::Array(_))
            | (Shape::String | Shape::Bytes, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Integer(_) | Shape::Number, Value::Int(_))
    )
}

#[cfg(test)]
mod tests;
