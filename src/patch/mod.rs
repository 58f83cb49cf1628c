//! Patches of values.

use crate::schema::{Object, Value};

/// Applies a JSON merge patch (RFC 7386) in place.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if target.as_object().is_none() {
        *target = Value::Object(Object::new());
    }
    let object = target.object_mut();
    for (key, value) in members.iter() {
        if value.is_null() {
            object.remove(key);
        } else {
            let mut member = object.remove(key).unwrap_or_default();
            merge(&mut member, value);
            object.insert(key.clone(), member);
        }
    }
}
