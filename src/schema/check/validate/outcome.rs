//! What checks find: errors with their places.

use std::fmt;

use indexmap::IndexMap;

use crate::meta::budget::Budget;
use crate::meta::errors::Reason;
use crate::schema::Value;

/// One validation error.
pub(super) struct Fault {
    /// Path below the base; `None` for errors about the base itself.
    pub(super) field: Option<String>,
    pub(super) reason: Reason,
    /// The message after the path.
    pub(super) message: String,
}

/// An error with the text of upstream's validator; errors with the same text are reported once.
pub(super) type Told = (String, Fault);

/// The result of checking one value.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) faults: IndexMap<String, Fault, foldhash::fast::RandomState>,
    /// How many checks passed: of several failed alternatives, the errors of the one with the most are reported.
    pub(super) passed: usize,
    /// How much of them is kept. What remains is not looked at when it is spent.
    pub(super) budget: Budget,
}

impl Outcome {
    pub(super) fn add(&mut self, (text, fault): Told) {
        let field = fault.field.as_ref().map_or(0, String::len);
        if self.budget.spend(text.len() + fault.message.len() + field) {
            self.faults.entry(text).or_insert(fault);
        }
    }

    pub(super) fn merge(&mut self, other: Outcome) {
        self.passed += other.passed;
        if self.faults.is_empty() {
            (self.faults, self.budget) = (other.faults, other.budget);
            return;
        }
        other.faults.into_iter().for_each(|told| self.add(told));
    }

    pub(super) fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A path to a value, as a chain on the stack.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
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

/// `FIELD: Invalid value: V: MESSAGE`
pub(super) fn fault(reason: Reason, place: Place<'_>, value: &Value, message: String) -> Told {
    let shown = crate::meta::errors::shown(value);
    let fault = Fault {
        message: format!("Invalid value: {shown}: {message}"),
        field: Some(place.to_string()),
        reason,
    };
    (message, fault)
}

/// An error about the value as a whole.
pub(super) fn plain(message: String) -> Told {
    let fault = Fault {
        message: format!("Invalid value: \"\": {message}"),
        field: None,
        reason: Reason::Invalid,
    };
    (message, fault)
}

pub(super) fn too_many(text: String, place: Place<'_>, actual: i64, most: i64) -> Told {
    let unit = if most == 1 { "item" } else { "items" };
    let fault = Fault {
        field: Some(place.to_string()),
        reason: Reason::TooMany,
        message: format!("Too many: {actual}: must have at most {most} {unit}"),
    };
    (text, fault)
}
