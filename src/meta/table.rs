//! Cells of tables.

use super::time;
use crate::schema::Value;

/// How long ago the object was created, as `kubectl get` shows it: `5m`, `3d4h`, `<unknown>`.
pub fn age(object: &Value, now: i64) -> Value {
    since(object.at("metadata").at("creationTimestamp"), now)
}

/// When the object was created, as the tables of kinds without a row of their own show it.
pub fn created(object: &Value) -> Value {
    object.at("metadata").at("creationTimestamp").clone()
}

/// Name and time of creation: the cells of kinds that upstream has no columns for.
pub fn name_and_creation(object: &Value) -> Vec<Value> {
    let meta = object.at("metadata");
    vec![
        meta.str("name").into(),
        meta.str("creationTimestamp").into(),
    ]
}

/// How long ago a timestamp was: `<unknown>` where there is none.
pub fn since(timestamp: &Value, now: i64) -> Value {
    match timestamp.as_str().and_then(|text| time::parse(text).ok()) {
        Some(then) => human_duration(now - then).into(),
        None => "<unknown>".into(),
    }
}

/// A duration in seconds as upstream's duration.HumanDuration prints it.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |a: i64, au: &str, b: i64, bu: &str| {
        if b == 0 {
            format!("{a}{au}")
        } else {
            format!("{a}{au}{b}{bu}")
        }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        two(days, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        two(hours / 24 / 365, "y", days % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}
