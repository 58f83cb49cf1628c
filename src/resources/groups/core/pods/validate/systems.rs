//! Restrictions by the operating system of a pod, and by user namespaces.

use super::{Before, CONTAINERS};
use crate::meta::{At, Errors};
use crate::schema::Value;

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
const OWN_USERS: &str = "when `hostUsers` is false";

/// Fields of a pod's security context that Windows does not support, in upstream's order.
const POD_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// Fields of a pod spec that Windows does not support.
const POD: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
/// Fields of a container's security context that Windows does not support.
const CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Validates `os`, and rejects fields that the system does not support.
pub(super) fn system(spec: At<'_>, errors: &mut Errors) {
    let os = spec.field("os");
    if os.is_absent() {
        return;
    }
    let name = os.field("name");
    if !name.required("", errors) {
        return;
    }
    let context = spec.field("securityContext");
    match name.str() {
        "linux" => {
            context.field("windowsOptions").forbid(NOT_ON_LINUX, errors);
            each_context(spec, |context| {
                context.field("windowsOptions").forbid(NOT_ON_LINUX, errors);
            });
        }
        "windows" => {
            for field in POD_CONTEXT {
                context.field(field).forbid(NOT_ON_WINDOWS, errors);
            }
            for field in POD {
                let at = spec.field(field);
                match *field {
                    "hostPID" | "hostIPC" => at.forbid_said(NOT_ON_WINDOWS, errors),
                    _ => at.forbid(NOT_ON_WINDOWS, errors),
                }
            }
            each_context(spec, |context| {
                for field in CONTEXT {
                    context.field(field).forbid(NOT_ON_WINDOWS, errors);
                }
            });
        }
        other => errors.not_supported(os.path, other, &["linux", "windows"]),
    }
}

fn each_context(spec: At<'_>, mut judge: impl FnMut(At<'_>)) {
    for list in CONTAINERS {
        for container in spec.field(list).items() {
            judge(container.field("securityContext"));
        }
    }
}

/// Whether a pod has its own user namespace.
pub(super) fn own_users(spec: &Value) -> bool {
    spec.at("hostUsers").as_bool() == Some(false)
}

/// A pod with its own user namespace may not use other host namespaces: validateHostUsers.
pub(super) fn users(spec: At<'_>, before: Before<'_>, errors: &mut Errors) {
    if !own_users(spec.value) {
        return;
    }
    let network = spec.field("hostNetwork");
    if network.bool() && !before.host_network_with_own_users() {
        errors.forbidden(network.path, OWN_USERS);
    }
    for (field, shown) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.value.bool(field) {
            errors.forbidden(spec.path.field(shown), OWN_USERS);
        }
    }
    for list in CONTAINERS {
        for container in spec.field(list).items() {
            let devices = container.field("volumeDevices");
            if !devices.list().is_empty() && !before.devices_with_own_users() {
                errors.forbidden(devices.path, OWN_USERS);
            }
        }
    }
}
