//! Recursively read-only mounts.

use k8s_openapi::api::core::v1::VolumeMount;

use crate::zone::Process;

/// The label of a process whose runtime supports such mounts.
pub const RECURSIVE: &str = "recursive-read-only";

/// Whether a mount is recursively read-only, with a runtime that supports it (`offered`) or not. Follows
/// `resolveRecursiveReadOnly` (pkg/kubelet/kubelet_pods.go).
///
/// # Errors
/// It is required but impossible; upstream's texts.
pub fn is_recursively_read_only(mount: &VolumeMount, offered: bool) -> Result<bool, String> {
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    if mode == "Disabled" {
        return Ok(false);
    }
    let refused = |why: String| {
        let name = &mount.name;
        Err(format!(
            "volume {name:?} requested recursive read-only mode, but it is {why}"
        ))
    };
    if mount.read_only != Some(true) {
        return refused("not read-only".into());
    }
    let propagation = mount.mount_propagation.as_deref().unwrap_or("None");
    if propagation != "None" {
        return refused(format!("not compatible with propagation {propagation:?}"));
    }
    match (mode, offered) {
        ("IfPossible", offered) => Ok(offered),
        ("Enabled", true) => Ok(true),
        ("Enabled", false) => refused("not supported by the runtime".into()),
        _ => Err(format!("unknown recursive read-only mode {mode:?}")),
    }
}

/// The reported status of a read-only mount: what was done for a process, or will be.
pub(super) fn told(mount: &VolumeMount, latest: Option<&Process>) -> &'static str {
    let offered = latest.is_some_and(|process| process.labels.contains_key(RECURSIVE));
    match is_recursively_read_only(mount, offered) {
        Ok(true) => "Enabled",
        _ => "Disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_cannot_do_is_refused_or_not_done() {
        for (mode, read_only, propagation, offered, expected) in [
            (None, true, None, true, Ok(false)),
            (Some("Disabled"), true, None, true, Ok(false)),
            (Some("IfPossible"), true, None, true, Ok(true)),
            (Some("IfPossible"), true, None, false, Ok(false)),
            (Some("Enabled"), true, Some("None"), true, Ok(true)),
            (
                Some("Enabled"),
                true,
                None,
                false,
                Err("not supported by the runtime"),
            ),
            (Some("Enabled"), false, None, true, Err("not read-only")),
            (
                Some("Enabled"),
                true,
                Some("HostToContainer"),
                true,
                Err("not compatible with propagation \"HostToContainer\""),
            ),
        ] {
            let mount = VolumeMount {
                name: "v".into(),
                read_only: Some(read_only),
                mount_propagation: propagation.map(str::to_owned),
                recursive_read_only: mode.map(str::to_owned),
                ..VolumeMount::default()
            };
            let expected = expected.map_err(|why| {
                format!("volume \"v\" requested recursive read-only mode, but it is {why}")
            });
            assert_eq!(
                is_recursively_read_only(&mount, offered),
                expected,
                "{mode:?}"
            );
        }
    }
}
