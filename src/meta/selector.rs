//! Label and field selectors: parsing and matching. Follows k8s.io/apimachinery/pkg/labels and fields
//! for the grammar and its errors.

use compact_str::CompactString;

use super::errors::quoted;
use super::names;
use crate::schema::Value;

/// How a term compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`, `==`
    Equals,
    /// `!=`
    NotEquals,
    /// `in (...)`
    In,
    /// `notin (...)`
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    NotExists,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// The label or field to compare.
    pub key: CompactString,
    /// The operator.
    pub op: Op,
    /// The operands; sorted.
    pub values: Vec<CompactString>,
}

/// A conjunction of terms; an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(pub Vec<Term>);

impl Selector {
    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a field must have to be selected; `None` if several are possible.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|term| term.key == key && term.op == Op::Equals)
            .and_then(|term| term.values.first())
            .map(CompactString::as_str)
    }

    /// Whether all terms match; `get` looks up a key.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| {
            let value = get(&term.key);
            let among = |value: &str| term.values.iter().any(|v| v == value);
            match term.op {
                Op::Equals | Op::In => value.is_some_and(among),
                Op::NotEquals | Op::NotIn => value.is_none_or(|value| !among(value)),
                Op::Exists => value.is_some(),
                Op::NotExists => value.is_none(),
                Op::Greater | Op::Less => {
                    let bound = term
                        .values
                        .first()
                        .and_then(|bound| bound.parse::<i64>().ok());
                    match (value.and_then(|value| value.parse::<i64>().ok()), bound) {
                        (Some(value), Some(bound)) => {
                            if term.op == Op::Greater {
                                value > bound
                            } else {
                                value < bound
                            }
                        }
                        _ => false,
                    }
                }
            }
        })
    }

    /// Whether all terms match these sorted pairs.
    pub fn matches_pairs(&self, pairs: &[(CompactString, CompactString)]) -> bool {
        self.is_empty()
            || self.matches(|key| {
                pairs
                    .binary_search_by(|(k, _)| k.as_str().cmp(key))
                    .ok()
                    .and_then(|i| pairs.get(i))
                    .map(|(_, value)| value.as_str())
            })
    }

    /// Parses a label selector: `app=web,tier in (a,b),!canary`.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(text: &str) -> Result<Selector, String> {
        Parser {
            tokens: tokens(text),
            at: 0,
        }
        .selector()
    }

    /// The selector of a LabelSelector object (`matchLabels`, `matchExpressions`).
    ///
    /// # Errors
    /// `"X" is not a valid label selector operator`
    pub fn from_object(selector: &Value) -> Result<Selector, String> {
        let mut terms: Vec<Term> = selector
            .entries("matchLabels")
            .map(|(key, value)| Term {
                key: key.clone(),
                op: Op::Equals,
                values: vec![value.as_str().unwrap_or_default().into()],
            })
            .collect();
        for expression in selector.list("matchExpressions") {
            let op = match expression.str("operator") {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::NotExists,
                other => {
                    return Err(format!(
                        "{} is not a valid label selector operator",
                        quoted(other)
                    ));
                }
            };
            let mut values: Vec<CompactString> = expression
                .list("values")
                .iter()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect();
            values.sort();
            terms.push(Term {
                key: expression.str("key").into(),
                op,
                values,
            });
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector(terms))
    }
}

impl std::fmt::Display for Selector {
    /// Prints it like upstream: `app in (x,y),!b`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let values = term.values.join(",");
            match term.op {
                Op::Equals => write!(f, "{}={values}", term.key)?,
                Op::NotEquals => write!(f, "{}!={values}", term.key)?,
                Op::In => write!(f, "{} in ({values})", term.key)?,
                Op::NotIn => write!(f, "{} notin ({values})", term.key)?,
                Op::Exists => write!(f, "{}", term.key)?,
                Op::NotExists => write!(f, "!{}", term.key)?,
                Op::Greater => write!(f, "{}>{values}", term.key)?,
                Op::Less => write!(f, "{}<{values}", term.key)?,
            }
        }
        Ok(())
    }
}

/// Splits into operators, brackets, commas and words.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    // Upstream's lexer takes a NUL as the end of the input, or of the word that contains it.
    while let Some(&c) = chars.peek().filter(|c| **c != '\0') {
        if matches!(c, ' ' | '\t' | '\r' | '\n') {
            chars.next();
        } else if matches!(c, '=' | '!' | '<' | '>') {
            let mut token = String::from(c);
            chars.next();
            if matches!(c, '=' | '!') && chars.peek() == Some(&'=') {
                chars.next();
                token.push('=');
            }
            tokens.push(token);
        } else if matches!(c, '(' | ')' | ',') {
            chars.next();
            tokens.push(c.into());
        } else {
            let mut token = String::new();
            while let Some(&c) = chars.peek().filter(|c| {
                !matches!(
                    c,
                    '\0' | ' ' | '\t' | '\r' | '\n' | '=' | '!' | '<' | '>' | '(' | ')' | ','
                )
            }) {
                token.push(c);
                chars.next();
            }
            tokens.push(token);
            chars.next_if_eq(&'\0');
        }
    }
    tokens
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn is_word(token: &str) -> bool {
        !token.is_empty() && !token.starts_with(['=', '!', '<', '>', '(', ')', ','])
    }

    fn selector(mut self) -> Result<Selector, String> {
        let mut terms = Vec::new();
        if self.tokens.is_empty() {
            return Ok(Selector(terms));
        }
        loop {
            let token = self.peek();
            if !Self::is_word(token) && token != "!" {
                return Err(format!(
                    "found '{token}', expected: !, identifier, or 'end of string'"
                ));
            }
            terms.push(
                self.term()
                    .map_err(|error| format!("unable to parse requirement: {error}"))?,
            );
            match self.take().as_str() {
                "" => break,
                "," => {
                    let next = self.peek();
                    if !Self::is_word(next) && next != "!" {
                        return Err(format!("found '{next}', expected: identifier after ','"));
                    }
                }
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector(terms))
    }

    fn term(&mut self) -> Result<Term, String> {
        let negated = self.peek() == "!";
        if negated {
            self.at += 1;
        }
        let key = self.take();
        if !Self::is_word(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let bad = |path: &str, value: &str, details: Vec<String>| -> String {
            let errors: Vec<String> = details
                .into_iter()
                .map(|detail| format!("{path}: Invalid value: {}: {detail}", quoted(value)))
                .collect();
            match errors.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            }
        };
        let wrong = names::qualified_name(&key);
        if !wrong.is_empty() {
            return Err(bad("<nil>", &key, vec![wrong.join("; ")]));
        }
        if negated {
            return Ok(Term {
                key: key.into(),
                op: Op::NotExists,
                values: Vec::new(),
            });
        }
        let op = match self.peek() {
            "" | "," => {
                return Ok(Term {
                    key: key.into(),
                    op: Op::Exists,
                    values: Vec::new(),
                });
            }
            "=" | "==" => Op::Equals,
            "!=" => Op::NotEquals,
            "in" => Op::In,
            "notin" => Op::NotIn,
            ">" => Op::Greater,
            "<" => Op::Less,
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        self.at += 1;
        let mut values: Vec<CompactString> = if matches!(op, Op::In | Op::NotIn) {
            self.set()?
        } else {
            vec![self.exact()?]
        };
        if matches!(op, Op::Greater | Op::Less)
            && let Some(value) = values.iter().find(|value| value.parse::<i64>().is_err())
        {
            return Err(bad(
                "values[0]",
                value,
                vec!["for 'Gt', 'Lt' operators, the value must be an integer".to_owned()],
            ));
        }
        values.sort();
        values.dedup();
        for (i, value) in values.iter().enumerate() {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                return Err(bad(&format!("values[{i}][{key}]"), value, wrong));
            }
        }
        Ok(Term {
            key: key.into(),
            op,
            values,
        })
    }

    fn exact(&mut self) -> Result<CompactString, String> {
        match self.peek() {
            "" | "," => Ok(CompactString::default()),
            token if Self::is_word(token) => Ok(self.take().into()),
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    fn set(&mut self) -> Result<Vec<CompactString>, String> {
        let open = self.take();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        match self.peek() {
            ")" => {
                self.at += 1;
                return Ok(vec![CompactString::default()]);
            }
            token if token == "," || Self::is_word(token) => {}
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        // A missing value before, between or after commas is the empty value.
        let mut values = Vec::new();
        let mut pending = true;
        loop {
            let token = self.take();
            match token.as_str() {
                ")" => {
                    if pending {
                        values.push(CompactString::default());
                    }
                    return Ok(values);
                }
                "," => {
                    if pending {
                        values.push(CompactString::default());
                    }
                    pending = true;
                }
                word if Self::is_word(word) && pending => {
                    values.push(word.into());
                    pending = false;
                }
                other => {
                    let expected = if pending {
                        "',', or identifier"
                    } else {
                        "',' or ')'"
                    };
                    return Err(format!("found '{other}', expected: {expected}"));
                }
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_printed_and_matched() {
        let labels: [(CompactString, CompactString); 2] =
            [("a".into(), "x".into()), ("n".into(), "5".into())];
        for (text, printed, matches) in [
            ("a=x", "a=x", true),
            ("a==x, n", "a=x,n", true),
            ("a != x", "a!=x", false),
            ("b!=x", "b!=x", true),
            ("a in (y, x)", "a in (x,y)", true),
            ("b notin (x)", "b notin (x)", true),
            ("!b,n>4", "!b,n>4", true),
            ("n<5", "n<5", false),
            ("a in ()", "a in ()", false),
            ("", "", true),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(
                (
                    selector.to_string().as_str(),
                    selector.matches_pairs(&labels)
                ),
                (printed, matches),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_selectors_are_refused_in_upstreams_words() {
        for (text, error) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a in (",
                "unable to parse requirement: found '', expected: ',', ')' or identifier",
            ),
            (
                "a in (b,",
                "unable to parse requirement: found '', expected: ',', or identifier",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "=a",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn field_selectors_unescape() {
        assert_eq!(
            parse_fields(r"a=b\,c\=d\\").unwrap().0[0].values[0],
            r"b,c=d\"
        );
        assert_eq!(
            parse_fields("metadata.name").unwrap_err(),
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
        );
        assert_eq!(
            parse_fields("a=b=c").unwrap_err(),
            "invalid field selector: unescaped character in value: 61"
        );
    }
}
