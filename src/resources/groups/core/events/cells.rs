//! Table cells of events. Follows printEvent of pkg/printers/internalversion/printers.go.

use crate::meta::table;
use crate::schema::Value;

/// The row of an event in core's format.
pub(super) fn event(event: &Value, now: i64) -> Vec<Value> {
    let since = |key: &str| table::since(event.at(key), now);
    let first = match event.get("firstTimestamp") {
        Some(_) => since("firstTimestamp"),
        None => since("eventTime"),
    };
    let (last, count) = match event.get("series") {
        Some(series) => (
            table::since(series.at("lastObservedTime"), now),
            series.int("count"),
        ),
        None => (
            match event.get("lastTimestamp") {
                Some(_) => since("lastTimestamp"),
                None => first.clone(),
            },
            event.int("count").max(1),
        ),
    };
    let involved = event.at("involvedObject");
    let kind = involved.str("kind").to_lowercase();
    let target = match involved.str("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last,
        event.str("type").into(),
        event.str("reason").into(),
        target.into(),
        involved.str("fieldPath").into(),
        source(event).into(),
        event.str("message").trim().into(),
        first,
        count.into(),
        event.at("metadata").str("name").into(),
    ]
}

/// The source of an event: `kubelet, node-a`.
fn source(event: &Value) -> String {
    let source = event.at("source");
    let either = |old: &str, new: &str| match source.str(old) {
        "" => event.str(new).to_owned(),
        text => text.to_owned(),
    };
    let component = either("component", "reportingComponent");
    match either("host", "reportingInstance") {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    }
}
