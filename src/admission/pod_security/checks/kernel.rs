//! Checks of how the kernel confines processes: AppArmor, SELinux, seccomp, /proc and sysctls.

use std::collections::BTreeSet;

use super::breach::{Breach, breach, plural, quote};
use super::pod::Pod;
use crate::meta::errors::quoted;
use crate::schema::Value;

pub(super) fn app_armor(pod: Pod<'_>) -> Option<Breach> {
    let mut bad = BTreeSet::new();
    let setters = pod.setters(|context| {
        let Some(profile) = context.get("appArmorProfile") else {
            return false;
        };
        let kind = profile.str("type");
        let wrong = !["RuntimeDefault", "Localhost"].contains(&kind);
        if wrong {
            bad.insert(kind.to_owned());
        }
        wrong
    });
    let mut annotations: Vec<String> = pod
        .meta
        .entries("annotations")
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    annotations.sort();
    let noted = (!annotations.is_empty())
        .then(|| plural(annotations.len(), "annotation", "annotations").to_owned());
    let setters: Vec<String> = setters.into_iter().chain(noted).collect();
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = bad.into_iter().chain(annotations).collect();
    breach(
        plural(
            values.len(),
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            setters.join(" and "),
            quote(&values)
        ),
    )
}

pub(super) fn proc_mount(pod: Pod<'_>) -> Option<Breach> {
    let mut bad = BTreeSet::new();
    let names = pod.named(|container| {
        let mount = container.at("securityContext").at("procMount").as_str();
        let wrong = mount.filter(|mount| *mount != "Default");
        bad.extend(wrong.map(str::to_owned));
        wrong.is_some()
    })?;
    breach(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            names.containers(),
            quote(&bad)
        ),
    )
}

pub(super) const SE_LINUX: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
pub(super) const SE_LINUX_31: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

pub(super) fn se_linux(pod: Pod<'_>, allowed: &[&str]) -> Option<Breach> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let setters = pod.setters(|context| {
        let options = context.at("seLinuxOptions");
        let wrong = !allowed.contains(&options.str("type"));
        if wrong {
            types.insert(options.str("type").to_owned());
        }
        let (has_user, has_role) = (
            !options.str("user").is_empty(),
            !options.str("role").is_empty(),
        );
        user |= has_user;
        role |= has_role;
        wrong || has_user || has_role
    })?;
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(format!(
            "{} {}",
            plural(types.len(), "type", "types"),
            quote(&types)
        ));
    }
    if user {
        bad.push("user may not be set".to_owned());
    }
    if role {
        bad.push("role may not be set".to_owned());
    }
    breach(
        "seLinuxOptions",
        format!(
            "{setters} set forbidden securityContext.seLinuxOptions: {}",
            bad.join("; ")
        ),
    )
}

pub(super) fn seccomp_annotations(pod: Pod<'_>) -> Option<Breach> {
    let of_containers = pod.containers().map(|container| {
        format!(
            "container.seccomp.security.alpha.kubernetes.io/{}",
            container.str("name")
        )
    });
    let bad: BTreeSet<String> =
        std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned())
            .chain(of_containers)
            .filter_map(|key| pod.annotation(&key).map(|value| (key, value)))
            .filter(|(_, value)| {
                !["runtime/default", "docker/default"].contains(value)
                    && !value.starts_with("localhost/")
            })
            .map(|(key, value)| format!("{key}={}", quoted(value)))
            .collect();
    if bad.is_empty() {
        return None;
    }
    let noun = plural(bad.len(), "annotation", "annotations");
    let bad: Vec<String> = bad.into_iter().collect();
    breach(
        "seccompProfile",
        format!("forbidden {noun} {}", bad.join(", ")),
    )
}

fn is_seccomp(profile: &Value) -> bool {
    ["RuntimeDefault", "Localhost"].contains(&profile.str("type"))
}

pub(super) fn seccomp(pod: Pod<'_>) -> Option<Breach> {
    let mut bad = BTreeSet::new();
    let setters = pod.setters(|context| {
        let wrong = context
            .get("seccompProfile")
            .filter(|profile| !is_seccomp(profile));
        bad.extend(wrong.map(|profile| profile.str("type").to_owned()));
        wrong.is_some()
    })?;
    breach(
        "seccompProfile",
        format!(
            "{setters} must not set securityContext.seccompProfile.type to {}",
            quote(&bad)
        ),
    )
}

pub(super) fn restricted_seccomp(pod: Pod<'_>) -> Option<Breach> {
    if let Some(breach) = seccomp(pod) {
        return Some(breach);
    }
    if pod
        .spec
        .at("securityContext")
        .get("seccompProfile")
        .is_some()
    {
        return None;
    }
    let names = pod.named(|container| {
        container
            .at("securityContext")
            .get("seccompProfile")
            .is_none()
    })?;
    breach(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            names.containers()
        ),
    )
}

/// Oldest first: each version allows a prefix of this list.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

pub(super) fn sysctls(pod: Pod<'_>, allowed: usize) -> Option<Breach> {
    let set = pod.spec.at("securityContext").list("sysctls").iter();
    let bad: Vec<&str> = set
        .map(|sysctl| sysctl.str("name"))
        .filter(|name| !SYSCTLS[..allowed].contains(name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    breach("forbidden sysctls", bad.join(", "))
}
