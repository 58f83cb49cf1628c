//! Merges an applied object into the live one. Follows
//! sigs.k8s.io/structured-merge-diff/v6/typed/merge.go.

use std::cmp::Ordering;

use super::element::Element;
use super::typing::{Form, List, Map, Type};
use crate::schema::{Object, Value};

/// Merges `applied` into `live`; `applied` wins. Both must be valid for the type.
pub fn merge(live: &Value, applied: &Value, root: Type<'_>) -> Value {
    both(live, applied, root)
}

fn both(live: &Value, applied: &Value, at: Type<'_>) -> Value {
    let (was, is) = (at.form(Some(live)), at.form(Some(applied)));
    if !was.is_like(&is) && !live.is_null() && !applied.is_null() {
        return applied.clone();
    }
    match if applied.is_null() { was } else { is } {
        Form::Scalar(_) => applied.clone(),
        Form::Map(map) => {
            let (a, b) = (live.as_object(), applied.as_object());
            let empty = |o: Option<&Object>| o.is_none_or(Object::is_empty);
            if map.atomic || (empty(a) && empty(b)) {
                return applied.clone();
            }
            maps(a, b, map)
        }
        Form::List(list) => {
            let (a, b) = (live.as_array(), applied.as_array());
            let (a, b) = (a.unwrap_or(&[]), b.unwrap_or(&[]));
            if list.is_atomic() || (a.is_empty() && b.is_empty()) {
                return applied.clone();
            }
            lists(a, b, list)
        }
    }
}

fn maps(live: Option<&Object>, applied: Option<&Object>, map: Map<'_>) -> Value {
    let (Some(live), Some(applied)) = (live, applied) else {
        return live.or(applied).cloned().unwrap_or_default().into();
    };
    let mut out = Object::with_capacity(live.len().max(applied.len()));
    for (name, value) in live.iter() {
        let value = match applied.get(name) {
            Some(other) => both(value, other, map.member(name).unwrap_or(Type::Untyped)),
            None => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    for (name, value) in applied.iter() {
        if !live.contains(name) {
            out.insert(name.clone(), value);
        }
    }
    Value::Object(out)
}

/// An item of the live list.
struct Live<'v> {
    item: &'v Value,
    /// Its index in the applied list.
    applied: Option<usize>,
}

/// Merges two lists: applied items in their order, the other live items at their place between them.
fn lists(live: &[Value], applied: &[Value], list: List<'_>) -> Value {
    let (left, partner) = matched(live, applied, list);
    // Applied items that exist in the live list, in applied order; `next` is the next one expected.
    let mut shared = (0..applied.len())
        .filter(|r| !matches!(partner[*r], Partner::None))
        .peekable();
    let mut next = shared.next();
    let mut merged = vec![false; applied.len()];
    let take = |r: usize| match partner[r] {
        Partner::One(l) => both(left[l].item, &applied[r], list.element),
        Partner::None | Partner::Several => applied[r].clone(),
    };
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < applied.len() {
        if let Some(item) = left.get(l)
            && r < applied.len()
        {
            match item.applied {
                Some(at) if at == r => {
                    merged[r] = true;
                    out.push(take(r));
                    (l, r) = (l + 1, r + 1);
                    next = shared.next();
                    continue;
                }
                // In both lists, but not the next one.
                Some(at) if next.is_some_and(|next| next != at) => {
                    l += 1;
                    continue;
                }
                _ => {}
            }
        }
        if let Some(item) = left.get(l) {
            match item.applied {
                None => {
                    out.push(item.item.clone());
                    l += 1;
                    continue;
                }
                Some(at) if merged[at] => l += 1,
                Some(_) => {}
            }
        }
        if r < applied.len() {
            merged[r] = true;
            out.push(take(r));
            if next == Some(r) {
                next = shared.next();
            }
            r += 1;
        }
    }
    Value::Array(out)
}

/// The position of an applied item in the live list.
#[derive(Clone, Copy)]
enum Partner {
    None,
    One(usize),
    /// At several positions: it replaces all of them.
    Several,
}

fn matched<'v>(
    live: &'v [Value],
    applied: &[Value],
    list: List<'_>,
) -> (Vec<Live<'v>>, Vec<Partner>) {
    let index = |items: &[Value]| {
        let mut index: Vec<(Element, usize)> = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| Some((list.element_of(item).ok()?, i)))
            .collect();
        index.sort_by(|a, b| a.0.cmp(&b.0));
        index
    };
    let (lefts, rights) = (index(live), index(applied));
    let mut left: Vec<Live<'v>> = live
        .iter()
        .map(|item| Live {
            item,
            applied: None,
        })
        .collect();
    let mut partner = vec![Partner::None; applied.len()];
    let mut rest = rights.iter().peekable();
    for (element, l) in &lefts {
        while rest.next_if(|(other, _)| other < element).is_some() {}
        if let Some((other, r)) = rest.peek()
            && other.cmp(element) == Ordering::Equal
        {
            left[*l].applied = Some(*r);
            partner[*r] = match partner[*r] {
                Partner::None => Partner::One(*l),
                _ => Partner::Several,
            };
        }
    }
    (left, partner)
}
