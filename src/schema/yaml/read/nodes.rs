//! Events to nodes: a document as it is written, with its anchors.

use std::collections::HashMap;

use libyaml_safer::{Encoding, ErrorKind, EventData, Parser, ScalarStyle};

use crate::schema::json;

/// A node: its start (a line, from 0) and its content.
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) data: Data,
}

pub(super) enum Data {
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

pub(super) struct Document {
    pub(super) nodes: Vec<Node>,
    pub(super) root: usize,
}

/// Limit for the sum of the depths of all nodes. For each node the scanner looks at every collection that is open, so
/// that a few megabytes below thousands of brackets would take a minute. This much takes about half a second, and a body
/// of three megabytes may have a depth of a hundred throughout.
const MAX_SCANNED: usize = 150_000_000;

impl Document {
    pub(super) fn read(text: &str) -> Result<Option<Document>, String> {
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
