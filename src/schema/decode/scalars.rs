//! Values that Go decodes with decoders of their own: bytes, quantities, times, and integers that may be strings.

use std::collections::HashMap;

use super::super::{Value, byte_text};
use super::errors::described;
use super::{Decoder, Place};
use crate::meta::{quantity, time};

/// What only equal numbers share.
fn bits(number: f64) -> u64 {
    // Zero has a sign, which this sum does not.
    (number + 0.0).to_bits()
}

/// The first text of each number.
fn by_number(texts: &[Box<str>]) -> HashMap<u64, &str> {
    let mut found = HashMap::with_capacity(texts.len());
    for text in texts {
        if let Ok(number) = text.parse::<f64>() {
            found.entry(bits(number)).or_insert(text.as_ref());
        }
    }
    found
}

impl<'s> Decoder<'s> {
    pub(super) fn bytes(&mut self, text: &str) -> Value {
        match byte_text::canonical(text) {
            Ok(text) => Value::from(text),
            Err(at) => {
                self.mismatch
                    .get_or_insert_with(|| format!("illegal base64 data at input byte {at}"));
                Value::Null
            }
        }
    }

    /// A list of numbers is accepted as bytes, too.
    pub(super) fn byte_list(&mut self, array: Vec<Value>, place: Place<'_>) -> Value {
        let go_type = "uint8";
        let mut bytes = Vec::with_capacity(array.len());
        for value in array {
            match &value {
                Value::Null => bytes.push(0),
                Value::Int(number) => match u8::try_from(*number) {
                    Ok(byte) => bytes.push(byte),
                    Err(_) => self.mismatch(&described(&value), Place { go_type, ..place }),
                },
                other => self.mismatch(&described(other), Place { go_type, ..place }),
            }
        }
        Value::from(byte_text::encode(&bytes))
    }

    pub(super) fn int_or_string(&mut self, value: Value, place: Place<'_>) -> Value {
        match value {
            Value::String(_) | Value::Null => value,
            Value::Int(number) if i32::try_from(number).is_ok() => value,
            other => {
                let go_type = "int32";
                let why = self.refusal(&described(&other), Place { go_type, ..place });
                self.fail(why);
                Value::Null
            }
        }
    }

    pub(super) fn quantity(&mut self, value: Value) -> Value {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Float(number) => {
                let written = self.written.get_or_insert_with(|| by_number(self.floats));
                match written.get(&bits(*number)) {
                    Some(text) => (*text).into(),
                    None => super::super::json::to_string(&value).into(),
                }
            }
            other => super::super::json::to_string(other).into(),
        };
        match quantity::canonical(text.trim()) {
            Ok(canonical) => Value::from(canonical),
            Err(error) => {
                self.fail(error.to_string());
                Value::Null
            }
        }
    }

    pub(super) fn time(
        &mut self,
        value: Value,
        canonical: fn(&str) -> Result<String, String>,
        place: Place<'_>,
    ) -> Value {
        match &value {
            Value::String(text) => match canonical(text) {
                // Go's zero time is written as null.
                Ok(text) if time::is_zero(&text) => Value::Null,
                Ok(text) => Value::from(text),
                Err(error) => {
                    self.fail(error);
                    Value::Null
                }
            },
            other => {
                let go_type = "string";
                let why = self.refusal(other.type_name(), Place { go_type, ..place });
                self.fail(why);
                Value::Null
            }
        }
    }
}

/// A whole float that is small enough is written without a fraction, as in Go.
pub(super) fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 && !(number == 0.0 && number.is_sign_negative())
    {
        Value::Int(number as i64)
    } else {
        Value::Float(number)
    }
}
