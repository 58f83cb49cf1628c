//! The order of API versions.

use std::cmp::Ordering;

/// Orders versions as upstream's CompareKubeAwareVersionStrings: the better is greater; GA before beta before
/// alpha, higher numbers first, then anything else by name (the alphabetically first being the better).
pub fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// (stability, major, minor): 2 for GA, 1 for beta, 0 for alpha.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let number = |text: &str| {
        if text.starts_with('0') {
            None
        } else {
            text.parse::<u64>().ok()
        }
    };
    let major = number(&rest[..digits])?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        tail => {
            let (stability, minor) = tail
                .strip_prefix("beta")
                .map(|n| (1, n))
                .or_else(|| tail.strip_prefix("alpha").map(|n| (0, n)))?;
            Some((stability, major, number(minor)?))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions = [
            "foo1", "v1alpha1", "bar", "v10", "v2", "v1", "v2beta2", "v2beta1",
        ];
        versions.sort_by(|a, b| super::compare(b, a));
        assert_eq!(
            versions,
            [
                "v10", "v2", "v1", "v2beta2", "v2beta1", "v1alpha1", "bar", "foo1"
            ]
        );
    }
}
