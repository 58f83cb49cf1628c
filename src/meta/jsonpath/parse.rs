//! Parses templates.

use std::sync::LazyLock;

use regex::Regex;

use super::{Node, Part, Slice};

pub(super) fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        match rest.find('{') {
            None => {
                parts.push(Part::Text(rest.into()));
                break;
            }
            Some(0) => {
                let mut parser = Parser { rest: &rest[1..] };
                let mut nodes = Vec::new();
                parser.action(&mut nodes)?;
                parts.push(Part::Action(nodes));
                rest = parser.rest;
            }
            Some(at) => {
                parts.push(Part::Text(rest[..at].into()));
                rest = &rest[at..];
            }
        }
    }
    Ok(parts)
}

/// Parses the nodes of one action written without braces.
fn action(text: &str) -> Result<Vec<Node>, String> {
    match template(&format!("{{{text}}}"))?.into_iter().next() {
        Some(Part::Action(nodes)) => Ok(nodes),
        _ => Ok(Vec::new()),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

fn terminates(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}'
    )
}

fn wordy(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'a> Parser<'a> {
    /// Takes the text up to the first unescaped character for which `ends` holds.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let mut escaped = false;
        let end = self
            .rest
            .find(|c| match c {
                _ if escaped => {
                    escaped = false;
                    false
                }
                '\\' => {
                    escaped = true;
                    false
                }
                c => ends(c),
            })
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    /// Parses up to the closing brace.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<(), String> {
        loop {
            if let Some(rest) = self.rest.strip_prefix("[?(") {
                self.rest = rest;
                nodes.push(self.filter()?);
                continue;
            }
            if let Some(rest) = self.rest.strip_prefix("..") {
                if matches!(nodes.last(), Some(Node::Recursive)) {
                    return Err("invalid multiple recursive descent".to_owned());
                }
                self.rest = rest;
                nodes.push(Node::Recursive);
                if self.rest.starts_with(wordy) {
                    nodes.push(self.field());
                }
                continue;
            }
            let Some(c) = self.rest.chars().next() else {
                return Err("unclosed action".to_owned());
            };
            let behind = &self.rest[c.len_utf8()..];
            match c {
                '\r' | '\n' => return Err("unclosed action".to_owned()),
                '}' => {
                    self.rest = behind;
                    return Ok(());
                }
                ' ' | '@' | '$' => self.rest = behind,
                '[' => {
                    self.rest = behind;
                    self.array(nodes)?;
                }
                '"' | '\'' => {
                    self.rest = behind;
                    let text = self.until(|end| end == c || end == '\n');
                    self.rest = self
                        .rest
                        .strip_prefix(c)
                        .ok_or("unterminated quoted string")?;
                    nodes.push(Node::Literal(unquoted(text).into()));
                }
                '.' => {
                    self.rest = behind;
                    nodes.push(self.field());
                }
                '+' | '-' | '0'..='9' => nodes.push(self.number()?),
                c if wordy(c) => nodes.push(match self.until(terminates) {
                    "true" => Node::Literal(true.into()),
                    "false" => Node::Literal(false.into()),
                    word => Node::Word(word.to_owned()),
                }),
                c => {
                    return Err(format!(
                        "unrecognized character in action: U+{:04X} '{c}'",
                        c as u32
                    ));
                }
            }
        }
    }

    fn field(&mut self) -> Node {
        match self.until(terminates) {
            "*" => Node::Wildcard,
            name => Node::Field(name.replace('\\', "")),
        }
    }

    fn number(&mut self) -> Result<Node, String> {
        let signed = usize::from(self.rest.starts_with(['+', '-']));
        let end = self.rest[signed..]
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .map_or(self.rest.len(), |end| end + signed);
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Node::Literal(number.into()));
        }
        text.parse::<f64>()
            .map(|number| Node::Literal(number.into()))
            .map_err(|_| format!("cannot parse number {text}"))
    }

    fn array(&mut self, nodes: &mut Vec<Node>) -> Result<(), String> {
        static SLICE: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new("^(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?$").ok());
        let end = self
            .rest
            .find([']', '\n'])
            .filter(|end| self.rest[*end..].starts_with(']'))
            .ok_or("unterminated array")?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        let text = if text == "*" { ":" } else { text };
        if text.contains(',') {
            let branches: Result<Vec<_>, String> = text
                .split(',')
                .map(|branch| action(&format!("[{}]", branch.trim_matches(' '))))
                .collect();
            nodes.push(Node::Union(branches?));
            return Ok(());
        }
        let key = text
            .strip_prefix('\'')
            .and_then(|text| text.strip_suffix('\''))
            .filter(|key| !key.contains('\''));
        if let Some(key) = key {
            nodes.extend(action(&format!(".{key}"))?);
            return Ok(());
        }
        let Some(found) = SLICE.as_ref().and_then(|regex| regex.captures(text)) else {
            return Err(format!("invalid array index {text}"));
        };
        let part = |i: usize| -> Result<Option<i64>, String> {
            let text = found.get(i).map_or("", |part| part.as_str());
            match text.trim_start_matches(':') {
                "" => Ok(None),
                digits => digits
                    .parse()
                    .map(Some)
                    .map_err(|_| format!("array index {digits} is not a number")),
            }
        };
        let single = found.get(2).is_none();
        let from = part(1)?;
        nodes.push(Node::Slice(Slice {
            from,
            to: if single {
                Some(from.unwrap_or(0) + 1)
            } else {
                part(2)?
            },
            step: part(3)?,
            single,
        }));
        Ok(())
    }

    fn filter(&mut self) -> Result<Node, String> {
        static COMPARISON: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new("^([^!<>=]+)([!<>=]+)(.+?)$").ok());
        let mut quote = None;
        let mut closed = false;
        let mut before = ' ';
        let mut end = None;
        for (at, c) in self.rest.char_indices() {
            match c {
                '\n' => break,
                '"' | '\'' => match quote {
                    None => quote = Some(c),
                    Some(opened) => closed |= before != '\\' && c == opened,
                },
                ')' if quote.is_some() == closed => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
            before = c;
        }
        let end = end.ok_or("unterminated filter")?;
        let text = &self.rest[..end];
        self.rest = self.rest[end + 1..]
            .strip_prefix(']')
            .ok_or("unclosed array expect ]")?;
        match COMPARISON.as_ref().and_then(|regex| regex.captures(text)) {
            None => Ok(Node::Filter {
                left: action(text)?,
                right: Vec::new(),
                operator: "exists".to_owned(),
            }),
            Some(found) => Ok(Node::Filter {
                left: action(&found[1])?,
                right: action(&found[3])?,
                operator: found[2].to_owned(),
            }),
        }
    }
}

fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            c => {
                out.push(match (escaped, c) {
                    (true, 'n') => '\n',
                    (true, 't') => '\t',
                    (true, 'r') => '\r',
                    (_, c) => c,
                });
                escaped = false;
            }
        }
    }
    out
}
