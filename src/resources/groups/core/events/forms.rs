//! The two formats of an event, which differ in the names of members. Follows pkg/apis/events/v1/conversion.go.

use crate::resources::registry::Conversion;
use crate::schema::{Object, Value, builtin, decode};

/// The names of a member in `events.k8s.io` and in core.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Converts between `events.k8s.io/v1` and core `v1`, in which events are stored.
pub(in crate::resources::groups) const fn conversion() -> Conversion {
    Conversion {
        to_storage: to_core,
        from_storage: from_core,
    }
}

/// Converts an event from `events.k8s.io` to core.
pub(super) fn to_core(event: Value) -> Value {
    renamed(event, "io.k8s.api.core.v1.Event", |name| {
        NAMES
            .iter()
            .find(|names| names.0 == name)
            .map(|names| names.1)
    })
}

fn from_core(event: Value) -> Value {
    renamed(event, "io.k8s.api.events.v1.Event", |name| {
        NAMES
            .iter()
            .find(|names| names.1 == name)
            .map(|names| names.0)
    })
}

/// An event with its members renamed, in the order of a schema.
fn renamed(event: Value, schema: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(members) = event else {
        return event;
    };
    let mut out = Object::with_capacity(members.len());
    for (key, value) in members {
        match name(&key) {
            Some(name) => out.insert(name, value),
            None => out.insert(key, value),
        };
    }
    let mut event = Value::Object(out);
    decode::tidy(&mut event, builtin::named(schema));
    event
}
