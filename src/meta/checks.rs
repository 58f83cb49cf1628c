//! Checks from which validation is built, in addition to those of [`At`]: each validates one field and reports errors
//! in upstream's words, so that most rules of a kind are one line.

use super::errors::{Reason, typed};
use super::names::{self, Wrong};
use super::quantity::Quantity;
use super::selector::Selector;
use super::{At, Errors};
use crate::schema::Value;
use crate::schema::semantic::same_as;

/// A check of [`super::names`].
pub type Check = fn(&str) -> Wrong;

impl At<'_> {
    /// `Invalid value: V: DETAIL` for this value; absent text is shown as null (a Go pointer), see
    /// [`At::invalid_text`].
    pub fn invalid(&self, detail: impl AsRef<str>, errors: &mut Errors) {
        errors.invalid(self.path, self.value, detail);
    }

    /// `Invalid value: "V": DETAIL` for this text; absent text is shown as empty.
    pub fn invalid_text(&self, detail: impl AsRef<str>, errors: &mut Errors) {
        errors.invalid(self.path, self.str(), detail);
    }

    /// `Invalid value: V: DETAIL` for text behind a Go pointer, which upstream shows as JSON.
    pub fn invalid_pointer(&self, detail: impl AsRef<str>, errors: &mut Errors) {
        errors.invalid_shown(self.path, &typed(self.value), detail);
    }

    /// `Invalid value: V: DETAIL` with the value as upstream's internal type `go_type` prints it.
    pub fn invalid_dump(&self, go_type: &str, detail: impl AsRef<str>, errors: &mut Errors) {
        let shown = crate::schema::internal::shown(self.value, go_type);
        errors.invalid_shown(self.path, &shown, detail);
    }

    /// `Duplicate value: V` with the value as upstream's internal type `go_type` prints it.
    pub fn duplicate_dump(&self, go_type: &str, errors: &mut Errors) {
        let shown = crate::schema::internal::shown(self.value, go_type);
        errors.push(
            Reason::Duplicate,
            self.path,
            format!("Duplicate value: {shown}"),
        );
    }

    /// Rejects text that fails `check`, with one error for each detail that it returns.
    pub fn checked(&self, check: Check, errors: &mut Errors) {
        for wrong in check(self.str()) {
            errors.invalid(self.path, self.str(), wrong);
        }
    }

    /// [`At::checked`] if the field is present (a Go pointer).
    pub fn checked_if_there(&self, check: Check, errors: &mut Errors) {
        if !self.is_absent() {
            self.checked(check, errors);
        }
    }

    /// [`At::checked`] unless the text is empty.
    pub fn checked_if_said(&self, check: Check, errors: &mut Errors) {
        if !self.str().is_empty() {
            self.checked(check, errors);
        }
    }

    /// Rejects missing text, and text that fails `check`.
    pub fn required_checked(&self, check: Check, errors: &mut Errors) {
        if self.required("", errors) {
            self.checked(check, errors);
        }
    }

    /// Rejects an integer (a Go pointer) that fails `check`.
    pub fn checked_number(&self, check: fn(i64) -> Wrong, errors: &mut Errors) {
        for wrong in self.int().map(check).unwrap_or_default() {
            errors.invalid(self.path, self.value, wrong);
        }
    }

    /// Rejects an integer outside `low..=high`, with a detail.
    pub fn within(&self, low: i64, high: i64, detail: &str, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < low || n > high) {
            errors.invalid(self.path, self.value, detail);
        }
    }

    /// Rejects a change from `old` in the words of upstream's declarative validation (validate.Immutable), which does
    /// not show the value. `go_type` is upstream's internal type (`""` for one without quantities).
    pub fn frozen(&self, old: &Value, go_type: &str, errors: &mut Errors) {
        if !same_as(go_type, self.value, old) {
            errors.invalid(self.path, Value::Null, "field is immutable");
        }
    }

    /// Rejects a negative quantity, like ValidateNonnegativeQuantity.
    pub fn non_negative_quantity(&self, errors: &mut Errors) {
        if self.quantity().is_some_and(|quantity| quantity.sign() < 0) {
            errors.invalid(self.path, self.value, "must be greater than or equal to 0");
        }
    }

    /// Rejects anything but a non-negative number or a percentage, like ValidatePositiveIntOrPercent.
    pub fn int_or_percent(&self, errors: &mut Errors) {
        match self.value {
            Value::String(_) => self.checked(names::percent, errors),
            _ => self.non_negative(errors),
        }
    }

    /// Rejects a percentage above 100, like IsNotMoreThan100Percent.
    pub fn at_most_all(&self, errors: &mut Errors) {
        if names::percentage(self.str()).is_some_and(|percent| percent > 100) {
            self.invalid("must not be greater than 100%", errors);
        }
    }

    /// Rejects text that is present but not one of `supported`.
    pub fn one_of_if_there(&self, supported: &[&str], errors: &mut Errors) {
        if !self.is_absent() {
            self.one_of(supported, errors);
        }
    }

    /// Rejects missing text, and text that is not one of `supported`.
    pub fn required_one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.required("", errors) {
            self.one_of(supported, errors);
        }
    }

    /// `Forbidden: DETAIL` if the field is present, even with a zero value.
    pub fn forbid(&self, detail: &str, errors: &mut Errors) {
        if !self.is_absent() {
            errors.forbidden(self.path, detail);
        }
    }

    /// `Forbidden: DETAIL` if the field has a non-zero value.
    pub fn forbid_said(&self, detail: &str, errors: &mut Errors) {
        if !self.value.is_empty() {
            errors.forbidden(self.path, detail);
        }
    }

    /// The quantity here; `None` if it is absent or invalid.
    pub fn quantity(&self) -> Option<Quantity> {
        Quantity::parse(self.value.as_str()?).ok()
    }

    /// Validates a map of labels, like ValidateLabels.
    pub fn labels(&self, errors: &mut Errors) {
        for (key, value) in self.entries() {
            for wrong in names::qualified_name(key) {
                errors.invalid(self.path, key, wrong);
            }
            for wrong in names::label_value(value.str()) {
                errors.invalid(self.path, value.str(), wrong);
            }
        }
    }

    /// Validates a LabelSelector, like ValidateLabelSelector; `any_value` allows values that are not valid label
    /// values, for objects that already had such values.
    pub fn label_selector(&self, any_value: bool, errors: &mut Errors) {
        self.field("matchLabels").labels(errors);
        for expression in self.field("matchExpressions").items() {
            expression.label_requirement(any_value, false, errors);
        }
    }

    /// Validates one expression of a LabelSelector; `any_operator` allows unknown operators.
    pub fn label_requirement(&self, any_value: bool, any_operator: bool, errors: &mut Errors) {
        self.requirement_operator(any_operator, errors);
        self.field("key").checked(names::qualified_name, errors);
        if !any_value {
            self.field("values")
                .items()
                .for_each(|value| value.checked(names::label_value, errors));
        }
    }

    /// Validates the operator of a requirement, and that it has values if the operator needs some.
    pub fn requirement_operator(&self, any_operator: bool, errors: &mut Errors) {
        let values = self.field("values");
        let operator = self.field("operator");
        match operator.str() {
            "In" | "NotIn" => {
                values.required(
                    "must be specified when `operator` is 'In' or 'NotIn'",
                    errors,
                );
            }
            "Exists" | "DoesNotExist" => values.forbid_said(
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                errors,
            ),
            _ if any_operator => {}
            _ => operator.invalid_text("not a valid selector operator", errors),
        }
    }

    /// Whether [`At::label_selector`] rejects this LabelSelector.
    pub fn is_bad_selector(&self) -> bool {
        let mut errors = Errors::default();
        self.label_selector(false, &mut errors);
        !errors.is_empty()
    }
}

/// Whether a LabelSelector selects an object with these labels (a map); `None` if the selector is invalid.
pub fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    let selector = match selector {
        // Go's nil selector selects nothing.
        Value::Null => return Some(false),
        selector if At::root(selector).is_bad_selector() => return None,
        selector => Selector::from_object(selector).ok()?,
    };
    Some(selector.matches(|key| labels.get(key).and_then(Value::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    fn refused(selector: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        At::root(&value!({ "selector": selector }))
            .field("selector")
            .label_selector(false, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn selectors_are_judged_as_upstream_judges_them() {
        assert_eq!(
            refused(
                &value!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]})
            ),
            Vec::<String>::new()
        );
        let told = refused(&value!({"matchLabels": {"a": "-"}, "matchExpressions": [
            {"key": "k", "operator": "In"},
            {"key": "k", "operator": "Exists", "values": ["v"]},
            {"key": "k", "operator": "Like"},
        ]}));
        assert!(told[0].starts_with(r#"selector.matchLabels: Invalid value: "-": "#));
        assert_eq!(
            told[1..],
            [
                "selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                r#"selector.matchExpressions[2].operator: Invalid value: "Like": not a valid selector operator"#,
            ]
        );
    }

    #[test]
    fn a_selector_that_is_not_there_selects_nothing_and_an_empty_one_everything() {
        let labels = value!({"a": "b"});
        assert_eq!(selects(&Value::Null, &labels), Some(false));
        assert_eq!(selects(&value!({}), &labels), Some(true));
        assert_eq!(
            selects(&value!({"matchLabels": {"a": "c"}}), &labels),
            Some(false)
        );
        assert_eq!(
            selects(
                &value!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
                &labels
            ),
            None
        );
    }
}
