//! Indexes of a job's pods: `1,3-5,7`.

use crate::meta::errors::quoted;

/// Parses an interval like `3-5`; its indexes must be below `completions`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| -> Result<i64, String> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let parsed = text.parse::<i64>().ok().filter(|_| !digits.is_empty());
        let index = parsed.ok_or_else(|| {
            format!(
                "cannot convert string to integer for index: {}",
                quoted(text)
            )
        })?;
        if index >= completions {
            return Err(format!("too large index: {}", quoted(text)));
        }
        Ok(index)
    };
    let limits: Vec<&str> = text.split('-').collect();
    match limits.as_slice() {
        [one] => index(one).map(|one| (one, one)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(out_of_order(first, last));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quoted(text)
        )),
    }
}

fn out_of_order(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

/// The number of indexes in a text; all must be below `completions`: validateIndexesFormat.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    if text.is_empty() {
        return Ok(0);
    }
    for part in text.split(',') {
        let (x, y) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= x) {
            return Err(out_of_order(last, x));
        }
        total += y - x + 1;
        last = Some(y);
    }
    Ok(total)
}

/// The first index that is in both texts; invalid parts are ignored: validateFailedIndexesNotOverlapCompleted.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let parts = |text: &str| -> Vec<(i64, i64)> {
        text.split(',')
            .filter_map(|part| interval(part, completions).ok())
            .collect()
    };
    if completed.is_empty() || failed.is_empty() {
        return None;
    }
    let (completed, failed) = (parts(completed), parts(failed));
    let (mut i, mut j) = (0, 0);
    while let (Some(c), Some(f)) = (completed.get(i), failed.get(j)) {
        if c.0 <= f.1 && f.0 <= c.1 {
            return Some(c.0.max(f.0));
        }
        if c.0 <= f.0 {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_rise_and_stay_below_the_completions() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,2-4,7", 10), Ok(5));
        for (text, wrong) in [
            ("x", r#"cannot convert string to integer for index: "x""#),
            ("3", r#"too large index: "3""#),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("2-1", "non-increasing order, previous: 2, current: 1"),
            (
                "0-1-2",
                r#"the fragment "0-1-2" violates the requirement that an index interval can have at most two parts separated by '-'"#,
            ),
        ] {
            assert_eq!(count(text, 3), Err(wrong.to_owned()), "{text}");
        }
        assert_eq!(overlap("0-2,5", "3,5-6", 9), Some(5));
        assert_eq!(overlap("0-2", "3", 9), None);
    }
}
