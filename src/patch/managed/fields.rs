//! Converts between `fieldsV1` and sets. Follows sigs.k8s.io/structured-merge-diff/v6/fieldpath/serialize.go.

use super::element::Element;
use super::set::Set;
use crate::schema::{Key, Object, Value};

/// Parses `fieldsV1`.
///
/// # Errors
/// A name that begins like a path element but is not one, or a value that is not an object.
pub fn read(fields: &Value) -> Result<Set, String> {
    level(fields).map(|(set, _)| set)
}

/// Parses one level: its set, and whether the field itself is a member, because of `.` or because nothing is below it.
fn level(fields: &Value) -> Result<(Set, bool), String> {
    let mut set = Set::default();
    let mut member = false;
    let members = match fields {
        Value::Null => return Ok((set, true)),
        Value::Object(members) => members,
        other => return Err(format!("expected an object, got {}", other.type_name())),
    };
    let mut sorted = true;
    for (name, below) in members.iter() {
        if name == "." {
            member = true;
            continue;
        }
        let Some(element) = Element::read(name)? else {
            continue;
        };
        let (children, is_member) = level(below)?;
        sorted = sorted && set.nodes().last().is_none_or(|last| last.element < element);
        if sorted {
            set.push(element, is_member, children);
        } else {
            let node = set.entry(element);
            node.member |= is_member;
            if !children.is_empty() {
                node.children = children;
            }
        }
    }
    let bare = set.is_empty();
    Ok((set, member || bare))
}

/// Writes `fieldsV1`: members in the order of their elements, preceded by `.` if a field and something below it are
/// both in the set.
pub fn write(set: &Set) -> Value {
    fn level(set: &Set, own: bool) -> Value {
        let mut out = Object::with_capacity(set.nodes().len() + usize::from(own));
        if own && !set.is_empty() {
            out.insert(".", Object::new());
        }
        let mut text = String::new();
        for node in set.nodes() {
            text.clear();
            node.element.write(&mut text);
            out.insert(Key::from(text.as_str()), level(&node.children, node.member));
        }
        Value::Object(out)
    }
    level(set, false)
}
