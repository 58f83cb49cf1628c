//! Reads YAML: events to nodes, nodes to values. Follows go-yaml v2 in resolving scalars and in errors, and
//! `sigs.k8s.io/yaml` in the conversion through JSON.

use std::collections::HashMap;

use libyaml_safer::{Encoding, ErrorKind, EventData, Parser, ScalarStyle};

use super::resolve::{Tag, resolve};
use super::write::shortest;
use crate::schema::{Key, Object, Value, json};

/// A parsed body.
#[derive(Debug, Default, PartialEq)]
pub struct Yaml {
    /// The first document; null if there is none.
    pub value: Value,
    /// Duplicate keys: `line 7: key "k" already set in map`. The last one wins.
    pub duplicates: Vec<String>,
}

/// Reads the first document of a YAML stream; JSON is YAML too.
///
/// # Errors
/// The text upstream shows: `yaml: line 3: did not find expected ',' or '}'`.
pub fn parse(bytes: &[u8]) -> Result<Yaml, String> {
    if let Some(value) = as_json(bytes) {
        return Ok(Yaml {
            value,
            duplicates: Vec::new(),
        });
    }
    let text = decode(bytes)?;
    // The scanner panics if the text ends within an escape; go-yaml reads a NUL there, which is not a valid escape.
    if text.ends_with('\\')
        && let Err(why) = Document::read(&format!("{text}$"))
        && why.ends_with("found unknown escape character")
    {
        return Err(why);
    }
    let Some(document) = Document::read(&text)? else {
        return Ok(Yaml::default());
    };
    let mut reader = Reader {
        document: &document,
        duplicates: Vec::new(),
        decoded: 0,
        by_alias: 0,
        alias_depth: 0,
        bytes_by_alias: 0,
        depth: 0,
        open: Vec::new(),
    };
    let (_, value) = reader.node(document.root)?;
    Ok(Yaml {
        value: through_json(value)?,
        duplicates: reader.duplicates,
    })
}

/// The fast path for what clients send most: a JSON object without anything that YAML reads differently.
fn as_json(bytes: &[u8]) -> Option<Value> {
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace())?;
    if bytes[start] != b'{' || bytes.iter().any(|&b| b >= 0x7f) {
        return None;
    }
    if bytes
        .windows(3)
        .any(|w| matches!(w, [b'\\', b'u', b'd' | b'D']))
    {
        return None;
    }
    let parsed = json::parse(bytes).ok()?;
    if !parsed.duplicates.is_empty() || has_long_key(&parsed.value) {
        return None;
    }
    through_json(parsed.value).ok()
}

/// Whether there is a key that libyaml does not recognize, because it looks only 1024 bytes ahead for the colon.
fn has_long_key(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_long_key),
        Value::Object(object) => object
            .iter()
            .any(|(key, value)| key.len() > 150 || key == "<<" || has_long_key(value)),
        _ => false,
    }
}

/// The value after being printed as JSON and read again: whole floats become integers.
fn through_json(mut value: Value) -> Result<Value, String> {
    fn go(value: &mut Value) -> Result<(), String> {
        match value {
            Value::Float(number) if !number.is_finite() => {
                let shown = if number.is_nan() {
                    "NaN"
                } else if *number > 0.0 {
                    "+Inf"
                } else {
                    "-Inf"
                };
                Err(format!("json: unsupported value: {shown}"))
            }
            Value::Float(number)
                if number.fract() == 0.0 && number.abs() < 9_223_372_036_854_775_808.0 =>
            {
                #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
                let whole = *number as i64;
                *value = Value::Int(whole);
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(go),
            Value::Object(object) => object.iter_mut().try_for_each(|(_, value)| go(value)),
            _ => Ok(()),
        }
    }
    go(&mut value)?;
    Ok(value)
}

/// The stream as UTF-8 without a byte order mark.
fn decode(bytes: &[u8]) -> Result<std::borrow::Cow<'_, str>, String> {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units = bytes
            .chunks(2)
            .map(|pair| read([pair[0], pair.get(1).copied().unwrap_or(0)]));
        char::decode_utf16(units).collect::<Result<String, _>>()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes)
            .map(Into::into)
            .map_err(|_| "yaml: unexpected low surrogate area".to_owned()),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes)
            .map(Into::into)
            .map_err(|_| "yaml: unexpected low surrogate area".to_owned()),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            std::str::from_utf8(bytes).map(Into::into).map_err(|error| {
                let bad = &bytes[error.valid_up_to()..];
                let text = match (bad[0], error.error_len()) {
                    (0x80..0xc0 | 0xf8.., _) => "invalid leading UTF-8 octet",
                    (_, None) => "incomplete UTF-8 octet sequence",
                    (0xc0 | 0xc1, _) => "invalid length of a UTF-8 sequence",
                    (0xed, _) if bad.get(1).is_some_and(|b| (0xa0..0xc0).contains(b)) => {
                        "invalid Unicode character"
                    }
                    _ => "invalid trailing UTF-8 octet",
                };
                format!("yaml: {text}")
            })
        }
    }
}

/// A node: its start (a line, from 0) and its content.
struct Node {
    line: u64,
    data: Data,
}

enum Data {
    Scalar {
        tag: Option<String>,
        value: String,
        plain: bool,
    },
    Sequence(Vec<usize>),
    /// Keys and values alternating.
    Mapping(Vec<usize>),
    Alias {
        name: String,
        target: usize,
    },
}

struct Document {
    nodes: Vec<Node>,
    root: usize,
}

/// Limit for the sum of the depths of all nodes. For each node the scanner looks at every collection that is open, so
/// that a few megabytes below thousands of brackets would take a minute. This much takes about half a second, and a body
/// of three megabytes may have a depth of a hundred throughout.
const MAX_SCANNED: usize = 150_000_000;

impl Document {
    fn read(text: &str) -> Result<Option<Document>, String> {
        let ended = ended(text);
        let mut input = ended.as_bytes();
        let mut parser = Parser::new();
        parser.set_input_string(&mut input);
        parser.set_encoding(Encoding::Utf8);
        let mut nodes: Vec<Node> = Vec::new();
        let mut anchors: HashMap<String, usize> = HashMap::new();
        let mut open: Vec<usize> = Vec::new();
        let mut scanned = 0usize;
        loop {
            let event = parser.parse().map_err(|error| told(&error))?;
            let line = event.start_mark.line;
            scanned += open.len();
            if scanned > MAX_SCANNED {
                let line = line + 1;
                return Err(format!(
                    "yaml: line {line}: too many nodes are nested too deep"
                ));
            }
            let (data, anchor) = match event.data {
                EventData::StreamStart { .. } | EventData::DocumentStart { .. } => continue,
                EventData::StreamEnd => return Ok(None),
                EventData::DocumentEnd { .. } => return Ok(Some(Document { nodes, root: 0 })),
                EventData::SequenceEnd | EventData::MappingEnd => {
                    open.pop();
                    continue;
                }
                EventData::Scalar {
                    anchor,
                    tag,
                    value,
                    plain_implicit,
                    style,
                    ..
                } => {
                    let plain = plain_implicit || (tag.is_none() && style == ScalarStyle::Plain);
                    let value = match style {
                        ScalarStyle::Literal | ScalarStyle::Folded
                            if ended.len() > text.len()
                                && event.end_mark.index >= text.len() as u64 =>
                        {
                            as_it_ended(value, text, event.start_mark.index)
                        }
                        _ => value,
                    };
                    (Data::Scalar { tag, value, plain }, anchor)
                }
                EventData::SequenceStart { anchor, .. } => (Data::Sequence(Vec::new()), anchor),
                EventData::MappingStart { anchor, .. } => (Data::Mapping(Vec::new()), anchor),
                EventData::Alias { anchor } => match anchors.get(&anchor) {
                    Some(&target) => (
                        Data::Alias {
                            name: anchor,
                            target,
                        },
                        None,
                    ),
                    None => return Err(format!("yaml: unknown anchor '{anchor}' referenced")),
                },
            };
            let index = nodes.len();
            if let Some(anchor) = anchor {
                anchors.insert(anchor, index);
            }
            if let Some(&parent) = open.last()
                && let Data::Sequence(children) | Data::Mapping(children) = &mut nodes[parent].data
            {
                children.push(index);
            }
            if matches!(data, Data::Sequence(_) | Data::Mapping(_)) {
                open.push(index);
                if open.len() > json::MAX_DEPTH {
                    return Err(format!(
                        "yaml: line {}: exceeded max depth of 10000",
                        line + 1
                    ));
                }
            }
            nodes.push(Node { line, data });
        }
    }
}

/// The text with a line break appended if it may end within a block scalar: the scanner panics if the text ends
/// there without one.
fn ended(text: &str) -> std::borrow::Cow<'_, str> {
    let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    if text.is_empty() || text.ends_with(breaks) || !text.contains(['|', '>']) {
        return text.into();
    }
    format!("{text}\n").into()
}

/// A block scalar at the end of the text, without the line break that [`ended`] added: `start` is the position of its
/// header.
fn as_it_ended(mut value: String, text: &str, start: u64) -> String {
    let header = usize::try_from(start).ok().and_then(|at| text.get(at..));
    let keeps = header.is_some_and(|header| {
        let indicators = header.trim_start_matches(['|', '>']);
        indicators.chars().take(2).any(|c| c == '+')
    });
    // A line of more spaces than the indentation is the scalar's last line.
    let blank = |line: &str| line.bytes().all(|b| b == b' ');
    let last = text.rsplit('\n').next().unwrap_or_default();
    let told = value
        .strip_suffix('\n')
        .map(|rest| rest.rsplit('\n').next().unwrap_or_default());
    let content = !blank(last) || told.is_some_and(|line| !line.is_empty() && blank(line));
    if (content || keeps) && value.ends_with('\n') {
        value.pop();
    }
    value
}

/// A parser's error in go-yaml's words: the scanner's lines count from one, the parser's from zero.
fn told(error: &libyaml_safer::Error) -> String {
    let counted = |line: u64| {
        if error.kind() == ErrorKind::Scanner {
            line + 1
        } else {
            line
        }
    };
    let line = match (error.problem_mark(), error.context_mark()) {
        (Some(mark), _) if mark.line != 0 => counted(mark.line),
        (_, Some(mark)) => mark.line,
        _ => 0,
    };
    let problem = error.problem();
    if line == 0 {
        format!("yaml: {problem}")
    } else {
        format!("yaml: line {line}: {problem}")
    }
}

/// The share of decoded values that may come from aliases, as in go-yaml.
fn allowed_alias_ratio(decoded: u32) -> f64 {
    const LOW: f64 = 400_000.0;
    const HIGH: f64 = 4_000_000.0;
    let decoded = f64::from(decoded);
    if decoded <= LOW {
        0.99
    } else if decoded >= HIGH {
        0.10
    } else {
        0.99 - 0.89 * ((decoded - LOW) / (HIGH - LOW))
    }
}

/// Limit in bytes for the text that a document may have from aliases: the size of a body.
const MAX_BY_ALIAS: usize = 3 << 20;
const EXCESSIVE: &str = "yaml: document contains excessive aliasing";

/// A value and the tag that it resolved to.
type Read = (Tag, Value);

struct Reader<'a> {
    document: &'a Document,
    duplicates: Vec<String>,
    decoded: u32,
    by_alias: u32,
    /// The text of scalars from aliases, in bytes.
    bytes_by_alias: usize,
    alias_depth: u32,
    /// Sequences and mappings around the current node.
    depth: usize,
    /// Aliases being followed, to detect one that contains itself.
    open: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn node(&mut self, index: usize) -> Result<Read, String> {
        self.count()?;
        match &self.document.nodes[index].data {
            Data::Alias { name, target } => {
                self.enter(index, name)?;
                let value = self.node(*target);
                self.leave();
                value
            }
            Data::Scalar { tag, value, plain } => {
                if self.alias_depth > 0 {
                    self.bytes_by_alias += value.len();
                }
                if self.bytes_by_alias > MAX_BY_ALIAS {
                    return Err(EXCESSIVE.to_owned());
                }
                scalar(tag.as_deref(), value, *plain)
            }
            Data::Sequence(children) => {
                let mut items = Vec::with_capacity(children.len());
                self.descend()?;
                for &child in children {
                    let (_, value) = self.node(child)?;
                    items.push(value);
                }
                self.depth -= 1;
                Ok((Tag::Str, Value::Array(items)))
            }
            Data::Mapping(_) => {
                let mut object = Object::new();
                self.descend()?;
                self.mapping(index, &mut object)?;
                self.depth -= 1;
                Ok((Tag::Str, Value::Object(object)))
            }
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.decoded += 1;
        if self.alias_depth > 0 {
            self.by_alias += 1;
        }
        let ratio = f64::from(self.by_alias) / f64::from(self.decoded);
        if self.by_alias > 100 && self.decoded > 1000 && ratio > allowed_alias_ratio(self.decoded) {
            return Err(EXCESSIVE.to_owned());
        }
        Ok(())
    }

    /// Enters a sequence or mapping; aliases may add more levels than the text has.
    fn descend(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth > json::MAX_DEPTH {
            true => Err("yaml: exceeded max depth of 10000".to_owned()),
            false => Ok(()),
        }
    }

    fn enter(&mut self, index: usize, name: &str) -> Result<(), String> {
        if self.open.contains(&index) {
            return Err(format!("yaml: anchor '{name}' value contains itself"));
        }
        self.open.push(index);
        self.alias_depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.alias_depth -= 1;
        self.open.pop();
    }

    fn mapping(&mut self, index: usize, object: &mut Object) -> Result<(), String> {
        let document: &'a Document = self.document;
        let Data::Mapping(children) = &document.nodes[index].data else {
            return Ok(());
        };
        for pair in children.chunks_exact(2) {
            let (key_node, value_node) = (&document.nodes[pair[0]], &document.nodes[pair[1]]);
            if is_merge(key_node) {
                self.merge(pair[1], object)?;
                continue;
            }
            let (tag, key) = self.node(pair[0])?;
            let (_, value) = self.node(pair[1])?;
            let (key, shown) = key_text(tag, &key, &value)?;
            if object.insert(key, value).is_some() {
                self.duplicates.push(format!(
                    "line {}: key {shown} already set in map",
                    value_node.line + 1
                ));
            }
        }
        Ok(())
    }

    /// `<<`: merges a mapping, or several, of which the first wins.
    fn merge(&mut self, index: usize, object: &mut Object) -> Result<(), String> {
        const REFUSAL: &str = "yaml: map merge requires map or sequence of maps as the value";
        let document: &'a Document = self.document;
        let nodes = &document.nodes;
        match &nodes[index].data {
            Data::Mapping(_) => {
                self.count()?;
                self.mapping(index, object)
            }
            Data::Alias { name, target } if matches!(nodes[*target].data, Data::Mapping(_)) => {
                self.count()?;
                self.enter(index, name)?;
                self.count()?;
                let merged = self.mapping(*target, object);
                self.leave();
                merged
            }
            Data::Sequence(children) => {
                for &child in children.iter().rev() {
                    match &nodes[child].data {
                        Data::Mapping(_) | Data::Alias { .. } => self.merge(child, object)?,
                        _ => return Err(REFUSAL.to_owned()),
                    }
                }
                Ok(())
            }
            _ => Err(REFUSAL.to_owned()),
        }
    }
}

fn is_merge(node: &Node) -> bool {
    match &node.data {
        Data::Scalar { tag, value, plain } => {
            value == "<<" && (*plain || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
        }
        _ => false,
    }
}

fn scalar(tag: Option<&str>, text: &str, plain: bool) -> Result<Read, String> {
    let string = |text: &str| Ok((Tag::Str, Value::from(text)));
    let Some(tag) = tag.filter(|tag| !tag.is_empty()) else {
        if !plain {
            return string(text);
        }
        let (tag, value) = resolve(text);
        return Ok((tag, value));
    };
    let wanted = match tag.strip_prefix("tag:yaml.org,2002:") {
        Some("str") => return string(text),
        Some("binary") => {
            use base64::Engine as _;
            // Go's decoder skips line breaks.
            let packed: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(packed)
                .map_err(|_| "yaml: !!binary value contains invalid base64 data".to_owned())?;
            let mut out = String::new();
            json::push_lossy(&bytes, &mut out);
            return string(&out);
        }
        Some("null") => return Ok((Tag::Null, Value::Null)),
        Some("bool") => Tag::Bool,
        Some("int") => Tag::Int,
        Some("float") => Tag::Float,
        Some("timestamp") => Tag::Timestamp,
        _ => return string(text),
    };
    let (found, value) = resolve(text);
    match (found, &value) {
        _ if found == wanted => Ok((found, value)),
        #[allow(clippy::cast_precision_loss, reason = "asked for as a float")]
        (Tag::Int, Value::Int(number)) if wanted == Tag::Float => {
            Ok((Tag::Float, Value::Float(*number as f64)))
        }
        _ => Err(format!(
            "yaml: cannot decode {} `{text}` as a {}",
            found.short(),
            wanted.short()
        )),
    }
}

/// A key as in JSON, and as shown in errors.
fn key_text(tag: Tag, key: &Value, value: &Value) -> Result<(Key, String), String> {
    Ok(match key {
        Value::String(text) => (text.clone(), format!("{:?}", text.as_str())),
        Value::Bool(flag) => (
            if *flag { "true" } else { "false" }.into(),
            flag.to_string(),
        ),
        Value::Int(number) => {
            let text = number.to_string();
            (text.as_str().into(), text)
        }
        Value::Float(number) if tag == Tag::Int => {
            return Err(format!(
                "unsupported map key of type: uint64, key: {number:.0}, value: {}",
                json::to_string(value)
            ));
        }
        Value::Float(number) => (single(*number).into(), shortest(*number, 21)),
        Value::Null => {
            return Err(format!(
                "unsupported map key of type: %!s(<nil>), key: <nil>, value: {}",
                json::to_string(value)
            ));
        }
        Value::Array(items) => {
            return Err(format!("yaml: invalid map key: {}", go_syntax_list(items)));
        }
        Value::Object(object) => {
            return Err(format!("yaml: invalid map key: {}", go_syntax_map(object)));
        }
    })
}

/// A number with the digits that a float32 needs: the text of float keys.
fn single(number: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "single precision is what upstream keeps"
    )]
    let digits = format!("{:e}", number as f32);
    digits.parse().map_or(digits, |number| shortest(number, 6))
}

/// A value as printed by Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{:?}", text.as_str()),
        Value::Float(number) => shortest(*number, 21),
        Value::Array(items) => go_syntax_list(items),
        Value::Object(object) => go_syntax_map(object),
        other => json::to_string(other),
    }
}

fn go_syntax_list(items: &[Value]) -> String {
    format!(
        "[]interface {{}}{{{}}}",
        items.iter().map(go_syntax).collect::<Vec<_>>().join(", ")
    )
}

fn go_syntax_map(object: &Object) -> String {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_unstable_by_key(|(key, _)| key.as_str());
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, value)| format!("{:?}:{}", key.as_str(), go_syntax(value)))
        .collect();
    format!(
        "map[interface {{}}]interface {{}}{{{}}}",
        members.join(", ")
    )
}
