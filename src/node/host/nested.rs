//! Mounts below the mounts of a volume. Follows pkg/volume/util/nested_volumes.go.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;

use crate::node::machine::containers;

/// An absolute path without empty components, `.` and `..`.
fn cleaned(path: &str) -> Vec<&str> {
    let mut clean = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

/// The directories that a volume must have because other volumes are mounted there: it may be read-only, and then the
/// mount points cannot be made when a container starts. Only the upper one of nested directories is included.
pub(super) fn mount_points(spec: &PodSpec, volume: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, container) in containers(spec) {
        let mounts = container.volume_mounts.iter().flatten();
        let mut all: Vec<_> = mounts
            .clone()
            .map(|mount| cleaned(&mount.mount_path))
            .collect();
        all.sort_by_key(Vec::len);
        for own in mounts.filter(|mount| mount.name == volume) {
            let own = cleaned(&own.mount_path);
            let mut below: Vec<&[&str]> = Vec::new();
            for inner in all.iter().filter_map(|path| path.strip_prefix(&own[..])) {
                if !inner.is_empty() && !below.iter().any(|above| inner.starts_with(above)) {
                    below.push(inner);
                }
            }
            found.extend(below.into_iter().map(|path| path.join("/")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_mounted_below_a_volume_has_a_place_in_it() {
        for (mounts, expected) in [
            (&[("v", "/etc/app"), ("w", "/etc/other")][..], &[][..]),
            (&[("v", "/etc/app"), ("w", "/etc/app/tls")], &["tls"]),
            (&[("w", "/etc/app/tls/"), ("v", "/etc/./app/")], &["tls"]),
            (&[("v", "/etc/app"), ("w", "/etc/application")], &[]),
            (
                &[
                    ("v", "/d"),
                    ("w", "/d/a/b"),
                    ("x", "/d/a"),
                    ("y", "/d/a-b"),
                    ("z", "/d/c/d"),
                ],
                &["a", "a-b", "c/d"],
            ),
            (&[("v", "/d"), ("v", "/e"), ("w", "/e/in")], &["in"]),
            (&[("w", "/d"), ("v", "/d/a")], &[]),
        ] {
            let list = mounts
                .iter()
                .map(|(name, path)| json!({"name": name, "mountPath": path}));
            let spec =
                json!({"containers": [{"name": "c", "volumeMounts": list.collect::<Vec<_>>()}]});
            let spec = serde_json::from_value(spec).expect("a spec");
            let found = mount_points(&spec, "v");
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{mounts:?}");
        }
    }
}
