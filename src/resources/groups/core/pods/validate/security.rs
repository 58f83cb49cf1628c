//! Security contexts of pods and containers.

use std::collections::HashSet;

use super::{Before, Scope, volumes, windows};
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const APP_ARMOR_MAX: usize = 4095;
const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Validates a container's security context: ValidateSecurityContext. Privileged containers are allowed, like with
/// `--allow-privileged`.
pub(super) fn context(context: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    if context.is_absent() {
        return;
    }
    context
        .field("runAsUser")
        .checked_number(names::user_id, errors);
    context
        .field("runAsGroup")
        .checked_number(names::group_id, errors);
    let mount = context.field("procMount");
    mount.one_of_if_there(&["Default", "Unmasked"], errors);
    if mount.str() == "Unmasked" && scope.host_users() {
        mount.invalid("`hostUsers` must be false to use `Unmasked`", errors);
    }
    seccomp(context.field("seccompProfile"), errors);
    escalation(context, scope, errors);
    windows::options(context.field("windowsOptions"), errors);
    app_armor(context.field("appArmorProfile"), errors);
}

fn escalation(context: At<'_>, scope: &Scope<'_>, errors: &mut Errors) {
    let escalates = context.value.at("allowPrivilegeEscalation").as_bool();
    if escalates != Some(false) {
        return;
    }
    if context.value.bool("privileged") {
        context.invalid_dump(
            "core.SecurityContext",
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            errors,
        );
    }
    if adds_sys_admin(context.value) && !scope.before.sys_admin() {
        context.invalid_dump(
            "core.SecurityContext",
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            errors,
        );
    }
}

/// Whether a security context adds the capability SYS_ADMIN.
pub(super) fn adds_sys_admin(context: &Value) -> bool {
    let added = context.at("capabilities").list("add");
    added
        .iter()
        .any(|name| name.as_str() == Some("CAP_SYS_ADMIN"))
}

/// Validates a pod's security context: validatePodSpecSecurityContext.
pub(super) fn pod_context(context: At<'_>, spec: &Value, before: Before<'_>, errors: &mut Errors) {
    if context.value.is_empty() {
        return;
    }
    for (field, check) in [
        ("fsGroup", names::group_id as fn(i64) -> Vec<String>),
        ("runAsUser", names::user_id),
        ("runAsGroup", names::group_id),
    ] {
        context.field(field).checked_number(check, errors);
    }
    for group in context.field("supplementalGroups").items() {
        group.checked_number(names::group_id, errors);
    }
    sysctls(context.field("sysctls"), spec, before, errors);
    context
        .field("fsGroupChangePolicy")
        .one_of_if_there(&["Always", "OnRootMismatch"], errors);
    seccomp(context.field("seccompProfile"), errors);
    windows::options(context.field("windowsOptions"), errors);
    app_armor(context.field("appArmorProfile"), errors);
    context
        .field("supplementalGroupsPolicy")
        .one_of_if_there(&["Merge", "Strict"], errors);
    context
        .field("seLinuxChangePolicy")
        .one_of_if_there(&["MountOption", "Recursive"], errors);
}

fn seccomp(profile: At<'_>, errors: &mut Errors) {
    if profile.is_absent() {
        return;
    }
    let kind = profile.field("type");
    if kind.required("type is required when seccompProfile is set", errors) {
        kind.one_of(TYPES, errors);
    }
    let local = profile.field("localhostProfile");
    match (kind.str(), local.is_absent()) {
        ("Localhost", true) => {
            errors.required(local.path, "must be set when seccomp type is Localhost")
        }
        ("Localhost", false) => volumes::relative_path(local, errors),
        (_, true) => {}
        (_, false) => {
            let whole = At {
                value: profile.value,
                path: local.path,
            };
            whole.invalid_dump(
                "core.SeccompProfile",
                "can only be set when seccomp type is Localhost",
                errors,
            );
        }
    }
}

/// ValidateAppArmorProfileField
pub(in crate::resources::groups::core) fn app_armor(profile: At<'_>, errors: &mut Errors) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    if profile.is_absent() {
        return;
    }
    let kind = profile.field("type");
    let local = profile.field("localhostProfile");
    match kind.str() {
        "Localhost" if local.is_absent() => errors.required(local.path, NEEDED),
        "Localhost" => {
            let text = local.str();
            if text.trim() != text {
                local.invalid("must not be padded with whitespace", errors);
            } else if text.is_empty() {
                errors.required(local.path, NEEDED);
            }
            if text.len() > APP_ARMOR_MAX {
                errors.too_long(local.path, APP_ARMOR_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" if local.is_absent() => {}
        "RuntimeDefault" | "Unconfined" => {
            local.invalid_pointer("can only be set when AppArmor type is Localhost", errors);
        }
        "" => errors.required(kind.path, "type is required when appArmorProfile is set"),
        _ => kind.one_of(TYPES, errors),
    }
}

fn sysctls(list: At<'_>, spec: &Value, before: Before<'_>, errors: &mut Errors) {
    let mut known: HashSet<&str> = HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.field("name");
        if name.required("", errors) {
            if !is_sysctl(name.str()) {
                name.invalid(
                    format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}"),
                    errors,
                );
            } else if known.contains(name.str()) {
                errors.duplicate(name.path, name.str());
            }
        }
        if let Some(wrong) = host_sysctl(name.str(), spec)
            && !before.any_sysctl()
        {
            name.invalid(wrong, errors);
        }
        known.insert(sysctl.value.str("name"));
    }
}

/// Whether the text has the form of a sysctl, `kernel.shm_rmid_forced` or `net/ipv4/tcp_syncookies`, as matched by
/// [`SYSCTL`].
fn is_sysctl(name: &str) -> bool {
    let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |text: &str| {
        let bytes = text.as_bytes();
        bytes.first().copied().is_some_and(end)
            && bytes.last().copied().is_some_and(end)
            && bytes.iter().all(|&b| end(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

/// Why a sysctl conflicts with host namespaces: ValidateHostSysctl.
pub(super) fn host_sysctl(name: &str, spec: &Value) -> Option<&'static str> {
    const IPC: &[&str] = &[
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    // If slashes separate the parts, dots and slashes are exchanged.
    let slashes = name
        .find(['.', '/'])
        .is_some_and(|at| name[at..].starts_with('/'));
    let dotted: String = match slashes {
        true => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        false => name.to_owned(),
    };
    let name = dotted.split('*').next().unwrap_or_default();
    if spec.bool("hostNetwork") && name.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if spec.bool("hostIPC") && (IPC.contains(&name) || name.starts_with("fs.mqueue.")) {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}
