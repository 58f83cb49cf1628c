//! Typed decoding: from any JSON value to the form in which upstream would write the same object back after
//! decoding it into its Go struct. Unknown members go (and are told), nulls and empty optional fields vanish,
//! zero values that Go always writes appear, members stand in Go's order, quantities, times and base64 are
//! canonical. Everything above works on this form: absent and zero mean the same where they do in Go.

use base64::Engine as _;

use super::types::{Field, Schema, Shape, Struct};
use super::{Key, Object, Value};
use crate::meta::{quantity, time};

/// A decoded object.
#[derive(Debug, Default)]
pub struct Decoded {
    /// In canonical form.
    pub value: Value,
    /// Paths of unknown members, in the order of the body: `spec.containers[0].imaeg`.
    pub unknown: Vec<String>,
}

/// Decodes `value` as `schema`; `go_type` (`v1.Pod`) names the whole in errors.
///
/// # Errors
/// Go's text for the first member of a wrong type: `json: cannot unmarshal number into Go struct field
/// ConfigMap.data of type string`.
pub fn decode(value: Value, schema: &Schema, go_type: &str) -> Result<Decoded, String> {
    let mut decoder = Decoder {
        report: true,
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
    match decoder.error {
        Some(error) => Err(error),
        None => Ok(Decoded {
            value,
            unknown: decoder.unknown,
        }),
    }
}

/// Brings an object that code has changed back into canonical form, as it comes back from storage in protobuf.
pub fn tidy(value: &mut Value, schema: &Schema) {
    tidied(value, schema, true);
}

/// Brings an object that code has changed back into canonical form, as it comes back from storage in JSON.
pub fn tidy_json(value: &mut Value, schema: &Schema) {
    tidied(value, schema, false);
}

fn tidied(value: &mut Value, schema: &Schema, stored: bool) {
    let mut decoder = Decoder {
        stored,
        ..Decoder::default()
    };
    *value = decoder.value(
        std::mem::take(value),
        schema,
        Place {
            go_type: "",
            structure: "",
        },
    );
}

/// The value that Go writes for a field that was never set; `None` where it writes nothing.
pub fn zero(field: &Field) -> Option<Value> {
    if field.pointer {
        return (!field.omit_empty).then_some(Value::Null);
    }
    if field.omit_zero {
        return None;
    }
    match &field.schema.shape {
        Shape::Struct(fields) => Some(Value::Object(zero_struct(fields))),
        Shape::Time | Shape::MicroTime => Some(Value::Null),
        Shape::Quantity => Some(Value::from("0")),
        Shape::IntOrString => Some(Value::Int(0)),
        Shape::Any if is_struct_any(field) => Some(Value::Null),
        _ if field.omit_empty => None,
        Shape::String => Some(Value::from("")),
        Shape::Integer(_) => Some(Value::Int(0)),
        Shape::Number => Some(Value::Int(0)),
        Shape::Boolean => Some(Value::Bool(false)),
        _ => Some(Value::Null),
    }
}

/// Whether a field of any JSON is a Go struct by value, which `omitempty` does not leave out.
fn is_struct_any(field: &Field) -> bool {
    &*field.go_type == "runtime.RawExtension"
}

fn zero_struct(fields: &Struct) -> Object {
    fields
        .fields
        .iter()
        .filter_map(|(name, field)| Some((name.clone(), zero(field)?)))
        .collect()
}

#[derive(Clone, Copy)]
struct Place<'a> {
    go_type: &'a str,
    /// The Go struct whose field this is.
    structure: &'a str,
}

/// A step of the path to where the decoder is.
enum Step<'s> {
    /// A member, and the Go structs it is embedded through.
    Field(Key, &'s str),
    Index(usize),
    Key(Key),
}

#[derive(Default)]
struct Decoder<'s> {
    report: bool,
    /// Lists that are empty were never set: storage in protobuf does not tell them apart.
    stored: bool,
    path: Vec<Step<'s>>,
    unknown: Vec<String>,
    error: Option<String>,
}

impl<'s> Decoder<'s> {
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
            (Shape::IntOrString, value) => self.int_or_string(value, place),
            (Shape::Quantity, value) => self.quantity(value),
            (Shape::Time, value) => self.time(value, time::canonical, place),
            (Shape::MicroTime, value) => self.time(value, time::canonical_micro, place),
            (Shape::OneOf(shapes), value) => match shapes.iter().find(|shape| takes(shape, &value))
            {
                Some(shape) => self.value(value, shape, place),
                None => {
                    self.fail(|| {
                        format!(
                            "json: cannot unmarshal {} into Go value of type {}",
                            value.type_name(),
                            place.go_type
                        )
                    });
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
        let mut slots: Vec<Option<Value>> = Vec::new();
        slots.resize_with(fields.fields.len(), || None);
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
                    let value = self.value(value, &field.schema, place);
                    self.path.pop();
                    if let Some(slot) = slots.get_mut(index) {
                        *slot = Some(value);
                    }
                }
                None if self.report => {
                    self.path.push(Step::Field(name, ""));
                    let path = self.indexed_path();
                    self.path.pop();
                    if !self.unknown.contains(&path) {
                        self.unknown.push(path);
                    }
                }
                None => {}
            }
        }
        let mut out = Object::with_capacity(fields.fields.len().min(16));
        for ((name, field), slot) in fields.fields.iter().zip(slots) {
            match slot {
                Some(Value::Array(items))
                    if items.is_empty()
                        && self.stored
                        && matches!(field.schema.shape, Shape::List(_)) =>
                {
                    if let Some(value) = zero(field) {
                        out.insert(name.clone(), value);
                    }
                }
                Some(value)
                    if written(&value, field)
                        || (self.report && emptied(fields, name) && value.is_empty()) =>
                {
                    out.insert(name.clone(), value);
                }
                _ => {
                    if let Some(value) = zero(field) {
                        out.insert(name.clone(), value);
                    }
                }
            }
        }
        out
    }

    fn map(&mut self, object: Object, values: &'s Schema, place: Place<'_>) -> Value {
        let go_type = place
            .go_type
            .strip_prefix("map[")
            .and_then(|rest| Some(rest.split_once(']')?.1))
            .unwrap_or(element_of(place.go_type));
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
        let go_type = place.go_type.strip_prefix("[]").unwrap_or(place.go_type);
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

    fn bytes(&mut self, text: &str) -> Value {
        let engine = &base64::engine::general_purpose::STANDARD;
        let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match engine.decode(&compact) {
            Ok(bytes) => Value::from(engine.encode(bytes)),
            Err(error) => {
                self.fail(|| {
                    format!(
                        "illegal base64 data at input byte {}",
                        base64_offset(text, &error)
                    )
                });
                Value::Null
            }
        }
    }

    fn int_or_string(&mut self, value: Value, place: Place<'_>) -> Value {
        match value {
            Value::String(_) | Value::Null => value,
            Value::Int(number) if i32::try_from(number).is_ok() => value,
            other => {
                let go_type = "int32";
                self.mismatch(&described(&other), Place { go_type, ..place });
                Value::Null
            }
        }
    }

    fn quantity(&mut self, value: Value) -> Value {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Int(_) | Value::Float(_) => super::json::to_string(&value).into(),
            other => super::json::to_string(other).into(),
        };
        match quantity::canonical(&text) {
            Ok(canonical) => Value::from(canonical),
            Err(error) => {
                self.fail(|| error.to_string());
                Value::Null
            }
        }
    }

    fn time(
        &mut self,
        value: Value,
        canonical: fn(&str) -> Result<String, String>,
        place: Place<'_>,
    ) -> Value {
        match &value {
            Value::String(text) => match canonical(text) {
                Ok(text) => Value::from(text),
                Err(error) => {
                    self.fail(|| error);
                    Value::Null
                }
            },
            other => {
                let go_type = "string";
                self.mismatch(other.type_name(), Place { go_type, ..place });
                Value::Null
            }
        }
    }

    fn mismatch(&mut self, shown: &str, place: Place<'_>) {
        if self.error.is_some() || !self.report {
            return;
        }
        let mut path = String::from(place.structure);
        for step in &self.path {
            if let Step::Field(name, through) = step {
                path.push('.');
                path.push_str(through);
                path.push_str(name);
            }
        }
        let into = if place.structure.is_empty() {
            "Go value".to_owned()
        } else {
            format!("Go struct field {path}")
        };
        self.error = Some(format!(
            "json: cannot unmarshal {shown} into {into} of type {}",
            place.go_type
        ));
    }

    fn fail(&mut self, message: impl FnOnce() -> String) {
        if self.error.is_none() && self.report {
            self.error = Some(message());
        }
    }

    /// The path as strict decoding errors show it.
    fn indexed_path(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name, _) | Step::Key(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Step::Index(index) => {
                    out.push_str(&format!("[{index}]"));
                }
            }
        }
        out
    }
}

/// A number that does not fit is shown with its digits, other values by their type.
fn described(value: &Value) -> String {
    match value {
        Value::Int(_) | Value::Float(_) => format!("number {}", super::json::to_string(value)),
        other => other.type_name().to_owned(),
    }
}

/// A float that is whole and small enough is written without a fraction, as Go does.
fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 && !(number == 0.0 && number.is_sign_negative())
    {
        Value::Int(number as i64)
    } else {
        Value::Float(number)
    }
}

fn element_of(go_type: &str) -> &str {
    match go_type {
        "v1.ResourceList" => "resource.Quantity",
        "v1.ExtraValue" => "string",
        _ => "string",
    }
}

fn zero_of(schema: &Schema) -> Value {
    match &schema.shape {
        Shape::Struct(fields) => Value::Object(zero_struct(fields)),
        Shape::String => Value::from(""),
        Shape::Integer(_) | Shape::Number | Shape::IntOrString => Value::Int(0),
        Shape::Boolean => Value::Bool(false),
        Shape::Quantity => Value::from("0"),
        _ => Value::Null,
    }
}

/// Whether Go writes this value of the field, once it was set.
/// Whether a list that is there but empty says something to the defaults of its kind: all others ask for its length.
fn emptied(fields: &Struct, name: &str) -> bool {
    name == "policies" && &*fields.go_name == "HPAScalingRules"
}

fn written(value: &Value, field: &Field) -> bool {
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

/// Where Go's decoder says that base64 text breaks off, in bytes of `text`.
fn base64_offset(text: &str, error: &base64::DecodeError) -> usize {
    let compact_offset = match error {
        base64::DecodeError::InvalidByte(offset, _) => *offset,
        base64::DecodeError::InvalidLastSymbol(offset, _) => *offset,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
            // Go complains at the end of the last whole group of four.
            let compact = text.chars().filter(|c| !matches!(c, '\r' | '\n')).count();
            return (compact / 4) * 4;
        }
    };
    text.char_indices()
        .filter(|(_, c)| !matches!(c, '\r' | '\n'))
        .nth(compact_offset)
        .map_or(text.len(), |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{builtin, json};

    fn decoded(text: &str, kind: &str) -> Result<(String, Vec<String>), String> {
        let value = json::parse(text.as_bytes())
            .map_err(|error| error.to_string())?
            .value;
        let decoded = decode(
            value,
            builtin::named(&format!("io.k8s.api.core.v1.{kind}")),
            &format!("v1.{kind}"),
        )?;
        Ok((json::to_string(&decoded.value), decoded.unknown))
    }

    #[test]
    fn members_come_out_in_order_with_go_zero_values_and_without_the_unknown() {
        let (text, unknown) = decoded(r#"{"spec": {"ports": [{"name": "a"}], "extra": 1}, "metadata": {"labels": {"b": null, "a": "x"}, "nome": 1}, "kind": "Service"}"#, "Service").unwrap();
        assert_eq!(
            text,
            r#"{"kind":"Service","metadata":{"labels":{"a":"x","b":""}},"spec":{"ports":[{"name":"a","port":0,"targetPort":0}]},"status":{"loadBalancer":{}}}"#
        );
        assert_eq!(unknown, ["spec.extra", "metadata.nome"]);
    }

    #[test]
    fn type_errors_name_the_go_struct_and_the_whole_path() {
        for (text, kind, error) in [
            (
                r#"{"data": {"k": 1}}"#,
                "ConfigMap",
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                r#"{"spec": {"ports": [{"port": "x"}]}}"#,
                "Service",
                "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                r#"{"spec": {"ports": [{"port": 1.5}]}}"#,
                "Service",
                "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                r#"{"spec": {"volumes": [{"configMap": {"name": []}}]}}"#,
                "Pod",
                "json: cannot unmarshal array into Go struct field ConfigMapVolumeSource.spec.volumes.VolumeSource.configMap.LocalObjectReference.name of type string",
            ),
            (
                r#"{"spec": {"tolerations": [{"effect": 5}]}}"#,
                "Pod",
                "json: cannot unmarshal number into Go struct field Toleration.spec.tolerations.effect of type v1.TaintEffect",
            ),
            (
                r#"{"metadata": {"labels": 7}}"#,
                "ConfigMap",
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (
                r#"{"binaryData": {"k": "AA"}}"#,
                "ConfigMap",
                "illegal base64 data at input byte 0",
            ),
        ] {
            assert_eq!(decoded(text, kind), Err(error.to_owned()), "{text}");
        }
    }
}
