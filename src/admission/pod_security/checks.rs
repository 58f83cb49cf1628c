//! Which checks each level has since which Kubernetes version. Follows k8s.io/pod-security-admission/policy.

mod breach;
mod host;
mod kernel;
mod pod;
mod privileges;
mod volumes;

use self::host::{host_namespaces, host_ports, host_process, probe_hosts};
use self::kernel::{
    SE_LINUX, SE_LINUX_31, app_armor, proc_mount, restricted_seccomp, se_linux, seccomp,
    seccomp_annotations, sysctls,
};
use self::privileges::{
    capabilities, escalation, non_root, privileged, restricted_capabilities, root_user,
};
use self::volumes::{host_paths, volumes};
use super::policy::{Level, LevelVersion};

pub(super) use self::breach::{Breach, told};
pub(super) use self::pod::Pod;

type Judge = fn(Pod<'_>) -> Option<Breach>;

struct Check {
    /// The name by which another check can replace it.
    id: &'static str,
    /// The check of the lower level that this one replaces.
    replaces: &'static str,
    /// Its implementations with the minor version from which each applies, oldest first.
    versions: &'static [(i64, Judge)],
}

impl Check {
    fn at(&self, minor: i64) -> Option<Judge> {
        let known = self.versions.iter().rev();
        known
            .clone()
            .find(|(from, _)| *from <= minor)
            .map(|(_, judge)| *judge)
    }
}

/// The newest version of any check.
const NEWEST: i64 = 37;

/// In the order in which violations are reported.
const BASELINE: &[Check] = &[
    check("appArmorProfile", "", &[(0, app_armor)]),
    check("capabilities_baseline", "", &[(0, capabilities)]),
    check("hostNamespaces", "", &[(0, host_namespaces)]),
    check("hostPathVolumes", "", &[(0, host_paths)]),
    check("hostPorts", "", &[(0, host_ports)]),
    check("hostProbesAndHostLifecycle", "", &[(34, probe_hosts)]),
    check("privileged", "", &[(0, privileged)]),
    check(
        "procMount",
        "",
        &[
            (0, proc_mount),
            (35, |pod| pod.unless_own_users(proc_mount)),
        ],
    ),
    check(
        "seLinuxOptions",
        "",
        &[
            (0, |pod| se_linux(pod, SE_LINUX)),
            (31, |pod| se_linux(pod, SE_LINUX_31)),
        ],
    ),
    check(
        "seccompProfile_baseline",
        "",
        &[(0, seccomp_annotations), (19, seccomp)],
    ),
    check(
        "sysctls",
        "",
        &[
            (0, |pod| sysctls(pod, 5)),
            (27, |pod| sysctls(pod, 6)),
            (29, |pod| sysctls(pod, 10)),
            (32, |pod| sysctls(pod, 12)),
            (37, |pod| sysctls(pod, 14)),
        ],
    ),
    check("windowsHostProcess", "", &[(0, host_process)]),
];

const RESTRICTED: &[Check] = &[
    check(
        "allowPrivilegeEscalation",
        "",
        &[(8, escalation), (25, |pod| pod.unless_windows(escalation))],
    ),
    check(
        "capabilities_restricted",
        "capabilities_baseline",
        &[
            (22, restricted_capabilities),
            (25, |pod| pod.unless_windows(restricted_capabilities)),
        ],
    ),
    check("procMount_restricted", "procMount", &[(35, proc_mount)]),
    check("restrictedVolumes", "hostPathVolumes", &[(0, volumes)]),
    check(
        "runAsNonRoot",
        "",
        &[(0, non_root), (35, |pod| pod.unless_own_users(non_root))],
    ),
    check(
        "runAsUser",
        "",
        &[(23, root_user), (35, |pod| pod.unless_own_users(root_user))],
    ),
    check(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[
            (19, restricted_seccomp),
            (25, |pod| pod.unless_windows(restricted_seccomp)),
        ],
    ),
];

const fn check(
    id: &'static str,
    replaces: &'static str,
    versions: &'static [(i64, Judge)],
) -> Check {
    Check {
        id,
        replaces,
        versions,
    }
}

/// The violations of a pod at a level, in the order in which they are reported.
pub(super) fn judge(level: LevelVersion, pod: Pod<'_>) -> Vec<Breach> {
    let minor = level.version.unwrap_or(NEWEST).min(NEWEST);
    let restricted = match level.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => &[],
        Level::Restricted => RESTRICTED,
    };
    let replaced = |check: &Check| {
        restricted
            .iter()
            .any(|other| other.replaces == check.id && other.at(minor).is_some())
    };
    BASELINE
        .iter()
        .filter(|check| !replaced(check))
        .chain(restricted)
        .filter_map(|check| check.at(minor)?(pod))
        .collect()
}
