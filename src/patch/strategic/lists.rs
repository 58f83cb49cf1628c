//! Lists in strategic merge patches: sets of scalars, and items with a merge key.

use std::collections::{HashMap, HashSet};

use super::{
    DIRECTIVE, Merge, PatchError, Type, Value, bad_directive, bad_type, kind_of, maps,
    no_merge_key, odd, printed, type_of,
};

/// How a list merges.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub merge: &'a Merge,
    pub items: Type<'a>,
    /// The patch lists scalars to delete.
    pub deletes: bool,
}

/// A scalar with Go's equality: by type and value. Lists and maps equal nothing.
#[derive(PartialEq, Eq, Hash)]
enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(u64),
    Text(&'a str),
}

fn token(value: &Value) -> Option<Token<'_>> {
    Some(match value {
        Value::Null => Token::Null,
        Value::Bool(value) => Token::Bool(*value),
        Value::Int(number) => Token::Int(*number),
        Value::Float(number) => Token::Float(number.to_bits()),
        Value::String(text) => Token::Text(text),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

/// What identifies an item: itself, or its merge key.
fn identity<'a>(item: &'a Value, key: &str) -> Option<Token<'a>> {
    if key.is_empty() {
        token(item)
    } else {
        token(item.at(key))
    }
}

/// The first position of each item.
fn positions<'a>(items: &'a [Value], key: &str) -> HashMap<Token<'a>, usize> {
    let mut positions = HashMap::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        if let Some(identity) = identity(item, key) {
            positions.entry(identity).or_insert(position);
        }
    }
    positions
}

/// Merges the list `patch` into `live`.
pub(super) fn merge(
    live: Vec<Value>,
    patch: &[Value],
    how: How<'_>,
) -> Result<Vec<Value>, PatchError> {
    if !how.merge.merge && !how.deletes {
        return Ok(patch.to_vec());
    }
    if live.is_empty() && patch.is_empty() {
        return Ok(live);
    }
    let key = how.merge.key.as_deref().unwrap_or_default();
    if item_kind(&[&live, patch])? != "map" {
        if how.deletes {
            let gone = positions(patch, "");
            let kept = live
                .iter()
                .filter(|item| token(item).is_none_or(|item| !gone.contains_key(&item)));
            return Ok(kept.cloned().collect());
        }
        let merged = without_repeats(live.iter().chain(patch.iter()).cloned());
        return arrange(merged, patch, &live, key);
    }
    if key.is_empty() {
        return Err(odd(format!(
            "cannot merge lists without merge key for {}",
            how.items.kind()
        )));
    }
    let (live, mut patch) = directives(live, patch, key)?;
    let merged = merge_items(live.clone(), &mut patch, key, how.items)?;
    arrange(merged, &patch, &live, key)
}

/// Processes the items that are directives. Returns what remains of the live list, and of the patch.
fn directives(
    mut live: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(object) = item else {
            continue;
        };
        let Some(directive) = object.get(DIRECTIVE) else {
            rest.push(item.clone());
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let name = object.get(key).ok_or_else(|| no_merge_key(item, key))?;
                gone.extend(token(name));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(odd("merging lists cannot yet be specified in the patch"));
            }
            _ => return Err(bad_directive(directive, object)),
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    live.retain(|item| {
        let name = item.as_object().and_then(|object| object.get(key));
        name.and_then(token)
            .is_none_or(|name| !gone.contains(&name))
    });
    Ok((live, rest))
}

fn merge_items(
    mut live: Vec<Value>,
    patch: &mut [Value],
    key: &str,
    of: Type<'_>,
) -> Result<Vec<Value>, PatchError> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, item) in live.iter().enumerate() {
        if let Some(name) = item.as_object().and_then(|object| object.get(key)) {
            places.entry(name_of(name)).or_insert(place);
        }
    }
    for item in patch.iter_mut() {
        let name = match item.as_object().and_then(|object| object.get(key)) {
            Some(name) => name_of(name),
            None => return Err(no_merge_key(item, key)),
        };
        match places.get(&name).and_then(|place| live.get_mut(*place)) {
            Some(Value::Object(current)) => {
                if let Value::Object(patch) = item {
                    maps(current, patch, of)?;
                }
            }
            _ => {
                places.insert(name, live.len());
                live.push(item.clone());
            }
        }
    }
    Ok(live)
}

/// A merge key's value with its type; owned, to outlive changes to the items.
fn name_of(value: &Value) -> String {
    format!("{}:{}", type_of(value), printed(value))
}

/// Sorts a merged list: items of the patch in the order of the patch, others as before.
pub(super) fn order(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    patch: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    item_kind(&[live, patch])?;
    arrange(merged, order, live, key)
}

/// Sorts `merged`: items in `order` by it, the others by `live`, and interleaves both by `live`.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let maps = merged
        .iter()
        .chain(live)
        .chain(order)
        .next()
        .is_some_and(|item| matches!(item, Value::Object(_)));
    let by_patch = positions(order, key);
    let by_live = positions(live, key);
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for item in &merged {
        if !key.is_empty() {
            let Value::Object(object) = item else {
                return Err(bad_type("map[string]interface {}", item));
            };
            if !object.contains(key) {
                return Err(no_merge_key(item, key));
            }
        }
        match identity(item, key).filter(|item| by_patch.contains_key(item)) {
            Some(_) => ours.push(item),
            None => others.push(item),
        }
    }
    if maps {
        for list in [order, live] {
            check_keys(list, key)?;
        }
    }
    let place = |places: &HashMap<Token<'_>, usize>, item: &Value| {
        identity(item, key).and_then(|item| places.get(&item).copied())
    };
    sort(&mut ours, |item| place(&by_patch, item));
    sort(&mut others, |item| place(&by_live, item));
    let mut woven = Vec::with_capacity(merged.len());
    let (mut ours, mut others) = (ours.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(our), Some(other)) = (ours.peek(), others.peek()) {
        let before = match (place(&by_live, other), place(&by_live, our)) {
            (Some(other), Some(our)) => other < our,
            _ => false,
        };
        let next = if before { others.next() } else { ours.next() };
        woven.extend(next.cloned());
    }
    woven.extend(ours.chain(others).cloned());
    Ok(woven)
}

/// How many items Go sorts by insertion.
const INSERTED: usize = 20;

/// Upstream's comparison puts unknown items before everything that precedes them. With such a comparison the result
/// depends on the algorithm: short lists are sorted by insertion, as Go does it, in longer ones unknown items come first.
fn sort<'a>(items: &mut [&'a Value], place: impl Fn(&'a Value) -> Option<usize>) {
    let mut placed: Vec<(Option<usize>, &Value)> =
        items.iter().map(|item| (place(item), *item)).collect();
    if placed.len() > INSERTED || placed.iter().all(|(place, _)| place.is_some()) {
        placed.sort_by_key(|(place, _)| *place);
    } else {
        for end in 1..placed.len() {
            let mut at = end;
            while at > 0
                && match (placed[at].0, placed[at - 1].0) {
                    (Some(this), Some(before)) => this < before,
                    _ => true,
                }
            {
                placed.swap(at, at - 1);
                at -= 1;
            }
        }
    }
    for (item, (_, sorted)) in items.iter_mut().zip(placed) {
        *item = sorted;
    }
}

fn check_keys(items: &[Value], key: &str) -> Result<(), PatchError> {
    items.iter().try_for_each(|item| match item {
        Value::Object(object) if object.contains(key) => Ok(()),
        Value::Object(_) => Err(no_merge_key(item, key)),
        other => Err(bad_type("map[string]interface {}", other)),
    })
}

/// Checks that the items of a patch have the order given by `$setElementOrder`.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut items = Vec::with_capacity(patch.len());
    for item in patch {
        match item {
            Value::Object(object)
                if !key.is_empty()
                    && object.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => {}
            Value::Object(_) => items.push(item),
            other if !key.is_empty() => return Err(bad_type("map[string]interface {}", other)),
            other => items.push(other),
        }
    }
    let mut wanted = order.iter();
    for item in items {
        loop {
            let Some(next) = wanted.clone().next() else {
                return Err(odd(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    printed(&Value::Array(patch.to_vec())),
                    printed(&Value::Array(order.to_vec()))
                )));
            };
            if item.get(DIRECTIVE).is_some() {
                break;
            }
            if !key.is_empty() {
                check_keys(std::slice::from_ref(item), key)?;
                check_keys(std::slice::from_ref(next), key)?;
            }
            wanted.next();
            let item = identity(item, key);
            if item.is_some() && item == identity(next, key) {
                break;
            }
        }
    }
    Ok(())
}

/// Removes repeated scalars. They are sorted later.
fn without_repeats(items: impl Iterator<Item = Value> + Clone) -> Vec<Value> {
    let all: Vec<Value> = items.collect();
    let first = positions(&all, "");
    let kept = all
        .iter()
        .enumerate()
        .filter(|(place, item)| token(item).is_none_or(|item| first.get(&item) == Some(place)));
    kept.map(|(_, item)| item.clone()).collect()
}

/// The kind shared by all items.
fn item_kind(lists: &[&[Value]]) -> Result<&'static str, PatchError> {
    let mut items = lists.iter().copied().flatten();
    let Some(first) = items.next() else {
        return Err(odd("no elements in any of the given slices"));
    };
    if matches!(first, Value::Array(_)) {
        return Err(PatchError::Inapplicable(
            "lists of lists are not supported".to_owned(),
        ));
    }
    if items.any(|item| type_of(item) != type_of(first)) {
        let lists: Vec<String> = lists
            .iter()
            .map(|list| printed(&Value::Array(list.to_vec())))
            .collect();
        return Err(odd(format!(
            "list element types are not identical: [{}]",
            lists.join(" ")
        )));
    }
    Ok(kind_of(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(places: &[Option<usize>]) -> Vec<usize> {
        let values: Vec<Value> = (0..places.len()).map(|n| Value::Int(n as i64)).collect();
        let number = |value: &Value| value.as_int().unwrap() as usize;
        let mut items: Vec<&Value> = values.iter().collect();
        sort(&mut items, |item| places[number(item)]);
        items.into_iter().map(number).collect()
    }

    #[test]
    fn unknown_items_come_before_what_precedes_them() {
        assert_eq!(sorted(&[Some(5), None, Some(3)]), [2, 1, 0]);
        assert_eq!(sorted(&[None, None]), [1, 0]);
        let very_many = sorted(&[None; 300_000]);
        assert_eq!(very_many.len(), 300_000);
    }
}
