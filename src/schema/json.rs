//! JSON to values and back, with the forms and texts of Go's `encoding/json`.

use std::fmt::Write as _;

mod parse;

use super::{Object, Value};
pub(crate) use parse::push_lossy;
pub use parse::{Parsed, SyntaxError, members, parse};

/// How deep arrays and objects may nest, as in Go's decoder.
pub const MAX_DEPTH: usize = 10_000;

/// A value as compact JSON, as Go's `json.Marshal` prints it.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// Appends a value as compact JSON. `<`, `>`, `&`, U+2028 and U+2029 are escaped, as Go does.
pub fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Float(number) => write_float(*number, out),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(object, out),
    }
}

/// Appends an object as compact JSON.
pub fn write_object(object: &Object, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in object.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write(value, out);
    }
    out.push('}');
}

/// Go's conversion of a float to an `int64`; one that does not fit converts as on the processors that upstream is built
/// for.
pub fn go_int(number: f64) -> i64 {
    // The smallest that is too large is 2^63.
    if number >= -(i64::MIN as f64) {
        i64::MIN
    } else {
        number as i64
    }
}

/// A float as printed by Go's `%v`: shortest digits, with an exponent below 1e-4 and from seven integer digits on.
pub fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || !number.is_finite() || (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A value as JSON indented by `indent`, as Go's `json.MarshalIndent` prints it.
pub fn pretty(value: &Value, indent: &str) -> String {
    fn go(value: &Value, indent: &str, depth: usize, out: &mut String) {
        let line = |out: &mut String, depth: usize| {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        };
        match value {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    line(out, depth + 1);
                    go(item, indent, depth + 1, out);
                }
                line(out, depth);
                out.push(']');
            }
            Value::Object(object) if !object.is_empty() => {
                out.push('{');
                for (i, (key, item)) in object.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    line(out, depth + 1);
                    write_text(key, out);
                    out.push_str(": ");
                    go(item, indent, depth + 1, out);
                }
                line(out, depth);
                out.push('}');
            }
            other => write(other, out),
        }
    }
    let mut out = String::new();
    go(value, indent, 0, &mut out);
    out
}

/// Appends text in quotes, escaped as Go does.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let bytes = text.as_bytes();
    // Everything before `plain` has been written; the search continues at `from`.
    let (mut plain, mut from) = (0, 0);
    while let Some(ahead) = bytes[from..]
        .iter()
        .position(|&byte| ESCAPED[byte as usize])
    {
        let at = from + ahead;
        let control;
        let (escape, width) = match bytes[at] {
            b'"' => ("\\\"", 1),
            b'\\' => ("\\\\", 1),
            b'\n' => ("\\n", 1),
            b'\r' => ("\\r", 1),
            b'\t' => ("\\t", 1),
            0x08 => ("\\b", 1),
            0x0c => ("\\f", 1),
            b'<' => ("\\u003c", 1),
            b'>' => ("\\u003e", 1),
            b'&' => ("\\u0026", 1),
            LINE_SEPARATORS => match bytes[at..] {
                [_, 0x80, 0xa8, ..] => ("\\u2028", 3),
                [_, 0x80, 0xa9, ..] => ("\\u2029", 3),
                _ => {
                    from = at + 1;
                    continue;
                }
            },
            other => {
                control = format!("\\u{other:04x}");
                (control.as_str(), 1)
            }
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        plain = at + width;
        from = plain;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// The first byte of U+2028 and U+2029, and of others.
const LINE_SEPARATORS: u8 = 0xe2;

/// The bytes that may begin something Go escapes; nearly all text has none of them.
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escaped[byte] = true;
        byte += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped[b'<' as usize] = true;
    escaped[b'>' as usize] = true;
    escaped[b'&' as usize] = true;
    escaped[LINE_SEPARATORS as usize] = true;
    escaped
};

/// Go prints floats with the fewest digits, in exponent form below 1e-6 and from 1e21 on.
fn write_float(number: f64, out: &mut String) {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = exponent
                    .strip_prefix('-')
                    .map_or(('+', exponent), |e| ('-', e));
                let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
                // Go shortens e-09 to e-9, but leaves e+09 (which cannot occur here).
                if sign == '-' && exponent.len() == 1 {
                    let digit = out.pop().unwrap_or('0');
                    out.pop();
                    out.push(digit);
                }
            }
            None => out.push_str(&text),
        }
    } else {
        let _ = write!(out, "{number}");
    }
}
