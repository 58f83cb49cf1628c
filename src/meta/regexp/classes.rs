//! Classes of characters.

use regex::Regex;

use super::{Translator, Wrong};

/// Names of character classes in `[:name:]`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

impl<'a> Translator<'a> {
    /// `\pL`, `\p{Greek}`, `\p{^Greek}`.
    pub(super) fn unicode_class(&mut self) -> Result<(), Wrong<'a>> {
        let s = self.rest;
        let mut negative = s.as_bytes()[1] == b'P';
        let (name, length) = match s[2..].chars().next() {
            None => return Err(("invalid character class range", s)),
            Some('{') => match s.find('}') {
                None => return Err(("invalid character class range", s)),
                Some(end) => (&s[3..end], end + 1),
            },
            Some(c) => (&s[2..2 + c.len_utf8()], 2 + c.len_utf8()),
        };
        let plain = name.strip_prefix('^').inspect(|_| negative = !negative);
        let name = plain.unwrap_or(name);
        let known = name == "Any" || Regex::new(&format!("\\p{{{name}}}")).is_ok();
        if !known || name.contains(['=', ':']) {
            return Err(("invalid character class range", &s[..length]));
        }
        let letter = if negative { 'P' } else { 'p' };
        self.rest = &s[length..];
        self.out.push_str(&format!("\\{letter}{{{name}}}"));
        self.operand(Some(1));
        Ok(())
    }

    /// `[a-z\d[:alpha:]]`
    pub(super) fn class(&mut self) -> Result<(), Wrong<'a>> {
        let whole = self.rest;
        self.take(1, "[");
        if self.rest.starts_with('^') {
            self.take(1, "^");
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            let s = self.rest;
            if s.is_empty() {
                return Err(("missing closing ]", whole));
            }
            if s.starts_with("[:")
                && let Some(end) = s[2..].find(":]")
            {
                let name = &s[..end + 4];
                let class = name[2..name.len() - 2].trim_start_matches('^');
                if !POSIX.contains(&class) {
                    return Err(("invalid character class range", name));
                }
                self.take(name.len(), name);
                continue;
            }
            let perl = match s.get(..2) {
                Some("\\d") => "0-9",
                Some("\\D") => "[^0-9]",
                Some("\\s") => "\\t\\n\\x0C\\r\\x20",
                Some("\\S") => "[^\\t\\n\\x0C\\r ]",
                Some("\\w") => "0-9A-Za-z_",
                Some("\\W") => "[^0-9A-Za-z_]",
                Some("\\p" | "\\P") => {
                    self.unicode_class()?;
                    continue;
                }
                _ => "",
            };
            if !perl.is_empty() {
                self.take(2, perl);
                continue;
            }
            let low = self.class_char(whole)?;
            let mut high = low;
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.rest = &self.rest[1..];
                high = self.class_char(whole)?;
                if high < low {
                    let range = &s[..s.len() - self.rest.len()];
                    return Err(("invalid character class range", range));
                }
            }
            self.literal(low);
            if high != low {
                self.out.push('-');
                self.literal(high);
            }
        }
        self.take(1, "]");
        self.operand(Some(1));
        Ok(())
    }

    fn class_char(&mut self, whole: &'a str) -> Result<char, Wrong<'a>> {
        match self.rest.chars().next() {
            None => Err(("missing closing ]", whole)),
            Some('\\') => self.escaped(),
            Some(c) => {
                self.rest = &self.rest[c.len_utf8()..];
                Ok(c)
            }
        }
    }
}
