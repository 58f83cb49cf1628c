//! Numbers as Go's strconv parses them, with its error texts.

use super::errors::quoted;

/// Parses an `int64` like Go's strconv.ParseInt.
///
/// # Errors
/// `strconv.ParseInt: parsing "abc": invalid syntax`
pub fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let why = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        "value out of range"
    };
    text.parse()
        .map_err(|_| format!("strconv.ParseInt: parsing {}: {why}", quoted(text)))
}

/// Parses a `uint64` like Go's strconv.ParseUint.
///
/// # Errors
/// `strconv.ParseUint: parsing "abc": invalid syntax`
pub fn parse_uint(text: &str) -> Result<u64, String> {
    let why = if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        "value out of range"
    };
    let plain = if text.starts_with('+') {
        None
    } else {
        text.parse().ok()
    };
    plain.ok_or_else(|| format!("strconv.ParseUint: parsing {}: {why}", quoted(text)))
}

/// Parses a `bool` like Go's strconv.ParseBool; None for any other text.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, number) in [("0", 0), ("007", 7), ("+3", 3), ("-5", -5)] {
            assert_eq!(parse_int(text), Ok(number), "{text}");
        }
        for (text, why) in [
            ("", "invalid syntax"),
            (" 1", "invalid syntax"),
            ("0x10", "invalid syntax"),
            ("9223372036854775808", "value out of range"),
        ] {
            let told = format!("strconv.ParseInt: parsing {}: {why}", quoted(text));
            assert_eq!(parse_int(text), Err(told), "{text}");
        }
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        assert!(parse_uint("-1").is_err() && parse_uint("+1").is_err());
    }
}
