//! Checks of types, enumerations, strings and numbers.

use super::super::Check;
use super::outcome::{Fault, Outcome, Place, Told, fault, plain};
use crate::meta::errors::{Reason, quoted};
use crate::schema::{Value, json};

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Float(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn kind(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
    let types = &check.types;
    let is = type_of(value);
    let refused = |wanted: &str, found: &str| {
        let message = format!(
            "{place} in body must be of type {wanted}: {}",
            quoted(found)
        );
        let mut out = Outcome::default();
        let found = Value::from(found);
        out.add(fault(Reason::TypeInvalid, place, &found, message));
        out
    };
    let passed = Outcome {
        passed: 1,
        ..Outcome::default()
    };
    if value.is_null() {
        return if types.is_empty() || check.nullable {
            passed
        } else {
            refused(&types.join(","), is)
        };
    }
    let whole =
        matches!(value, Value::Float(number) if is_whole(*number)) && types.contains(&"integer");
    let fits = types.contains(&is)
        || whole
        || (matches!(value, Value::Int(_)) && types.contains(&"number"));
    let texty = matches!(value, Value::String(_) | Value::Array(_));
    if let Some((format, _)) = &check.format {
        let found = match value {
            Value::Int(_) => "int64",
            Value::Float(_) => "float64",
            _ => "",
        };
        if !texty && !fits && **format != *found {
            return refused(format, found);
        }
        if texty && !types.contains(&"number") && !types.contains(&"integer") {
            return passed;
        }
    }
    if fits {
        passed
    } else {
        refused(&types.join(","), is)
    }
}

/// Whether a float is an integer in the range of JSON numbers.
fn is_whole(number: f64) -> bool {
    const MOST: f64 = 9_007_199_254_740_991.0;
    if !number.is_finite() || number.abs() > MOST {
        return false;
    }
    let cut = number.trunc();
    number == cut || (number - cut).abs() / (number.abs() + cut.abs()) < 1e-9
}

pub(super) fn string(check: &Check, text: &str, place: Place<'_>) -> Outcome {
    let length = || text.chars().count() as i64;
    let mut out = Outcome::default();
    let value = || Value::from(text);
    if let Some(most) = check.max_length.filter(|most| length() > *most) {
        let fault = Fault {
            field: Some(place.to_string()),
            reason: Reason::TooLong,
            message: match most {
                // A negative limit has no length to show.
                i64::MIN..=-1 => "Too long: value is too long".to_owned(),
                1 => "Too long: may not be more than 1 byte".to_owned(),
                most => format!("Too long: may not be more than {most} bytes"),
            },
        };
        let text = format!("{place} in body should be at most {most} chars long");
        out.add((text, fault));
    } else if let Some(least) = check.min_length.filter(|least| length() < *least) {
        let message = format!("{place} in body should be at least {least} chars long");
        out.add(fault(Reason::Invalid, place, &value(), message));
    } else if let Some(declared) = &check.pattern {
        let pattern = &declared.text;
        let message = match declared.is_found(text) {
            Ok(true) => return out,
            Ok(false) => format!("{place} in body should match '{pattern}'"),
            Err(why) => {
                format!("{place} in body should match '{pattern}, but pattern is invalid: {why}'")
            }
        };
        out.add(fault(Reason::Invalid, place, &value(), message));
    }
    out
}

/// Whether a number fits the declared type, with upstream's error if not.
fn in_range(check: &Check, value: &Value, prefix: &str, place: Place<'_>) -> Result<(), Told> {
    let ([name], format) = (check.types.as_slice(), &check.format) else {
        return Ok(());
    };
    let format = format
        .as_ref()
        .map(|(format, _)| &**format)
        .filter(|format| super::super::formats::recognized(format, &[name]))
        .unwrap_or_default();
    let fits = match (*name, format, value) {
        ("integer", "int32", Value::Int(number)) => i32::try_from(*number).is_ok(),
        ("integer", _, Value::Int(_)) => true,
        ("integer", format, Value::Float(number)) => {
            let most = if format == "int32" {
                f64::from(i32::MAX) + 1.0
            } else {
                9_223_372_036_854_775_808.0
            };
            number.fract() == 0.0 && *number < most && *number >= -most
        }
        ("number", "float", Value::Float(number)) => (*number as f32).is_finite(),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    let kind = if format.is_empty() {
        format!("{name} (default format)")
    } else {
        format!("{name} with format {format}")
    };
    Err(plain(format!(
        "{prefix} value must be of type {kind} in {place}"
    )))
}

pub(super) fn number(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
    let mut out = Outcome::default();
    let float = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return out,
    };
    // Compare integers as such, unless the bound does not fit the declared type.
    let int = |fits: bool| value.as_int().filter(|_| fits);
    if let Err(fault) = in_range(check, value, "Checked", place) {
        out.add(fault);
    }
    if let Some(factor) = check.multiple_of {
        let mut part = Outcome::default();
        let range = in_range(check, &Value::Float(factor), "MultipleOf", place);
        let int = int(range.is_ok());
        range.err().into_iter().for_each(|told| part.add(told));
        let (positive, holds, shown) = match int {
            Some(number) => {
                let factor = factor as i64;
                let holds = factor > 0 && number % factor == 0;
                (factor > 0, holds, factor.to_string())
            }
            None => {
                let times = if factor < 1.0 {
                    1.0 / factor * float
                } else {
                    float / factor
                };
                (factor > 0.0, is_whole(times), json::go_float(factor))
            }
        };
        if !positive {
            let message =
                format!("factor MultipleOf declared for {place} must be positive: {shown}");
            let factor = match int {
                Some(_) => Value::Int(factor as i64),
                None => Value::Float(factor),
            };
            part.add(fault(Reason::Invalid, place, &factor, message));
        } else if !holds {
            let message = format!("{place} in body should be a multiple of {shown}");
            let value = int.map_or(Value::Float(float), Value::Int);
            part.add(fault(Reason::Invalid, place, &value, message));
        }
        out.merge(part);
    }
    let mut bound = |bound: Option<(f64, bool)>, greatest: bool| {
        let Some((limit, excluded)) = bound else {
            return;
        };
        let mut part = Outcome::default();
        let name = if greatest {
            "Maximum boundary"
        } else {
            "Minimum boundary"
        };
        let range = in_range(check, &Value::Float(limit), name, place);
        let int = int(range.is_ok());
        range.err().into_iter().for_each(|told| part.add(told));
        let order = match int {
            Some(number) => number.cmp(&(limit as i64)),
            None => float
                .partial_cmp(&limit)
                .unwrap_or(std::cmp::Ordering::Equal),
        };
        let beyond = if greatest {
            order.is_gt()
        } else {
            order.is_lt()
        };
        if beyond || (excluded && order.is_eq()) {
            let word = match (greatest, excluded) {
                (true, false) => "less than or equal to",
                (true, true) => "less than",
                (false, false) => "greater than or equal to",
                (false, true) => "greater than",
            };
            let shown = match int {
                Some(_) => (limit as i64).to_string(),
                None => json::go_float(limit),
            };
            let message = format!("{place} in body should be {word} {shown}");
            let value = int.map_or(Value::Float(float), Value::Int);
            part.add(fault(Reason::Invalid, place, &value, message));
        }
        out.merge(part);
    };
    // Reported in the order multipleOf, minimum, maximum.
    bound(check.minimum, false);
    bound(check.maximum, true);
    out.passed += 1;
    out
}

pub(super) fn choices(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
    let mut out = Outcome::default();
    if check.choices.is_empty() || check.choices.iter().any(|choice| chosen(value, choice)) {
        return out;
    }
    let choices: Vec<String> = check
        .choices
        .iter()
        .map(|choice| match choice {
            Value::String(text) => quoted(text),
            other => quoted(&json::to_string(other)),
        })
        .collect();
    let shown = crate::meta::errors::shown(value);
    let list = choices.join(", ");
    let fault = Fault {
        field: Some(place.to_string()),
        reason: Reason::NotSupported,
        message: format!("Unsupported value: {shown}: supported values: {list}"),
    };
    out.add((format!("{place} in body should be one of [{list}]"), fault));
    out
}

/// Whether a value equals a choice after conversion to the choice's type, like Go's numeric conversions.
fn chosen(value: &Value, choice: &Value) -> bool {
    match (value, choice) {
        (_, Value::Null) => false,
        (Value::Float(number), Value::Int(choice)) => *number as i64 == *choice,
        (Value::Int(number), Value::Float(choice)) => *number as f64 == *choice,
        (Value::Int(number), Value::String(choice)) => {
            let c = u32::try_from(*number).ok().and_then(char::from_u32);
            choice
                .chars()
                .eq([c.unwrap_or(char::REPLACEMENT_CHARACTER)])
        }
        (value, choice) => value == choice,
    }
}
