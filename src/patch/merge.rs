//! JSON merge patch like gopkg.in/evanphx/json-patch.v4: RFC 7386, except for null members inside lists.

use super::PatchError;
use crate::schema::{Object, Value};

/// Applies `patch` to `live`; returns the new document. Members of objects that the patch touched are sorted by name,
/// as upstream writes them; error messages show that.
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is neither an object nor an array.
pub fn apply(live: &Value, patch: &Value) -> Result<Value, PatchError> {
    match patch {
        Value::Object(patch) => {
            let mut document = match live {
                Value::Object(live) => live.clone(),
                _ => Object::new(),
            };
            merge(&mut document, patch);
            Ok(Value::Object(document))
        }
        Value::Array(_) => Ok(pruned(patch)),
        _ => Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
    }
}

fn merge(document: &mut Object, patch: &Object) {
    // All at once: each removal moves the members behind it.
    if patch.values().any(Value::is_null) {
        document.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
    for (key, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        match (document.get_mut(key), value) {
            (Some(Value::Object(current)), Value::Object(patch)) => merge(current, patch),
            // A list or scalar that replaces an object is copied as it is.
            (Some(current @ Value::Object(_)), value) => *current = value.clone(),
            (Some(current), value) => *current = pruned(value),
            (None, value) => {
                document.insert(key.clone(), pruned(value));
            }
        }
    }
    document.sort();
}

/// Removes null members at any depth; keeps null items of lists.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut kept: Object = object
                .iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(key, member)| (key.clone(), pruned(member)))
                .collect();
            kept.sort();
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(pruned).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_members_are_removed_at_once() {
        let object = |value: fn(usize) -> Value| -> Value {
            let members = (0..100_000).map(|n| (format!("a{n}"), value(n)));
            Value::Object(members.collect())
        };
        let patch = object(|n| {
            if n == 7 {
                Value::from("x")
            } else {
                Value::Null
            }
        });
        let result = apply(&object(|_| Value::from("")), &patch);
        assert_eq!(result, Ok(crate::value!({"a7": "x"})));
    }
}
