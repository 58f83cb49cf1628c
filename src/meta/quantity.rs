//! Resource quantities: exact decimals with an SI or binary suffix. Follows
//! k8s.io/apimachinery/pkg/api/resource/quantity.go.
//!
//! A quantity is held in nano-units (the finest that upstream keeps; finer ones are rounded up), so sums and
//! comparisons use plain integers.

mod parts;

use std::fmt;

use self::parts::{Parts, magnitude, suffix};

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
