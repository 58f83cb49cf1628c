//! Whether the API still shows what this node wrote: others may write over it.

use serde_json::Value;

/// Whether `theirs` contains everything of `ours`. Of maps, only the members of `ours` are compared; an empty member
/// must be empty or missing. Lists of items with types (conditions, addresses) are compared item by item, all other
/// lists as a whole.
pub fn shows(theirs: &Value, ours: &Value) -> bool {
    match ours {
        Value::Object(ours) => ours.iter().all(|(name, own)| match theirs.get(name) {
            Some(theirs) => shows(theirs, own),
            None => is_empty(own),
        }),
        Value::Array(ours) => {
            let Some(theirs) = theirs.as_array() else {
                return ours.is_empty() && is_empty(theirs);
            };
            if !ours.is_empty() && ours.iter().all(|own| own.get("type").is_some()) {
                return ours.iter().all(|own| {
                    let mut theirs = theirs.iter().filter(|one| one["type"] == own["type"]);
                    theirs.any(|one| shows(one, own))
                });
            }
            let mut pairs = theirs.iter().zip(ours);
            theirs.len() == ours.len() && pairs.all(|(one, own)| shows(one, own) && shows(own, one))
        }
        Value::Null => is_empty(theirs),
        ours => theirs == ours,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_wrote_over_is_not_shown() {
        let ours = json!({"phase": "Running", "reason": null, "info": {"a": "1"},
            "conditions": [{"type": "Ready", "status": "True", "message": null}],
            "containerStatuses": [{"name": "c", "lastState": {}, "ready": true}]});
        assert!(shows(&ours, &ours));
        for (part, theirs, expected) in [
            ("phase", json!("Pending"), false),
            ("phase", Value::Null, false),
            ("reason", json!("Evicted"), false),
            ("qosClass", json!("Burstable"), true),
            ("info", json!({"a": "1", "b": "2"}), true),
            ("info", json!({"b": "2"}), false),
            (
                "conditions",
                json!([{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]),
                true,
            ),
            (
                "conditions",
                json!([{"type": "Ready", "status": "False"}]),
                false,
            ),
            (
                "conditions",
                json!([{"type": "Ready", "status": "True", "message": "m"}]),
                false,
            ),
            ("conditions", json!([]), false),
            (
                "containerStatuses",
                json!([{"name": "c", "ready": true}]),
                true,
            ),
            (
                "containerStatuses",
                json!([{"name": "c", "ready": true, "lastState": {"terminated": {"exitCode": 0}}}]),
                false,
            ),
            (
                "containerStatuses",
                json!([{"name": "c", "ready": true}, {"name": "d"}]),
                false,
            ),
        ] {
            let mut changed = ours.clone();
            changed[part] = theirs.clone();
            assert_eq!(shows(&changed, &ours), expected, "{part}: {theirs}");
        }
    }
}
