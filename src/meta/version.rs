//! Versions: the one of upstream that this program behaves as, and the order of those of APIs.

use std::cmp::Ordering;

/// The version of upstream whose API is served, and whose kubelet's pods run.
pub const UPSTREAM: &str = "v1.37.2";
/// The first part of [`UPSTREAM`].
pub const MAJOR: &str = "1";
/// The second part of [`UPSTREAM`].
pub const MINOR: &str = "37";

/// This host as Go names it: `linux/amd64`, `illumos/arm64`.
pub fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

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
    fn the_parts_of_a_version_are_its_own() {
        let parts = format!("v{}.{}.", super::MAJOR, super::MINOR);
        assert!(super::UPSTREAM.starts_with(&parts), "{}", super::UPSTREAM);
    }

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
