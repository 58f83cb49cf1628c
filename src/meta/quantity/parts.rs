//! The written form of a quantity: sign, digits, suffix, and what of it is exact.

use std::borrow::Cow;

use super::{Form, LARGEST, LARGEST_DECIMAL, Malformed, NANO};

/// The factor of a suffix: a power of 1024, or of ten.
pub(super) enum Scale {
    Binary(u32),
    Decimal(i32),
}

/// The parts of a quantity's text, split like parseQuantityString.
pub(super) struct Parts<'a> {
    pub(super) negative: bool,
    /// Digits without leading zeros; may be empty.
    pub(super) whole: &'a str,
    pub(super) fraction: &'a str,
    pub(super) form: Form,
    pub(super) scale: Scale,
}

impl Parts<'_> {
    pub(super) fn read(text: &str) -> Result<Parts<'_>, Malformed> {
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
    pub(super) fn is_short(&self) -> bool {
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
    pub(super) fn is_kept(&self) -> bool {
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
    pub(super) fn beyond(&self) -> Option<String> {
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
pub(super) fn suffix(form: Form, exponent: i64) -> Cow<'static, str> {
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
pub(super) fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
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
