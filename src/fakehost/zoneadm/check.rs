//! What zoneadm verifies of a zone before it is installed or booted (`verify_details`).

use super::Target;
use crate::fakehost::disk::Kind;
use crate::fakehost::run::Run;
use crate::fakehost::tools::has_brand;
use crate::fakehost::zfs::Source;

/// Privileges that a zone can be given beside the set names.
const PRIVILEGES: &[&str] = &[
    "contract_event",
    "contract_identity",
    "contract_observer",
    "cpc_cpu",
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
    "hyprlofs_control",
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
    "proc_owner",
    "proc_prioup",
    "proc_priocntl",
    "proc_secflags",
    "proc_session",
    "proc_setid",
    "proc_taskid",
    "sys_acct",
    "sys_admin",
    "sys_audit",
    "sys_flow_config",
    "sys_ip_config",
    "sys_iptun_config",
    "sys_mount",
    "sys_nfs",
    "sys_ppp_config",
    "sys_ptp_config",
    "sys_resource",
    "sys_share",
    "sys_smb",
    "sys_time",
    "virt_manage",
    "xvm_control",
];
/// Privileges that no zone can have.
const PROHIBITED: &[&str] = &[
    "dtrace_kernel",
    "proc_zone",
    "sys_config",
    "sys_devices",
    "sys_dl_config",
    "sys_linkdir",
    "sys_net_config",
    "sys_res_config",
    "sys_suser_compat",
];
/// Privileges that every zone needs.
const REQUIRED: &[&str] = &["proc_exec", "proc_fork", "sys_mount"];

/// File systems that have a program that checks them before they are mounted (`/usr/lib/fs/TYPE/fsck`).
const CHECKED: &[&str] = &["pcfs", "udfs", "ufs"];

/// What is wrong with the privileges of a zone.
pub fn privileges(limit: &str) -> Option<String> {
    for word in limit.split(',').filter(|w| !w.is_empty()) {
        let (name, without) = match word.strip_prefix(['!', '-']) {
            Some(name) => (name, true),
            None => (word, false),
        };
        if matches!(name, "default" | "basic" | "zone") {
            continue;
        }
        if PROHIBITED.contains(&name) {
            if !without {
                return Some(format!(
                    "privilege \"{name}\" is not permitted within the zone's privilege set"
                ));
            }
        } else if !PRIVILEGES.contains(&name) {
            return Some(format!(
                "privilege \"{name}\" in the zone's privilege set is unknown"
            ));
        } else if without && REQUIRED.contains(&name) {
            return Some(format!(
                "required privilege \"{name}\" is missing from the zone's privilege set"
            ));
        }
    }
    None
}

/// Verifies a zone; everything that is wrong is complained about.
pub fn verify(run: &mut Run, target: &Target) -> bool {
    let zone = &target.configured;
    let mut wrong: Vec<String> = Vec::new();
    let mut warnings: Vec<String> = Vec::new();
    let (host, disk) = run.view();
    if !has_brand(disk, &zone.brand) {
        run.complain(&format!(
            "zoneadm: zone '{}': missing or invalid brand",
            target.name
        ));
        return false;
    }
    let parent = zone.path.rsplit_once('/').map_or("/", |(p, _)| p);
    let mut above = String::new();
    for part in zone.path.split('/').filter(|p| !p.is_empty()) {
        above = format!("{above}/{part}");
        if disk.kind(&above) == Some(Kind::Symlink) {
            wrong.push(format!(
                "could not verify zonepath {}: a component of the path is a symbolic link",
                zone.path
            ));
            break;
        }
    }
    match disk.kind(parent) {
        Some(Kind::Directory) if disk.mode(parent).is_some_and(|mode| mode & 0o022 != 0) => {
            wrong.push(format!(
                "{parent} must not be group or world writable.\ncould not verify zonepath {} because of the above errors.",
                zone.path
            ));
        }
        Some(Kind::Directory) => {}
        Some(_) => wrong.push(format!("{parent} is not a directory.\ncould not verify zonepath {} because of the above errors.", zone.path)),
        None => {}
    }
    if let Some(kind) = disk.kind(&zone.path)
        && kind != Kind::Directory
    {
        wrong.push(format!("{} is not a directory.", zone.path));
    }
    let root = zone.root();
    if !host.zones.contains_key(&target.name)
        && disk.kind(&root) == Some(Kind::Directory)
        && disk.mode(&root).is_some_and(|mode| mode & 0o777 != 0o755)
    {
        warnings.push(format!("{root} is not mode 0755"));
    }
    for fs in target.document.named("filesystem") {
        let kind = fs.attr_or_empty("type");
        let raw = !fs.attr_or_empty("raw").is_empty();
        let why = match (CHECKED.contains(&kind), raw) {
            (true, false) => "must specify 'raw' device",
            (false, true) => "cannot specify 'raw' device",
            _ => continue,
        };
        wrong.push(format!(
            "could not verify fs {}: {why} for {kind} file systems",
            fs.attr_or_empty("directory")
        ));
    }
    for mount in &zone.mounts {
        let text = |why: &str| format!("could not verify fs {}: {why}", mount.directory);
        if matches!(mount.kind.as_str(), "proc" | "mntfs" | "autofs")
            || mount.kind.starts_with("nfs")
        {
            wrong.push(text(&format!(
                "cannot mount file systems of type {}",
                mount.kind
            )));
        } else if mount.kind == "zfs" {
            match host.has_dataset(&mount.special) {
                false => wrong.push(text(&format!(
                    "could not access zfs dataset '{}'",
                    mount.special
                ))),
                true if host.mountpoint(&mount.special).0 != "legacy" => wrong.push(text(
                    &format!("zfs '{}' mountpoint is not \"legacy\"", mount.special),
                )),
                true => {}
            }
        } else if mount.kind != "tmpfs" && !disk.exists(&mount.special) {
            wrong.push(text(&format!(
                "could not access {}: No such file or directory",
                mount.special
            )));
        }
    }
    for net in &zone.links {
        if net.global_nic.is_none() && !host.links.get(&net.link.name).is_some_and(|l| l.active) {
            warnings.push(format!(
                "WARNING: skipping network interface '{}' which may not be present/plumbed in the global zone.",
                net.link.name
            ));
        }
    }
    for dataset in &zone.datasets {
        let text = |why: &str| format!("could not verify zfs dataset {dataset}: {why}");
        if !host.has_dataset(dataset) {
            wrong.push(text("dataset does not exist"));
        } else if matches!(
            host.mountpoint(dataset).1,
            Source::Inherited(_) | Source::Default
        ) {
            wrong.push(text("mountpoint cannot be inherited"));
        }
    }
    if let Some(text) = privileges(&zone.privileges) {
        wrong.push(text);
    }
    for text in &warnings {
        run.complain(text);
    }
    for text in &wrong {
        run.complain(text);
    }
    if !wrong.is_empty() {
        run.complain(&format!("zoneadm: zone {} failed to verify", target.name));
    }
    wrong.is_empty()
}
