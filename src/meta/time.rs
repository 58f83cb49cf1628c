//! Times as the API writes them. Follows k8s.io/apimachinery/pkg/apis/meta/v1/{time,micro_time}.go.

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Now, in whole seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// The beginning of 1970. Times in UTC are civil ones here: jiff's timestamps end before the last day of 9999.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The time in UTC of seconds since 1970 and nanoseconds; `None` beyond the year 9999.
fn civil(seconds: i64, nanos: i32) -> Option<DateTime> {
    EPOCH.checked_add(SignedDuration::new(seconds, nanos)).ok()
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub fn print(seconds: i64) -> String {
    civil(seconds, 0).map_or_else(String::new, |time| {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    })
}

/// A duration as Go prints it: `2m40s`, `15.3s`, `20ms`, `0s`.
pub fn go_duration(nanos: i64) -> String {
    let (sign, size) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |size: u64, unit: u64, digits: usize| {
        let text = format!("{}.{:0digits$}", size / unit, size % unit);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        text.to_owned()
    };
    let shown = match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{size}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(size, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(size, 1_000_000, 6)),
        _ => {
            let minutes = size / 60_000_000_000;
            let seconds = fraction(size % 60_000_000_000, 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{shown}")
}

/// Seconds since 1970 and nanoseconds as a time with microseconds, in UTC.
pub fn print_micro(seconds: i64, nanos: i64) -> String {
    let time = i32::try_from(nanos)
        .ok()
        .and_then(|nanos| civil(seconds, nanos));
    time.map_or_else(String::new, |time| {
        time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    })
}

/// A time as seconds since 1970 and nanoseconds; `None` if it is invalid.
pub fn parts(text: &str) -> Option<(i64, i64)> {
    let time = read(text, SECONDS).ok()?;
    Some((seconds_of(time), i64::from(time.subsec_nanosecond())))
}

/// Whole seconds since 1970, rounded down.
fn seconds_of(time: DateTime) -> i64 {
    let whole =
        time.duration_since(EPOCH) - SignedDuration::from_nanos(time.subsec_nanosecond().into());
    whole.as_secs()
}

/// Whether a time in canonical form is Go's zero time.
pub fn is_zero(canonical: &str) -> bool {
    matches!(
        canonical,
        "0001-01-01T00:00:00Z" | "0001-01-01T00:00:00.000000Z"
    )
}

/// Parses an RFC 3339 time to seconds since 1970, truncating fractions.
///
/// # Errors
/// The text of Go's time.Parse.
pub fn parse(text: &str) -> Result<i64, String> {
    read(text, SECONDS).map(seconds_of)
}

/// An RFC 3339 time in the form in which it is written back: UTC, whole seconds.
///
/// # Errors
/// The text of Go's time.Parse.
pub fn canonical(text: &str) -> Result<String, String> {
    parse(text).map(print)
}

/// A time with microseconds (exactly six digits), in UTC.
///
/// # Errors
/// The text of Go's time.Parse.
pub fn canonical_micro(text: &str) -> Result<String, String> {
    let rest = seconds(text, MICROS)?;
    let digits = rest
        .strip_prefix('.')
        .map(|tail| tail.bytes().take_while(u8::is_ascii_digit).count());
    match digits {
        Some(6) => Ok(read(text, MICROS)?
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string()),
        // Six digits are parsed, and the zone must follow.
        Some(7..) => Err(refusal(text, MICROS, &rest[7..], "Z07:00")),
        _ => Err(refusal(text, MICROS, rest, ".000000")),
    }
}

fn refusal(text: &str, layout: &str, rest: &str, wanted: &str) -> String {
    format!(
        "parsing time {} as {}: cannot parse {} as {}",
        quoted(text),
        quoted(layout),
        quoted(rest),
        quoted(wanted)
    )
}

/// Text as quoted by Go's package time: bytes outside ASCII one by one.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// What follows the seconds. Go parses element by element, and reports the first mismatch together with the rest of
/// the text.
fn seconds<'a>(text: &'a str, layout: &str) -> Result<&'a str, String> {
    let mut rest = text;
    let all = 0..=99;
    // Whether the month has that day is checked after all other elements.
    for (element, digits, name, range) in [
        ("2006", 4, "", 0..=9999),
        ("-", 0, "", all.clone()),
        ("01", 2, "month", 1..=12),
        ("-", 0, "", all.clone()),
        ("02", 2, "", all.clone()),
        ("T", 0, "", all.clone()),
        ("15", 2, "hour", 0..=23),
        (":", 0, "", all.clone()),
        ("04", 2, "minute", 0..=59),
        (":", 0, "", all),
        ("05", 2, "second", 0..=59),
    ] {
        let fits = if digits == 0 {
            rest.starts_with(element)
        } else {
            rest.len() >= digits && rest.bytes().take(digits).all(|b| b.is_ascii_digit())
        };
        if !fits {
            return Err(refusal(text, layout, rest, element));
        }
        let number = rest.get(..digits).and_then(|digits| digits.parse().ok());
        if number.is_some_and(|number: u16| !range.contains(&number)) {
            return Err(format!(
                "parsing time {}: {name} out of range",
                quoted(text)
            ));
        }
        rest = rest
            .get(if digits == 0 { 1 } else { digits }..)
            .unwrap_or_default();
    }
    Ok(rest)
}

/// A time in UTC. `seconds` has accepted what precedes the fraction, `2006-01-02T15:04:05`.
fn read(text: &str, layout: &str) -> Result<DateTime, String> {
    let mut rest = seconds(text, layout)?;
    let wrong = |why: &str| format!("parsing time {}: {why}", quoted(text));
    let local = &text[..text.len() - rest.len()];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ','])
        && fraction.starts_with(|first: char| first.is_ascii_digit())
    {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let kept = &fraction[..digits.min(9)];
        nanos = format!("{kept:0<9}").parse().unwrap_or(0);
        rest = &fraction[digits..];
    }
    let (offset, more) = zone(rest).ok_or_else(|| refusal(text, layout, rest, "Z07:00"))?;
    if offset.0.abs() > 24 {
        return Err(wrong("time zone offset hour out of range"));
    }
    if offset.1.abs() > 60 {
        return Err(wrong("time zone offset minute out of range"));
    }
    if !more.is_empty() {
        return Err(wrong(&format!("extra text: {}", quoted(more))));
    }
    let local: DateTime = local.parse().map_err(|_| wrong("day out of range"))?;
    let ahead = SignedDuration::from_mins(offset.0 * 60 + offset.1);
    local
        .checked_add(SignedDuration::new(0, nanos))
        .and_then(|local| local.checked_sub(ahead))
        .map_err(|_| wrong("day out of range"))
}

/// The hours and minutes by which a time zone is ahead, and what follows it: `Z` or `+07:00`.
fn zone(text: &str) -> Option<((i64, i64), &str)> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Some(((0, 0), rest));
    }
    let (zone, rest) = text.split_at_checked(6)?;
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_once(':')?;
    let number = |digits: &str| {
        let fits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| digits.parse::<i64>().ok()).flatten()
    };
    Some(((sign * number(hours)?, sign * number(minutes)?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_printed_as_go_does() {
        for (nanos, shown) in [
            (0, "0s"),
            (5, "5ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (15_300_000_000, "15.3s"),
            (160_000_000_000, "2m40s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
            (-10_000_000_000, "-10s"),
        ] {
            assert_eq!(go_duration(nanos), shown);
        }
    }

    #[test]
    fn times_are_written_back_in_utc() {
        assert_eq!(
            canonical("2020-01-01T02:00:00.9+01:00").unwrap(),
            "2020-01-01T01:00:00Z"
        );
        assert_eq!(
            canonical_micro("2020-01-01T02:00:00.000009+01:00").unwrap(),
            "2020-01-01T01:00:00.000009Z"
        );
        for (text, shown) in [
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"),
            ("2020-01-01T00:00:00,25-00:30", "2020-01-01T00:30:00Z"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(shown), "{text}");
        }
        assert_eq!(parts("1969-12-31T23:59:59.5Z"), Some((-1, 500_000_000)));
    }

    #[test]
    fn what_does_not_fit_is_told_as_go_tells_it() {
        assert_eq!(
            canonical("yesterday").unwrap_err(),
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#
        );
        assert_eq!(
            canonical_micro("2020-13-01T01:00:00Z").unwrap_err(),
            r#"parsing time "2020-13-01T01:00:00Z": month out of range"#
        );
        assert_eq!(
            canonical("2020-02-30T01:00:00Z").unwrap_err(),
            r#"parsing time "2020-02-30T01:00:00Z": day out of range"#
        );
        assert_eq!(
            canonical("2020-01-01T01:00:00Zx").unwrap_err(),
            r#"parsing time "2020-01-01T01:00:00Zx": extra text: "x""#
        );
        assert_eq!(
            canonical("2020-01-01T01:00:00+25:00").unwrap_err(),
            r#"parsing time "2020-01-01T01:00:00+25:00": time zone offset hour out of range"#
        );
        assert_eq!(
            canonical("2020-01-01T01:00:00.Z").unwrap_err(),
            r#"parsing time "2020-01-01T01:00:00.Z" as "2006-01-02T15:04:05Z07:00": cannot parse ".Z" as "Z07:00""#
        );
        assert_eq!(
            canonical_micro("2020-01-01T01:00:00Z").unwrap_err(),
            r#"parsing time "2020-01-01T01:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#
        );
    }
}
