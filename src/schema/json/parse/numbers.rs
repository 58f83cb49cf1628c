//! Numbers and literals.

use super::{MAX_FLOATS, Parser, SyntaxError};
use crate::schema::Value;

impl Parser<'_> {
    pub(super) fn literal(
        &mut self,
        word: &'static str,
        value: Value,
    ) -> Result<Value, SyntaxError> {
        for (i, expected) in word.bytes().enumerate() {
            if self.peek() != Some(expected) {
                // The caller has seen the first letter.
                debug_assert!(i > 0, "a literal is recognised by its first letter");
                return Err(self.unexpected_within(&format!(
                    "in literal {word} (expecting '{}')",
                    char::from(expected)
                )));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at > start
    }

    pub(super) fn number(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if !self.digits() {
            return Err(self.unexpected_within("in numeric literal"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            integer = false;
            if !self.digits() {
                return Err(self.unexpected_within("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            integer = false;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.unexpected_within("in exponent of numeric literal"));
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0");
        if integer && let Ok(number) = text.parse() {
            return Ok(Value::Int(number));
        }
        if self.floats.len() < MAX_FLOATS {
            self.floats.push(text.into());
        }
        let number: f64 = text.parse().unwrap_or(f64::INFINITY);
        if number.is_infinite() && self.out_of_range.is_none() {
            self.out_of_range = Some(SyntaxError {
                message: format!(
                    "json: cannot unmarshal number {text} into Go value of type float64"
                ),
                offset: self.at,
            });
        }
        Ok(Value::Float(number))
    }
}
