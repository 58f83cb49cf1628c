//! Compares new values with old ones: errors in unchanged parts are ignored.

use std::collections::HashMap;

use super::super::{Check, lists};
use crate::schema::types::ListType;
use crate::schema::{Key, Value};

/// The old value at a place, and the checks that say how its parts match those of the new value.
#[derive(Clone, Copy)]
pub(super) struct Old<'a> {
    pub(super) value: &'a Value,
    pub(super) check: &'a Check,
}

/// Whether a value is unchanged. Lists of type map are compared by their keys, and values without a schema count as
/// changed, like upstream.
pub(super) fn unchanged(new: &Value, old: Old<'_>) -> bool {
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

pub(super) fn member_of<'a>(old: Old<'a>, key: &str) -> Option<Old<'a>> {
    let value = old.value.as_object()?.get(key)?;
    let check = old.check.fields.get(key).or(old.check.values.as_deref())?;
    Some(Old { value, check })
}

/// The items of an old list of type map, by their keys.
#[derive(Default)]
pub(super) struct OldItems<'a> {
    keys: &'a [Key],
    pub(super) items: HashMap<Vec<String>, Old<'a>>,
}

impl<'a> OldItems<'a> {
    /// The old item with the same keys as the new one.
    pub(super) fn of(&self, item: &Value) -> Option<Old<'a>> {
        if self.items.is_empty() {
            return None;
        }
        self.items.get(&name_of(item, self.keys)?).copied()
    }
}

pub(super) fn items_of(old: Old<'_>) -> OldItems<'_> {
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
