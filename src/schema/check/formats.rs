//! The string formats that a schema may declare. Follows k8s.io/kube-openapi/pkg/validation/strfmt and
//! k8s.io/apiextensions-apiserver/pkg/apiserver/validation/formats.go.

mod durations;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

pub use self::durations::{duration, go_duration, parse_duration};

/// A known format.
#[derive(Clone, Copy)]
pub struct Format {
    takes: Takes,
}

type Takes = fn(&str) -> bool;

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Format")
    }
}

/// String formats by their names without dashes.
const FORMATS: &[(&str, Takes)] = &[
    ("bsonobjectid", |text| {
        text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit())
    }),
    ("uri", |text| crate::meta::url::parse_request(text).is_ok()),
    ("email", email::is_address),
    ("hostname", hostname),
    ("ipv4", |text| {
        text.contains('.') && sloppy_ip(text).is_some()
    }),
    ("ipv6", |text| {
        text.contains(':') && text.parse::<Ipv6Addr>().is_ok()
    }),
    ("cidr", cidr),
    ("mac", mac),
    ("uuid", |text| uuid(text, None)),
    ("uuid3", |text| uuid(text, Some('3'))),
    ("uuid4", |text| uuid(text, Some('4'))),
    ("uuid5", |text| uuid(text, Some('5'))),
    ("isbn", |text| isbn10(text) || isbn13(text)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("creditcard", credit_card),
    ("ssn", |text| text.len() == 11 && matches(&SSN, text)),
    ("hexcolor", |text| matches(&HEX_COLOR, text)),
    ("rgbcolor", |text| matches(&RGB_COLOR, text)),
    ("byte", |text| matches(&BASE64, text)),
    ("password", |_| true),
    ("date", date),
    ("duration", duration),
    ("datetime", date_time),
    ("k8sshortname", |text| {
        crate::meta::names::dns1123_label(text).is_empty()
    }),
    ("k8slongname", |text| {
        text.len() <= 253
            && text
                .split('.')
                .all(|part| crate::meta::names::dns1123_subdomain(part).is_empty())
    }),
];

impl Format {
    /// The string format with this name (dashes are ignored), if known.
    pub fn named(name: &str) -> Option<Format> {
        let plain = name.replace('-', "");
        FORMATS
            .iter()
            .find(|(known, _)| *known == plain)
            .map(|(_, takes)| Format { takes: *takes })
    }

    /// Whether text has this format.
    pub fn takes(self, text: &str) -> bool {
        (self.takes)(text)
    }
}

/// Whether upstream recognizes a format for a schema with these types; others cause a warning and are not checked.
pub fn recognized(name: &str, types: &[&str]) -> bool {
    match types {
        ["integer"] => matches!(name, "int32" | "int64"),
        ["number"] => matches!(name, "float" | "double"),
        ["string"] | [] | [_, _, ..] => Format::named(name).is_some(),
        _ => false,
    }
}

type Pattern = LazyLock<Option<Regex>>;

macro_rules! pattern {
    ($name:ident, $expression:expr) => {
        static $name: Pattern = LazyLock::new(|| Regex::new($expression).ok());
    };
}

pattern!(SSN, r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
pattern!(HEX_COLOR, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\([\t\n\x0C\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\x0C\r ]*,[\t\n\x0C\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\x0C\r ]*,[\t\n\x0C\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\x0C\r ]*\)$"
);
pattern!(
    BASE64,
    "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"
);
pattern!(
    HOST,
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
);
pattern!(
    CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
);
pattern!(
    CLOCK,
    "^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"
);
pattern!(AMOUNT, r"([0-9]+)[\t\n\x0C\r ]*([A-Za-zµ]+)");

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_some_and(|regex| regex.is_match(text))
}

fn hostname(text: &str) -> bool {
    matches(&HOST, text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63)
}

/// An address whose octets may have leading zeros, as Go accepted before 1.17.
fn sloppy_ip(text: &str) -> Option<std::net::IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(Into::into);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let plain =
            !part.is_empty() && part.len() <= 10 && part.bytes().all(|b| b.is_ascii_digit());
        *octet = plain
            .then(|| part.trim_start_matches('0'))
            .and_then(|part| {
                if part.is_empty() {
                    Some(0)
                } else {
                    part.parse().ok()
                }
            })?;
    }
    parts
        .next()
        .is_none()
        .then(|| Ipv4Addr::from(octets).into())
}

fn cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let most = match sloppy_ip(address) {
        Some(std::net::IpAddr::V4(_)) => 32,
        Some(std::net::IpAddr::V6(_)) => 128,
        None => return false,
    };
    !prefix.is_empty()
        && prefix.bytes().all(|b| b.is_ascii_digit())
        && prefix.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// Like net.ParseMAC: 6, 8 or 20 bytes, in pairs of digits separated by `:` or `-`, or in groups of four by `.`.
fn mac(text: &str) -> bool {
    let (separator, group) = match (text.as_bytes().get(2), text.as_bytes().get(4)) {
        (Some(b':'), _) => (':', 2),
        (Some(b'-'), _) => ('-', 2),
        (_, Some(b'.')) => ('.', 4),
        _ => return false,
    };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len() * group, 12 | 16 | 40)
        && parts
            .iter()
            .all(|part| part.len() == group && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn uuid(text: &str, version: Option<char>) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut rest = text;
    for (i, length) in GROUPS.into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(part) = rest.get(..length) else {
            return false;
        };
        if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        let variant = part.starts_with(['8', '9', 'a', 'b', 'A', 'B']);
        let fits = match (i, version) {
            (2, Some(version)) => part.starts_with(version),
            (3, Some('4' | '5')) => variant,
            _ => true,
        };
        if !fits {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

fn bare(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ' | '-'))
        .collect()
}

fn digit(c: char) -> u32 {
    c.to_digit(10).unwrap_or(0)
}

fn isbn10(text: &str) -> bool {
    let text = bare(text);
    let (Some(head), Some(last)) = (text.get(..9), text.chars().nth(9)) else {
        return false;
    };
    let shaped = text.len() == 10
        && head.bytes().all(|b| b.is_ascii_digit())
        && (last == 'X' || last.is_ascii_digit());
    let last = if last == 'X' { 10 } else { digit(last) };
    let sum: u32 = (1..).zip(head.chars()).map(|(i, c)| i * digit(c)).sum();
    shaped && (sum + 10 * last).is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let text = bare(text);
    let shaped = text.len() == 13 && text.bytes().all(|b| b.is_ascii_digit());
    let sum: u32 = text
        .chars()
        .take(12)
        .enumerate()
        .map(|(i, c)| if i % 2 == 0 { digit(c) } else { 3 * digit(c) })
        .sum();
    shaped && text.chars().nth(12).map(digit) == Some((10 - sum % 10) % 10)
}

fn credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if !matches(&CARD, &digits) {
        return false;
    }
    let sum: u32 = digits
        .chars()
        .rev()
        .enumerate()
        .map(|(i, c)| match (i % 2 == 1, digit(c)) {
            (true, n) if n * 2 >= 10 => n * 2 % 10 + 1,
            (true, n) => n * 2,
            (false, n) => n,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// `2006-01-02`
fn date(text: &str) -> bool {
    let b = text.as_bytes();
    b.len() == 10
        && b[4] == b'-'
        && b[7] == b'-'
        && b.iter()
            .enumerate()
            .all(|(i, c)| matches!(i, 4 | 7) || c.is_ascii_digit())
        && text.parse::<jiff::civil::Date>().is_ok()
}

fn date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(day), Some(clock)) = (parts.next(), parts.next()) else {
        return false;
    };
    date(day)
        && CLOCK
            .as_ref()
            .and_then(|regex| regex.captures(clock))
            .is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

/// Mail addresses as Go's net/mail reads them.
mod email {
    /// Whether text is one address: `a@b.c`, `Name <a@b.c>`.
    pub fn is_address(text: &str) -> bool {
        let text = text.trim_matches([' ', '\t']);
        if let Some(rest) = spec(text) {
            return blank(rest);
        }
        let mut rest = text;
        while let Some(next) = word(rest.trim_start()) {
            rest = next;
        }
        let rest = rest.trim_start();
        rest.strip_prefix('<')
            .and_then(|inner| spec(inner.trim_start()))
            .and_then(|rest| rest.trim_start().strip_prefix('>'))
            .is_some_and(blank)
    }

    fn blank(text: &str) -> bool {
        let text = text.trim_matches([' ', '\t']);
        text.is_empty() || (text.starts_with('(') && text.ends_with(')'))
    }

    fn atom_char(c: char) -> bool {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
    }

    /// The text after an atom (with dots) or a quoted string.
    fn word(text: &str) -> Option<&str> {
        match text.strip_prefix('"') {
            Some(inner) => {
                let mut escaped = false;
                let end = inner.find(|c| match c {
                    _ if escaped => {
                        escaped = false;
                        false
                    }
                    '\\' => {
                        escaped = true;
                        false
                    }
                    c => c == '"',
                })?;
                Some(&inner[end + 1..])
            }
            None => {
                let end = text
                    .find(|c| !atom_char(c) && c != '.')
                    .unwrap_or(text.len());
                (end > 0).then(|| &text[end..])
            }
        }
    }

    fn dots(atom: &str) -> bool {
        !atom.starts_with('.') && !atom.ends_with('.') && !atom.contains("..")
    }

    /// The text after `local@domain`.
    fn spec(text: &str) -> Option<&str> {
        let rest = word(text)?;
        let local = &text[..text.len() - rest.len()];
        if !(local.starts_with('"') || dots(local)) {
            return None;
        }
        let domain = rest.trim_start().strip_prefix('@')?.trim_start();
        if let Some(inner) = domain.strip_prefix('[') {
            return inner.split_once(']').map(|(_, rest)| rest);
        }
        let end = domain
            .find(|c| !atom_char(c) && c != '.')
            .unwrap_or(domain.len());
        (end > 0 && dots(&domain[..end])).then(|| &domain[end..])
    }
}

#[cfg(test)]
mod tests;
