//! Durations, in the words of Go and Scala.

use super::AMOUNT;
use crate::meta::errors::quoted;

/// A duration for Go's time.ParseDuration, or with units as in Scala: `3 days`.
pub fn duration(text: &str) -> bool {
    go_duration(text).is_some() || scala_duration(text)
}

/// Parses a duration like Go's time.ParseDuration, in nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    go_duration(text).ok_or_else(|| wrong_duration(text))
}

/// Go's time.ParseDuration's error for a text.
fn wrong_duration(text: &str) -> String {
    let whole = quoted(text);
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    while !rest.is_empty() {
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !number(c)).unwrap_or(rest.len());
        if digits == 0 || rest[..digits].matches('.').count() > 1 || &rest[..digits] == "." {
            break;
        }
        rest = &rest[digits..];
        let end = rest.find(number).unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return format!("time: missing unit in duration {whole}");
        }
        if go_duration(&format!("0{unit}")).is_none() {
            return format!("time: unknown unit {} in duration {whole}", quoted(unit));
        }
        rest = &rest[end..];
    }
    format!("time: invalid duration {whole}")
}

/// The nanoseconds of a duration in Go's notation: `1h30m`, `-1.5s`.
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (whole, behind) = rest.split_at(end);
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => {
                let end = behind
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(behind.len());
                behind.split_at(end)
            }
            None => ("", behind),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = behind
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let part: f64 = format!("0.{fraction}").parse().ok()?;
            total = total.checked_add((part * scale as f64) as u128)?;
        }
        rest = behind;
    }
    let most = i64::MAX as u128 + u128::from(negative);
    if total > most {
        return None;
    }
    let total = total as i128;
    i64::try_from(if negative { -total } else { total }).ok()
}

fn scala_duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "\u{b5}s", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let Some(regex) = AMOUNT.as_ref() else {
        return false;
    };
    let mut known = false;
    for found in regex.captures_iter(text) {
        if found[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = found[2].to_lowercase();
        known |= UNITS.iter().any(|names| {
            names.contains(&unit.as_str())
                || names.last().is_some_and(|last| unit.starts_with(last))
        });
    }
    known
}
