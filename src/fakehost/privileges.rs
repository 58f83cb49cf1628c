//! The privileges of zones: how libzonecfg interprets `limitpriv` (`zonecfg_get_privset`, `priv_str_to_set(3C)`), with
//! the lists that all brands share (`<privilege>` in config.xml) and the names of privileges(7).

use std::collections::BTreeSet;

/// All privileges.
const ALL: &[&str] = &[
    "contract_event",
    "contract_identity",
    "contract_observer",
    "cpc_cpu",
    "dtrace_kernel",
    "dtrace_proc",
    "dtrace_user",
    "file_chown",
    "file_chown_self",
    "file_dac_execute",
    "file_dac_read",
    "file_dac_search",
    "file_dac_write",
    "file_downgrade_sl",
    "file_flag_set",
    "file_link_any",
    "file_owner",
    "file_read",
    "file_setid",
    "file_upgrade_sl",
    "file_write",
    "graphics_access",
    "graphics_map",
    "ipc_dac_read",
    "ipc_dac_write",
    "ipc_owner",
    "net_access",
    "net_bindmlp",
    "net_icmpaccess",
    "net_mac_aware",
    "net_mac_implicit",
    "net_observability",
    "net_privaddr",
    "net_rawaccess",
    "proc_audit",
    "proc_chroot",
    "proc_clock_highres",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_lock_memory",
    "proc_meminfo",
    "proc_owner",
    "proc_priocntl",
    "proc_prioup",
    "proc_secflags",
    "proc_session",
    "proc_setid",
    "proc_taskid",
    "proc_zone",
    "sys_acct",
    "sys_admin",
    "sys_audit",
    "sys_config",
    "sys_devices",
    "sys_dl_config",
    "sys_ip_config",
    "sys_ipc_config",
    "sys_iptun_config",
    "sys_linkdir",
    "sys_mount",
    "sys_net_config",
    "sys_nfs",
    "sys_ppp_config",
    "sys_res_bind",
    "sys_res_config",
    "sys_resource",
    "sys_smb",
    "sys_suser_compat",
    "sys_time",
    "sys_trans_label",
    "virt_manage",
    "win_colormap",
    "win_config",
    "win_dac_read",
    "win_dac_write",
    "win_devices",
    "win_dga",
    "win_downgrade_sl",
    "win_fontpath",
    "win_mac_read",
    "win_mac_write",
    "win_selection",
    "win_upgrade_sl",
    "xvm_control",
];

/// The basic set of every process.
const BASIC: &[&str] = &[
    "file_link_any",
    "file_read",
    "file_write",
    "net_access",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_secflags",
    "proc_session",
];

/// The default set of zones, in addition to the basic one.
const DEFAULT: &[&str] = &[
    "contract_event",
    "contract_identity",
    "contract_observer",
    "file_chown",
    "file_chown_self",
    "file_dac_execute",
    "file_dac_read",
    "file_dac_search",
    "file_dac_write",
    "file_owner",
    "file_setid",
    "ipc_dac_read",
    "ipc_dac_write",
    "ipc_owner",
    "net_bindmlp",
    "net_icmpaccess",
    "net_mac_aware",
    "net_observability",
    "net_privaddr",
    "net_rawaccess",
    "proc_chroot",
    "sys_audit",
    "proc_audit",
    "proc_lock_memory",
    "proc_owner",
    "proc_secflags",
    "proc_setid",
    "proc_taskid",
    "sys_acct",
    "sys_admin",
    "sys_ip_config",
    "sys_iptun_config",
    "sys_mount",
    "sys_nfs",
    "sys_ppp_config",
    "sys_resource",
    "sys_smb",
];

/// Prohibited in every zone. The last entry of a brand's list is checked first.
const PROHIBITED: &[&str] = &[
    "virt_manage",
    "xvm_control",
    "sys_suser_compat",
    "sys_res_config",
    "sys_net_config",
    "sys_linkdir",
    "sys_devices",
    "sys_config",
    "proc_zone",
    "dtrace_kernel",
];

/// Only allowed with an exclusive IP stack.
const OF_A_STACK: &[&str] = &["sys_ppp_config", "sys_ip_config"];

/// The entries of [`DEFAULT`] that require an exclusive IP stack.
const DEFAULT_OF_A_STACK: &[&str] = &[
    "net_rawaccess",
    "sys_ip_config",
    "sys_iptun_config",
    "sys_ppp_config",
];

/// Required by every zone; with an exclusive IP stack, [`STACK`] is required, too.
const REQUIRED: &[&str] = &["sys_mount", "proc_fork", "proc_exec"];

const STACK: &str = "sys_ip_config";

/// Why the privileges of a zone are invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The privilege does not exist.
    Unknown(String),
    /// Zones of this kind cannot have it.
    Prohibited(&'static str),
    /// Zones of this kind require it.
    Missing(&'static str),
}

impl Wrong {
    /// The privilege.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown(name) => name,
            Self::Prohibited(name) | Self::Missing(name) => name,
        }
    }
}

/// The message of zoneadm.
impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name();
        match self {
            Self::Unknown(_) => write!(
                f,
                "unknown privilege \"{name}\" specified in the zone's privilege set"
            ),
            Self::Prohibited(_) => write!(
                f,
                "privilege \"{name}\" is not permitted within the zone's privilege set"
            ),
            Self::Missing(_) => write!(
                f,
                "required privilege \"{name}\" is missing from the zone's privilege set"
            ),
        }
    }
}

/// Checks whether a zone can have the privileges in its `limitpriv`; `exclusive` is whether it has an exclusive IP
/// stack.
///
/// # Errors
/// The first one that is unknown, prohibited or missing.
pub fn check(limit: &str, exclusive: bool) -> Result<(), Wrong> {
    if matches!(limit, "" | "default") {
        return Ok(());
    }
    // The part before the first comma is compared only up to its own length, so a prefix of the word suffices.
    let (defaults, words) = match limit.split_once(',') {
        Some((first, rest)) if "default".starts_with(first) => (true, rest),
        _ => (false, limit),
    };
    let mut set = BTreeSet::new();
    if defaults {
        set.extend(BASIC);
        set.extend(
            DEFAULT
                .iter()
                .filter(|name| exclusive || !DEFAULT_OF_A_STACK.contains(*name)),
        );
    }
    let words = || words.split(',').filter(|word| !word.is_empty());
    if words().any(|word| word == "zone") {
        return Err(Wrong::Unknown("zone".to_owned()));
    }
    for word in words() {
        let (less, name) = match word.split_at_checked(1) {
            Some(("-" | "!", name)) => (true, name),
            Some(("+", name)) => (false, name),
            _ => (false, word),
        };
        let plain = word.to_ascii_lowercase();
        match plain.as_str() {
            "basic" => set.extend(BASIC),
            "none" => set.clear(),
            "all" => set.extend(ALL),
            _ => {
                let lower = name.to_ascii_lowercase();
                let lower = lower.strip_prefix("priv_").unwrap_or(&lower);
                let Some(known) = ALL.iter().find(|name| **name == lower) else {
                    return Err(Wrong::Unknown(word.to_owned()));
                };
                if less {
                    set.remove(known);
                } else {
                    set.insert(known);
                }
            }
        }
    }
    let stack = if exclusive { &[][..] } else { OF_A_STACK };
    if let Some(name) = PROHIBITED.iter().chain(stack).find(|n| set.contains(*n)) {
        return Err(Wrong::Prohibited(name));
    }
    let needed = REQUIRED.iter().chain(exclusive.then_some(&STACK));
    match needed.into_iter().find(|n| !set.contains(*n)) {
        Some(name) => Err(Wrong::Missing(name)),
        None => Ok(()),
    }
}

/// The lists as written in a brand's config.xml.
pub fn elements() -> String {
    let one = |set: &str, name: &str, stack: Option<&str>| match stack {
        Some(stack) => {
            format!("\t<privilege set=\"{set}\" name=\"{name}\" ip-type=\"{stack}\" />\n")
        }
        None => format!("\t<privilege set=\"{set}\" name=\"{name}\" />\n"),
    };
    let mut text = String::new();
    for name in DEFAULT {
        let stack = DEFAULT_OF_A_STACK.contains(name).then_some("exclusive");
        text.push_str(&one("default", name, stack));
    }
    for name in PROHIBITED.iter().rev() {
        text.push_str(&one("prohibited", name, None));
    }
    for name in OF_A_STACK {
        text.push_str(&one("prohibited", name, Some("shared")));
    }
    for name in REQUIRED {
        text.push_str(&one("required", name, None));
    }
    text.push_str(&one("required", STACK, Some("exclusive")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_can_have_what_its_brand_allows_and_lacks_nothing_that_it_needs() {
        let unknown = |name: &str| Err(Wrong::Unknown(name.to_owned()));
        for (limit, exclusive, expected) in [
            ("", true, Ok(())),
            ("default", true, Ok(())),
            ("default,dtrace_proc,dtrace_user", true, Ok(())),
            ("default,!net_rawaccess", true, Ok(())),
            ("default,PRIV_SYS_TIME,+proc_priocntl", false, Ok(())),
            // The comparison of strncmp(3C).
            ("def,sys_time", true, Ok(())),
            ("basic,sys_mount", false, Ok(())),
            (
                "basic,sys_mount",
                true,
                Err(Wrong::Missing("sys_ip_config")),
            ),
            ("basic", false, Err(Wrong::Missing("sys_mount"))),
            ("default,none", false, Err(Wrong::Missing("sys_mount"))),
            ("default,-proc_fork", true, Err(Wrong::Missing("proc_fork"))),
            ("all", true, Err(Wrong::Prohibited("virt_manage"))),
            (
                "default,sys_config",
                true,
                Err(Wrong::Prohibited("sys_config")),
            ),
            (
                "default,sys_ip_config",
                false,
                Err(Wrong::Prohibited("sys_ip_config")),
            ),
            ("default,nosuch", true, unknown("nosuch")),
            ("default,-nosuch,x", true, unknown("-nosuch")),
            ("sys_mount,default", true, unknown("default")),
            ("default,zone", true, unknown("zone")),
        ] {
            assert_eq!(check(limit, exclusive), expected, "{limit}");
        }
    }
}
