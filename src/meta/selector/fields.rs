//! Parses field selectors.

use super::{Op, Selector, Term};

/// Parses a field selector: `metadata.name=a,spec.nodeName!=b`.
///
/// # Errors
/// Upstream's text.
pub fn parse_fields(text: &str) -> Result<Selector, String> {
    let mut terms = Vec::new();
    // Sorted by their texts, like upstream: of several required names the first wins.
    let mut parts = split_unescaped(text, ',');
    parts.sort();
    for part in parts {
        if part.is_empty() {
            continue;
        }
        let (key, op, value) = split_term(&part)
            .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
        terms.push(Term {
            key: key.into(),
            op,
            values: vec![unescape(&value)?.into()],
        });
    }
    Ok(Selector(terms))
}

fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn split_term(part: &str) -> Option<(String, Op, String)> {
    for (i, _) in part.char_indices() {
        let rest = &part[i..];
        for (sign, op) in [("!=", Op::NotEquals), ("==", Op::Equals), ("=", Op::Equals)] {
            if let Some(value) = rest.strip_prefix(sign) {
                return Some((part[..i].to_owned(), op, value.to_owned()));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{next}"
                    ));
                }
                None => {
                    return Err("invalid field selector: invalid escape sequence: \\".to_owned());
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
