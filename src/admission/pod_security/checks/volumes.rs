//! Checks of volumes.

use std::collections::BTreeSet;

use super::breach::{Breach, breach, plural, quote};
use super::pod::Pod;

pub(super) fn host_paths(pod: Pod<'_>) -> Option<Breach> {
    let volumes = pod.spec.list("volumes").iter();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| volume.str("name"))
        .collect();
    if names.is_empty() {
        return None;
    }
    let noun = plural(names.len(), "volume", "volumes");
    breach("hostPath volumes", format!("{noun} {}", quote(names)))
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn volumes(pod: Pod<'_>) -> Option<Breach> {
    let mut types = BTreeSet::new();
    let mut names = Vec::new();
    for volume in pod.spec.list("volumes") {
        if VOLUMES.iter().any(|kind| volume.get(kind).is_some()) {
            continue;
        }
        names.push(volume.str("name"));
        let members = volume
            .as_object()
            .into_iter()
            .flat_map(|volume| volume.keys());
        let kind = members.into_iter().find(|key| *key != "name");
        types.insert(kind.map_or("unknown", |kind| kind.as_str()));
    }
    if names.is_empty() {
        return None;
    }
    breach(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural(names.len(), "volume", "volumes"),
            quote(&names),
            plural(names.len(), "uses", "use"),
            plural(
                types.len(),
                "restricted volume type",
                "restricted volume types"
            ),
            quote(&types)
        ),
    )
}
