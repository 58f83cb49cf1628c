//! Regular expressions in Go's syntax, with Go's error texts and semantics. Follows Go's regexp/syntax.

mod classes;

use regex::{Regex, RegexBuilder};

/// The maximum of a counted repetition, including nested ones.
const MAX_REPEAT: i64 = 1000;

/// How deep an expression may nest.
const MAX_NESTING: u32 = 1000;

/// Compiles an expression.
///
/// # Errors
/// Go's text: ``error parsing regexp: missing closing ): `(a` ``.
pub fn compile(expression: &str) -> Result<Regex, String> {
    let translated = Translator::new(expression)
        .run()
        .map_err(|(code, at)| format!("error parsing regexp: {code}: `{at}`"))?;
    RegexBuilder::new(&translated)
        .size_limit(32 << 20)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|error| {
            let code = match error {
                regex::Error::CompiledTooBig(_) => "expression too large",
                // The only other known kind of expression that Go accepts and this engine rejects.
                _ => "expression nests too deeply",
            };
            format!("error parsing regexp: {code}: `{expression}`")
        })
}

/// An error's text and the part of the expression that it is about.
type Wrong<'a> = (&'static str, &'a str);

/// Walks an expression like Go's parser, and rewrites it for this crate's engine.
struct Translator<'a> {
    whole: &'a str,
    rest: &'a str,
    out: String,
    /// The open groups, after one for the whole expression.
    groups: Vec<Group>,
}

/// The state of a group whose contents are being read.
#[derive(Clone, Copy, Default)]
struct Group {
    /// The number of copies that the last operand expands to; `None` if there is nothing to repeat.
    last: Option<i64>,
    /// The largest such number of the operands before it.
    most: i64,
}

impl<'a> Translator<'a> {
    fn new(whole: &'a str) -> Self {
        Translator {
            whole,
            rest: whole,
            out: String::with_capacity(whole.len() + 16),
            groups: vec![Group::default()],
        }
    }

    fn run(mut self) -> Result<String, Wrong<'a>> {
        let mut last_repeat: Option<&'a str> = None;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeated = None;
            match c {
                '(' if self.rest.starts_with("(?") => self.group_flags()?,
                '(' => {
                    self.take(1, "(");
                    self.groups.push(Group::default());
                }
                '|' => {
                    self.take(1, "|");
                    self.operand(None);
                }
                ')' => {
                    let Some(inner) = self.groups.pop().filter(|_| !self.groups.is_empty()) else {
                        return Err(("unexpected )", self.whole));
                    };
                    self.take(1, ")");
                    self.operand(Some(inner.most.max(inner.last.unwrap_or(1))));
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.repeat(before, 1, None, last_repeat)?;
                    repeated = Some(before);
                }
                '{' => match self.counts() {
                    Some((min, max, length)) => {
                        let bad = min > MAX_REPEAT
                            || max.is_some_and(|max| max > MAX_REPEAT || min > max);
                        if bad {
                            return Err(("invalid repeat count", &before[..length]));
                        }
                        self.repeat(before, length, Some((min, max)), last_repeat)?;
                        repeated = Some(before);
                    }
                    None => {
                        self.take(1, "\\{");
                        self.operand(Some(1));
                    }
                },
                '\\' => self.escape_outside()?,
                '}' | ']' => {
                    self.out.push('\\');
                    self.take(1, &before[..1]);
                    self.operand(Some(1));
                }
                c => {
                    self.take(c.len_utf8(), &before[..c.len_utf8()]);
                    self.operand(Some(1));
                }
            }
            last_repeat = repeated;
        }
        if self.groups.len() != 1 {
            return Err(("missing closing )", self.whole));
        }
        Ok(self.out)
    }

    /// Advances by `length` bytes, and writes `text` for them.
    fn take(&mut self, length: usize, text: &str) {
        self.rest = &self.rest[length..];
        self.out.push_str(text);
    }

    fn operand(&mut self, copies: Option<i64>) {
        if let Some(group) = self.groups.last_mut() {
            group.most = group.most.max(group.last.unwrap_or(1));
            group.last = copies;
        }
    }

    fn repeat(
        &mut self,
        before: &'a str,
        length: usize,
        counts: Option<(i64, Option<i64>)>,
        last: Option<&'a str>,
    ) -> Result<(), Wrong<'a>> {
        let lazy = before[length..].starts_with('?');
        let length = length + usize::from(lazy);
        let after = &before[length..];
        if let Some(last) = last {
            return Err((
                "invalid nested repetition operator",
                &last[..last.len() - after.len()],
            ));
        }
        let missing = ("missing argument to repetition operator", &before[..length]);
        let operand = self.groups.last_mut().and_then(|group| group.last.as_mut());
        let copies = operand.ok_or(missing)?;
        if let Some((min, max)) = counts {
            *copies = match max.unwrap_or(min) {
                0 => 1,
                times => times * *copies,
            };
            if max.unwrap_or(min) >= 2 && *copies > MAX_REPEAT {
                return Err(("invalid repeat count", &before[..length]));
            }
        }
        self.take(length, &before[..length]);
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,3}`: the counts and the length in bytes.
    fn counts(&self) -> Option<(i64, Option<i64>, usize)> {
        let inner = &self.rest[1..];
        let end = inner.find(|c: char| c != ',' && !c.is_ascii_digit())?;
        inner[end..].strip_prefix('}')?;
        let inner = &inner[..end];
        let number = |text: &str| {
            let plain = !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_digit())
                && (text.len() == 1 || !text.starts_with('0'));
            plain.then(|| text.parse().unwrap_or(i64::MAX))
        };
        let (min, max) = match inner.split_once(',') {
            None => (number(inner)?, Some(number(inner)?)),
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        Some((min, max, end + 2))
    }

    /// `(?i)`, `(?:`, `(?P<name>`, `(?<name>`.
    fn group_flags(&mut self) -> Result<(), Wrong<'a>> {
        let s = self.rest;
        let named = ["(?P<", "(?<"]
            .iter()
            .find(|start| s.len() > start.len() && s.starts_with(**start));
        if let Some(start) = named {
            let Some(end) = s.find('>') else {
                return Err(("invalid named capture", s));
            };
            let name = &s[start.len()..end];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(("invalid named capture", &s[..=end]));
            }
            // Names do not affect matching, and the engines accept different ones.
            self.take(end + 1, "(");
            self.groups.push(Group::default());
            return Ok(());
        }
        // Flags that are set, and those that are cleared; the last occurrence of a flag wins.
        let mut flags = [String::new(), String::new()];
        let mut negative = false;
        let mut seen = false;
        for (at, c) in s.char_indices().skip(2) {
            match c {
                'i' | 'm' | 's' | 'U' => {
                    flags.iter_mut().for_each(|set| set.retain(|had| had != c));
                    flags[usize::from(negative)].push(c);
                    seen = true;
                }
                '-' if !negative => (negative, seen) = (true, false),
                ':' | ')' if !negative || seen => {
                    let [on, off] = flags;
                    let dash = if off.is_empty() { "" } else { "-" };
                    self.rest = &s[at + 1..];
                    if c == ':' {
                        self.groups.push(Group::default());
                    } else if !seen {
                        return Ok(());
                    }
                    self.out.push_str(&format!("(?{on}{dash}{off}{c}"));
                    return Ok(());
                }
                c => {
                    return Err((
                        "invalid or unsupported Perl syntax",
                        &s[..at + c.len_utf8()],
                    ));
                }
            }
        }
        Err(("missing closing )", self.whole))
    }

    fn escape_outside(&mut self) -> Result<(), Wrong<'a>> {
        let s = self.rest;
        let next = s.chars().nth(1);
        let replaced = match next {
            Some('A') => "\\A",
            Some('z') => "\\z",
            Some('b') => "(?-u:\\b)",
            Some('B') => "(?-u:\\B)",
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('s') => "[\\t\\n\\x0C\\r ]",
            Some('S') => "[^\\t\\n\\x0C\\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('C') => return Err(("invalid escape sequence", &s[..2])),
            Some('Q') => {
                let inner = &s[2..];
                let end = inner.find("\\E").unwrap_or(inner.len());
                self.out.push_str(&regex::escape(&inner[..end]));
                if end > 0 {
                    self.operand(Some(1));
                }
                self.rest = inner[end..].strip_prefix("\\E").unwrap_or("");
                return Ok(());
            }
            Some('p' | 'P') => return self.unicode_class(),
            _ => {
                let c = self.escaped()?;
                self.literal(c);
                self.operand(Some(1));
                return Ok(());
            }
        };
        self.take(2, replaced);
        self.operand(Some(1));
        Ok(())
    }

    /// The character that an escape sequence stands for.
    fn escaped(&mut self) -> Result<char, Wrong<'a>> {
        let s = self.rest;
        let mut chars = s[1..].char_indices();
        let Some((_, c)) = chars.next() else {
            return Err(("trailing backslash at end of expression", ""));
        };
        let digits = |text: &str, most: usize, radix: u32| {
            text.chars()
                .take(most)
                .take_while(|c| c.is_digit(radix))
                .count()
        };
        let wrong = |length: usize| {
            let end = (length..=s.len())
                .find(|end| s.is_char_boundary(*end))
                .unwrap_or(s.len());
            ("invalid escape sequence", &s[..end])
        };
        let (value, length) = match c {
            '1'..='7' if !s[2..].starts_with(|c: char| c.is_digit(8)) => return Err(wrong(2)),
            '0'..='7' => {
                let n = digits(&s[1..], 3, 8);
                (u32::from_str_radix(&s[1..=n], 8).ok(), 1 + n)
            }
            'x' if s[2..].starts_with('{') => {
                let end = s.find('}').ok_or_else(|| wrong(s.len()))?;
                (u32::from_str_radix(&s[3..end], 16).ok(), end + 1)
            }
            'x' => {
                if digits(&s[2..], 2, 16) != 2 {
                    return Err(wrong(3 + digits(&s[2..], 2, 16)));
                }
                (u32::from_str_radix(&s[2..4], 16).ok(), 4)
            }
            'a' => (Some(7), 2),
            'f' => (Some(12), 2),
            'n' => (Some(10), 2),
            'r' => (Some(13), 2),
            't' => (Some(9), 2),
            'v' => (Some(11), 2),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => (Some(c as u32), 2),
            c => return Err(wrong(1 + c.len_utf8())),
        };
        let found = value
            .and_then(char::from_u32)
            .ok_or_else(|| wrong(length))?;
        self.rest = &s[length..];
        Ok(found)
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            self.out.push(c);
        } else {
            self.out.push_str(&format!("\\x{{{:x}}}", c as u32));
        }
    }
}

#[cfg(test)]
mod tests;
