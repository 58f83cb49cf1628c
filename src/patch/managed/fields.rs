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
    for (name, below) in members.iter() {
        if name == "." {
            member = true;
            continue;
        }
        let Some(element) = Element::read(name)? else {
            continue;
        };
        let (children, is_member) = level(below)?;
        set.push(element, is_member, children);
    }
    // Names in any order, some of which may mean the same.
    set.seal_with(|node, again| {
        node.member |= again.member;
        if !again.children.is_empty() {
            node.children = again.children;
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    fn fields(text: &str) -> Value {
        json::parse(text.as_bytes()).unwrap().value
    }

    #[test]
    fn names_are_read_in_any_order() {
        let object: Object = (0..200_000)
            .rev()
            .map(|i| (format!("f:z{i:06}"), Value::Object(Object::new())))
            .collect();
        let set = read(&Value::Object(object)).unwrap();
        assert_eq!(set.nodes().len(), 200_000);
        assert!(set.nodes().is_sorted_by(|a, b| a.element < b.element));

        let twice = r#"{"v:2":{},"v:1":{"f:a":{}},"v:1 ":{},"v:2 ":{"f:b":{}}}"#;
        let once = r#"{"v:1":{".":{},"f:a":{}},"v:2":{".":{},"f:b":{}}}"#;
        assert_eq!(
            json::to_string(&write(&read(&fields(twice)).unwrap())),
            once
        );
    }
}
