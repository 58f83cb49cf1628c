//! Runs checks on values. An update is not rejected for unchanged parts that were invalid before ("ratcheting").

mod outcome;
mod scalars;
mod unchanged;

use self::outcome::{Fault, Outcome, Place, fault, plain, too_many};
use self::scalars::{choices, kind, number, string};
use self::unchanged::{Old, items_of, member_of, unchanged};
use super::super::Value;
use super::{Check, lists};
use crate::meta::Errors;
use crate::meta::budget::Budget;
use crate::meta::errors::{FieldError, Path, Reason, quoted};

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
