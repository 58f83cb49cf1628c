//! Walks objects by their schema: differences of two objects, the fields of an object, and removal of fields.
//! Follows sigs.k8s.io/structured-merge-diff/v6/typed (compare.go, tofieldset.go, remove.go, reconcile_schema.go).

use super::element::{Element, same};
use super::set::Set;
use super::typing::{Form, List, Map, Type};
use crate::schema::{Object, Value};

/// The difference between two objects.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Only in the old object.
    pub removed: Set,
    /// In both, with different values.
    pub modified: Set,
    /// Only in the new object.
    pub added: Set,
}

/// Whether a place itself, apart from what is below it, was removed, modified or added.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    removed: bool,
    modified: bool,
    added: bool,
}

impl Own {
    fn or(self, other: Own) -> Own {
        Own {
            removed: self.removed || other.removed,
            modified: self.modified || other.modified,
            added: self.added || other.added,
        }
    }
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// The changes with `keep` applied to each set.
    pub fn filtered(self, keep: impl Fn(Set) -> Set) -> Changes {
        Changes {
            removed: keep(self.removed),
            modified: keep(self.modified),
            added: keep(self.added),
        }
    }

    fn push(&mut self, element: impl Fn() -> Element, below: Changes, own: Own) {
        for (level, own, below) in [
            (&mut self.removed, own.removed, below.removed),
            (&mut self.modified, own.modified, below.modified),
            (&mut self.added, own.added, below.added),
        ] {
            if own || !below.is_empty() {
                level.push(element(), own, below);
            }
        }
    }

    fn seal(&mut self) {
        self.removed.seal();
        self.modified.seal();
        self.added.seal();
    }

    fn merged(self, other: Changes) -> Changes {
        Changes {
            removed: self.removed.union(other.removed),
            modified: self.modified.union(other.modified),
            added: self.added.union(other.added),
        }
    }
}

/// The difference between `old` and `new`. Skips list items that cannot be identified.
pub fn compare(old: &Value, new: &Value, root: Type<'_>) -> Changes {
    place(Some(old), Some(new), root).0
}

fn place(old: Option<&Value>, new: Option<&Value>, at: Type<'_>) -> (Changes, Own) {
    let (form_old, form_new) = (at.form(old), at.form(new));
    let (changes, own, leaf) = match (old, new) {
        (_, None) => walk(old, new, form_old),
        (None, _) => walk(old, new, form_new),
        _ if form_old.is_like(&form_new) => walk(old, new, form_new),
        _ => {
            let (a, own_a, _) = walk(old, new, form_old);
            let (b, own_b, leaf) = walk(old, new, form_new);
            (a.merged(b), own_a.or(own_b), leaf)
        }
    };
    let own = if leaf {
        own
    } else {
        own.or(Own {
            added: old.is_none(),
            removed: old.is_some() && new.is_none(),
            modified: false,
        })
    };
    (changes, own)
}

/// The changes below a place, those of the place itself, and whether it was compared as a whole.
fn walk(old: Option<&Value>, new: Option<&Value>, form: Form<'_>) -> (Changes, Own, bool) {
    let whole = || {
        let own = Own {
            added: old.is_none(),
            removed: old.is_some() && new.is_none(),
            modified: matches!((old, new), (Some(old), Some(new)) if !same(old, new)),
        };
        (Changes::default(), own, true)
    };
    match form {
        Form::Scalar(_) => whole(),
        Form::Map(map) => {
            let (a, b) = (members(old), members(new));
            if map.atomic || (empty_map(a) && empty_map(b)) {
                return whole();
            }
            (maps(a, b, map), Own::default(), false)
        }
        Form::List(list) => {
            let (a, b) = (items(old), items(new));
            if list.is_atomic() || (a.is_empty() && b.is_empty()) {
                return whole();
            }
            (lists(a, b, list), Own::default(), false)
        }
    }
}

fn members(value: Option<&Value>) -> Option<&Object> {
    value.and_then(Value::as_object)
}

fn empty_map(map: Option<&Object>) -> bool {
    map.is_none_or(Object::is_empty)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).unwrap_or(&[])
}

fn maps(old: Option<&Object>, new: Option<&Object>, map: Map<'_>) -> Changes {
    let mut changes = Changes::default();
    let mut visit = |name: &crate::schema::Key, old: Option<&Value>, new: Option<&Value>| {
        let Some(at) = map.member(name) else { return };
        let (below, own) = place(old, new, at);
        changes.push(|| Element::Field(name.clone()), below, own);
    };
    for (name, value) in old.into_iter().flat_map(Object::iter) {
        visit(name, Some(value), new.and_then(|new| new.get(name)));
    }
    for (name, value) in new.into_iter().flat_map(Object::iter) {
        if !old.is_some_and(|old| old.contains(name)) {
            visit(name, None, Some(value));
        }
    }
    changes.seal();
    changes
}

/// Items with their identifying elements: sorted, duplicates adjacent in their original order.
pub(super) fn indexed<'v>(items: &'v [Value], list: List<'_>) -> Vec<(Element, &'v Value)> {
    let mut out: Vec<(Element, &Value)> = items
        .iter()
        .filter_map(|item| Some((list.element_of(item).ok()?, item)))
        .collect();
    if !out.is_sorted_by(|a, b| a.0 < b.0) {
        out.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out
}

fn lists(old: &[Value], new: &[Value], list: List<'_>) -> Changes {
    // Most lists are unchanged by a write: then items need not be identified.
    if old.len() == new.len() && old.iter().zip(new).all(|(a, b)| same(a, b)) {
        return Changes::default();
    }
    let (old, new) = (indexed(old, list), indexed(new, list));
    let (mut a, mut b) = (&old[..], &new[..]);
    let mut changes = Changes::default();
    loop {
        let element = match (a.first(), b.first()) {
            (None, None) => break,
            (Some((element, _)), None) | (None, Some((element, _))) => element,
            (Some((x, _)), Some((y, _))) => x.min(y),
        };
        let run = |rest: &[(Element, &Value)]| {
            rest.iter()
                .take_while(|(other, _)| other == element)
                .count()
        };
        let (olds, rest_a) = a.split_at(run(a));
        let (news, rest_b) = b.split_at(run(b));
        let (x, y) = (olds.first().map(|x| x.1), news.first().map(|y| y.1));
        let (below, own) = match (olds.len(), news.len()) {
            (0 | 1, 0 | 1) => place(x, y, list.element),
            (2.., 2..) => {
                let same =
                    olds.len() == news.len() && olds.iter().zip(news).all(|(a, b)| same(a.1, b.1));
                let own = Own {
                    modified: !same,
                    ..Own::default()
                };
                (Changes::default(), own)
            }
            // Duplicates are compared as one unit; a single item is compared field by field.
            (2.., _) => {
                let (below, own) = match y {
                    Some(_) => place(None, y, list.element),
                    None => Default::default(),
                };
                let own = own.or(Own {
                    removed: true,
                    ..Own::default()
                });
                (below, own)
            }
            (_, 2..) => {
                let (below, own) = match x {
                    Some(_) => place(x, None, list.element),
                    None => Default::default(),
                };
                let own = own.or(Own {
                    added: true,
                    ..Own::default()
                });
                (below, own)
            }
        };
        changes.push(|| element.clone(), below, own);
        (a, b) = (rest_a, rest_b);
    }
    changes.seal();
    changes
}

/// The fields that an object sets, down to the leaves that can be owned.
pub fn fields_of(value: &Value, root: Type<'_>) -> Set {
    fields_below(value, root).0
}

/// The fields below a place, and whether the place itself is one.
fn fields_below(value: &Value, at: Type<'_>) -> (Set, bool) {
    let mut set = Set::default();
    match at.form(Some(value)) {
        Form::Scalar(_) => return (set, true),
        Form::Map(map) => {
            if map.atomic {
                return (set, true);
            }
            for (name, member) in members(Some(value)).into_iter().flat_map(Object::iter) {
                let (below, own) = match map.member(name) {
                    Some(at) => fields_below(member, at),
                    None => Default::default(),
                };
                let bare = match member {
                    Value::Null => true,
                    Value::Object(members) => members.is_empty(),
                    _ => false,
                };
                let own = own || bare || !map.names(name);
                set.push(Element::Field(name.clone()), own, below);
            }
        }
        Form::List(list) => {
            if list.is_atomic() {
                return (set, true);
            }
            let items = indexed(items(Some(value)), list);
            let mut rest = items.into_iter().peekable();
            while let Some((element, item)) = rest.next() {
                let mut twice = false;
                while rest.next_if(|(next, _)| *next == element).is_some() {
                    twice = true;
                }
                let below = if twice {
                    Set::default()
                } else {
                    fields_below(item, list.element).0
                };
                set.push(element, true, below);
            }
        }
    }
    set.seal();
    (set, false)
}

/// Removes the fields, members and items in `gone` from the value. What remains of an atomic value is null.
pub fn remove(value: &Value, gone: &Set, at: Type<'_>) -> Value {
    match at.form(Some(value)) {
        Form::Scalar(_) => value.clone(),
        Form::Map(map) => {
            let Value::Object(members) = value else {
                return Value::Null;
            };
            if map.atomic {
                return Value::Null;
            }
            let mut out = Object::with_capacity(members.len());
            for (name, member) in members.iter() {
                match gone.node(&Element::Field(name.clone())) {
                    None => {
                        out.insert(name.clone(), member);
                    }
                    Some(node) if node.member => {}
                    Some(node) => {
                        let at = map.member(name).unwrap_or(Type::Untyped);
                        out.insert(name.clone(), remove(member, &node.children, at));
                    }
                }
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Object(out)
            }
        }
        Form::List(list) => {
            let Value::Array(items) = value else {
                return Value::Null;
            };
            if list.is_atomic() {
                return Value::Null;
            }
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let element = list.element_of(item).ok();
                match element.and_then(|element| gone.node(&element)) {
                    None => out.push(item.clone()),
                    Some(node) if node.member => {}
                    Some(node) => out.push(remove(item, &node.children, list.element)),
                }
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Array(out)
            }
        }
    }
}

/// Adds to the set every named field of the schema on the path to one of its members.
pub fn with_named(set: &Set, at: Option<Type<'_>>) -> Set {
    let atom = at.map(Type::atom);
    let map = atom.and_then(|atom| atom.map);
    let list = atom.and_then(|atom| atom.list);
    let mut out = Set::default();
    for node in set.nodes() {
        let (named, below) = match (&node.element, map, list) {
            (Element::Field(name), Some(map), _) => (map.names(name), map.member(name)),
            (Element::Key(_), _, Some(list)) => (false, Some(list.element)),
            _ => (false, None),
        };
        let member = node.member || (named && !node.children.is_empty());
        out.push(
            node.element.clone(),
            member,
            with_named(&node.children, below),
        );
    }
    out
}

/// The set adapted to a changed schema: whoever owned part of a value that is now atomic owns all of it.
/// `None` if nothing changes.
pub fn reconciled(set: &Set, root: Type<'_>) -> Option<Set> {
    fn needs(set: &Set, own: bool, at: Type<'_>, root: bool) -> Option<bool> {
        let whole = own && set.is_empty();
        let form = at.form(None);
        match form {
            Form::Scalar(_) => None,
            Form::Map(map) if map.is_deduced() => None,
            Form::Map(map) if map.atomic => (!root && !whole && !set.is_empty()).then_some(true),
            Form::List(list) if list.is_atomic() => (!root && !whole).then_some(true),
            Form::Map(map) => any(set, |element| map.at(element)),
            Form::List(list) => any(set, |_| Some(list.element)),
        }
    }
    fn any<'t>(set: &Set, type_of: impl Fn(&Element) -> Option<Type<'t>>) -> Option<bool> {
        set.nodes()
            .iter()
            .any(|node| {
                type_of(&node.element)
                    .is_some_and(|at| needs(&node.children, node.member, at, false).is_some())
            })
            .then_some(false)
    }
    fn rebuilt(set: &Set, at: Type<'_>) -> Set {
        let form = at.form(None);
        let mut out = Set::default();
        for node in set.nodes() {
            let below = match form {
                Form::Map(map) => map.at(&node.element),
                Form::List(list) => Some(list.element),
                Form::Scalar(_) => None,
            };
            let found = below.and_then(|at| needs(&node.children, node.member, at, false));
            match (found, below) {
                (Some(true), _) => out.push(node.element.clone(), true, Set::default()),
                (Some(false), Some(at)) => out.push(
                    node.element.clone(),
                    node.member,
                    rebuilt(&node.children, at),
                ),
                _ => out.push(node.element.clone(), node.member, node.children.clone()),
            }
        }
        out
    }
    needs(set, false, root, true).map(|_| rebuilt(set, root))
}
