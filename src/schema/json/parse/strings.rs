//! Strings and names of members, with their escapes.

use super::{Parser, SyntaxError};
use crate::schema::Key;

impl Parser<'_> {
    /// Parses a string, from its opening quote.
    pub(super) fn string(&mut self) -> Result<Key, SyntaxError> {
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
pub(super) fn plain(bytes: &[u8]) -> usize {
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
