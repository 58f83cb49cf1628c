//! How values are shown in errors.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::schema::{Value, json};

/// A rejected value as shown in an error: text quoted, numbers as Go prints them, booleans bare, null as `null`,
/// anything else as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Float(number) => json::go_float(*number),
        other => json::to_string(other),
    }
}

/// A rejected value whose Go type is not a plain string, as shown in an error: JSON with HTML characters escaped.
pub(in super::super) fn typed(value: &Value) -> String {
    let text = json::to_string(value);
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// Text quoted like Go's `%q`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if is_print(c) => out.push(c),
            c => {
                let _ = match c as u32 {
                    code @ ..0x80 => write!(out, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Go's unicode.IsPrint: letters, marks, numbers, punctuation, symbols and the space.
pub fn is_print(c: char) -> bool {
    static PRINTED: LazyLock<Option<regex::Regex>> =
        LazyLock::new(|| regex::Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$").ok());
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut utf8 = [0; 4];
    let printed = |printed: &regex::Regex| printed.is_match(c.encode_utf8(&mut utf8));
    PRINTED.as_ref().is_none_or(printed)
}
