//! Field errors and the cursor that makes them: validation walks an object with [`At`], which carries the path,
//! and collects [`Errors`]. Follows k8s.io/apimachinery/pkg/util/validation/field.

mod at;
mod shown;

use std::fmt;

use indexmap::IndexSet;

use super::budget::Budget;
use crate::schema::Value;

pub use self::at::At;
pub(super) use self::shown::typed;
pub use self::shown::{is_print, quoted, shown};

/// A field path, as a chain on the stack: it costs nothing until there is an error to report.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself. Printed as `<nil>` by errors about it, or if upstream has no path.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// A field of the object at this path, or several at once: `spec.template`.
    pub fn field<'b>(&'b self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An item of the list at this path.
    pub fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An entry of the map at this path.
    pub fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nested = false;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            nested = !matches!(parent.step, Step::Root);
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if nested => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The type of a field error: the reason of a cause in a Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
    /// `InternalError`
    Internal,
}

impl Reason {
    /// The reason as shown in a cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::NotFound => "FieldValueNotFound",
            Reason::Internal => "InternalError",
        }
    }
}

/// One error about one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldError {
    /// The type of the error.
    pub reason: Reason,
    /// The field's path; empty for none (`<nil>` in the message, omitted from the cause).
    pub field: String,
    /// Everything after the path: `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub message: String,
}

impl FieldError {
    fn len(&self) -> usize {
        self.field.len() + self.message.len()
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() {
            "<nil>"
        } else {
            &self.field
        };
        write!(f, "{field}: {}", self.message)
    }
}

/// The errors of one object, in the order in which they were found.
///
/// What exceeds a [`Budget`] is not kept. No object is accepted for it: each error that was kept rejects it, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<FieldError>, Budget);

impl Errors {
    /// Whether there are no errors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no further error is kept: a walk that only looks for errors may end.
    pub fn is_full(&self) -> bool {
        self.1.is_spent()
    }

    /// Adds an error.
    pub fn push(&mut self, reason: Reason, path: Path<'_>, message: impl Into<String>) {
        if !self.is_full() {
            self.add(FieldError {
                reason,
                field: path.to_string(),
                message: message.into(),
            });
        }
    }

    /// Adds an error that is complete.
    pub fn add(&mut self, error: FieldError) {
        if self.1.spend(error.len()) {
            self.0.push(error);
        }
    }

    /// Adds the errors of a part.
    pub fn append(&mut self, found: Errors) {
        found.0.into_iter().for_each(|error| self.add(error));
    }

    /// Forgets all but the first `kept` errors.
    pub fn truncate(&mut self, kept: usize) {
        for error in self.0.drain(kept.min(self.0.len())..) {
            self.1.give_back(error.len());
        }
    }

    /// `Required value`, with a detail unless it is empty.
    pub fn required(&mut self, path: Path<'_>, detail: &str) {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        self.push(Reason::Required, path, message);
    }

    /// `Invalid value: V: DETAIL`; text is quoted, the rest is shown as JSON.
    pub fn invalid(&mut self, path: Path<'_>, value: impl Into<Value>, detail: impl AsRef<str>) {
        if self.is_full() {
            return;
        }
        let value = value.into();
        let text = shown(&value);
        self.push(
            Reason::Invalid,
            path,
            format!("Invalid value: {text}: {}", detail.as_ref()),
        );
    }

    /// Removes duplicate errors.
    pub fn once(&mut self) {
        let once: IndexSet<FieldError> = self.0.drain(..).collect();
        self.1 = Budget::default();
        once.into_iter().for_each(|error| self.add(error));
    }

    /// `Invalid value: V: DETAIL` with the value as printed by the caller.
    pub fn invalid_shown(&mut self, path: Path<'_>, shown: &str, detail: impl AsRef<str>) {
        self.push(
            Reason::Invalid,
            path,
            format!("Invalid value: {shown}: {}", detail.as_ref()),
        );
    }

    /// `Invalid value: DETAIL`, without the value.
    pub fn invalid_omitted(&mut self, path: Path<'_>, detail: &str) {
        self.push(Reason::Invalid, path, format!("Invalid value: {detail}"));
    }

    /// `Unsupported value: V: supported values: "A", "B"`, in the given order. Such values have a Go type of their own,
    /// which upstream shows as JSON, not quoted like plain strings.
    pub fn not_supported(&mut self, path: Path<'_>, value: impl Into<Value>, supported: &[&str]) {
        if self.is_full() {
            return;
        }
        let value = value.into();
        let text = typed(&value);
        let list: Vec<String> = supported.iter().map(|s| quoted(s)).collect();
        let tail = if list.is_empty() {
            String::new()
        } else {
            format!(": supported values: {}", list.join(", "))
        };
        self.push(
            Reason::NotSupported,
            path,
            format!("Unsupported value: {text}{tail}"),
        );
    }

    /// `Duplicate value: V`.
    pub fn duplicate(&mut self, path: Path<'_>, value: impl Into<Value>) {
        if self.is_full() {
            return;
        }
        let value = value.into();
        let text = shown(&value);
        self.push(Reason::Duplicate, path, format!("Duplicate value: {text}"));
    }

    /// `Forbidden: DETAIL`.
    pub fn forbidden(&mut self, path: Path<'_>, detail: impl AsRef<str>) {
        let detail = detail.as_ref();
        let message = if detail.is_empty() {
            "Forbidden".to_owned()
        } else {
            format!("Forbidden: {detail}")
        };
        self.push(Reason::Forbidden, path, message);
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(&mut self, path: Path<'_>, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.push(
            Reason::TooLong,
            path,
            format!("Too long: may not be more than {max} {unit}"),
        );
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(&mut self, path: Path<'_>, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.push(
            Reason::TooMany,
            path,
            format!("Too many: {actual}: must have at most {max} {unit}"),
        );
    }

    /// `Not found: V`.
    pub fn not_found(&mut self, path: Path<'_>, value: impl Into<Value>) {
        if self.is_full() {
            return;
        }
        let value = value.into();
        let text = shown(&value);
        self.push(Reason::NotFound, path, format!("Not found: {text}"));
    }

    /// `Internal error: DETAIL`.
    pub fn internal(&mut self, path: Path<'_>, detail: &str) {
        self.push(Reason::Internal, path, format!("Internal error: {detail}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_kept_up_to_a_number_and_a_length() {
        let mut errors = Errors::default();
        for index in 0..1_000_000 {
            errors.required(Path::ROOT.field("items").index(index), "");
        }
        assert_eq!(errors.0.len(), 10_000);
        errors.truncate(1);
        errors.required(Path::ROOT.field("again"), "");
        assert_eq!(errors.0.len(), 2, "there is room again");

        let (mut errors, key) = (Errors::default(), "k".repeat(1 << 20));
        for _ in 0..1_000_000 {
            errors.forbidden(Path::ROOT.key(&key), "");
        }
        assert_eq!(errors.0.len(), 16);
        errors.once();
        assert_eq!(errors.0.len(), 1);
        assert!(!errors.is_full());
    }

    #[test]
    fn the_errors_of_parts_share_what_is_kept() {
        let mut part = Errors::default();
        (0..9_000).for_each(|index| part.required(Path::ROOT.index(index), ""));
        let mut all = Errors::default();
        all.append(part.clone());
        all.append(part);
        assert_eq!(all.0.len(), 10_000);
    }
}
