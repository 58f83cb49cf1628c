//! The checks of each level and Kubernetes version. Follows k8s.io/pod-security-admission/policy.

use std::collections::BTreeSet;

use super::policy::{Level, LevelVersion};
use crate::meta::errors::quoted;
use crate::schema::Value;

/// A pod or pod template.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    meta: &'a Value,
    spec: &'a Value,
}

/// A violation by a pod.
pub(super) struct Breach {
    /// A short reason.
    pub reason: String,
    /// The details.
    pub detail: String,
}

/// Violations as shown in errors and warnings.
pub(super) fn told(breaches: &[Breach]) -> String {
    let each = breaches.iter().map(|breach| {
        if breach.detail.is_empty() {
            breach.reason.clone()
        } else {
            format!("{} ({})", breach.reason, breach.detail)
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

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

impl<'a> Pod<'a> {
    /// The pod, or the pod of a template.
    pub fn of(object: &'a Value) -> Self {
        Pod {
            meta: object.at("metadata"),
            spec: object.at("spec"),
        }
    }

    fn containers(self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| self.spec.list(list))
    }

    /// The containers for which `is` holds, as shown in messages; `None` if there are none.
    fn named(self, mut is: impl FnMut(&Value) -> bool) -> Option<Names> {
        let names: Vec<String> = self
            .containers()
            .filter(|container| is(container))
            .map(|container| container.str("name").to_owned())
            .collect();
        (!names.is_empty()).then_some(Names(names))
    }

    /// The security contexts for which `is` holds: `pod and containers "a", "b"`; `None` if there are none.
    fn setters(self, mut is: impl FnMut(&Value) -> bool) -> Option<String> {
        let mut setters = Vec::new();
        if is(self.spec.at("securityContext")) {
            setters.push("pod".to_owned());
        }
        if let Some(names) = self.named(|container| is(container.at("securityContext"))) {
            setters.push(names.containers());
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }

    fn annotation(self, key: &str) -> Option<&'a str> {
        self.meta.at("annotations").at(key).as_str()
    }

    fn unless_windows(self, judge: Judge) -> Option<Breach> {
        if self.spec.at("os").str("name") == "windows" {
            return None;
        }
        judge(self)
    }

    /// Relaxes a check for pods with their own user namespace.
    fn unless_own_users(self, judge: Judge) -> Option<Breach> {
        if self.spec.at("hostUsers").as_bool() == Some(false) {
            return None;
        }
        judge(self)
    }
}

struct Names(Vec<String>);

impl Names {
    fn containers(&self) -> String {
        let noun = plural(self.0.len(), "container", "containers");
        format!("{noun} {}", quote(&self.0))
    }
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
fn quote<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{}\"", item.as_ref()))
        .collect();
    items.join(", ")
}

fn breach(reason: impl Into<String>, detail: impl Into<String>) -> Option<Breach> {
    Some(Breach {
        reason: reason.into(),
        detail: detail.into(),
    })
}

fn app_armor(pod: Pod<'_>) -> Option<Breach> {
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

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add disallowed capabilities, and those capabilities.
fn adding(pod: Pod<'_>, allowed: &[&str]) -> Option<String> {
    let mut bad = BTreeSet::new();
    let names = pod.named(|container| {
        let capabilities = container.at("securityContext").at("capabilities");
        let wrong: Vec<&str> = capabilities
            .list("add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|capability| !allowed.contains(capability))
            .collect();
        bad.extend(wrong.iter().map(|capability| (*capability).to_owned()));
        !wrong.is_empty()
    })?;
    Some(format!(
        "{} must not include {} in securityContext.capabilities.add",
        names.containers(),
        quote(&bad)
    ))
}

fn capabilities(pod: Pod<'_>) -> Option<Breach> {
    breach("non-default capabilities", adding(pod, &CAPABILITIES)?)
}

fn restricted_capabilities(pod: Pod<'_>) -> Option<Breach> {
    let keeping = pod.named(|container| {
        let capabilities = container.at("securityContext").at("capabilities");
        let mut dropped = capabilities.list("drop").iter();
        !dropped.any(|capability| capability.as_str() == Some("ALL"))
    });
    let keeping = keeping.map(|names| {
        format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            names.containers()
        )
    });
    let details: Vec<String> = keeping
        .into_iter()
        .chain(adding(pod, &["NET_BIND_SERVICE"]))
        .collect();
    if details.is_empty() {
        return None;
    }
    breach("unrestricted capabilities", details.join("; "))
}

fn host_namespaces(pod: Pod<'_>) -> Option<Breach> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| pod.spec.bool(key))
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    breach("host namespaces", shared.join(", "))
}

fn host_paths(pod: Pod<'_>) -> Option<Breach> {
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

fn host_ports(pod: Pod<'_>) -> Option<Breach> {
    let mut ports = BTreeSet::new();
    let names = pod.named(|container| {
        let used = container
            .list("ports")
            .iter()
            .map(|port| port.int("hostPort"));
        let used: Vec<String> = used
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    })?;
    let ports: Vec<String> = ports.into_iter().collect();
    breach(
        "hostPort",
        format!(
            "{} {} {} {}",
            names.containers(),
            plural(names.0.len(), "uses", "use"),
            plural(ports.len(), "hostPort", "hostPorts"),
            ports.join(", ")
        ),
    )
}

fn probe_hosts(pod: Pod<'_>) -> Option<Breach> {
    let mut hosts = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in pod.containers() {
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|key| container.at(key));
        let hooks = ["postStart", "preStop"].map(|key| container.at("lifecycle").at(key));
        for action in probes.into_iter().chain(hooks) {
            for host in ["httpGet", "tcpSocket"].map(|kind| action.at(kind).str("host")) {
                if !host.is_empty() {
                    hosts.insert(host);
                    names.insert(container.str("name"));
                }
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    breach(
        "probe or lifecycle host",
        format!(
            "{} {} {} {} {}",
            plural(names.len(), "container", "containers"),
            quote(&names),
            plural(names.len(), "uses", "use"),
            plural(
                hosts.len(),
                "probe or lifecycle host",
                "probe or lifecycle hosts"
            ),
            quote(&hosts)
        ),
    )
}

fn privileged(pod: Pod<'_>) -> Option<Breach> {
    let names = pod.named(|container| container.at("securityContext").bool("privileged"))?;
    breach(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            names.containers()
        ),
    )
}

fn proc_mount(pod: Pod<'_>) -> Option<Breach> {
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

const SE_LINUX: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
const SE_LINUX_31: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

fn se_linux(pod: Pod<'_>, allowed: &[&str]) -> Option<Breach> {
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

fn seccomp_annotations(pod: Pod<'_>) -> Option<Breach> {
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

fn seccomp(pod: Pod<'_>) -> Option<Breach> {
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

fn restricted_seccomp(pod: Pod<'_>) -> Option<Breach> {
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

fn sysctls(pod: Pod<'_>, allowed: usize) -> Option<Breach> {
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

fn host_process(pod: Pod<'_>) -> Option<Breach> {
    let setters = pod.setters(|context| context.at("windowsOptions").bool("hostProcess"))?;
    breach(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn escalation(pod: Pod<'_>) -> Option<Breach> {
    let names = pod.named(|container| {
        let context = container.at("securityContext");
        context.at("allowPrivilegeEscalation").as_bool() != Some(false)
    })?;
    breach(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            names.containers()
        ),
    )
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

fn volumes(pod: Pod<'_>) -> Option<Breach> {
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

fn non_root(pod: Pod<'_>) -> Option<Breach> {
    const REASON: &str = "runAsNonRoot != true";
    if let Some(setters) =
        pod.setters(|context| context.at("runAsNonRoot").as_bool() == Some(false))
    {
        return breach(
            REASON,
            format!("{setters} must not set securityContext.runAsNonRoot=false"),
        );
    }
    if pod.spec.at("securityContext").bool("runAsNonRoot") {
        return None;
    }
    let names = pod.named(|container| {
        container
            .at("securityContext")
            .get("runAsNonRoot")
            .is_none()
    })?;
    breach(
        REASON,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            names.containers()
        ),
    )
}

fn root_user(pod: Pod<'_>) -> Option<Breach> {
    let setters = pod.setters(|context| context.at("runAsUser").as_int() == Some(0))?;
    breach("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}
