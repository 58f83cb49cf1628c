//! Upstream's semantic equality: quantities are compared by value, and empty equals absent.
//! Follows k8s.io/apimachinery/pkg/api/equality.

use super::types::{Schema, Shape};
use super::{Value, internal};
use crate::meta::quantity::Quantity;

/// Whether two canonical values of a schema are semantically equal.
pub fn same(schema: &Schema, a: &Value, b: &Value) -> bool {
    a == b || equal(Some(schema), a, b)
}

/// Like [`same`], for a Go type as taken by [`internal::dump`] (`core.PodSpec`, `[]core.Volume`).
/// Values of other types contain no quantities.
pub fn same_as(go_type: &str, a: &Value, b: &Value) -> bool {
    if a == b {
        return true;
    }
    let schema = internal::served(go_type);
    match (go_type.starts_with("[]"), a, b) {
        (true, Value::Array(a), Value::Array(b)) => items(schema, a, b),
        _ => equal(schema, a, b),
    }
}

fn equal(schema: Option<&Schema>, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let member = |name: &str| schema.and_then(|schema| schema.field(name));
            x.iter()
                .all(|(name, value)| equal(member(name), value, b.at(name)))
                && y.iter()
                    .all(|(name, value)| x.contains(name) || nothing(member(name), value))
        }
        (Value::Array(x), Value::Array(y)) => items(schema.and_then(Schema::items), x, y),
        (Value::String(x), Value::String(y))
            if is(schema, |shape| matches!(shape, Shape::Quantity)) =>
        {
            x == y || matches!((Quantity::parse(x), Quantity::parse(y)), (Ok(x), Ok(y)) if x == y)
        }
        (value, Value::Null) | (Value::Null, value) => nothing(schema, value),
        _ => a == b,
    }
}

fn items(schema: Option<&Schema>, a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(schema, a, b))
}

fn is(schema: Option<&Schema>, shape: fn(&Shape) -> bool) -> bool {
    schema.is_some_and(|schema| shape(&schema.shape))
}

/// Whether a value equals an absent one: null, and empty lists and maps do. An empty struct behind a pointer does not.
fn nothing(schema: Option<&Schema>, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => {
            members.is_empty() && is(schema, |shape| matches!(shape, Shape::Map(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn amounts_are_compared_by_value_and_nothing_else_is() {
        let pod = |memory: &str, setting: &str| {
            value!({"containers": [{
                "name": "a",
                "env": [{"name": "limits", "value": setting}],
                "resources": {"requests": {"memory": memory}},
            }]})
        };
        for (a, b, alike) in [
            (pod("1Gi", "1"), pod("1073741824", "1"), true),
            (pod("1Gi", "1"), pod("1G", "1"), false),
            (pod("1Gi", "1"), pod("1Gi", "1.0"), false),
        ] {
            assert_eq!(same_as("core.PodSpec", &a, &b), alike, "{a:?} {b:?}");
        }
        let metric = |amount: &str| value!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": amount}}}]);
        let metrics = "[]autoscaling.MetricSpec";
        assert!(same_as(metrics, &metric("1"), &metric("1000m")));
        assert!(!same_as(metrics, &metric("1"), &metric("1001m")));
    }

    #[test]
    fn empty_lists_and_maps_are_nothing_and_empty_structs_are_something() {
        for (spec, alike) in [
            (value!({"volumes": []}), true),
            (value!({"nodeSelector": {}}), true),
            (value!({"affinity": {}}), false),
            (value!({"hostNetwork": false}), false),
        ] {
            let nothing = value!({});
            assert_eq!(same_as("core.PodSpec", &spec, &nothing), alike, "{spec:?}");
            assert_eq!(same_as("core.PodSpec", &nothing, &spec), alike, "{spec:?}");
        }
    }
}
