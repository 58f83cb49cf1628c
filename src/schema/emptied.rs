//! Lists and maps that were said and are empty. Canonical form does not tell them from those that were not said, as
//! upstream's storage does not, but a refusal of what was said shows them.

use super::types::{Schema, Shape};
use super::{Key, Object, Value};

/// What holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// A list.
    List,
    /// A map.
    Map,
    /// An object of known members, which is as it would be if it were not said.
    Struct,
}

impl Empty {
    /// What an empty list or object is to its schema.
    pub fn of(value: &Value, schema: &Schema) -> Empty {
        match (value, &schema.shape) {
            (Value::Array(_), _) => Empty::List,
            (_, Shape::Struct(_)) => Empty::Struct,
            _ => Empty::Map,
        }
    }
}

/// A field that was said to hold nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Emptied {
    /// The way to it: names of members, and places in lists as text.
    pub path: Vec<Key>,
    /// What it is.
    pub what: Empty,
    /// Whether refusals show it.
    pub shown: bool,
}

impl Emptied {
    /// The member of the object that it is in, if it is a list or a map.
    pub fn member(&self) -> Option<&str> {
        let first = self.path.first().filter(|_| self.what != Empty::Struct)?;
        Some(first.as_ref())
    }

    /// Its path as refusals tell it: `spec.containers[0].ports`.
    pub fn field(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            if step.bytes().all(|b| b.is_ascii_digit()) {
                path.push_str(&format!("[{step}]"));
            } else {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(step);
            }
        }
        path
    }

    /// Whether nothing has been put in its place since.
    pub fn still_holds(&self, object: &Value) -> bool {
        let found = self
            .path
            .iter()
            .try_fold(object, |value, step| match value {
                Value::Array(items) => items.get(step.parse::<usize>().ok()?),
                value => value.get(step),
            });
        found.is_none_or(Value::is_empty)
    }

    /// Puts it back where it was said, if the object around it is still there and says nothing else.
    pub fn put(&self, object: &mut Value) {
        let Some((name, way)) = self.path.split_last() else {
            return;
        };
        let place = way.iter().try_fold(object, |value, step| match value {
            Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
            value => value.get_mut(step),
        });
        if let Some(Value::Object(members)) = place
            && members.get(name).is_none_or(Value::is_null)
        {
            members.insert(
                name.clone(),
                match self.what {
                    Empty::List => Value::Array(Vec::new()),
                    Empty::Map | Empty::Struct => Value::Object(Object::new()),
                },
            );
        }
    }
}

/// A step of the way to a field, which becomes text only where the field is empty.
#[derive(Clone, Copy)]
enum Step<'v> {
    Name(&'v Key),
    Index(usize),
}

impl From<Step<'_>> for Key {
    fn from(step: Step<'_>) -> Key {
        match step {
            Step::Name(name) => name.clone(),
            Step::Index(index) => index.to_string().into(),
        }
    }
}

/// What an object of a schema says is empty, the innermost first.
pub fn within(value: &Value, schema: &Schema) -> Vec<Emptied> {
    let mut out = Vec::new();
    walk(value, schema, true, &mut Vec::new(), &mut out);
    out
}

fn walk<'v>(
    value: &'v Value,
    schema: &Schema,
    shown: bool,
    at: &mut Vec<Step<'v>>,
    out: &mut Vec<Emptied>,
) {
    let mut member = |step: Step<'v>, value: &'v Value, schema: &Schema, shown: bool| {
        at.push(step);
        walk(value, schema, shown, at, out);
        at.pop();
    };
    match (&schema.shape, value) {
        (Shape::Struct(fields), Value::Object(object)) => {
            // Selectors are shown as they are served, which leaves out what is empty.
            let shown = !fields.go_name.starts_with("LabelSelector");
            for (name, value) in object.iter() {
                // Nothing else holds anything, or nothing.
                if matches!(value, Value::Object(_) | Value::Array(_))
                    && let Some(field) = fields.fields.get(name)
                {
                    member(Step::Name(name), value, &field.schema, shown);
                }
            }
        }
        (Shape::Map(values), Value::Object(object)) => {
            for (name, value) in object.iter() {
                member(Step::Name(name), value, values, true);
            }
        }
        (Shape::List(items), Value::Array(array)) => {
            for (index, value) in array.iter().enumerate() {
                member(Step::Index(index), value, items, true);
            }
        }
        _ => return,
    }
    if value.is_empty() && !at.is_empty() {
        out.push(Emptied {
            path: at.iter().copied().map(Key::from).collect(),
            what: Empty::of(value, schema),
            shown,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{builtin, decode, json};

    #[test]
    fn what_is_empty_in_an_object_is_found_the_innermost_first() {
        let pod = r#"{"spec":{"containers":[{"name":"c","args":[],"resources":{"limits":{}}}],"nodeSelector":{}}}"#;
        let pod = json::parse(pod.as_bytes()).unwrap().value;
        let found: Vec<(String, Empty)> = within(&pod, builtin::named("io.k8s.api.core.v1.Pod"))
            .into_iter()
            .map(|emptied| (emptied.path.join("."), emptied.what))
            .collect();
        let path = |path: &str, what| (path.to_owned(), what);
        assert_eq!(
            found,
            [
                path("spec.containers.0.args", Empty::List),
                path("spec.containers.0.resources.limits", Empty::Map),
                path("spec.nodeSelector", Empty::Map),
            ]
        );
    }

    #[test]
    fn a_path_is_told_as_refusals_tell_it() {
        for (path, told) in [
            (&["data"][..], "data"),
            (
                &["spec", "containers", "0", "ports"],
                "spec.containers[0].ports",
            ),
        ] {
            let path = path.iter().map(|step| (*step).into()).collect();
            let (what, shown) = (Empty::List, true);
            assert_eq!(Emptied { path, what, shown }.field(), told);
        }
    }

    #[test]
    fn what_was_said_to_be_empty_is_put_back_where_it_was() {
        let body = r#"{"metadata":{"name":"a","labels":{}},"spec":{"nodeSelector":{},"containers":[{"name":"c","args":[],"resources":{"limits":{}}}],"volumes":[]}}"#;
        let said = json::parse(body.as_bytes()).unwrap().value;
        let schema = builtin::named("io.k8s.api.core.v1.Pod");
        let decoded = decode::decode(said, schema, "v1.Pod").unwrap();
        let mut pod = decoded.value;
        let told = |pod: &Value| json::to_string(pod);
        assert!(!told(&pod).contains("[]") && !told(&pod).contains("nodeSelector"));
        pod.get_mut("metadata")
            .unwrap()
            .set("labels", crate::value!({"a": "b"}));
        for emptied in &decoded.emptied {
            emptied.put(&mut pod);
        }
        let spec = pod.at("spec");
        let container = &spec.list("containers")[0];
        for (value, shown) in [
            (pod.path(&["metadata", "labels"]), r#"{"a":"b"}"#),
            (spec.at("nodeSelector"), "{}"),
            (spec.at("volumes"), "[]"),
            (container.at("args"), "[]"),
            (container.path(&["resources", "limits"]), "{}"),
        ] {
            assert_eq!(json::to_string(value), shown);
        }
    }
}
