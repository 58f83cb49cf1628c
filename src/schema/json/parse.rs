//! Parses JSON: accepts what Go's `encoding/json` accepts, with its error texts, and with the additions of
//! `sigs.k8s.io/json` (integers stay integers, duplicate members are reported).

use super::MAX_DEPTH;
use crate::schema::{Key, Object, Value};

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

    fn literal(&mut self, word: &'static str, value: Value) -> Result<Value, SyntaxError> {
        for (i, expected) in word.bytes().enumerate() {
            if self.peek() != Some(expected) {
                // The caller has seen the first letter.
                debug_assert!(i > 0, "a literal is recognised by its first letter");
                return Err(self.unexpected_within(&format!(
                    "in literal {word} (expecting '{}')",
                    char::from(expected)
                )));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if !self.digits() {
            return Err(self.unexpected_within("in numeric literal"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            integer = false;
            if !self.digits() {
                return Err(self.unexpected_within("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            integer = false;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.unexpected_within("in exponent of numeric literal"));
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("0");
        if integer && let Ok(number) = text.parse() {
            return Ok(Value::Int(number));
        }
        if self.floats.len() < MAX_FLOATS {
            self.floats.push(text.into());
        }
        let number: f64 = text.parse().unwrap_or(f64::INFINITY);
        if number.is_infinite() && self.out_of_range.is_none() {
            self.out_of_range = Some(SyntaxError {
                message: format!(
                    "json: cannot unmarshal number {text} into Go value of type float64"
                ),
                offset: self.at,
            });
        }
        Ok(Value::Float(number))
    }

    /// Parses a string, from its opening quote.
    fn string(&mut self) -> Result<Key, SyntaxError> {
        self.at += 1;
        let start = self.at;
        self.at += plain(&self.bytes[start..]);
        if self.peek() == Some(b'"') {
            let end = self.at;
            self.at += 1;
            if let Some(text) = self.text.and_then(|text| text.get(start..end)) {
                return Ok(Key::from(text));
            }
            let mut out = String::with_capacity(end - start);
            push_lossy(&self.bytes[start..end], &mut out);
            return Ok(out.into());
        }
        let mut out = String::with_capacity(self.at - start + 32);
        push_lossy(&self.bytes[start..self.at], &mut out);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out.into());
                }
                Some(b'\\') => self.escape(&mut out)?,
                _ => return Err(self.unexpected("in string literal")),
            }
            let from = self.at;
            self.at += plain(&self.bytes[from..]);
            push_lossy(&self.bytes[from..self.at], &mut out);
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SyntaxError> {
        self.at += 1;
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.hex()?;
                out.push(self.scalar(first));
                return Ok(());
            }
            _ => return Err(self.unexpected_within("in string escape code")),
        };
        out.push(c);
        self.at += 1;
        Ok(())
    }

    /// The character of a `\u` escape, combined with a following second half of a surrogate pair.
    fn scalar(&mut self, first: u32) -> char {
        if (0xD800..0xDC00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let mark = self.at;
            self.at += 2;
            if let Ok(second @ 0xDC00..0xE000) = self.hex() {
                let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
            self.at = mark;
        }
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            match self.peek().and_then(|b| char::from(b).to_digit(16)) {
                Some(digit) => code = code << 4 | digit,
                None => return Err(self.unexpected_within("in \\u hexadecimal character escape")),
            }
            self.at += 1;
        }
        Ok(code)
    }
}

/// The number of leading bytes of `bytes` that stand for themselves in a string: not a quote, backslash or
/// control character. Checks eight bytes at a time.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each zero byte; bytes above the first may be marked wrongly.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes
        .get(at..at + 8)
        .and_then(|chunk| <[u8; 8]>::try_from(chunk).ok())
    {
        let word = u64::from_le_bytes(chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = zero(word ^ (ONES * u64::from(b'"')))
            | zero(word ^ (ONES * u64::from(b'\\')))
            | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|&b| b != b'"' && b != b'\\' && b >= 0x20)
    {
        at += 1;
    }
    at
}

/// Appends bytes as text; replaces each byte that is not UTF-8 by U+FFFD.
pub(crate) fn push_lossy(mut bytes: &[u8], out: &mut String) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => return out.push_str(text),
            Err(error) => {
                let (good, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(good).unwrap_or_default());
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = rest.get(1..).unwrap_or_default();
            }
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
mod tests {
    use super::*;
    use crate::value;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().message
    }

    #[test]
    fn what_is_no_json_is_told_as_go_tells_it() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\":\"", "unexpected end of JSON input"),
            (
                "nul",
                "invalid character ' ' in literal null (expecting 'l')",
            ),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "{x",
                "invalid character 'x' looking for beginning of object key string",
            ),
            ("{\"a\" 1", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"",
                "invalid character '\"' after object key:value pair",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("{} x", "invalid character 'x' after top-level value"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "{\"a\":nul",
                "invalid character ' ' in literal null (expecting 'l')",
            ),
            ("[-", "invalid character ' ' in numeric literal"),
            (
                "1.",
                "invalid character ' ' after decimal point in numeric literal",
            ),
            (
                "1e+",
                "invalid character ' ' in exponent of numeric literal",
            ),
            ("\"\\", "invalid character ' ' in string escape code"),
            (
                "\"\\u12",
                "invalid character ' ' in \\u hexadecimal character escape",
            ),
            ("\"a", "unexpected end of JSON input"),
            ("[1", "unexpected end of JSON input"),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            (
                "trux",
                "invalid character 'x' in literal true (expecting 'e')",
            ),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            (
                "\"\\u12g4\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (
                "'a'",
                "invalid character '\\'' looking for beginning of value",
            ),
            (
                "\u{feff}{}",
                "invalid character 'ï' looking for beginning of value",
            ),
            (
                "[1e999]",
                "json: cannot unmarshal number 1e999 into Go value of type float64",
            ),
            ("[1e999", "unexpected end of JSON input"),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
    }

    #[test]
    fn nesting_is_refused_beyond_ten_thousand() {
        let run = std::thread::Builder::new()
            .stack_size(crate::schema::STACK)
            .spawn(|| {
                let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
                assert!(parse(deep(10_000).as_bytes()).is_ok());
                assert_eq!(
                    error(&deep(10_001)),
                    "invalid character '[' exceeded max depth"
                );
            });
        run.unwrap().join().unwrap();
    }

    #[test]
    fn members_are_listed_as_they_are_written() {
        let found = members(br#"{"b":[{"c":1,"d":2,"c":3}],"a":{}}"#);
        assert_eq!(found, ["b", "b[0].c", "b[0].d", "b[0].c", "a"]);
        assert_eq!(members(b"{"), Vec::<String>::new());
    }

    #[test]
    fn numbers_stay_integers_where_they_are_written_so_and_fit() {
        let parsed = parse(b"[0,-0,9223372036854775807,9223372036854775808,1.0,1e2,-0.0]").unwrap();
        let items = parsed.value.as_array().unwrap();
        assert_eq!(items[0], Value::Int(0));
        assert_eq!(items[1], Value::Int(0));
        assert_eq!(items[2], Value::Int(i64::MAX));
        assert_eq!(items[3], Value::Float(9_223_372_036_854_775_808.0));
        assert_eq!(items[4], Value::Float(1.0));
        assert_eq!(items[5], Value::Float(100.0));
        assert!(matches!(items[6], Value::Float(f) if f.is_sign_negative()));
    }

    #[test]
    fn strings_are_read_as_go_reads_them() {
        for (bytes, expected) in [
            (
                &b"\"plain text longer than a word\""[..],
                "plain text longer than a word",
            ),
            (
                b"\"a\\u00e9\\n\\/\\\"\\\\ and the rest of it\"",
                "a\u{e9}\n/\"\\ and the rest of it",
            ),
            (b"\"\\ud83d\\ude00\"", "\u{1f600}"),
            (b"\"\\ud83dx\"", "\u{fffd}x"),
            (b"\"\\ud83d\\u0041\"", "\u{fffd}A"),
            (b"\"\\ude00\"", "\u{fffd}"),
            (b"\"\xff\xe2\x82\"", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\"caf\xc3\xa9\"", "caf\u{e9}"),
            (b"\"\\u0000\"", "\0"),
        ] {
            assert_eq!(parse(bytes).unwrap().value, Value::from(expected));
        }
    }

    #[test]
    fn duplicates_are_told_with_their_paths_and_the_last_counts() {
        let parsed = parse(
            br#"{"metadata":{"name":"a","name":"b","name":"c"},"spec":{"containers":[{"image":"x"},{"image":1,"image":2}]},"spec2":1,"spec2":2}"#,
        )
        .unwrap();
        assert_eq!(
            parsed.duplicates,
            ["metadata.name", "spec.containers[1].image", "spec2"]
        );
        assert_eq!(parsed.value.path(&["metadata", "name"]), &Value::from("c"));
        assert_eq!(parsed.value.at("spec2"), &Value::Int(2));
        assert_eq!(
            parse(br#"{"a":{"b":1},"a":{"b":2}}"#).unwrap().value,
            value!({"a": {"b": 2}})
        );
    }

    #[test]
    fn duplicates_are_bounded() {
        let members: Vec<String> = (0..500).map(|i| format!("\"k{i}\":1,\"k{i}\":2")).collect();
        assert_eq!(
            parse(format!("{{{}}}", members.join(",")).as_bytes())
                .unwrap()
                .duplicates
                .len(),
            100
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = value!({"a": [1, (-2), 1.5, true, null, "x\u{2028}<&>\"\\\n\u{1}"], "b": {"c": {}}, "d": []});
        assert_eq!(
            parse(super::super::to_string(&value).as_bytes())
                .unwrap()
                .value,
            value
        );
    }

    #[test]
    fn scanning_by_words_agrees_with_scanning_by_bytes() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let b = (seed >> 56) as u8;
                    if seed >> 40 & 7 == 0 {
                        [b'"', b'\\', 0x1f, 0x00, 0x20, 0x21, 0x7f, 0x80][(b & 7) as usize]
                    } else {
                        b'a' + b % 26
                    }
                })
                .collect();
            let naive = bytes
                .iter()
                .position(|&b| b == b'"' || b == b'\\' || b < 0x20)
                .unwrap_or(bytes.len());
            assert_eq!(plain(&bytes), naive, "{bytes:?}");
        }
    }
}
