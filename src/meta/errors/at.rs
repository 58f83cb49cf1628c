//! The cursor with which validation walks an object.

use super::{Errors, Path};
use crate::schema::Value;

/// A value in an object and its path: the argument of validation functions.
///
/// `At` never fails: a field of an absent value is absent, and absent text is empty, as in Go's structs.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The value; null if absent.
    pub value: &'a Value,
    /// Its path.
    pub path: Path<'a>,
}

impl<'a> At<'a> {
    /// The object itself.
    pub fn root(value: &'a Value) -> Self {
        At {
            value,
            path: Path::ROOT,
        }
    }

    /// The field `name`. The result borrows this cursor's path: bind it with `let`.
    pub fn field<'b>(&'b self, name: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At {
            value: self.value.at(name),
            path: self.path.field(name),
        }
    }

    /// The items of this list, each with its index in the path.
    pub fn items<'b>(&'b self) -> impl Iterator<Item = At<'b>> + 'b
    where
        'a: 'b,
    {
        self.value
            .as_array()
            .unwrap_or(&[])
            .iter()
            .enumerate()
            .map(|(i, value)| At {
                value,
                path: self.path.index(i),
            })
    }

    /// The entries of this map, each with its key in the path.
    pub fn entries<'b>(&'b self) -> impl Iterator<Item = (&'b str, At<'b>)> + 'b
    where
        'a: 'b,
    {
        self.value
            .as_object()
            .into_iter()
            .flat_map(|object| object.iter())
            .map(|(key, value)| {
                (
                    key.as_str(),
                    At {
                        value,
                        path: self.path.key(key),
                    },
                )
            })
    }

    /// Whether the field is absent (null).
    pub fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// The text here; empty if absent.
    pub fn str(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    /// The integer, if the value is one.
    pub fn int(&self) -> Option<i64> {
        self.value.as_int()
    }

    /// The boolean here; false if absent.
    pub fn bool(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// The items here; empty if this is not a list.
    pub fn list(&self) -> &'a [Value] {
        self.value.as_array().unwrap_or(&[])
    }

    /// Rejects a negative integer, like ValidateNonnegativeField.
    pub fn non_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            errors.invalid(self.path, self.value, "must be greater than or equal to 0");
        }
    }

    /// Rejects an integer that is not positive.
    pub fn positive(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n <= 0) {
            errors.invalid(self.path, self.value, "must be greater than zero");
        }
    }

    /// Rejects a missing value (null, or empty text, list or map). Returns whether it is present.
    pub fn required(&self, detail: &str, errors: &mut Errors) -> bool {
        if self.value.is_null()
            || (!matches!(self.value, Value::Bool(_) | Value::Int(_) | Value::Float(_))
                && self.value.is_empty())
        {
            errors.required(self.path, detail);
            return false;
        }
        true
    }

    /// Rejects text that is not one of `supported` (shown in the given order).
    pub fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if !supported.contains(&self.str()) {
            errors.not_supported(self.path, self.str(), supported);
        }
    }

    /// Rejects a value that differs from `old`, like ValidateImmutableField.
    pub fn immutable(&self, old: &Value, errors: &mut Errors) {
        if self.value != old {
            errors.invalid(self.path, self.value, "field is immutable");
        }
    }

    /// One `Invalid value` for each of `details` (as returned by the checks of `meta::names`).
    pub fn invalid_each(&self, details: impl IntoIterator<Item = String>, errors: &mut Errors) {
        for detail in details {
            errors.invalid(self.path, self.value, detail);
        }
    }
}
