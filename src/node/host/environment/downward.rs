//! Maps as downward API files show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A map in the form of downward API files: `key="value"` lines.
pub(super) fn shown(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// A text in double quotes, like Go's `%q`.
pub(super) fn quoted(value: &str) -> String {
    let mut whole = String::from('"');
    for c in value.chars() {
        let short = match c {
            '\x07' => 'a',
            '\x08' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\r' => 'r',
            '"' | '\\' => c,
            '\0'..' ' | '\x7f' => {
                let _ = write!(whole, "\\x{:02x}", c as u32);
                continue;
            }
            c if is_printable(c) => {
                whole.push(c);
                continue;
            }
            c if c <= '\u{ffff}' => {
                let _ = write!(whole, "\\u{:04x}", c as u32);
                continue;
            }
            c => {
                let _ = write!(whole, "\\U{:08x}", c as u32);
                continue;
            }
        };
        whole.extend(['\\', short]);
    }
    whole.push('"');
    whole
}

/// Whether a character is a letter, mark, number, punctuation, symbol or space.
fn is_printable(c: char) -> bool {
    // Combining marks are only escaped at the beginning of a text.
    let text = String::from_iter(['a', c]);
    c == '\'' || text.escape_debug().nth(1) == Some(c)
}
