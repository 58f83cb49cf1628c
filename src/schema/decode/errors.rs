//! The errors of decoding, in Go's words.

use super::super::Value;
use super::{Decoder, Place, Step};

impl<'s> Decoder<'s> {
    pub(super) fn mismatch(&mut self, shown: &str, place: Place<'_>) {
        if self.mismatch.is_none() && self.report {
            self.mismatch = Some(self.refusal(shown, place));
        }
    }

    /// Go's error text for a value of a wrong type.
    pub(super) fn refusal(&self, shown: &str, place: Place<'_>) -> String {
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
        format!(
            "json: cannot unmarshal {shown} into {into} of type {}",
            place.go_type
        )
    }

    pub(super) fn fail(&mut self, why: String) {
        if self.report {
            self.failure.get_or_insert(why);
        }
    }

    /// The path as shown in strict decoding errors.
    pub(super) fn indexed_path(&self) -> String {
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
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Int(_) | Value::Float(_) => {
            format!("number {}", super::super::json::to_string(value))
        }
        other => other.type_name().to_owned(),
    }
}
