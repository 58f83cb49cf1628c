//! Runs checks on values. An update is not rejected for unchanged parts that were invalid before ("ratcheting").

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;

use super::super::types::ListType;
use super::super::{Key, Value, json};
use super::{Check, lists};
use crate::meta::Errors;
use crate::meta::budget::Budget;
use crate::meta::errors::{FieldError, Path, Reason, quoted};

/// One validation error.
struct Fault {
    /// Path below the base; `None` for errors about the base itself.
    field: Option<String>,
    reason: Reason,
    /// The message after the path.
    message: String,
}

/// An error with the text of upstream's validator; errors with the same text are reported once.
type Told = (String, Fault);

/// The result of checking one value.
#[derive(Default)]
struct Outcome {
    faults: IndexMap<String, Fault, foldhash::fast::RandomState>,
    /// How many checks passed: of several failed alternatives, the errors of the one with the most are reported.
    passed: usize,
    /// How much of them is kept. What remains is not looked at when it is spent.
    budget: Budget,
}

impl Outcome {
    fn add(&mut self, (text, fault): Told) {
        let field = fault.field.as_ref().map_or(0, String::len);
        if self.budget.spend(text.len() + fault.message.len() + field) {
            self.faults.entry(text).or_insert(fault);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.passed += other.passed;
        if self.faults.is_empty() {
            (self.faults, self.budget) = (other.faults, other.budget);
            return;
        }
        other.faults.into_iter().for_each(|told| self.add(told));
    }

    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A path to a value, as a chain on the stack.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    /// A named member.
    Field(&'a Place<'a>, &'a str),
    /// A member covered only by `additionalProperties`.
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(Place::Root, name) => f.write_str(name),
            Place::Field(parent, name) | Place::Key(parent, name) => write!(f, "{parent}.{name}"),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The old value at a place, and the checks that say how its parts match those of the new value.
#[derive(Clone, Copy)]
struct Old<'a> {
    value: &'a Value,
    check: &'a Check,
}

/// Checks `new`; ignores errors in parts unchanged from `old`. Paths begin with `base`.
pub fn validate(
    check: &Check,
    new: &Value,
    old: Option<&Value>,
    base: Path<'_>,
    errors: &mut Errors,
) {
    // The old value can only remove errors, and mostly there are none.
    let mut outcome = run(check, new, None, Place::Root);
    if !outcome.is_valid()
        && let Some(value) = old
    {
        outcome = ratcheted(check, new, Some(Old { value, check }), Place::Root);
    }
    for fault in outcome.faults.into_values() {
        let field = match fault
            .field
            .as_deref()
            .map(|name| name.trim_start_matches('.'))
        {
            None | Some("") => base.to_string(),
            Some(name) => base.field(name).to_string(),
        };
        errors.add(FieldError {
            reason: fault.reason,
            field,
            message: fault.message,
        });
    }
}

fn ratcheted(check: &Check, new: &Value, old: Option<Old<'_>>, place: Place<'_>) -> Outcome {
    let mut outcome = run(check, new, old, place);
    if !outcome.is_valid() && old.is_some_and(|old| unchanged(new, old)) {
        outcome.faults.clear();
        outcome.budget = Budget::default();
    }
    outcome
}

/// Whether a value is unchanged. Lists of type map are compared by their keys, and values without a schema count as
/// changed, like upstream.
fn unchanged(new: &Value, old: Old<'_>) -> bool {
    match (new, old.value) {
        (Value::Array(items), Value::Array(before)) => {
            if items.len() != before.len() {
                return false;
            }
            if !matches!(old.check.list, ListType::Map(_)) || before.is_empty() {
                return items == before;
            }
            let before = items_of(old);
            items
                .iter()
                .all(|item| before.of(item).is_some_and(|old| unchanged(item, old)))
        }
        (Value::Object(members), Value::Object(before)) => {
            members.len() == before.len()
                && members.iter().all(|(key, member)| {
                    member_of(old, key).is_some_and(|old| unchanged(member, old))
                })
        }
        (new, old) => new == old,
    }
}

fn member_of<'a>(old: Old<'a>, key: &str) -> Option<Old<'a>> {
    let value = old.value.as_object()?.get(key)?;
    let check = old.check.fields.get(key).or(old.check.values.as_deref())?;
    Some(Old { value, check })
}

/// The items of an old list of type map, by their keys.
#[derive(Default)]
struct OldItems<'a> {
    keys: &'a [Key],
    items: HashMap<Vec<String>, Old<'a>>,
}

impl<'a> OldItems<'a> {
    /// The old item with the same keys as the new one.
    fn of(&self, item: &Value) -> Option<Old<'a>> {
        if self.items.is_empty() {
            return None;
        }
        self.items.get(&name_of(item, self.keys)?).copied()
    }
}

fn items_of(old: Old<'_>) -> OldItems<'_> {
    let (ListType::Map(keys), Some(check), Value::Array(before)) =
        (&old.check.list, old.check.items.as_deref(), old.value)
    else {
        return OldItems::default();
    };
    let mut items = HashMap::with_capacity(before.len());
    for value in before {
        if let Some(name) = name_of(value, keys) {
            items.entry(name).or_insert(Old { value, check });
        }
    }
    OldItems { keys, items }
}

/// The key values of an item in a list of type map; `None` if one is missing or not a scalar.
fn name_of(item: &Value, keys: &[Key]) -> Option<Vec<String>> {
    let scalar =
        |value: &&Value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    keys.iter()
        .map(|key| Some(item.at(key)).filter(scalar).map(lists::identity))
        .collect()
}

fn run(check: &Check, value: &Value, old: Option<Old<'_>>, place: Place<'_>) -> Outcome {
    let mut out = Outcome::default();
    if value.is_null() {
        out.merge(kind(check, value, place));
        out.merge(choices(check, value, place));
        return out;
    }
    if !check.types.is_empty() || check.format.is_some() {
        out.merge(kind(check, value, place));
        out.passed += 1;
    }
    out.merge(junctors(check, value, place));
    out.passed += 1;
    match value {
        Value::String(text) => {
            out.merge(string(check, text, place));
            out.passed += 1;
            if let Some((name, Some(format))) = &check.format {
                if !format.takes(text) {
                    let message =
                        format!("{place} in body must be of type {name}: {}", quoted(text));
                    out.add(fault(Reason::TypeInvalid, place, value, message));
                }
                out.passed += 1;
            }
        }
        Value::Int(_) | Value::Float(_) => {
            out.merge(number(check, value, place));
            out.passed += 1;
        }
        Value::Array(items) => {
            out.merge(list(check, items, old, place));
            out.passed += 1;
        }
        _ => {}
    }
    out.merge(choices(check, value, place));
    out.passed += 1;
    if let Value::Object(members) = value {
        out.merge(object(check, members, old, place));
        out.passed += 1;
    }
    out.passed += 1;
    out
}

/// `FIELD: Invalid value: V: MESSAGE`
fn fault(reason: Reason, place: Place<'_>, value: &Value, message: String) -> Told {
    let shown = crate::meta::errors::shown(value);
    let fault = Fault {
        message: format!("Invalid value: {shown}: {message}"),
        field: Some(place.to_string()),
        reason,
    };
    (message, fault)
}

/// An error about the value as a whole.
fn plain(message: String) -> Told {
    let fault = Fault {
        message: format!("Invalid value: \"\": {message}"),
        field: None,
        reason: Reason::Invalid,
    };
    (message, fault)
}

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

fn kind(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
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

fn junctors(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
    let mut out = Outcome::default();
    let shown = || quoted(&place.to_string());
    if !check.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut succeeded = None;
        for branch in &check.any_of {
            let outcome = run(branch, value, None, place);
            if outcome.is_valid() {
                succeeded = Some(outcome);
                break;
            }
            keep_best(&mut best, outcome);
        }
        match succeeded {
            Some(outcome) => out.merge(outcome),
            None => {
                out.add(plain(format!(
                    "{} must validate at least one schema (anyOf)",
                    shown()
                )));
                best.into_iter().for_each(|best| out.merge(best));
            }
        }
    }
    if !check.one_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut first = None;
        let mut valid = 0;
        for branch in &check.one_of {
            let outcome = run(branch, value, None, place);
            if outcome.is_valid() {
                valid += 1;
                first = first.or(Some(outcome));
                best = None;
            } else if valid == 0 {
                keep_best(&mut best, outcome);
            }
        }
        if valid == 1 {
            first.into_iter().for_each(|first| out.merge(first));
        } else {
            let found = match valid {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            out.add(plain(format!(
                "{} must validate one and only one schema (oneOf). {found}",
                shown()
            )));
            best.into_iter().for_each(|best| out.merge(best));
        }
    }
    if !check.all_of.is_empty() {
        let mut valid = 0;
        for branch in &check.all_of {
            let outcome = run(branch, value, None, place);
            valid += usize::from(outcome.is_valid());
            out.merge(outcome);
        }
        if valid != check.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.add(plain(format!(
                "{} must validate all the schemas (allOf){none}",
                shown()
            )));
        }
    }
    if let Some(not) = &check.not
        && run(not, value, None, place).is_valid()
    {
        out.add(plain(format!(
            "{} must not validate the schema (not)",
            shown()
        )));
    }
    out.passed += 1;
    out
}

fn keep_best(best: &mut Option<Outcome>, outcome: Outcome) {
    if best
        .as_ref()
        .is_none_or(|best| outcome.passed > best.passed)
    {
        *best = Some(outcome);
    }
}

fn string(check: &Check, text: &str, place: Place<'_>) -> Outcome {
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
        .filter(|format| super::formats::recognized(format, &[name]))
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

fn number(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
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

fn list(check: &Check, items: &[Value], old: Option<Old<'_>>, place: Place<'_>) -> Outcome {
    let mut out = Outcome::default();
    if let Some(each) = &check.items {
        let before = old.map(items_of).unwrap_or_default();
        for (i, item) in items.iter().enumerate() {
            if out.budget.is_spent() {
                break;
            }
            out.merge(ratcheted(
                each,
                item,
                before.of(item),
                Place::Index(&place, i),
            ));
        }
    }
    let size = items.len() as i64;
    if let Some(least) = check.min_items.filter(|least| size < *least) {
        let message = format!("{place} in body should have at least {least} items");
        out.add(fault(Reason::Invalid, place, &Value::Int(size), message));
    }
    if let Some(most) = check.max_items.filter(|most| size > *most) {
        let text = format!("{place} in body should have at most {most} items");
        out.add(too_many(text, place, size, most));
    }
    if check.unique_items && !lists::doubles(items.iter()).is_empty() {
        let message = format!("{place} in body shouldn't contain duplicates");
        out.add(fault(Reason::Invalid, place, &Value::from(""), message));
    }
    out.passed += 1;
    out
}

fn too_many(text: String, place: Place<'_>, actual: i64, most: i64) -> Told {
    let unit = if most == 1 { "item" } else { "items" };
    let fault = Fault {
        field: Some(place.to_string()),
        reason: Reason::TooMany,
        message: format!("Too many: {actual}: must have at most {most} {unit}"),
    };
    (text, fault)
}

fn choices(check: &Check, value: &Value, place: Place<'_>) -> Outcome {
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

fn object(
    check: &Check,
    members: &super::super::Object,
    old: Option<Old<'_>>,
    place: Place<'_>,
) -> Outcome {
    let mut out = Outcome::default();
    let size = members.len() as i64;
    if let Some(least) = check.min_properties.filter(|least| size < *least) {
        let message = format!("{place} in body should have at least {least} properties");
        out.add(fault(Reason::Invalid, place, &Value::Int(size), message));
    }
    if let Some(most) = check.max_properties.filter(|most| size > *most) {
        let text = format!("{place} in body should have at most {most} properties");
        out.add(too_many(text, place, size, most));
    }
    // The type itself is not compared with its old value: both were converted.
    let before = |key: &str| {
        let typed = matches!(place, Place::Root) && matches!(key, "kind" | "apiVersion");
        old.filter(|_| !typed).and_then(|old| member_of(old, key))
    };
    if check.closed || check.values.is_some() {
        for (key, value) in members
            .iter()
            .filter(|(key, _)| !check.fields.contains_key(*key))
        {
            if out.budget.is_spent() {
                break;
            }
            match &check.values {
                Some(each) => {
                    let inner = Place::Key(&place, key);
                    out.merge(ratcheted(each, value, before(key), inner));
                }
                None => {
                    let message = format!("{place}.{key} in body is a forbidden property");
                    out.add(fault(Reason::Invalid, place, &Value::from(key), message));
                }
            }
        }
    }
    for (name, field) in &check.fields {
        if let Some(value) = members.get(name) {
            let inner = Place::Field(&place, name);
            out.merge(ratcheted(field, value, before(name), inner));
        }
    }
    for name in check.required.iter().filter(|name| !members.contains(name)) {
        let inner = Place::Key(&place, name);
        let fault = Fault {
            field: Some(inner.to_string()),
            reason: Reason::Required,
            message: "Required value".to_owned(),
        };
        out.add((format!("{inner} in body is required"), fault));
    }
    out
}

#[cfg(test)]
mod tests;
