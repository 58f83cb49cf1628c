//! JSONPath templates as k8s.io/client-go/util/jsonpath reads them, for printer columns and selectable fields.
//! Missing members yield nothing.

use std::cmp::Ordering;
use std::sync::LazyLock;

use regex::Regex;

use crate::schema::Value;

/// A parsed template.
#[derive(Clone, Debug, Default)]
pub struct JsonPath(Vec<Part>);

/// An action in braces, or the text around it.
#[derive(Clone, Debug)]
enum Part {
    Text(Value),
    Action(Vec<Node>),
}

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    Field(String),
    Wildcard,
    Recursive,
    Slice(Slice),
    Union(Vec<Vec<Node>>),
    Filter {
        left: Vec<Node>,
        right: Vec<Node>,
        operator: String,
    },
    /// `range`, `end` and other keywords, which single paths do not use.
    Word(String),
}

/// `[from:to:step]`
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    /// A single index: `to` is the next one.
    single: bool,
}

impl JsonPath {
    /// Parses a path without braces around it: `.spec.replicas`.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn parse(path: &str) -> Result<JsonPath, String> {
        template(&format!("{{{path}}}")).map(JsonPath)
    }

    /// The values at this path in `value`: the results of its first part.
    ///
    /// # Errors
    /// Upstream's text for an index out of bounds, a filter on something that is not a list, and the like.
    pub fn find<'a>(&'a self, value: &'a Value) -> Result<Vec<&'a Value>, String> {
        let mut first = Vec::new();
        for (i, part) in self.0.iter().enumerate() {
            let found = match part {
                Part::Text(text) => vec![text],
                Part::Action(nodes) => walk(vec![value], nodes)?,
            };
            if i == 0 {
                first = found;
            }
        }
        Ok(first)
    }
}

fn template(text: &str) -> Result<Vec<Part>, String> {
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

/// How many values a path may find: each repeated `..` multiplies them by the depth.
const MOST: usize = 1_000_000;

fn walk<'a>(mut found: Vec<&'a Value>, nodes: &'a [Node]) -> Result<Vec<&'a Value>, String> {
    for node in nodes {
        found = step(found, node)?;
        if found.len() > MOST {
            return Err(format!("more than {MOST} values"));
        }
    }
    Ok(found)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

fn step<'a>(input: Vec<&'a Value>, node: &'a Node) -> Result<Vec<&'a Value>, String> {
    match node {
        Node::Literal(value) => Ok(input.iter().map(|_| value).collect()),
        Node::Field(name) => Ok(input
            .into_iter()
            .filter_map(|value| value.as_object()?.get(name))
            .collect()),
        Node::Wildcard => Ok(input
            .into_iter()
            .flat_map(children)
            .take(MOST + 1)
            .collect()),
        Node::Recursive => Ok(recursive(input)),
        Node::Slice(slice) => {
            let mut out = Vec::new();
            for value in input.into_iter().filter(|value| !value.is_null()) {
                let items = value
                    .as_array()
                    .ok_or_else(|| format!("{} is not array or slice", value.type_name()))?;
                out.extend(sliced(items, *slice)?);
                if out.len() > MOST {
                    break;
                }
            }
            Ok(out)
        }
        Node::Union(branches) => {
            let mut out = Vec::new();
            for branch in branches {
                out.extend(walk(input.clone(), branch)?);
                if out.len() > MOST {
                    break;
                }
            }
            Ok(out)
        }
        Node::Filter {
            left,
            right,
            operator,
        } => {
            let mut out = Vec::new();
            for value in input {
                let items = value.as_array().ok_or_else(|| {
                    format!(
                        "{} is not array or slice and cannot be filtered",
                        value.type_name()
                    )
                })?;
                if out.len() > MOST {
                    break;
                }
                for item in items {
                    if passes(item, left, right, operator)? {
                        out.push(item);
                    }
                }
            }
            Ok(out)
        }
        Node::Word(word) => Err(format!("unrecognized identifier {word}")),
    }
}

/// The values, each followed by all below it; those without children are left out.
fn recursive(mut input: Vec<&Value>) -> Vec<&Value> {
    let mut out = Vec::new();
    input.reverse();
    while let Some(value) = input.pop()
        && out.len() <= MOST
    {
        let below = children(value);
        if !below.is_empty() {
            out.push(value);
            input.extend(below.into_iter().rev());
        }
    }
    out
}

fn sliced(items: &[Value], slice: Slice) -> Result<Vec<&Value>, String> {
    let length = items.len() as i64;
    let mut from = slice.from.unwrap_or(0);
    if from < 0 {
        from += length;
    }
    let mut to = slice.to.unwrap_or(length);
    if to < 0 || (to == 0 && slice.single) {
        to += length;
    }
    if to == from {
        return Ok(Vec::new());
    }
    let out_of_bounds =
        |index: i64| format!("array index out of bounds: index {index}, length {length}");
    if from >= length || from < 0 {
        return Err(out_of_bounds(from));
    }
    if to > length || to < 0 {
        return Err(out_of_bounds(to - 1));
    }
    if from > to {
        return Err(format!(
            "starting index {from} is greater than ending index {to}"
        ));
    }
    let step = match slice.step {
        Some(step) if step <= 0 => return Err("step must be > 0".to_owned()),
        step => usize::try_from(step.unwrap_or(1)).unwrap_or(1),
    };
    Ok(items[from as usize..to as usize]
        .iter()
        .step_by(step)
        .collect())
}

fn passes(item: &Value, left: &[Node], right: &[Node], operator: &str) -> Result<bool, String> {
    let lefts = walk(vec![item], left);
    if operator == "exists" {
        return Ok(lefts.is_ok_and(|found| !found.is_empty()));
    }
    let one = |found: Vec<&Value>| match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        _ => Err("can only compare one element at a time".to_owned()),
    };
    let Some(left) = one(lefts?)? else {
        return Ok(false);
    };
    let Some(right) = one(walk(vec![item], right)?)? else {
        return Ok(false);
    };
    let order = match (&left, &right) {
        (Value::Bool(a), Value::Bool(b)) if matches!(operator, "==" | "!=") => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_)) => {
            return Err("invalid type for comparison".to_owned());
        }
        _ => return Err("incompatible types for comparison".to_owned()),
    };
    match operator {
        "<" => Ok(order.is_lt()),
        ">" => Ok(order.is_gt()),
        "==" => Ok(order.is_eq()),
        "!=" => Ok(order.is_ne()),
        "<=" => Ok(order.is_le()),
        ">=" => Ok(order.is_ge()),
        other => Err(format!("unrecognized filter operator {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    #[test]
    fn paths_lead_where_upstreams_do() {
        let object = json::parse(
            br#"{"a": {"b": 1, "x.y": "dot"}, "l": [{"n": "p", "v": 1}, {"n": "q", "v": 2}, {"n": "r", "v": 3}],
                 "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}], "z": null}"#,
        )
        .unwrap()
        .value;
        for (path, found) in [
            (".a.b", "[1]"),
            (".a", r#"[{"b":1,"x.y":"dot"}]"#),
            (r".a.x\.y", r#"["dot"]"#),
            (".nope.b", "[]"),
            (".z.b", "[]"),
            (".l[0].n", r#"["p"]"#),
            (".l[-1].n", r#"["r"]"#),
            (".l[0:2].n", r#"["p","q"]"#),
            (".l[*].v", "[1,2,3]"),
            (".l[0,2].v", "[1,3]"),
            (".l[::2].v", "[1,3]"),
            (".a['b']", "[1]"),
            (r#".conditions[?(@.type=="Ready")].status"#, r#"["True"]"#),
            (".conditions[?(@.type=='Nope')].status", "[]"),
            (".l[?(@.v>1)].n", r#"["q","r"]"#),
            (".l[?(@.w)].n", "[]"),
            ("..n", r#"["p","q","r"]"#),
            (".a.b}{.l", "[1]"),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            let values = parsed.find(&object).unwrap();
            let values: Vec<Value> = values.into_iter().cloned().collect();
            assert_eq!(json::to_string(&values.into()), found, "{path}");
        }
        for (path, wrong) in [
            (".l[9].n", "array index out of bounds: index 9, length 3"),
            (".a[0]", "object is not array or slice"),
            (".l[?(@.v==\"x\")].n", "incompatible types for comparison"),
        ] {
            let parsed = JsonPath::parse(path).unwrap();
            assert_eq!(parsed.find(&object).unwrap_err(), wrong, "{path}");
        }
        for (path, wrong) in [
            (".spec[", "unterminated array"),
            (".a[x]", "invalid array index x"),
            (".a[?(@.b]", "unterminated filter"),
            (".a {", "unrecognized character in action: U+007B '{'"),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap_err(), wrong, "{path}");
        }
    }

    #[test]
    fn a_path_that_finds_too_many_values_fails() {
        let deep = (0..300).fold(Value::Int(1), |value, _| Value::Array(vec![value]));
        let find = |path: &str| {
            JsonPath::parse(path)
                .unwrap()
                .find(&deep)
                .map(|found| found.len())
        };
        assert_eq!(find("..[*]"), Ok(300));
        assert_eq!(
            find(&"..[*]".repeat(20)),
            Err("more than 1000000 values".to_owned())
        );
    }
}
