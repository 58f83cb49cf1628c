//! Ports, ids and percentages.

use super::{Wrong, lower, max_length, regex_error};

/// `must be between A and B, inclusive`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A decimal integer in canonical form: IsDecimalInteger.
pub fn decimal_integer(value: &str) -> Wrong {
    let wrong = || vec!["must be a valid decimal integer in canonical form".to_owned()];
    if value.is_empty() {
        return vec!["must be non-empty".to_owned()];
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    match digits.as_bytes() {
        [b'0'] if digits.len() == value.len() => Wrong::new(),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => Wrong::new(),
        _ => wrong(),
    }
}

/// A port number: IsValidPortNum.
pub fn port_number(port: i64) -> Wrong {
    in_range(port, 1, 65535)
}

/// A number within bounds: IsInRange.
pub fn in_range(value: i64, low: i64, high: i64) -> Wrong {
    if (low..=high).contains(&value) {
        Wrong::new()
    } else {
        vec![range_error(low, high)]
    }
}

/// A user ID: IsValidUserID.
pub fn user_id(id: i64) -> Wrong {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A group ID: IsValidGroupID.
pub fn group_id(id: i64) -> Wrong {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A port name (RFC 6335): IsValidPortName.
pub fn port_name(value: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if value.len() > 15 {
        wrong.push(max_length(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower(b) || b == b'-') {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A percentage: IsValidPercent.
pub fn percent(value: &str) -> Wrong {
    const TEXT: &str = "a valid percent string must be a numeric string followed by an ending '%'";
    let form = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if form {
        Wrong::new()
    } else {
        vec![regex_error(TEXT, "[0-9]+%", &["1%", "93%"])]
    }
}

/// The number of a percentage, capped at `i64::MAX`; `None` if the text is not a percentage.
pub fn percentage(value: &str) -> Option<i64> {
    let digits = value
        .strip_suffix('%')
        .filter(|_| percent(value).is_empty())?;
    Some(digits.parse().unwrap_or(i64::MAX))
}
