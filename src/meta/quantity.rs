//! Resource quantities: exact decimals with an SI or binary suffix. Follows
//! k8s.io/apimachinery/pkg/api/resource/quantity.go.
//!
//! A quantity is held in nano-units (the finest that upstream keeps; finer ones are rounded up), so sums and
//! comparisons use plain integers.

use std::borrow::Cow;
use std::fmt;

/// The error for a text that does not look like a quantity.
const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NANO: i128 = 1_000_000_000;
/// The maximum of binary quantities, in units.
const LARGEST: i128 = (1 << 63) - 1;
/// Decimal quantities are unbounded upstream; here the maximum is what fits into an `i128` of nano-units.
const LARGEST_DECIMAL: i128 = i128::MAX / NANO;

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not a number followed by something that could be a suffix.
    #[error("{MALFORMED}")]
    Form,
    /// What follows the number is not a suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `Ki`, `Mi`, ...
    Binary,
    /// `m`, `k`, `M`, ...
    #[default]
    Decimal,
    /// `1e3`
    Exponent,
}

/// A quantity. Compared and added by value; the form is only for printing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    /// Upstream holds it as a big decimal, not as an `int64` and a power of ten.
    is_big: bool,
    /// How it is printed.
    pub form: Form,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;
    /// The sum, printed like the first that is not zero, as upstream does.
    fn add(self, other: Quantity) -> Quantity {
        self.with(other, self.nanos.saturating_add(other.nanos))
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self.with(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl Quantity {
    /// A number of units.
    pub fn units(units: i64, form: Form) -> Quantity {
        Quantity {
            nanos: i128::from(units) * NANO,
            is_big: false,
            form,
        }
    }

    /// A number of thousandths.
    pub fn milli(milli: i64, form: Form) -> Quantity {
        Quantity {
            nanos: i128::from(milli) * (NANO / 1000),
            is_big: false,
            form,
        }
    }

    /// The result of an operation with `other`, in nano-units.
    fn with(self, other: Quantity, nanos: i128) -> Quantity {
        Quantity {
            nanos,
            is_big: self.is_big || other.is_big || i64::try_from(nanos / NANO).is_err(),
            form: if self.nanos == 0 {
                other.form
            } else {
                self.form
            },
        }
    }

    /// Parses `1.5Gi`, `250m`, `1e3`. Without any digit (`k`, `.`, `-`) the number is zero, as upstream.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn parse(text: &str) -> Result<Quantity, Malformed> {
        let parts = Parts::read(text)?;
        let nanos = magnitude(parts.whole, parts.fraction, &parts.scale);
        Ok(Quantity {
            nanos: if parts.negative { -nanos } else { nanos },
            is_big: !parts.is_short(),
            form: parts.form,
        })
    }

    /// In units, rounded up (away from zero). If it does not fit an `int64` the result is zero or truncated to its
    /// lower bits, like upstream's Value.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// In thousandths, like [`Quantity::value`].
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let scaled = divide_up(self.nanos, unit);
        match i64::try_from(scaled) {
            Ok(scaled) => scaled,
            Err(_) if self.is_big => scaled as i64,
            Err(_) => 0,
        }
    }

    /// Rounded up (away from zero) to thousandths; `None` if it has no finer part.
    pub fn rounded_to_milli(&self) -> Option<Quantity> {
        let step = NANO / 1000;
        (self.nanos % step != 0).then(|| Quantity {
            nanos: divide_up(self.nanos, step) * step,
            ..*self
        })
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether upstream's MilliValue sees a part below one unit.
    pub fn is_fractional(&self) -> bool {
        self.milli_value() % 1000 != 0
    }
}

/// The factor of a suffix: a power of 1024, or of ten.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

/// The parts of a quantity's text, split like parseQuantityString.
struct Parts<'a> {
    negative: bool,
    /// Digits without leading zeros; may be empty.
    whole: &'a str,
    fraction: &'a str,
    form: Form,
    scale: Scale,
}

impl Parts<'_> {
    fn read(text: &str) -> Result<Parts<'_>, Malformed> {
        if text.is_empty() {
            return Err(Malformed::Form);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, rest) = digits(unsigned.trim_start_matches('0'));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        // Everything that looks like a suffix: letters, a sign, digits.
        let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
        if !digits(tail).1.is_empty() {
            return Err(Malformed::Form);
        }
        let (form, scale) = scale(suffix)?;
        Ok(Parts {
            negative,
            whole,
            fraction,
            form,
            scale,
        })
    }

    /// The digits before the point, at least one.
    fn units(&self) -> &str {
        match self.whole {
            "" => "0",
            whole => whole,
        }
    }

    /// The power of ten of the last digit of a decimal number.
    fn last(&self, exponent: i32) -> i64 {
        i64::from(exponent) - self.fraction.len() as i64
    }

    /// Whether ParseQuantity uses its fast path for short numbers.
    fn is_short(&self) -> bool {
        let whole = self.units();
        match self.scale {
            Scale::Decimal(exponent) => {
                whole.len() + self.fraction.len() <= 18 && self.last(exponent) >= -9
            }
            Scale::Binary(power) => {
                self.fraction.is_empty() && whole.len() + power as usize * 3 < 15
            }
        }
    }

    /// Whether the fast path keeps the text. It keeps `0100m`, `+5` and `1.500`, but not `1000m`.
    fn is_kept(&self) -> bool {
        let whole = self.units();
        self.is_short()
            && match self.scale {
                Scale::Decimal(exponent) => {
                    let digits = format!("{whole}{}", self.fraction);
                    self.last(exponent) % 3 == 0
                        && !digits.ends_with("000")
                        && !digits.starts_with('0')
                }
                Scale::Binary(_) => whole.parse::<i64>().is_ok_and(|value| value & 7 != 0),
            }
    }

    /// The canonical text of a decimal number too large for an `i128` of nano-units; `None` if it fits.
    fn beyond(&self) -> Option<String> {
        let Scale::Decimal(exponent) = self.scale else {
            return None;
        };
        let all = format!("{}{}", self.whole, self.fraction);
        let all = all.trim_start_matches('0');
        let number = all.trim_end_matches('0');
        let zeros = all.len() - number.len();
        let exponent = i64::from(exponent) - self.fraction.len() as i64 + zeros as i64;
        // So many digits before the point that no fraction is cut off.
        if exponent < -9 || all.len() as i64 + exponent < 29 {
            return None;
        }
        let sign = if self.negative { "-" } else { "" };
        let more = "0".repeat(exponent.rem_euclid(3) as usize);
        let exponent = exponent - exponent.rem_euclid(3);
        Some(format!(
            "{sign}{number}{more}{}",
            suffix(self.form, exponent)
        ))
    }
}

/// Splits a text at the first byte that is not a digit.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn scale(suffix: &str) -> Result<(Form, Scale), Malformed> {
    if let Some(power) = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
        .iter()
        .position(|s| *s == suffix)
    {
        return Ok((Form::Binary, Scale::Binary(power as u32 + 1)));
    }
    let decimal = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Malformed::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| Malformed::Suffix)?;
            return Ok((Form::Exponent, Scale::Decimal(exponent)));
        }
    };
    Ok((Form::Decimal, Scale::Decimal(decimal)))
}

/// The suffix for a power of ten that is a multiple of three.
fn suffix(form: Form, exponent: i64) -> Cow<'static, str> {
    if form == Form::Exponent {
        return match exponent {
            0 => Cow::Borrowed(""),
            _ => Cow::Owned(format!("e{exponent}")),
        };
    }
    Cow::Borrowed(match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        // There is no suffix above 10^18: upstream writes none, and thus another number.
        _ => "",
    })
}

/// The nano-units of a positive number, rounded up, and capped at [`LARGEST`] units or, for decimal ones,
/// [`LARGEST_DECIMAL`].
fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let (binary, decimal, limit) = match scale {
        Scale::Binary(power) => (1_i128 << (10 * power), 0, LARGEST * NANO),
        Scale::Decimal(power) => (1, i64::from(*power), LARGEST_DECIMAL * NANO),
    };
    let mut digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|b| b - b'0')
        .collect();
    if digits.iter().all(|d| *d == 0) {
        return 0;
    }
    let mut point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    point = point.saturating_add(decimal).saturating_add(9);
    let leading = digits.iter().take_while(|d| **d == 0).count();
    digits.drain(..leading);
    point -= leading as i64;
    // More digits than these are beyond the limit, or too small to be kept.
    if point > 39 {
        return limit;
    }
    // Keep some more digits than needed before applying a binary factor, then round up.
    let extra = match scale {
        Scale::Binary(_) => (digits.len() as i64 - point).clamp(0, 12),
        Scale::Decimal(_) => 0,
    };
    let wanted = point + extra;
    if wanted < 0 {
        return 1;
    }
    let wanted = wanted as usize;
    let lost = digits.iter().skip(wanted).any(|d| *d != 0);
    digits.resize(wanted, 0);
    let value = digits.iter().try_fold(0_i128, |sum, d| {
        sum.checked_mul(10)?.checked_add(i128::from(*d))
    });
    let Some(value) = value.and_then(|value| value.checked_mul(binary)) else {
        return limit;
    };
    let divisor = 10_i128.pow(extra as u32);
    let rounded = value / divisor + i128::from(value % divisor != 0 || lost);
    rounded.min(limit)
}

fn divide_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 {
        quotient
    } else {
        quotient + value.signum()
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let size = self.nanos.abs();
        if self.form == Form::Binary && size % NANO == 0 && size >= 1024 * NANO {
            let mut units = size / NANO;
            let mut power = 0;
            while units % 1024 == 0 && power < 6 {
                units /= 1024;
                power += 1;
            }
            return write!(
                f,
                "{sign}{units}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]
            );
        }
        let mut mantissa = size;
        let mut exponent = -9_i64;
        while mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        write!(f, "{sign}{mantissa}{}", suffix(self.form, exponent))
    }
}

/// A quantity as written back after decoding: unchanged if upstream's decoder considers the text canonical,
/// else in canonical form.
///
/// # Errors
/// [`Malformed`]
pub fn canonical(text: &str) -> Result<String, Malformed> {
    let parts = Parts::read(text)?;
    if text == "0" || parts.is_kept() {
        return Ok(text.to_owned());
    }
    match parts.beyond() {
        Some(text) => Ok(text),
        None => Quantity::parse(text).map(|quantity| quantity.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_printed_in_canonical_form() {
        for (text, printed) in [
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("-1Gi", "-1Gi"),
            ("100Mi", "100Mi"),
            ("1.0001", "1000100u"),
            ("0.5Ki", "512"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("12E", "12E"),
            ("12Ei", "9223372036854775807"),
            ("100000000000000000000", "100E"),
            ("1000E", "1"),
            ("1e21", "1e21"),
            ("1.5e28", "15e27"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                printed,
                "{text}"
            );
        }
    }

    #[test]
    fn texts_that_are_canonical_enough_are_kept() {
        for (text, kept) in [
            ("1000m", "1"),
            ("1e3", "1e3"),
            ("2000m", "2"),
            ("100m", "100m"),
            ("1000M", "1G"),
            ("0100m", "0100m"),
            ("+5", "+5"),
            ("2e0", "2e0"),
            ("1000000u", "1"),
            ("1.500", "1.500"),
            ("0.5", "500m"),
            ("05Gi", "05Gi"),
            ("1024Mi", "1Gi"),
            ("100M", "100M"),
            ("0", "0"),
            ("00", "0"),
            ("-0", "0"),
            ("16Mi", "16Mi"),
            ("12e-2", "120e-3"),
            ("2E5", "200e3"),
            ("1.5k", "1500"),
            ("0.001", "1m"),
            ("7Ei", "7Ei"),
            ("1e30", "1e30"),
            ("1e400", "10e399"),
            (
                "1234567890123456789012345678901234567890",
                "1234567890123456789012345678901234567890",
            ),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(kept), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1x", "1.2.3", "1 Gi", "5e3m", "1\u{e9}"] {
            assert_eq!(Quantity::parse(text), Err(Malformed::Form), "{text}");
        }
        for text in ["--1", "1e", "1Kii", "1K", "1m-3", "0Ki5", "1ee3"] {
            assert_eq!(Quantity::parse(text), Err(Malformed::Suffix), "{text}");
        }
        for text in [".", "k", "-", "e3", "+.Mi"] {
            assert_eq!(canonical(text).as_deref(), Ok("0"), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let quantity = Quantity::parse("1.0001").unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1001));
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
        assert_eq!(
            (Quantity::parse("1").unwrap() + Quantity::parse("500m").unwrap()).to_string(),
            "1500m"
        );
    }
}
