//! The small part of libxml2 that zone configurations need: a tree of elements with
//! attributes, written as `xmlSaveFormatFile` writes it (two blanks of indent, characters
//! outside ASCII as references) and read back.

use std::fmt::Write as _;

/// An element: its name, attributes in the order they were set, and child elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The tag.
    pub name: String,
    /// Attributes in document order.
    pub attrs: Vec<(String, String)>,
    /// Child elements in document order; text nodes do not occur in zone documents.
    pub children: Vec<Element>,
}

impl Element {
    /// An element without attributes or children.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            ..Self::default()
        }
    }

    /// The value of an attribute, as `xmlGetProp`.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The value of an attribute or the empty string, which is what the zone DTD gives as default.
    pub fn attr_or_empty(&self, name: &str) -> &str {
        self.attr(name).unwrap_or("")
    }

    /// Sets an attribute in place, or appends it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.attrs.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value.to_string(),
            None => self.attrs.push((name.to_string(), value.to_string())),
        }
    }

    /// Removes an attribute if present.
    pub fn unset(&mut self, name: &str) {
        self.attrs.retain(|(n, _)| n != name);
    }

    /// Builder form of [`Element::set`].
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Child elements of one name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |c| c.name == name)
    }

    /// The element as indented text without a document header and without a final newline.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        let pad = "  ".repeat(depth);
        let _ = write!(out, "{pad}<{}", self.name);
        for (n, v) in &self.attrs {
            let _ = write!(out, " {n}=\"{}\"", escape(v));
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for child in &self.children {
            out.push('\n');
            child.write(out, depth + 1);
        }
        let _ = write!(out, "\n{pad}</{}>", self.name);
    }
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_ascii() => out.push(c),
            c => {
                let _ = write!(out, "&#x{:X};", c as u32);
            }
        }
    }
    out
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let Some(end) = tail.find(';') else {
            out.push('&');
            rest = tail;
            continue;
        };
        let name = &tail[..end];
        let known = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => name
                .strip_prefix("#x")
                .and_then(|h| u32::from_str_radix(h, 16).ok())
                .or_else(|| name.strip_prefix('#').and_then(|d| d.parse().ok()))
                .and_then(char::from_u32),
        };
        match known {
            Some(c) => out.push(c),
            None => {
                let _ = write!(out, "&{name};");
            }
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    out
}

/// Reads the root element of a document; comments, the XML declaration and the document type
/// are skipped. `None` for anything that is not well-formed.
pub fn parse(text: &str) -> Option<Element> {
    let mut rest = text;
    let mut stack: Vec<Element> = Vec::new();
    loop {
        let start = rest.find('<')?;
        rest = &rest[start..];
        if let Some(tail) = rest.strip_prefix("<!--") {
            rest = &tail[tail.find("-->")? + 3..];
            continue;
        }
        if rest.starts_with("<?") || rest.starts_with("<!") {
            rest = &rest[rest.find('>')? + 1..];
            continue;
        }
        if let Some(tail) = rest.strip_prefix("</") {
            let end = tail.find('>')?;
            let done = stack.pop()?;
            if done.name != tail[..end].trim() {
                return None;
            }
            rest = &tail[end + 1..];
            match stack.last_mut() {
                Some(parent) => parent.children.push(done),
                None => return Some(done),
            }
            continue;
        }
        let (element, empty, tail) = open_tag(&rest[1..])?;
        rest = tail;
        if !empty {
            stack.push(element);
        } else {
            match stack.last_mut() {
                Some(parent) => parent.children.push(element),
                None => return Some(element),
            }
        }
    }
}

fn open_tag(mut rest: &str) -> Option<(Element, bool, &str)> {
    let end = rest.find(|c: char| c.is_whitespace() || c == '>' || c == '/')?;
    let mut element = Element::new(&rest[..end]);
    rest = &rest[end..];
    loop {
        rest = rest.trim_start();
        if let Some(tail) = rest.strip_prefix("/>") {
            return Some((element, true, tail));
        }
        if let Some(tail) = rest.strip_prefix('>') {
            return Some((element, false, tail));
        }
        let eq = rest.find('=')?;
        let name = rest[..eq].trim();
        let tail = rest[eq + 1..].trim_start();
        let quote = tail.chars().next().filter(|c| *c == '"' || *c == '\'')?;
        let close = tail[1..].find(quote)? + 1;
        element
            .attrs
            .push((name.to_string(), unescape(&tail[1..close])));
        rest = &tail[close + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_alike() {
        let mut zone = Element::new("zone").with("name", "a<b>&\"c\"é\n");
        zone.children
            .push(Element::new("attr").with("value", "x'y"));
        let text = zone.to_text();
        assert!(text.contains("&#xE9;"), "{text}");
        assert_eq!(parse(&text), Some(zone));
    }

    #[test]
    fn broken_documents_are_refused() {
        for text in [
            "",
            "<zone",
            "<zone></other>",
            "<zone name=x/>",
            "<zone name=\"x>",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
