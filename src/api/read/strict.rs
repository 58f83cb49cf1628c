//! Strict decoding: unknown and duplicate members.

use std::collections::HashMap;

use super::super::query::FieldValidation;
use crate::meta::errors::quoted;
use crate::schema::{Value, json};

/// How many unknown or duplicate members are reported, as in `sigs.k8s.io/json`.
pub(super) const STRICT: usize = 100;

/// Restores the number in a decoding error to the way it was written: `2.0` instead of `2`.
pub(super) fn as_written(cause: String, floats: &[Box<str>]) -> String {
    let shown = |text: &str| json::to_string(&Value::Float(text.parse().unwrap_or_default()));
    let Some((_, rest)) = cause.split_once("cannot unmarshal number ") else {
        return cause;
    };
    let number = rest.split(' ').next().unwrap_or_default();
    match floats.iter().find(|text| shown(text) == number) {
        Some(text) => cause.replacen(&format!("number {number} "), &format!("number {text} "), 1),
        None => cause,
    }
}

/// Sorts messages about members in document order: a duplicate counts where it is repeated.
pub(super) fn in_order(told: &mut [String], order: &[String]) {
    let mut met: HashMap<String, [usize; 2]> = HashMap::new();
    for (index, member) in order.iter().enumerate() {
        let place = met.entry(quoted(member)).or_insert([index, 0]);
        if place[1] == 0 && place[0] != index {
            place[1] = index;
        }
    }
    told.sort_by_key(|text| {
        let (nth, path) = match text.strip_prefix("duplicate field ") {
            Some(path) => (1, path),
            None => (0, text.strip_prefix("unknown field ").unwrap_or_default()),
        };
        met.get(path).map(|place| place[nth])
    });
}

/// The messages about unknown members.
pub fn unknown(paths: &[String]) -> impl Iterator<Item = String> {
    paths
        .iter()
        .map(|path| format!("unknown field {}", quoted(path)))
}

/// Handles what strict decoding would reject: as warnings, as an error, or not at all.
///
/// # Errors
/// All messages in one text, if validation is strict.
pub fn judge(
    told: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    match validation {
        FieldValidation::Strict if !told.is_empty() => {
            return Err(format!("strict decoding error: {}", strict(&told)));
        }
        FieldValidation::Warn => warnings.extend(told),
        _ => {}
    }
    Ok(())
}

/// The messages of strict decoding in one text: duplicates in YAML are one error with many lines.
fn strict(told: &[String]) -> String {
    let twice = told.iter().take_while(|text| text.starts_with("line "));
    let twice: Vec<&str> = twice.map(String::as_str).collect();
    let mut texts = Vec::with_capacity(told.len());
    if !twice.is_empty() {
        texts.push(format!("yaml: unmarshal errors:\n  {}", twice.join("\n  ")));
    }
    texts.extend_from_slice(&told[twice.len()..]);
    texts.join(", ")
}
