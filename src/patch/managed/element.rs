//! A step of a field path, as written in managedFields. Follows
//! sigs.k8s.io/structured-merge-diff/v6/fieldpath (element.go, serialize-pe.go) and value/value.go for orders.

use std::cmp::Ordering;
use std::fmt;

use crate::meta::errors::quoted;
use crate::schema::{Key, Value, json};

/// One step of a path.
#[derive(Clone, Debug)]
pub enum Element {
    /// A member of an object: `f:spec`.
    Field(Key),
    /// A list item with these values of its keys, sorted by name: `k:{"name":"c"}`.
    Key(Box<[(Key, Value)]>),
    /// A set item with this scalar value: `v:"a"`.
    Value(Box<Value>),
    /// A list item by index: `i:0`.
    Index(i64),
}

impl Element {
    /// A member of an object.
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    /// Parses the output of [`Element::write`]. `None` for an unknown form, which must be skipped.
    ///
    /// # Errors
    /// A text that begins like an element but is not one.
    pub fn read(text: &str) -> Result<Option<Element>, String> {
        let (kind, rest) = match text.as_bytes() {
            [kind, b':', ..] => (*kind, &text[2..]),
            [_, _, ..] => return Err(format!("missing colon: {text}")),
            _ => return Err("key must be 2 characters long:".to_owned()),
        };
        let parsed = || json::parse(rest.as_bytes()).map_err(|error| error.message);
        Ok(Some(match kind {
            b'f' => Element::field(rest),
            b'v' => Element::Value(Box::new(parsed()?.value)),
            b'k' => match parsed()?.value {
                Value::Object(members) => {
                    let mut keys: Vec<_> = members.into_iter().collect();
                    keys.sort_by(|a, b| a.0.cmp(&b.0));
                    Element::Key(keys.into())
                }
                other => return Err(format!("expected an object, got {}", other.type_name())),
            },
            b'i' => Element::Index(rest.parse().map_err(|_| format!("no index: {rest}"))?),
            _ => return Ok(None),
        }))
    }

    /// Appends the element as written in managedFields.
    pub fn write(&self, out: &mut String) {
        use std::fmt::Write as _;
        match self {
            Element::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
            }
            Element::Key(keys) => {
                out.push_str("k:{");
                for (i, (name, value)) in keys.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    json::write_text(name, out);
                    out.push(':');
                    json::write(value, out);
                }
                out.push('}');
            }
            Element::Value(value) => {
                out.push_str("v:");
                json::write(value, out);
            }
            Element::Index(index) => {
                let _ = write!(out, "i:{index}");
            }
        }
    }

    /// The sort rank of its form: fields first, indexes last.
    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => order_keys(
                a.iter().map(|(name, value)| (name.as_str(), value)),
                b.iter().map(|(name, value)| (name.as_str(), value)),
            ),
            (Element::Value(a), Element::Value(b)) => order(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl fmt::Display for Element {
    /// As shown in conflicts: `.spec`, `[name="c"]`, `[="a"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", shown(value))?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={}]", shown(value)),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A value in a path shown to people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => json::go_float(*number),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| format!("{key}={}", shown(value)))
            .collect(),
    }
}

/// Compares lists of named values.
fn order_keys<'a>(
    mut a: impl Iterator<Item = (&'a str, &'a Value)>,
    mut b: impl Iterator<Item = (&'a str, &'a Value)>,
) -> Ordering {
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(a), Some(b)) => {
                let decided = a.0.cmp(b.0).then_with(|| order(a.1, b.1));
                if decided.is_ne() {
                    return decided;
                }
            }
        }
    }
}

/// The order of values: numbers by size, then text, booleans, arrays, objects, null.
pub fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Float(_) | Value::Int(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Int(a), Value::Float(b)) => (*a as f64).total_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.total_cmp(&(*b as f64)),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| order(a, b))
            .find(|decided| decided.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |object: &crate::schema::Object| {
                let mut members: Vec<(Key, Value)> = object
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                members
            };
            let (a, b) = (sorted(a), sorted(b));
            order_keys(
                a.iter().map(|(key, value)| (key.as_str(), value)),
                b.iter().map(|(key, value)| (key.as_str(), value)),
            )
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are equal; a whole float equals the integer.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}
