//! The in-memory value of every API object.
//!
//! Unlike `serde_json::Value` it keeps integers and floats apart, keeps members in order, and holds short
//! strings without an allocation. Recursion over it is bounded by [`crate::schema::json::MAX_DEPTH`], and the
//! threads that handle requests have stacks for that depth ([`crate::schema::STACK`]).

use compact_str::CompactString;

use super::object::Object;

/// A member's name.
pub type Key = CompactString;

/// One JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number written without fraction or exponent that fits an `i64`.
    Int(i64),
    /// Any other number, as Go's `float64`.
    Float(f64),
    /// Text.
    String(CompactString),
    /// An array.
    Array(Vec<Value>),
    /// An object, members in order.
    Object(Object),
}

static NULL: Value = Value::Null;

impl Value {
    /// Whether arrays and objects nest deeper than `most` here. Not recursive, so it is safe for any
    /// value.
    pub fn deeper_than(&self, most: usize) -> bool {
        self.size_within(most).is_none()
    }

    /// The number of values here, this one and all within; `None` if arrays and objects nest deeper than `most`.
    pub fn size_within(&self, most: usize) -> Option<usize> {
        let container = |value: &Value| matches!(value, Value::Array(_) | Value::Object(_));
        let (mut open, mut size) = (vec![(self, 1)], 1);
        while let Some((value, depth)) = open.pop() {
            if container(value) && depth > most {
                return None;
            }
            match value {
                Value::Array(items) => {
                    size += items.len();
                    let items = items.iter().filter(|item| container(item));
                    open.extend(items.map(|item| (item, depth + 1)));
                }
                Value::Object(members) => {
                    size += members.len();
                    let members = members.iter().map(|(_, member)| member);
                    let members = members.filter(|member| container(member));
                    open.extend(members.map(|member| (member, depth + 1)));
                }
                _ => {}
            }
        }
        Some(size)
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The member called `key`; `null` if absent or if this is not an object.
    pub fn at(&self, key: &str) -> &Value {
        match self {
            Value::Object(object) => object.get(key).unwrap_or(&NULL),
            _ => &NULL,
        }
    }

    /// The value at a path of member names; `null` if absent.
    pub fn path(&self, path: &[&str]) -> &Value {
        path.iter().fold(self, |value, key| value.at(key))
    }

    /// The member called `key`, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self.at(key) {
            Value::Null => None,
            value => Some(value),
        }
    }

    /// The member called `key`, mutably.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match self {
            Value::Object(object) => object.get_mut(key),
            _ => None,
        }
    }

    /// Text, or `None`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, or `None`.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A boolean, or `None`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An object, or `None`.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A mutable object, or `None`.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// An array, or `None`.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A mutable array, or `None`.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of the member `key`; empty if absent or not text (Go's zero value).
    pub fn str(&self, key: &str) -> &str {
        self.at(key).as_str().unwrap_or("")
    }

    /// The integer of the member `key`; zero if absent or not an integer.
    pub fn int(&self, key: &str) -> i64 {
        self.at(key).as_int().unwrap_or(0)
    }

    /// The boolean of the member `key`; false if absent or not a boolean.
    pub fn bool(&self, key: &str) -> bool {
        self.at(key).as_bool().unwrap_or(false)
    }

    /// The items of the array member `key`; empty if absent or not an array.
    pub fn list(&self, key: &str) -> &[Value] {
        self.at(key).as_array().unwrap_or(&[])
    }

    /// The members of the object member `key`, in order; empty if absent or not an object.
    pub fn entries(&self, key: &str) -> impl DoubleEndedIterator<Item = (&Key, &Value)> {
        self.at(key).as_object().into_iter().flat_map(Object::iter)
    }

    /// The members of this, in order; empty if this is not an object.
    pub fn entries_of(&self) -> impl DoubleEndedIterator<Item = (&Key, &Value)> {
        self.as_object().into_iter().flat_map(Object::iter)
    }

    /// Sorts members by name, recursively.
    pub fn sort(&mut self) {
        match self {
            Value::Object(members) => {
                members.sort();
                members.iter_mut().for_each(|(_, member)| member.sort());
            }
            Value::Array(items) => items.iter_mut().for_each(Value::sort),
            _ => {}
        }
    }

    /// This as an object; replaced by an empty one if it is something else.
    pub fn object_mut(&mut self) -> &mut Object {
        if !matches!(self, Value::Object(_)) {
            *self = Value::Object(Object::new());
        }
        match self {
            Value::Object(object) => object,
            _ => unreachable!("it was made an object above"),
        }
    }

    /// Sets the member `key` of this object (replaced by an empty one if it is something else).
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.object_mut().insert(key, value);
    }

    /// Removes the member `key`.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.as_object_mut()?.remove(key)
    }

    /// Whether this is Go's zero value of some type: null, false, 0, "", or an empty array or object.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(number) => *number == 0,
            Value::Float(number) => *number == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(object) => object.is_empty(),
        }
    }

    /// The JSON type name of this, as in the errors of Go's decoder.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::Float(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:expr),* $(,)?) => { $(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                #[allow(clippy::redundant_closure_call)]
                ($variant)(value)
            }
        }
    )* };
}

from! {
    bool => Value::Bool,
    i64 => Value::Int,
    i32 => |value: i32| Value::Int(i64::from(value)),
    u32 => |value: u32| Value::Int(i64::from(value)),
    u16 => |value: u16| Value::Int(i64::from(value)),
    f64 => Value::Float,
    CompactString => Value::String,
    String => |value: String| Value::String(value.into()),
    &str => |value: &str| Value::String(value.into()),
    &String => |value: &String| Value::String(value.as_str().into()),
    &CompactString => |value: &CompactString| Value::String(value.clone()),
    Vec<Value> => Value::Array,
    Object => Value::Object,
    &Value => Value::clone,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Builds a value from JSON-like syntax: `value!({"kind": kind, "items": [1, 2, null]})`.
#[macro_export]
macro_rules! value {
    (null) => { $crate::schema::Value::Null };
    ([ $($item:tt),* $(,)? ]) => { $crate::schema::Value::Array(vec![ $( $crate::value!($item) ),* ]) };
    ({ $($key:literal : $value:tt),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut object = $crate::schema::Object::new();
        $( object.insert($key, $crate::value!($value)); )*
        $crate::schema::Value::Object(object)
    }};
    ($other:expr) => { $crate::schema::Value::from($other) };
}
