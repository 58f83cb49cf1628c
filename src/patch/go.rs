//! Values as printed by Go's `fmt`, for error messages.

use std::fmt::Write as _;

use crate::schema::Value;

/// Like `%v`: `map[data:map[k:v] list:[1 <nil>]]`, keys sorted.
pub fn printed(value: &Value) -> String {
    let mut out = String::new();
    write(value, true, &mut out);
    out
}

/// Like `%s`: the same as `%v`, but values other than text are marked as errors: `%!s(int64=5)`.
pub fn printed_as_text(value: &Value) -> String {
    let mut out = String::new();
    write(value, false, &mut out);
    out
}

fn write(value: &Value, any: bool, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write(item, any, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push_str("map[");
            for (i, (key, item)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write(item, any, out);
            }
            out.push(']');
        }
        scalar if any => write_scalar(scalar, out),
        Value::Null => out.push_str("%!s(<nil>)"),
        scalar => {
            let _ = write!(out, "%!s({}=", type_of(scalar));
            write_scalar(scalar, out);
            out.push(')');
        }
    }
}

fn write_scalar(value: &Value, out: &mut String) {
    let _ = match value {
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(number) => write!(out, "{number}"),
        Value::Float(number) => write!(out, "{}", float(*number)),
        _ => write!(out, "<nil>"),
    };
}

pub use crate::schema::json::go_float as float;

/// The Go type of a value decoded into an `interface{}`.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The `reflect` kind of that type.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        other => type_of(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let value = value!({"b": [1, 2.5, null, true], "a": {"x": "text"}});
        assert_eq!(printed(&value), "map[a:map[x:text] b:[1 2.5 <nil> true]]");
        assert_eq!(
            printed_as_text(&value),
            "map[a:map[x:text] b:[%!s(int64=1) %!s(float64=2.5) %!s(<nil>) %!s(bool=true)]]"
        );
        for (number, text) in [
            (123456.0, "123456"),
            (1e6, "1e+06"),
            (1234567.5, "1.2345675e+06"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
