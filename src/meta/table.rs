//! Table cells.

use super::time;
use crate::schema::Value;

/// How long ago the object was created, as `kubectl get` shows it: `5m`, `3d4h`, `<unknown>`.
pub fn age(object: &Value, now: i64) -> Value {
    since(object.at("metadata").at("creationTimestamp"), now)
}

/// When the object was created, as shown in tables of kinds without their own columns.
pub fn created(object: &Value) -> Value {
    object.at("metadata").at("creationTimestamp").clone()
}

/// Name and creation time: the cells of kinds for which upstream has no columns.
pub fn name_and_creation(object: &Value) -> Vec<Value> {
    let meta = object.at("metadata");
    vec![
        meta.str("name").into(),
        meta.str("creationTimestamp").into(),
    ]
}

/// How long ago a timestamp was: `<unknown>` if there is none.
pub fn since(timestamp: &Value, now: i64) -> Value {
    match timestamp.as_str().and_then(|text| time::parse(text).ok()) {
        Some(then) => human_duration(now - then).into(),
        None => "<unknown>".into(),
    }
}

/// A duration in seconds as printed by upstream's duration.HumanDuration. Go's durations are 64-bit nanoseconds and
/// `time.Since` saturates: nothing is older than 292 years.
pub fn human_duration(seconds: i64) -> String {
    let seconds = seconds.min(i64::MAX / 1_000_000_000);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_two_units_that_matter() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, told) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (8 * HOUR - 1, "7h59m"),
            (48 * HOUR - 1, "47h"),
            (2 * DAY, "2d"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (730 * DAY - 1, "729d"),
            (730 * DAY, "2y"),
            (6 * 365 * DAY + 331 * DAY, "6y331d"),
            (8 * 365 * DAY, "8y"),
            (327 * 365 * DAY, "292y"),
        ] {
            assert_eq!(human_duration(seconds), told, "{seconds} s");
        }
    }
}
