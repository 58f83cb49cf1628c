//! Uniqueness of items in lists of type set and map. Follows
//! k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype.

use super::super::types::ListType;
use super::super::{Object, Value, json};
use super::Check;
use crate::meta::Errors;
use crate::meta::errors::{Path, Reason};

/// Rejects duplicate items in all such lists of `value`.
pub fn validate(check: &Check, value: &Value, path: Path<'_>, errors: &mut Errors) {
    match value {
        Value::Object(members) => {
            for (key, member) in members.iter() {
                if let Some(field) = check.fields.get(key) {
                    validate(field, member, path.field(key), errors);
                } else if let Some(values) = &check.values {
                    validate(values, member, path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            match &check.list {
                ListType::Atomic => {}
                ListType::Set => {
                    for i in doubles(items.iter()) {
                        duplicate(path.index(i), &items[i], errors);
                    }
                }
                ListType::Map(keys) => map(keys, items, path, errors),
            }
            if let Some(each) = &check.items {
                for (i, item) in items.iter().enumerate() {
                    validate(each, item, path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn duplicate(path: Path<'_>, value: &Value, errors: &mut Errors) {
    if errors.is_full() {
        return;
    }
    let mut value = value.clone();
    value.sort();
    let shown = crate::meta::errors::shown(&value);
    errors.push(Reason::Duplicate, path, format!("Duplicate value: {shown}"));
}

fn map(keys: &[super::Key], items: &[Value], path: Path<'_>, errors: &mut Errors) {
    let is_item = |item: &Value| matches!(item, Value::Null | Value::Object(_));
    if let Some((i, item)) = items.iter().enumerate().find(|(_, item)| !is_item(item)) {
        errors.invalid(
            path.index(i),
            item,
            "must be an object for an array of list-type map",
        );
        return;
    }
    let names: Vec<Value> = items
        .iter()
        .map(|item| {
            keys.iter()
                .filter_map(|key| Some((key.clone(), item.as_object()?.get(key)?.clone())))
                .collect::<Object>()
                .into()
        })
        .collect();
    for i in doubles(names.iter()) {
        duplicate(path.index(i), &names[i], errors);
    }
}

/// A text that only equal values share: with it, lists are checked in linear time.
pub(super) fn identity(value: &Value) -> String {
    match value {
        // An integer and a float differ even if written alike.
        Value::Float(number) => format!("f{number}"),
        Value::Array(_) | Value::Object(_) => {
            let mut sorted = value.clone();
            sorted.sort();
            json::to_string(&sorted)
        }
        scalar => json::to_string(scalar),
    }
}

/// The indices of values that occurred before.
pub(super) fn doubles<'a>(values: impl ExactSizeIterator<Item = &'a Value>) -> Vec<usize> {
    if values.len() < 2 {
        return Vec::new();
    }
    let mut seen = std::collections::HashMap::with_capacity(values.len());
    let mut found = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(identity(value)).or_insert(0usize);
        *times += 1;
        if *times == 2 {
            found.push(i);
        }
    }
    found
}
