//! Types of plain scalars: the rules of YAML 1.1 as applied by go-yaml v2.

use crate::schema::Value;

/// A scalar's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Timestamp,
    Merge,
    Str,
}

impl Tag {
    /// The tag as shown in errors.
    pub(super) fn short(self) -> &'static str {
        match self {
            Tag::Null => "!!null",
            Tag::Bool => "!!bool",
            Tag::Int => "!!int",
            Tag::Float => "!!float",
            Tag::Timestamp => "!!timestamp",
            Tag::Merge => "!!merge",
            Tag::Str => "!!str",
        }
    }
}

/// Resolves an untagged plain scalar. Timestamps and merge keys stay text.
pub(super) fn resolve(text: &str) -> (Tag, Value) {
    let Some(&first) = text.as_bytes().first() else {
        return (Tag::Null, Value::Null);
    };
    let string = || Value::from(text);
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' | b'<' => {
            word(text).unwrap_or_else(|| (Tag::Str, string()))
        }
        b'.' => match word(text) {
            Some(found) => found,
            None => match float(text) {
                Some(number) => (Tag::Float, Value::Float(number)),
                None => (Tag::Str, string()),
            },
        },
        b'+' | b'-' | b'0'..=b'9' => {
            if let Some(found) = word(text) {
                return found;
            }
            if is_timestamp(text) {
                return (Tag::Timestamp, string());
            }
            let plain: std::borrow::Cow<'_, str> = if text.contains('_') {
                text.replace('_', "").into()
            } else {
                text.into()
            };
            if let Some(number) = integer(&plain) {
                return (Tag::Int, number);
            }
            match float(&plain) {
                Some(number) => (Tag::Float, Value::Float(number)),
                None => (Tag::Str, string()),
            }
        }
        _ => (Tag::Str, string()),
    }
}

fn word(text: &str) -> Option<(Tag, Value)> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            (Tag::Bool, Value::Bool(true))
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            (Tag::Bool, Value::Bool(false))
        }
        "~" | "null" | "Null" | "NULL" => (Tag::Null, Value::Null),
        ".nan" | ".NaN" | ".NAN" => (Tag::Float, Value::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            (Tag::Float, Value::Float(f64::INFINITY))
        }
        "-.inf" | "-.Inf" | "-.INF" => (Tag::Float, Value::Float(f64::NEG_INFINITY)),
        "<<" => (Tag::Merge, Value::from("<<")),
        _ => return None,
    })
}

/// Integers in Go's literal forms: `0x`, `0o` and `0` for octal, `0b`; a positive one may use 64 bits (and is then
/// a float here, as it would be after JSON).
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return 0i64.checked_sub_unsigned(size).map(Value::Int);
    }
    // A number with an explicit plus is only read as a signed one.
    match i64::try_from(size) {
        Ok(number) => Some(Value::Int(number)),
        Err(_) if text.starts_with('+') => None,
        #[allow(
            clippy::cast_precision_loss,
            reason = "what a float64 keeps of it is the value"
        )]
        Err(_) => Some(Value::Float(size as f64)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, within the range of a float64.
fn float(text: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let places = digits(fraction);
        if whole == 0 && places == 0 {
            return None;
        }
        rest = &fraction[places..];
    } else if whole == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let places = digits(exponent);
        if places == 0 {
            return None;
        }
        rest = &exponent[places..];
    }
    if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether go-yaml reads this as a time: a date, or a date and a time, in the known forms.
pub(super) fn is_timestamp(text: &str) -> bool {
    timestamp(text).is_some()
}

fn timestamp(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return None;
    }
    let year: u32 = text.get(..4)?.parse().ok()?;
    let (month, rest) = number(text.get(5..)?)?;
    let (day, rest) = number(rest.strip_prefix('-')?)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    if rest.is_empty() {
        return Some(());
    }
    let zoned = rest.starts_with(['T', 't']);
    let (hour, rest) = number(rest.strip_prefix(['T', 't', ' '])?)?;
    let (minute, rest) = number(rest.strip_prefix(':')?)?;
    let (second, mut rest) = number(rest.strip_prefix(':')?)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let places = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if places == 0 {
            return None;
        }
        rest = &fraction[places..];
    }
    if !zoned {
        return rest.is_empty().then_some(());
    }
    if rest == "Z" {
        return Some(());
    }
    let zone = rest.strip_prefix(['+', '-'])?.as_bytes();
    let two = |a: u8, b: u8, max: u8| {
        a.is_ascii_digit() && b.is_ascii_digit() && (a - b'0') * 10 + (b - b'0') <= max
    };
    match *zone {
        [a, b, b':', c, d] if two(a, b, 24) && two(c, d, 60) => Some(()),
        _ => None,
    }
}

/// Parses one or two leading digits.
fn number(text: &str) -> Option<(u32, &str)> {
    let n = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    Some((text.get(..n)?.parse().ok()?, &text[n..]))
}

/// Sexagesimal numbers, which go-yaml does not read but quotes for other parsers.
pub(super) fn is_base60(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let digit = |c: char| c.is_ascii_digit() || c == '_';
    let mut rest = rest.trim_start_matches(digit);
    let mut groups = 0;
    while let Some(group) = rest.strip_prefix(':') {
        let n = group.bytes().take(2).take_while(u8::is_ascii_digit).count();
        if n == 0 || (n == 2 && group.as_bytes()[0] > b'5') {
            return false;
        }
        groups += 1;
        rest = &group[n..];
    }
    groups > 0
        && (rest.is_empty()
            || rest
                .strip_prefix('.')
                .is_some_and(|rest| rest.chars().all(digit)))
}
