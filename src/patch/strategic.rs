//! Strategic merge patch: a merge patch that takes from the schema which lists merge, and by which key. Follows
//! k8s.io/apimachinery/pkg/util/strategicpatch.

mod lists;

use std::collections::HashSet;

use super::PatchError;
use super::go::{kind_of, printed, printed_as_text, type_of};
use crate::meta::errors::quoted;
use crate::schema::types::{Merge, Schema, Shape};
use crate::schema::{Object, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Merges `patch` into `live`; the result is not yet in canonical form. Changes `patch` like upstream does, because
/// error messages show it.
///
/// # Errors
/// [`PatchError::Malformed`] and [`PatchError::Unclassified`] for an invalid directive.
pub fn merge(live: &Value, patch: &mut Value, schema: &Schema) -> Result<Value, PatchError> {
    let mut merged = match live {
        Value::Object(live) => live.clone(),
        _ => Object::new(),
    };
    if let Value::Object(patch) = patch {
        let root = Type {
            schema,
            go_type: "",
        };
        maps(&mut merged, patch, root)?;
    }
    Ok(Value::Object(merged))
}

fn odd(message: impl Into<String>) -> PatchError {
    PatchError::Unclassified(message.into())
}

fn malformed(what: &str) -> PatchError {
    PatchError::Malformed(format!("invalid patch format of {what}"))
}

fn bad_type(expected: &str, received: &Value) -> PatchError {
    odd(format!(
        "expected a {expected}, but received a {}",
        type_of(received)
    ))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    odd(format!(
        "map: {} does not contain declared merge key: {key}",
        printed(item)
    ))
}

fn bad_directive(directive: &Value, patch: &Object) -> PatchError {
    odd(format!(
        "unknown patch type: {} in map: {}",
        printed_as_text(directive),
        printed(&Value::Object(patch.clone()))
    ))
}

/// A Go type: defines how its members merge.
#[derive(Clone, Copy)]
struct Type<'a> {
    schema: &'a Schema,
    go_type: &'a str,
}

impl<'a> Type<'a> {
    /// The type of a member and how it merges.
    fn member(self, key: &str) -> Result<(Type<'a>, &'a Merge), PatchError> {
        let unknown = |structure: &str| {
            odd(format!(
                "unable to find api field in struct {structure} for the json field {}",
                quoted(key)
            ))
        };
        match &self.schema.shape {
            Shape::Struct(fields) => {
                let field = fields
                    .fields
                    .get(key)
                    .or_else(|| {
                        let mut fields = fields.fields.iter();
                        fields
                            .find(|(name, _)| name.eq_ignore_ascii_case(key))
                            .map(|(_, field)| field)
                    })
                    .ok_or_else(|| unknown(&fields.go_name))?;
                let member = Type {
                    schema: &field.schema,
                    go_type: &field.go_type,
                };
                Ok((member, &field.schema.merge))
            }
            Shape::Any | Shape::OneOf(_) => Err(unknown(
                self.go_type
                    .rsplit('.')
                    .next()
                    .filter(|name| !name.is_empty())
                    .unwrap_or("RawExtension"),
            )),
            _ => Err(odd(format!(
                "merging an object in json but data type is not struct, instead is: {}",
                self.kind()
            ))),
        }
    }

    /// The type of the items of a member that is a list, and how it merges.
    fn list_member(self, key: &str) -> Result<(Type<'a>, &'a Merge), PatchError> {
        let (member, merge) = self.member(key)?;
        match &member.schema.shape {
            Shape::List(items) => {
                let items = Type {
                    schema: items,
                    go_type: member.go_type.strip_prefix("[]").unwrap_or_default(),
                };
                Ok((items, merge))
            }
            Shape::Bytes => Ok((member, merge)),
            _ => Err(odd(format!(
                "expected slice or array type, but got: {}",
                self.kind()
            ))),
        }
    }

    /// The `reflect` kind of this type.
    fn kind(self) -> &'static str {
        match self.schema.shape {
            Shape::Map(_) => "map",
            Shape::List(_) | Shape::Bytes => "slice",
            Shape::String => "string",
            Shape::Boolean => "bool",
            Shape::Integer(32) => "int32",
            Shape::Integer(_) => "int64",
            Shape::Number => "float64",
            _ => "struct",
        }
    }
}

fn maps(original: &mut Object, patch: &mut Object, of: Type<'_>) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                *original = patch.clone();
            }
            Some("delete") => *original = Object::new(),
            _ => return Err(bad_directive(directive, patch)),
        }
        return Ok(());
    }
    retain_keys(original, patch)?;
    order_lists(original, patch, of)?;
    // What is to be removed counts as absent, and is removed at once: each removal moves the members behind it.
    let mut gone: HashSet<&str> = HashSet::new();
    for (name, value) in patch.iter_mut() {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM) {
            Some(rest) => (
                rest.strip_prefix('/')
                    .ok_or_else(|| malformed("primitive list"))?,
                true,
            ),
            None => (name.as_str(), false),
        };
        if value.is_null() {
            gone.insert(name);
            continue;
        }
        let current = original.get_mut(name).filter(|_| !gone.contains(name));
        match (current, &mut *value) {
            (Some(Value::Object(current)), Value::Object(patch)) => {
                let (member, merge) = of.member(name)?;
                if merge.replace {
                    *current = patch.clone();
                } else {
                    maps(current, patch, member)?;
                }
            }
            (Some(Value::Array(current)), Value::Array(patch)) => {
                let (items, merge) = of.list_member(name)?;
                let how = lists::How {
                    merge,
                    items,
                    deletes,
                };
                *current = lists::merge(std::mem::take(current), patch, how)?;
            }
            (Some(current), value)
                if type_of(current) == type_of(value)
                    && !matches!(value, Value::Array(_) | Value::Object(_)) =>
            {
                *current = value.clone();
            }
            _ if deletes => {}
            _ => {
                drop_nulls(value);
                if drop_directives(value) {
                    gone.remove(name);
                    original.insert(name, value.clone());
                } else {
                    gone.insert(name);
                }
            }
        }
    }
    if !gone.is_empty() {
        original.retain(|name, _| !gone.contains(name.as_str()));
    }
    Ok(())
}

/// `$retainKeys`: removes the members that it does not list.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err(malformed("retainKeys"));
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let retains = |name: &str| retained.contains(name);
    let strays = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(ELEMENT_ORDER)
            && !retains(name)
    });
    if strays {
        return Err(malformed("retainKeys"));
    }
    original.retain(|name, _| retains(name));
    Ok(())
}

/// `$setElementOrder/x`: merges the list `x` and sorts it. Removes what is done from the patch.
fn order_lists(original: &mut Object, patch: &mut Object, of: Type<'_>) -> Result<(), PatchError> {
    let names: Vec<_> = patch
        .keys()
        .filter(|name| name.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in names {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or_default())),
        };
        let name = directive
            .strip_prefix(ELEMENT_ORDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| malformed("setElementOrder list"))?;
        for value in [original.get(name), patch.get(name)].into_iter().flatten() {
            if !matches!(value, Value::Array(_)) {
                return Err(bad_type("[]interface {}", value));
            }
        }
        let (items, merge) = of.list_member(name)?;
        let key = merge.key.as_deref().unwrap_or_default();
        if let Some(Value::Array(patch)) = patch.get(name) {
            lists::check_order(patch, &order, key)?;
        }
        let how = lists::How {
            merge,
            items,
            deletes: false,
        };
        let live = original.get(name).and_then(Value::as_array);
        let ordered = match (live, patch.get_mut(name)) {
            (None, None) => continue,
            (Some(live), None) => lists::order(live.to_vec(), &order, live, &[], key)?,
            (None, Some(patch)) => {
                let given = patch.as_array().unwrap_or_default().to_vec();
                drop_directives(patch);
                let kept = patch.as_array().unwrap_or_default().to_vec();
                lists::order(kept, &order, &[], &given, key)?
            }
            (Some(live), Some(patch)) => {
                let patch = patch.as_array().unwrap_or_default();
                let merged = lists::merge(live.to_vec(), patch, how)?;
                lists::order(merged, &order, live, patch, key)?
            }
        };
        original.insert(name, ordered);
        patch.remove(name);
    }
    Ok(())
}

/// Removes null members from maps, at any depth.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, member| !member.is_null());
            object.iter_mut().for_each(|(_, member)| drop_nulls(member));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Removes maps with a `$patch`, at any depth. Returns false if the value is one itself.
fn drop_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => {
            if object.contains(DIRECTIVE) {
                return false;
            }
            object.retain(|_, member| drop_directives(member));
            true
        }
        Value::Array(items) => {
            items.retain_mut(drop_directives);
            true
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_many_members_are_retained_and_removed() {
        let names: Vec<String> = (0..100_000).map(|n| format!("k{n}")).collect();
        let all = |value: Value| -> Object {
            let members = names.iter().map(|name| (name.as_str(), value.clone()));
            members.collect()
        };
        let schema = crate::schema::builtin::named("io.k8s.api.core.v1.ConfigMap");
        let data =
            |data: Object| -> Value { [("data", data)].into_iter().collect::<Object>().into() };

        let mut patch = all(Value::from("x"));
        let list = names.iter().rev().map(|name| Value::from(name.as_str()));
        patch.insert(RETAIN_KEYS, list.collect::<Vec<_>>());
        let mut live = all(Value::from(""));
        live.insert("more", "");
        let merged = merge(&data(live), &mut data(patch), schema);
        assert_eq!(merged, Ok(data(all(Value::from("x")))));

        let merged = merge(
            &data(all(Value::from(""))),
            &mut data(all(Value::Null)),
            schema,
        );
        assert_eq!(merged, Ok(data(Object::new())));
    }
}
