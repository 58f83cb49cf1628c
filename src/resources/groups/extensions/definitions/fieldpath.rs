//! Field paths in a schema, as in rules and selectable fields: `.spec.a`, `.spec['x.y']`. Follows
//! ValidFieldPath in k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go.

use crate::schema::Value;

/// The tokens of a path: delimiters, quoted strings, names.
fn tokens(path: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '.' | '[' | ']' => 1,
            '\'' => {
                let mut before = ' ';
                rest.char_indices()
                    .skip(1)
                    .find_map(|(at, c)| {
                        let ends = c == '\'' && before != '\\';
                        before = c;
                        ends.then_some(at + 1)
                    })
                    .unwrap_or(rest.len())
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        out.push(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// The path as written in field errors, and the schema at the path. `arrays` allows brackets.
///
/// # Errors
/// Upstream's text.
pub(super) fn find<'a>(
    path: &str,
    schema: &'a Value,
    arrays: bool,
) -> Result<(String, &'a Value), String> {
    let mut out = String::new();
    let mut schema = schema;
    let mut tokens = tokens(path).into_iter();
    let ended = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        let name = match token {
            "[" if !arrays => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens.next().ok_or_else(ended)?;
                let inner = quoted
                    .strip_prefix('\'')
                    .and_then(|rest| rest.strip_suffix('\''))
                    .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                unescaped(inner)?
            }
            "." => tokens.next().ok_or_else(ended)?.to_owned(),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let nowhere = || "does not refer to a valid field".to_owned();
        let named = schema
            .at("properties")
            .as_object()
            .is_some_and(|properties| !properties.is_empty());
        if named {
            schema = schema.at("properties").get(&name).ok_or_else(nowhere)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            schema = schema.get("additionalProperties").ok_or_else(nowhere)?;
            out.push_str(&format!("[{name}]"));
        }
        if token == "[" {
            match tokens.next() {
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
                None => return Err(ended()),
            }
        }
    }
    Ok((out, schema))
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(c @ ('\'' | '"' | '\\')) => c,
            _ => return Err("invalid string literal: invalid syntax".to_owned()),
        });
    }
    Ok(out)
}
