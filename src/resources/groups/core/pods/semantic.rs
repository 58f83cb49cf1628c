//! Equality of pods as upstream means it: amounts are compared by value, and what is empty equals what is absent.
//! Follows k8s.io/apimachinery/pkg/api/equality.

use crate::meta::quantity::Quantity;
use crate::schema::Value;

/// Fields that hold amounts, or maps of them.
const AMOUNTS: &[&str] = &[
    "limits",
    "requests",
    "overhead",
    "sizeLimit",
    "divisor",
    "capacity",
    "allocatedResources",
];

/// Whether two canonical values are the same to upstream.
pub(in crate::resources::groups) fn same(a: &Value, b: &Value) -> bool {
    equal(a, b, false)
}

fn equal(a: &Value, b: &Value, amounts: bool) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let child = |key: &str| amounts || AMOUNTS.contains(&key);
            x.iter()
                .all(|(key, value)| equal(value, b.at(key), child(key)))
                && y.iter()
                    .all(|(key, value)| x.contains(key) || nothing(value))
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b, false))
        }
        (Value::String(x), Value::String(y)) => {
            x == y
                || (amounts
                    && matches!((Quantity::parse(x), Quantity::parse(y)), (Ok(a), Ok(b)) if a == b))
        }
        (a, Value::Null) | (Value::Null, a) => nothing(a),
        _ => a == b,
    }
}

/// What equals an absent value: null, and empty lists and maps. An empty struct behind a pointer does not, but those
/// that differ so are not in canonical objects.
fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
