//! Parses JSON: accepts what Go's `encoding/json` accepts, with its error texts, and with the additions of
//! `sigs.k8s.io/json` (integers stay integers, duplicate members are reported).

mod numbers;
mod strings;

use super::MAX_DEPTH;
use crate::schema::{Key, Object, Value};

pub(crate) use self::strings::push_lossy;

/// Limit in bytes for the recorded paths of members.
const MAX_MEMBERS: usize = 1 << 20;

/// How many different duplicates are reported, as in `sigs.k8s.io/json`.
const MAX_DUPLICATES: usize = 100;

/// Limit in bytes for their paths, which are long in deeply nested bodies.
const MAX_DUPLICATE_BYTES: usize = 4 << 20;

/// How many numbers are kept as written.
const MAX_FLOATS: usize = 100;

/// A parsed body.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The value; the last of duplicate members wins.
    pub value: Value,
    /// Paths of duplicate members (`metadata.name`, `spec.containers[0].image`), in the order of the body.
    /// At most a hundred, each once.
    pub duplicates: Vec<String>,
    /// The digits of numbers that are not a [`Value::Int`], as written; the first hundred.
    pub floats: Vec<Box<str>>,
}

/// Why bytes are not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Go's text: `invalid character 'x' looking for beginning of value`.
    pub message: String,
    /// How many bytes were read, including the offending one.
    pub offset: usize,
}

/// Parses one JSON value that fills `bytes`.
///
/// Integers that fit become [`Value::Int`], all other numbers [`Value::Float`]. Lone surrogates and
/// bytes that are not UTF-8 become U+FFFD, as in Go.
///
/// # Errors
/// [`SyntaxError`] for the first wrong byte. A number too large for a `float64` is rejected with the text
/// of Go's type error, but only if the whole body is well formed.
pub fn parse(bytes: &[u8]) -> Result<Parsed, SyntaxError> {
    let mut parser = Parser::new(bytes);
    let value = parser.whole()?;
    Ok(Parsed {
        value,
        duplicates: parser.duplicates,
        floats: parser.floats,
    })
}

/// The paths of all members of a JSON value in the order of the text, duplicates repeated. Empty if it is not JSON;
/// truncated if there are very many.
pub fn members(bytes: &[u8]) -> Vec<String> {
    let mut parser = Parser::new(bytes);
    parser.members = Some(Members::default());
    let whole = parser.whole();
    let members = parser.members.filter(|_| whole.is_ok());
    members.map(|members| members.seen).unwrap_or_default()
}

/// The members found so far, and the path to the current value.
#[derive(Default)]
struct Members {
    path: String,
    seen: Vec<String>,
    bytes: usize,
}

/// A step of a path.
#[derive(Clone, Copy)]
enum Step {
    /// Into the member whose name begins at this byte.
    Member(usize),
    /// Into the item at this index.
    Item(usize),
}

struct Parser<'a> {
    bytes: &'a [u8],
    /// The bytes as text, if all of them are UTF-8.
    text: Option<&'a str>,
    at: usize,
    depth: usize,
    /// The path to the value being read.
    way: Vec<Step>,
    duplicates: Vec<String>,
    /// Total size of the paths in `duplicates`, in bytes.
    duplicate_bytes: usize,
    floats: Vec<Box<str>>,
    /// Recorded only on request.
    members: Option<Members>,
    out_of_range: Option<SyntaxError>,
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Parser {
            bytes,
            text: std::str::from_utf8(bytes).ok(),
            at: 0,
            depth: 0,
            way: Vec::new(),
            duplicates: Vec::new(),
            duplicate_bytes: 0,
            floats: Vec::new(),
            members: None,
            out_of_range: None,
        }
    }

    /// Parses one value that fills the bytes.
    fn whole(&mut self) -> Result<Value, SyntaxError> {
        let value = self.value("looking for beginning of value")?;
        self.space();
        if self.at < self.bytes.len() {
            return Err(self.unexpected("after top-level value"));
        }
        match self.out_of_range.take() {
            Some(error) => Err(error),
            None => Ok(value),
        }
    }

    /// Parses the value of a member or item, recording its path if requested.
    fn within(&mut self, name: Option<&str>, index: usize) -> Result<Value, SyntaxError> {
        let Some(members) = &mut self.members else {
            return self.value("looking for beginning of value");
        };
        let outside = members.path.len();
        match name {
            Some(name) => {
                if outside > 0 {
                    members.path.push('.');
                }
                members.path.push_str(name);
                if members.bytes < MAX_MEMBERS {
                    members.bytes += members.path.len();
                    members.seen.push(members.path.clone());
                }
            }
            None => members.path.push_str(&format!("[{index}]")),
        }
        let value = self.value("looking for beginning of value");
        if let Some(members) = &mut self.members {
            members.path.truncate(outside);
        }
        value
    }
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The error for the current byte, or for the end of the input.
    fn unexpected(&self, context: &str) -> SyntaxError {
        match self.peek() {
            None => SyntaxError {
                message: "unexpected end of JSON input".to_owned(),
                offset: self.bytes.len(),
            },
            Some(byte) => SyntaxError {
                message: format!("invalid character {} {context}", quote(byte)),
                offset: self.at + 1,
            },
        }
    }

    /// The error within a literal, number or escape: Go's scanner appends a space to its input, and reports that space
    /// where none is allowed.
    fn unexpected_within(&self, context: &str) -> SyntaxError {
        match self.peek() {
            None => SyntaxError {
                message: format!("invalid character ' ' {context}"),
                offset: self.bytes.len(),
            },
            Some(_) => self.unexpected(context),
        }
    }

    fn value(&mut self, context: &'static str) -> Result<Value, SyntaxError> {
        self.space();
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected(context)),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value, SyntaxError>,
    ) -> Result<Value, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.unexpected("exceeded max depth"));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, SyntaxError> {
        let mut object = Object::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(object));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let start = self.at;
            let key: Key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            self.way.push(Step::Member(start));
            if object.contains(&key) {
                self.duplicate();
            }
            let value = self.within(Some(&key), 0)?;
            self.way.pop();
            object.insert(key, value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(object));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.way.push(Step::Item(items.len()));
            let value = self.within(None, items.len())?;
            self.way.pop();
            items.push(value);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    /// Records the current member as a duplicate.
    fn duplicate(&mut self) {
        if self.duplicates.len() == MAX_DUPLICATES || self.duplicate_bytes > MAX_DUPLICATE_BYTES {
            return;
        }
        let mut path = String::new();
        for step in &self.way {
            match *step {
                Step::Item(index) => path.push_str(&format!("[{index}]")),
                Step::Member(start) => {
                    let mut name = Parser::new(&[]);
                    (name.bytes, name.text, name.at) = (self.bytes, self.text, start);
                    // It parsed before.
                    let name = name.string().unwrap_or_default();
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name);
                }
            }
        }
        self.duplicate_bytes += path.len();
        if !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
    }
}

/// A byte as shown by Go's scanner: a Latin-1 character in single quotes.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests;
