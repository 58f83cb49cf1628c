//! Scheduling gates and tolerations.

use std::collections::BTreeSet;

use super::Before;
use crate::meta::errors::quoted;
use crate::meta::{At, Errors, names};

/// The effects of taints.
pub(in crate::resources::groups::core) const EFFECTS: &[&str] =
    &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Validates scheduling gates: validateSchedulingGates.
pub(super) fn gates(list: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    for gate in list.items() {
        let name = gate.value.str("name");
        for wrong in names::qualified_name(name) {
            errors.invalid(gate.path, name, wrong);
        }
        if !known.insert(name) {
            errors.duplicate(gate.path, name);
        }
    }
}

/// Validates tolerations of pods and runtime classes: ValidateTolerations.
pub(in crate::resources::groups) fn tolerations(
    list: At<'_>,
    before: Before<'_>,
    errors: &mut Errors,
) {
    for toleration in list.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.field("value"), toleration.field("effect"));
        key.checked_if_said(names::qualified_name, errors);
        if key.str().is_empty() && operator.str() != "Exists" {
            operator.invalid_text(
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                errors,
            );
        }
        if !toleration.field("tolerationSeconds").is_absent() && effect.str() != "NoExecute" {
            effect.invalid_text(
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
                errors,
            );
        }
        match operator.str() {
            "Equal" | "" => {
                let wrong = names::label_value(value.str());
                if !wrong.is_empty() {
                    errors.invalid(operator.path, value.str(), wrong.join(";"));
                }
            }
            "Exists" if value.str().is_empty() => {}
            "Exists" => errors.invalid(
                operator.path,
                value.str(),
                "value must be empty when `operator` is 'Exists'",
            ),
            "Lt" | "Gt" if before.compares_taints() => number(value, errors),
            // Upstream's error lists these operators as supported all the same.
            "Lt" | "Gt" => errors.not_supported(
                operator.path,
                operator.str(),
                &["Equal", "Exists", "Lt", "Gt"],
            ),
            _ => operator.one_of(&["Equal", "Exists"], errors),
        }
        if !effect.str().is_empty() {
            effect.one_of(EFFECTS, errors);
        }
    }
}

/// Validates an integer for the comparison with a taint.
fn number(value: At<'_>, errors: &mut Errors) {
    value.checked(names::decimal_integer, errors);
    let text = value.str();
    if text.parse::<i64>().is_err() {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let why = match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            true => "value out of range",
            false => "invalid syntax",
        };
        value.invalid_text(
            format!("strconv.ParseInt: parsing {}: {why}", quoted(text)),
            errors,
        );
    }
}
