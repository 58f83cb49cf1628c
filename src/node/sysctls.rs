//! Which sysctls pods may set: namespaced ones that affect nobody else, and those that the operator allows. Follows
//! pkg/kubelet/sysctl.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::worker::Refusal;

/// The longest name.
const LONGEST: usize = 253;

/// Safe sysctls, with the Linux version since which they are namespaced.
const SAFE: [(&str, (u32, u32)); 14] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
    ("net.ipv4.tcp_slow_start_after_idle", (4, 15)),
    ("net.ipv4.tcp_notsent_lowat", (4, 6)),
];

/// The namespace that a sysctl belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
    Uts,
    User,
}

impl Namespace {
    fn of(name: &str) -> Option<Self> {
        match name {
            "kernel.domainname" => Some(Namespace::Uts),
            "kernel.sem"
            | "kernel.shmall"
            | "kernel.shmmax"
            | "kernel.shmmni"
            | "kernel.shm_rmid_forced"
            | "kernel.shm"
            | "kernel.msgmax"
            | "kernel.msgmnb"
            | "kernel.msgmni"
            | "kernel.msg" => Some(Namespace::Ipc),
            _ if name.starts_with("net.") => Some(Namespace::Net),
            _ if name.starts_with("fs.mqueue.") => Some(Namespace::Ipc),
            _ if name.starts_with("user.") => Some(Namespace::User),
            _ => None,
        }
    }

    /// Upstream's name of the namespace, if the pod shares the host's.
    fn shared(self, spec: &PodSpec) -> Option<&'static str> {
        match self {
            Namespace::Ipc => (spec.host_ipc == Some(true)).then_some("IPC"),
            Namespace::Net => (spec.host_network == Some(true)).then_some("Net"),
            Namespace::User => (spec.host_users != Some(false)).then_some("User"),
            Namespace::Uts => None,
        }
    }
}

/// A name with dots between its parts: `net/ipv4/conf/eth0.1/rp_filter` becomes `net.ipv4.conf.eth0/1.rp_filter`.
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|char| match char {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Whether an operator may configure it: a name, or a prefix followed by `*`.
fn is_pattern(name: &str) -> bool {
    let plain = |part: &str| {
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let bytes = part.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| inner(*byte))
    };
    let (above, last) = name
        .rsplit_once(['.', '/'])
        .map_or((None, name), |(above, last)| (Some(above), last));
    let last_is_fine = match last.strip_suffix('*') {
        // `net.*`, `kernel.shm*`, `kernel.shm_*`
        Some(start) => start.is_empty() || plain(&format!("{start}0")),
        None => plain(last),
    };
    name.len() <= LONGEST
        && last_is_fine
        && above.is_none_or(|above| above.split(['.', '/']).all(plain))
}

/// The sysctls that pods of a node may set.
#[derive(Debug, Clone, Default)]
pub struct Sysctls {
    /// Those that the operator allows, as given.
    allowed: Vec<String>,
    names: BTreeMap<String, Namespace>,
    beginnings: BTreeMap<String, Namespace>,
}

impl Sysctls {
    /// The safe ones on this Linux version (`6.1.0-23-amd64`; None on other systems), and those in `allowed`.
    ///
    /// # Errors
    /// An allowed one is invalid, or not namespaced.
    pub fn new(kernel: Option<&str>, allowed: &[String]) -> Result<Self, String> {
        let mut all = Sysctls {
            allowed: allowed.to_vec(),
            ..Sysctls::default()
        };
        let version = kernel.map(version);
        let safe = SAFE.iter().filter(|(_, since)| version >= Some(*since));
        for name in safe
            .map(|(name, _)| *name)
            .chain(allowed.iter().map(String::as_str))
        {
            if !is_pattern(name) {
                return Err(format!(
                    "sysctl {name:?} must have at most {LONGEST} characters, be of lower case letters, digits, `-` and `_` between `.` or `/`, and may end in *"
                ));
            }
            let name = normalized(name);
            let (name, is_beginning) = match name.strip_suffix('*') {
                Some(start) => (start, true),
                None => (name.as_str(), false),
            };
            let namespace = Namespace::of(name)
                .ok_or_else(|| format!("the sysctls {name:?} are not known to be namespaced"))?;
            match is_beginning {
                true => all.beginnings.insert(name.to_owned(), namespace),
                false => all.names.insert(name.to_owned(), namespace),
            };
        }
        Ok(all)
    }

    /// The names and patterns that the operator allows besides the safe ones.
    pub fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// Why a pod is refused, if it is.
    pub fn refuses(&self, pod: &Pod) -> Option<Refusal> {
        let spec = pod.spec.as_ref()?;
        let wanted = spec.security_context.as_ref()?.sysctls.as_ref()?;
        let message = wanted
            .iter()
            .find_map(|sysctl| self.wrong(&sysctl.name, spec))?;
        Some(Refusal {
            reason: "SysctlForbidden",
            message: format!("forbidden sysctl: {message}"),
        })
    }

    fn wrong(&self, name: &str, spec: &PodSpec) -> Option<String> {
        let name = normalized(name);
        let mut beginnings = self.beginnings.iter();
        let known = self.names.get(&name).or_else(|| {
            let found = beginnings.find(|(start, _)| name.starts_with(start.as_str()));
            found.map(|(_, namespace)| namespace)
        });
        match known {
            None => Some(format!("{name:?} not allowlisted")),
            Some(namespace) => namespace
                .shared(spec)
                .map(|shared| format!("{name:?} not allowed with host {shared} enabled")),
        }
    }
}

/// The first two numbers of a version.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|char: char| !char.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_set_only_what_is_safe_and_their_own() {
        let allowed = ["kernel.shm*", "net.core.somaxconn", "kernel/msgmax"];
        let allowed = allowed.map(str::to_owned);
        let of = |kernel| Sysctls::new(kernel, &allowed).expect("names");
        let sysctls = of(Some("6.1.0-23-amd64"));
        let refused = |sysctls: &Sysctls, name: &str, more: &str| {
            let pod = format!(
                r#"{{"spec":{{"containers":[],"securityContext":{{"sysctls":[{{"name":"{name}","value":"1"}}]}}{more}}}}}"#
            );
            let pod: Pod = serde_json::from_str(&pod).expect("a pod");
            sysctls.refuses(&pod).map(|refusal| refusal.message)
        };
        for (name, more, wrong) in [
            ("net.ipv4.tcp_syncookies", "", None),
            ("net/ipv4/tcp_syncookies", "", None),
            ("kernel.shmmax", "", None),
            ("kernel.msgmax", "", None),
            ("net.core.somaxconn", "", None),
            (
                "kernel.core_pattern",
                "",
                Some(r#""kernel.core_pattern" not allowlisted"#),
            ),
            (
                "kernel/core_pattern",
                "",
                Some(r#""kernel.core_pattern" not allowlisted"#),
            ),
            (
                "vm.swappiness",
                "",
                Some(r#""vm.swappiness" not allowlisted"#),
            ),
            (
                "net.core.somaxconn2",
                "",
                Some(r#""net.core.somaxconn2" not allowlisted"#),
            ),
            (
                "net.ipv4.tcp_syncookies",
                r#","hostNetwork":true"#,
                Some(r#""net.ipv4.tcp_syncookies" not allowed with host Net enabled"#),
            ),
            (
                "kernel.shmmax",
                r#","hostIPC":true"#,
                Some(r#""kernel.shmmax" not allowed with host IPC enabled"#),
            ),
        ] {
            let wrong = wrong.map(|wrong| format!("forbidden sysctl: {wrong}"));
            assert_eq!(refused(&sysctls, name, more), wrong, "{name} {more}");
        }
        // No sysctl is safe without Linux, and not all are on an old one.
        assert!(refused(&of(None), "net.ipv4.tcp_syncookies", "").is_some());
        assert!(refused(&of(Some("4.4")), "net.ipv4.tcp_syncookies", "").is_none());
        assert!(refused(&of(Some("4.4")), "net.ipv4.tcp_rmem", "").is_some());
    }

    #[test]
    fn only_what_is_a_namespaces_own_can_be_allowed() {
        for (name, fine) in [
            ("net.*", true),
            ("net.ipv4.conf.*", true),
            ("fs.mqueue.*", true),
            ("kernel.sem", true),
            ("kernel.shm*", true),
            ("kernel.core_pattern", false),
            ("kernel.*", false),
            ("*", false),
            ("vm.swappiness", false),
            ("net..x", false),
            ("Net.x", false),
            ("", false),
        ] {
            let made = Sysctls::new(Some("6.1"), &[name.to_owned()]);
            assert_eq!(made.is_ok(), fine, "{name}: {made:?}");
        }
    }

    #[test]
    fn names_have_dots() {
        for (name, dotted) in [
            (
                "net.ipv4.conf.eth0/1.rp_filter",
                "net.ipv4.conf.eth0/1.rp_filter",
            ),
            (
                "net/ipv4/conf/eth0.1/rp_filter",
                "net.ipv4.conf.eth0/1.rp_filter",
            ),
            ("x", "x"),
        ] {
            assert_eq!(normalized(name), dotted);
        }
    }
}
