//! Operations on lists of tolerations. Follows k8s.io/kubernetes/pkg/util/tolerations.

use crate::schema::Value;

/// Merges two lists, dropping tolerations that others cover.
pub fn merged(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut out: Vec<Value> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let needless = out.iter().any(|kept| covers(kept, one))
            || all[i + 1..]
                .iter()
                .any(|later| later != one && covers(later, one));
        if !needless {
            out.push((*one).clone());
        }
    }
    out
}

/// Whether each toleration is covered by one in `list`; an empty list covers everything.
pub fn allowed(tolerations: &[Value], list: &[Value]) -> bool {
    list.is_empty()
        || tolerations
            .iter()
            .all(|one| list.iter().any(|wide| covers(wide, one)))
}

/// Whether `wide` tolerates everything that `narrow` does, and at least as long.
pub fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let exists = wide.str("operator") == "Exists";
    if narrow.str("key") != wide.str("key") && !(wide.str("key").is_empty() && exists) {
        return false;
    }
    if narrow.str("effect") != wide.str("effect") && !wide.str("effect").is_empty() {
        return false;
    }
    if wide.str("effect") == "NoExecute"
        && let Some(seconds) = wide.at("tolerationSeconds").as_int()
        && narrow
            .at("tolerationSeconds")
            .as_int()
            .is_none_or(|narrow| narrow > seconds)
    {
        return false;
    }
    match wide.str("operator") {
        "" | "Equal" => {
            narrow.str("operator") == "Equal" && narrow.str("value") == wide.str("value")
        }
        _ => exists,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    #[test]
    fn what_others_say_too_is_left_out() {
        let list = |text: &str| json::parse(text.as_bytes()).unwrap().value;
        for (first, second, wanted) in [
            (r#"[]"#, r#"[{"key":"k","operator":"Exists"}]"#, "[0]"),
            (
                r#"[{"key":"k","operator":"Equal","value":"v"}]"#,
                r#"[{"key":"k","operator":"Exists"}]"#,
                "[1]",
            ),
            (
                r#"[{"operator":"Exists"}]"#,
                r#"[{"key":"k","operator":"Exists"},{"key":"l","operator":"Equal","value":"v"}]"#,
                "[0]",
            ),
            (
                r#"[{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]"#,
                r#"[{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":60},{"key":"k","operator":"Exists","effect":"NoExecute"}]"#,
                "[2]",
            ),
            (
                r#"[{"key":"a","operator":"Exists","effect":"NoSchedule"}]"#,
                r#"[{"key":"b","operator":"Exists","effect":"NoSchedule"},{"key":"a","operator":"Exists","effect":"NoSchedule"}]"#,
                "[0, 1]",
            ),
        ] {
            let (first, second) = (list(first), list(second));
            let (first, second) = (first.as_array().unwrap(), second.as_array().unwrap());
            let all: Vec<&Value> = first.iter().chain(second).collect();
            let kept: Vec<usize> = merged(first, second)
                .iter()
                .map(|kept| all.iter().position(|one| *one == kept).unwrap())
                .collect();
            assert_eq!(format!("{kept:?}"), wanted, "{first:?} {second:?}");
        }
    }
}
