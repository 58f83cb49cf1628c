//! Lists and maps that the client set but left empty. Canonical form, like upstream's storage, does not distinguish
//! them from absent ones, but errors that show the submitted value do.

use super::types::{Schema, Shape};
use super::{Key, Object, Value};

/// The kind of an empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// A list.
    List,
    /// A map.
    Map,
    /// An object with known members, which means the same as if it were absent.
    Struct,
}

impl Empty {
    /// The kind of an empty list or object, by its schema.
    pub fn of(value: &Value, schema: &Schema) -> Empty {
        match (value, &schema.shape) {
            (Value::Array(_), _) => Empty::List,
            (_, Shape::Struct(_)) => Empty::Struct,
            _ => Empty::Map,
        }
    }
}

/// A field that the client set to an empty value.
#[derive(Clone, Debug, PartialEq)]
pub struct Emptied {
    /// The path to it: names of members, and list indices as text.
    pub path: Vec<Key>,
    /// The kind of value.
    pub what: Empty,
    /// Whether errors show it.
    pub shown: bool,
}

impl Emptied {
    /// The top-level member that the list or map is in; `None` for a struct.
    pub fn member(&self) -> Option<&str> {
        let first = self.path.first().filter(|_| self.what != Empty::Struct)?;
        Some(first.as_ref())
    }

    /// Its path as shown in errors: `spec.containers[0].ports`.
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

    /// Puts it back, if the object around it still exists and does not set the field.
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

/// A step of a path; rendered as text only for empty fields.
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

/// The empty fields of an object, innermost first.
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
            // Selectors are shown as they are served, without empty fields.
            let shown = !fields.go_name.starts_with("LabelSelector");
            for (name, value) in object.iter() {
                // Only objects and lists can be empty or contain such fields.
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
