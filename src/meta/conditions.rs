//! Conditions of a status (`metav1.Condition`) and their validation. Follows ValidateConditions of
//! k8s.io/apimachinery/pkg/apis/meta/v1/validation.

use std::collections::BTreeSet;

use super::{At, Errors, names};
use crate::schema::Value;

/// The longest reason, in bytes.
const REASON: usize = 1024;
/// The longest message, in bytes.
const MESSAGE: usize = 32 << 10;
/// The values of a condition's `status`.
pub const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// The condition of type `kind` in a list; null if there is none.
pub fn find<'a>(conditions: &'a [Value], kind: &str) -> &'a Value {
    conditions
        .iter()
        .find(|condition| condition.str("type") == kind)
        .unwrap_or(&Value::Null)
}

/// Whether the condition of type `kind` is `True`.
pub fn holds(conditions: &[Value], kind: &str) -> bool {
    find(conditions, kind).str("status") == "True"
}

/// Checks the reason of a condition: IsValidConditionReason.
pub fn reason(value: &str) -> names::Wrong {
    const TEXT: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let form = match value.as_bytes() {
        [] => false,
        [first] => first.is_ascii_alphabetic(),
        [first, middle @ .., last] => {
            first.is_ascii_alphabetic()
                && middle.iter().all(|&b| word(b) || matches!(b, b',' | b':'))
                && word(*last)
        }
    };
    if form {
        return names::Wrong::new();
    }
    vec![names::regex_error(
        TEXT,
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &[
            "my_name",
            "MY_NAME",
            "MyName",
            "ReasonA,ReasonB",
            "ReasonA:ReasonB",
        ],
    )]
}

impl At<'_> {
    /// Validates a list of conditions.
    pub fn conditions(&self, errors: &mut Errors) {
        let mut known = BTreeSet::new();
        for condition in self.items() {
            let kind = condition.value.str("type");
            if !known.insert(kind) {
                errors.duplicate(condition.path, kind);
            }
            condition.condition(errors);
        }
    }

    fn condition(&self, errors: &mut Errors) {
        let kind = self.field("type");
        if kind.required("is required", errors) {
            kind.checked(names::qualified_name, errors);
        }
        self.field("status").required_one_of(STATUSES, errors);
        let observed = self.field("observedGeneration");
        if observed.int().is_some_and(|n| n < 0) {
            observed.invalid("must be greater than or equal to zero", errors);
        }
        self.field("lastTransitionTime").required("", errors);
        let why = self.field("reason");
        why.required_checked(reason, errors);
        why.at_most(REASON, errors);
        self.field("message").at_most(MESSAGE, errors);
    }

    /// Rejects text longer than `max` bytes.
    pub fn at_most(&self, max: usize, errors: &mut Errors) {
        if self.str().len() > max {
            errors.too_long(self.path, max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn conditions_are_judged_field_by_field() {
        let list = value!([
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z", "reason": "A"},
            {"type": "Ready", "status": "Maybe", "observedGeneration": (-1i64), "reason": "-"},
            {},
        ]);
        let mut errors = Errors::default();
        At::root(&value!({ "conditions": (list) }))
            .field("conditions")
            .conditions(&mut errors);
        let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        let starts = [
            r#"conditions[1]: Duplicate value: "Ready""#,
            r#"conditions[1].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown""#,
            "conditions[1].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            "conditions[1].lastTransitionTime: Required value",
            r#"conditions[1].reason: Invalid value: "-": a condition reason must start"#,
            "conditions[2].type: Required value: is required",
            "conditions[2].status: Required value",
            "conditions[2].lastTransitionTime: Required value",
            "conditions[2].reason: Required value",
        ];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (told, start) in told.iter().zip(starts) {
            assert!(told.starts_with(start), "{told}");
        }
    }
}
