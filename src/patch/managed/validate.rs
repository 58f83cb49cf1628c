//! Validation by type, as in apply. Follows sigs.k8s.io/structured-merge-diff/v6/typed/validate.go.

use std::collections::BTreeSet;

use super::element::Element;
use super::typing::{Form, List, Map, Scalar, Type};
use crate::patch::go;
use crate::schema::Value;

/// Validates a value.
///
/// # Errors
/// What is wrong with it: a single error as `.spec.x: field not declared in schema`, several below `errors:`, one per
/// line. With `duplicates`, lists may contain duplicate items.
pub fn validate(value: &Value, root: Type<'_>, duplicates: bool) -> Result<(), String> {
    let mut judge = Judge {
        duplicates,
        path: String::new(),
        errors: Vec::new(),
    };
    judge.place(value, root);
    match judge.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

struct Judge {
    duplicates: bool,
    path: String,
    errors: Vec<String>,
}

impl Judge {
    fn refuse(&mut self, why: &str) {
        self.errors.push(if self.path.is_empty() {
            why.to_owned()
        } else {
            format!("{}: {why}", self.path)
        });
    }

    fn below(&mut self, element: &Element, value: &Value, at: Option<Type<'_>>) {
        use std::fmt::Write as _;
        let end = self.path.len();
        let _ = write!(self.path, "{element}");
        match at {
            Some(at) => self.place(value, at),
            None => self.refuse("field not declared in schema"),
        }
        self.path.truncate(end);
    }

    fn place(&mut self, value: &Value, at: Type<'_>) {
        match at.form(Some(value)) {
            Form::Scalar(kind) => self.scalar(value, kind),
            Form::Map(map) => self.map(value, map),
            Form::List(list) => self.list(value, list),
        }
    }

    fn scalar(&mut self, value: &Value, kind: Scalar) {
        let fits = match kind {
            Scalar::String => matches!(value, Value::String(_)),
            Scalar::Numeric => matches!(value, Value::Int(_) | Value::Float(_)),
            Scalar::Boolean => matches!(value, Value::Bool(_)),
            Scalar::Any => !matches!(value, Value::Array(_) | Value::Object(_)),
        };
        if fits || value.is_null() {
            return;
        }
        self.refuse(&match kind {
            Scalar::String => format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                syntax(value)
            ),
            Scalar::Numeric => format!(
                "expected numeric (int or float), got {}",
                go::type_of(value)
            ),
            Scalar::Boolean => format!("expected boolean, got {}", wrapped(value)),
            Scalar::Any => format!("expected any scalar, got {}", wrapped(value)),
        });
    }

    fn map(&mut self, value: &Value, map: Map<'_>) {
        match value {
            Value::Null => {}
            Value::Object(members) => {
                for (name, member) in members.iter() {
                    let at = map.member(name);
                    self.below(&Element::Field(name.clone()), member, at);
                    if at.is_none() {
                        // The first unknown member ends the walk of this object.
                        return;
                    }
                }
            }
            other => self.refuse(&format!("expected map, got {}", wrapped(other))),
        }
    }

    fn list(&mut self, value: &Value, list: List<'_>) {
        let items = match value {
            Value::Null => return,
            Value::Array(items) => items,
            other => {
                self.refuse(&format!("expected list, got {}", wrapped(other)));
                return;
            }
        };
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            if list.is_atomic() {
                self.below(&Element::Index(i as i64), item, Some(list.element));
                continue;
            }
            match list.element_of(item) {
                Err(why) => {
                    self.refuse(&format!("element {i}: {why}"));
                    return;
                }
                Ok(element) => {
                    if !self.duplicates && seen.contains(&element) {
                        self.refuse(&format!("duplicate entries for key {element}"));
                    }
                    self.below(&element, item, Some(list.element));
                    seen.insert(element);
                }
            }
        }
    }
}

/// A pointer to a wrapped value as printed by Go's `%v`.
fn wrapped(value: &Value) -> String {
    format!("&{{{}}}", go::printed(&whole(value)))
}

/// Numbers without a fraction become integers, however they were written.
fn whole(value: &Value) -> Value {
    match value {
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => {
            Value::Int(*number as i64)
        }
        Value::Array(items) => Value::Array(items.iter().map(whole).collect()),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), whole(member)))
            .collect::<crate::schema::Object>()
            .into(),
        other => other.clone(),
    }
}

/// A value as printed by Go's `%#v`.
fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => crate::meta::errors::quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(key, value)| {
                    format!("{}:{}", crate::meta::errors::quoted(key), syntax(value))
                })
                .collect();
            members.sort();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        scalar => go::printed(&whole(scalar)),
    }
}
