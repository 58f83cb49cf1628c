//! JSON patch like gopkg.in/evanphx/json-patch.v4: RFC 6902 with its extensions (negative indexes, `replace`
//! and `copy` of missing members, paths without a leading slash).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::PatchError;
use crate::schema::{Value, json};

/// How many operations one patch may contain.
pub const MAX_OPERATIONS: usize = 10_000;
/// Limit in bytes for the JSON that the `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 << 20;
/// Limit for the work of one patch: how many items and members its operations may move or look at. Ten thousand operations
/// on one list of a million items would take a minute; this much takes a fraction of a second, and is enough for as many
/// operations on a list of two thousand.
const MAX_MOVED: usize = 20_000_000;

/// Errors of strict decoding: duplicate members, and members that no operation has.
///
/// # Errors
/// Go's text for a body that is not a list of operations.
pub fn check(body: &Value, duplicates: &[String]) -> Result<Vec<String>, String> {
    const LIST: &str = "[]handlers.jsonPatchOp";
    let items = match body {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        other => return Err(unfit(other, &format!("Go value of type {LIST}"))),
    };
    let mut strict: Vec<String> = duplicates
        .iter()
        .map(|path| format!("json patch duplicate field \"{path}\""))
        .collect();
    let mut error = None;
    for (index, item) in items.iter().enumerate() {
        match item {
            Value::Null => {}
            Value::Object(operation) => {
                for (name, value) in operation.iter() {
                    match name.as_str() {
                        "value" => {}
                        "op" | "path" | "from" => {
                            if !matches!(value, Value::String(_) | Value::Null) {
                                error.get_or_insert_with(|| {
                                    let field = format!(
                                        "Go struct field jsonPatchOp.{name} of type string"
                                    );
                                    unfit(value, &field)
                                });
                            }
                        }
                        name => {
                            strict.push(format!("json patch unknown field \"[{index}].{name}\""))
                        }
                    }
                }
            }
            other => {
                error.get_or_insert_with(|| unfit(other, "Go value of type handlers.jsonPatchOp"));
            }
        }
    }
    error.map_or(Ok(strict), Err)
}

fn unfit(value: &Value, into: &str) -> String {
    format!("json: cannot unmarshal {} into {into}", value.type_name())
}

/// Applies the operations to `live`, all or none; returns the new document.
///
/// # Errors
/// [`PatchError::Inapplicable`] at the first operation that does not apply, [`PatchError::TooManyOperations`], and
/// [`PatchError::Malformed`] for a body that is not a list of objects.
pub fn apply(live: &Value, body: &Value) -> Result<Value, PatchError> {
    let operations = match body {
        Value::Null => &[],
        Value::Array(operations) => operations.as_slice(),
        other => {
            return Err(PatchError::Malformed(unfit(
                other,
                "Go value of type jsonpatch.Patch",
            )));
        }
    };
    if let Some(other) = operations
        .iter()
        .find(|operation| !matches!(operation, Value::Object(_) | Value::Null))
    {
        return Err(PatchError::Malformed(unfit(
            other,
            "Go value of type jsonpatch.Operation",
        )));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut document = live.clone();
    let mut work = Work::default();
    for (index, operation) in operations.iter().enumerate() {
        operate(&mut document, operation, &mut work)
            .map_err(|why| PatchError::Inapplicable(format!("operation {index}: {why}")))?;
    }
    Ok(document)
}

/// What the operations of one patch did so far.
#[derive(Default)]
struct Work {
    copied: usize,
    moved: usize,
}

impl Work {
    /// Accounts for the bytes of a copy.
    fn copy(&mut self, bytes: usize) -> Result<(), String> {
        self.copied += bytes;
        match self.copied {
            ..=MAX_COPIED => Ok(()),
            _ => Err(format!("copies add more than {MAX_COPIED} bytes")),
        }
    }

    /// Accounts for items that move or are looked at.
    fn move_by(&mut self, items: usize) -> Result<(), String> {
        self.moved += items;
        match self.moved {
            ..=MAX_MOVED => Ok(()),
            _ => Err(format!("the patch moves more than {MAX_MOVED} items")),
        }
    }
}

fn operate(document: &mut Value, operation: &Value, work: &mut Work) -> Result<(), String> {
    let text = |name: &str| {
        operation
            .at(name)
            .as_str()
            .ok_or_else(|| format!("operation missing {name} field"))
    };
    let value = || operation.at("value").clone();
    match operation.str("op") {
        "add" => {
            let path = text("path")?;
            let value = fitting(path, value(), work)?;
            let (container, key) = parent(document, path)?;
            add(container, &key, value, work)
        }
        "remove" => {
            let (container, key) = parent(document, text("path")?)?;
            remove(container, &key, work).map(drop)
        }
        "replace" => {
            let path = text("path")?;
            if path.is_empty() {
                let value = value();
                if !matches!(value, Value::Object(_) | Value::Array(_)) {
                    return Err("replace operation value must be object or array".to_owned());
                }
                *document = value;
                return Ok(());
            }
            let value = fitting(path, value(), work)?;
            let (container, key) = parent(document, path)?;
            match container {
                Value::Array(items) => {
                    let index = index_of(&key, items.len())?;
                    if let Some(item) = items.get_mut(index) {
                        *item = value;
                    }
                }
                Value::Object(object) => {
                    object.insert(key, value);
                }
                _ => return Err(missing(path)),
            }
            Ok(())
        }
        "move" => {
            let (container, key) = parent(document, text("from")?)?;
            let path = text("path")?;
            let value = fitting(path, remove(container, &key, work)?, work)?;
            let (container, key) = parent(document, path)?;
            add(container, &key, value, work)
        }
        "copy" => {
            let (container, key) = parent(document, text("from")?)?;
            let value = get(container, &key)?.cloned().unwrap_or_default();
            work.copy(json::to_string(&value).len())?;
            let path = text("path")?;
            let value = fitting(path, value, work)?;
            let (container, key) = parent(document, path)?;
            add(container, &key, value, work)
        }
        "test" => {
            let path = text("path")?;
            let failed = || format!("testing value {path} failed");
            if path.is_empty() {
                return match operation.get("value") {
                    Some(value) if value == document => Ok(()),
                    _ => Err(failed()),
                };
            }
            let (container, key) = parent(document, path)?;
            let found = get(container, &key)?.filter(|found| !found.is_null());
            // An absent value equals null, and so does an absent member.
            if found == operation.get("value") {
                Ok(())
            } else {
                Err(failed())
            }
        }
        other => Err(format!("unexpected kind: {other}")),
    }
}

/// Limits the depth of a value to be placed at a path, so that the document remains
/// readable however deeply the operations nest values.
fn fitting(path: &str, value: Value, work: &mut Work) -> Result<Value, String> {
    let above = path.matches('/').count();
    let rest = json::MAX_DEPTH.checked_sub(above);
    let size = rest.and_then(|rest| value.size_within(rest));
    work.move_by(size.ok_or("exceeded max depth")?)?;
    Ok(value)
}

fn missing(path: &str) -> String {
    format!("document is missing path {path:?}")
}

/// The steps of a path; the text before the first slash is ignored.
fn steps(path: &str) -> Vec<String> {
    path.split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// The paths that operations looked into, as a tree of steps.
#[derive(Default)]
struct Touched(BTreeMap<String, Touched>);

/// Sorts the members of objects on the paths of the operations by name. Upstream writes those sorted and leaves the
/// others in their order; error messages show that.
pub fn sort_touched(document: &mut Value, body: &Value) {
    if let Value::Object(object) = document {
        object.sort();
    }
    let mut all = Touched::default();
    let operations = body.as_array().unwrap_or_default();
    for path in operations
        .iter()
        .flat_map(|operation| [operation.str("path"), operation.str("from")])
    {
        let (mut value, mut touched) = (&mut *document, &mut all);
        let mut way = steps(path);
        way.pop();
        for step in way {
            let Some(next) = child(value, &step) else {
                break;
            };
            touched = match touched.0.entry(step) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    if let Value::Object(object) = next {
                        object.sort();
                    }
                    new.insert(Touched::default())
                }
            };
            value = next;
        }
    }
}

fn child<'a>(value: &'a mut Value, step: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(object) => object.get_mut(step),
        Value::Array(items) => {
            let index = index_of(step, items.len()).ok()?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// The container that the last step of a path refers to, and that step.
fn parent<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let mut steps = steps(path);
    let Some(key) = steps.pop() else {
        return Err(missing(path));
    };
    let mut container = document;
    for step in steps {
        container = match container {
            Value::Object(object) => object.get_mut(&step),
            Value::Array(items) => {
                let index = index_of(&step, items.len())?;
                items.get_mut(index)
            }
            _ => None,
        }
        .ok_or_else(|| missing(path))?;
    }
    if !matches!(container, Value::Object(_) | Value::Array(_)) {
        return Err(missing(path));
    }
    Ok((container, key))
}

fn add(container: &mut Value, key: &str, value: Value, work: &mut Work) -> Result<(), String> {
    match container {
        Value::Object(object) => {
            object.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let index = index_of(key, items.len() + 1)?;
            work.move_by(items.len() - index)?;
            items.insert(index, value);
        }
        _ => return Err(format!("nothing can be added at {key:?}")),
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str, work: &mut Work) -> Result<Value, String> {
    match container {
        Value::Object(object) => {
            work.move_by(object.len())?;
            object
                .remove(key)
                .ok_or_else(|| format!("unable to remove nonexistent key {key:?}"))
        }
        Value::Array(items) => {
            let index = index_of(key, items.len())?;
            work.move_by(items.len() - index)?;
            Ok(items.remove(index))
        }
        _ => Err(format!("nothing can be removed at {key:?}")),
    }
}

/// The member or item; `None` if an object does not have the member.
fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match container {
        Value::Object(object) => Ok(object.get(key)),
        Value::Array(items) => Ok(items.get(index_of(key, items.len())?)),
        _ => Ok(None),
    }
}

/// Parses an index below `size`; negative ones count from the end.
fn index_of(key: &str, size: usize) -> Result<usize, String> {
    let wrong = || format!("invalid index {key:?} of {size}");
    let index: i64 = key.parse().map_err(|_| wrong())?;
    let index = if index < 0 {
        usize::try_from(index.unsigned_abs())
            .ok()
            .and_then(|back| size.checked_sub(back))
    } else {
        usize::try_from(index).ok()
    };
    index.filter(|index| *index < size).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn a_patch_may_not_move_very_many_items() {
        let list = Value::Array(vec![Value::Int(0); 1_000_000]);
        for step in [
            value!({"op": "remove", "path": "/x/0"}),
            value!({"op": "add", "path": "/x/0", "value": 1}),
            value!({"op": "move", "from": "/x", "path": "/x"}),
        ] {
            let mut operations = vec![value!({"op": "add", "path": "/x", "value": (&list)})];
            operations.resize(MAX_OPERATIONS, step);
            let Err(PatchError::Inapplicable(why)) = apply(&value!({}), &Value::Array(operations))
            else {
                panic!("it is applied");
            };
            assert!(
                why.ends_with("the patch moves more than 20000000 items"),
                "{why}"
            );
        }
    }
}
