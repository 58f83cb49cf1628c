//! The checks of a zone before it is installed or booted (`verify_details`).

use super::Target;
use crate::fakehost::disk::{Disk, DiskOp, Kind};
use crate::fakehost::host::Host;
use crate::fakehost::run::{Run, Step};
use crate::fakehost::store::{ConfigStore, IndexState};
use crate::fakehost::xml::Element;
use crate::fakehost::zfs::Source;
use crate::fakehost::zonecfg::{DETACHED, Flavour};

/// File system types with a mount program (`/usr/lib/fs/TYPE/mount`).
const MOUNTED: &[&str] = &[
    "autofs", "bootfs", "ctfs", "dev", "fd", "hsfs", "hyprlofs", "lofs", "lxproc", "mntfs", "nfs",
    "objfs", "pcfs", "proc", "sharefs", "smbfs", "tmpfs", "udfs", "ufs", "zfs",
];
/// File system types with a check program (`/usr/lib/fs/TYPE/fsck`).
const CHECKED: &[&str] = &["pcfs", "udfs", "ufs"];

/// Verifies a zone for a subcommand; everything that is wrong is complained about.
pub fn verify(run: &mut Run, target: &Target, command: &str) -> Step<bool> {
    let mut good = true;
    // An attached zone existed before.
    if command != "attach" && !zonepath(run, target, command)? {
        run.complain(&format!(
            "could not verify zonepath {} because of the above errors.",
            target.configured.path
        ));
        good = false;
    }
    let (host, disk) = run.view();
    let warnings = network(host, target);
    let mut wrong = filesystems(host, disk, &target.document);
    for dataset in &target.configured.datasets {
        let text = |why: &str| format!("could not verify zfs dataset {dataset}: {why}");
        if !host.has_dataset(dataset) {
            wrong.push(text("dataset does not exist"));
        } else if matches!(host.mountpoint(dataset).1, Source::Inherited(_)) {
            wrong.push(text("mountpoint cannot be inherited"));
        }
    }
    // For maintenance a zone gets default privileges, whatever its configuration.
    if command != "mount"
        && let Err(text) = target.configured.check_privileges()
    {
        wrong.push(text.to_string());
    }
    good &= wrong.is_empty();
    for text in warnings.iter().chain(&wrong) {
        run.complain(text);
    }
    if !good {
        run.complain(&format!("zoneadm: zone {} failed to verify", target.name));
    }
    Ok(good)
}

/// The names of mode bits in messages (`bad_mode_bit`).
const BITS: &[(u32, &str)] = &[
    (0o400, "owner readable"),
    (0o200, "owner writable"),
    (0o100, "owner executable"),
    (0o040, "group readable"),
    (0o020, "group writable"),
    (0o010, "group executable"),
    (0o004, "world readable"),
    (0o002, "world writable"),
    (0o001, "world executable"),
];

/// What is wrong with a mode: missing bits, and forbidden ones.
fn wrong_mode(path: &str, mode: u32, must: u32, must_not: u32) -> Vec<String> {
    let bits = BITS.iter().filter_map(|(bit, what)| {
        let there = mode & bit != 0;
        if must & bit != 0 && !there {
            return Some(format!("{path} must be {what}."));
        }
        (must_not & bit != 0 && there).then(|| format!("{path} must not be {what}."))
    });
    bits.collect()
}

/// Checks a zonepath and reports problems (`validate_zonepath`). It is created if the subcommand fills it.
fn zonepath(run: &mut Run, target: &Target, command: &str) -> Step<bool> {
    let zone = &target.configured;
    let path = zone.path.as_str();
    let parent = match path.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => parent,
        _ => "/",
    };
    let store = run.machine.configurations()?;
    let disk = run.disk();
    let parts = path.split('/').filter(|part| !part.is_empty());
    let mut above = String::new();
    for part in parts {
        above = format!("{above}/{part}");
        if disk.kind(&above) == Some(Kind::Symlink) {
            run.complain(&format!("zoneadm: {path}: Resolved path mismatch"));
            return Ok(false);
        }
    }
    let mut wrong = Vec::new();
    match disk.kind(path) {
        None if command == "verify" => {
            run.complain(&format!(
                "WARNING: {path} does not exist, so it could not be verified.\nWhen 'zoneadm install' is run, 'install' will try to create\n{path}, and 'verify' will be tried again,\nbut the 'verify' may fail if:\nthe parent directory of {path} is group- or other-writable\nor\n{path} overlaps with any other installed zones."
            ));
            return Ok(true);
        }
        None if matches!(command, "install" | "clone") => {
            run.host().pending.push(DiskOp::Directory {
                at: path.to_owned(),
                mode: 0o700,
            });
        }
        None => {
            run.complain(&format!("zoneadm: {path}: No such file or directory"));
            return Ok(false);
        }
        Some(Kind::Directory) => {
            let mode = disk.mode(path).unwrap_or(0o700);
            wrong = wrong_mode(path, mode, 0o700, 0o077);
        }
        Some(_) => {
            run.complain(&format!("{path} is not a directory."));
            return Ok(false);
        }
    }
    if let Some(text) = overlap(run, &store, target)? {
        run.complain(&text);
        return Ok(false);
    }
    let mut good = wrong.is_empty();
    wrong.iter().for_each(|text| run.complain(text));
    if !good && command != "verify" {
        run.complain(&format!("{path}: changing permissions to 0700."));
        run.host().pending.push(DiskOp::Mode {
            at: path.to_owned(),
            mode: 0o700,
        });
        good = true;
    }
    let (host, disk) = run.view();
    let mode = disk.mode(parent).unwrap_or(0o755);
    let wrong = wrong_mode(parent, mode, 0o700, 0o022);
    let nosuid = host.is_nosuid(path);
    let root = zone.root();
    let detached = disk.exists(&format!("{path}/{DETACHED}"));
    // An installed zone's root is not checked.
    let root = (target.entry.state == IndexState::Configured)
        .then(|| (disk.kind(&root), disk.mode(&root), root));
    good &= wrong.is_empty();
    wrong.iter().for_each(|text| run.complain(text));
    if nosuid {
        run.complain(&format!("Zonepath {path} is on a nosuid file system."));
        return Ok(false);
    }
    let fills = target.entry.state == IndexState::Configured && command != "attach";
    if fills && detached && matches!(root, Some((Some(_), ..))) {
        run.complain(&format!(
            "Cannot {command} detached zone.\nUse attach or remove {path} directory."
        ));
        return Ok(false);
    }
    match root {
        Some((Some(Kind::Directory), Some(mode), root)) if mode & 0o777 != 0o755 => {
            run.complain(&format!("{root} mode is not 0755."));
            Ok(false)
        }
        Some((Some(Kind::Directory) | None, ..)) | None => Ok(good),
        Some((.., root)) => {
            run.complain(&format!("{root} is not a directory."));
            Ok(false)
        }
    }
}

/// Why a zonepath conflicts with those of installed zones: none may contain another.
fn overlap(run: &mut Run, store: &ConfigStore, target: &Target) -> Step<Option<String>> {
    let path = &target.configured.path;
    for other in store.index()? {
        if other.name == target.name || other.state != IndexState::Installed {
            continue;
        }
        if !run.disk().exists(&other.path) {
            run.say(&format!(
                "WARNING: zone {} is installed, but its zonepath {} does not exist.",
                other.name, other.path
            ));
            continue;
        }
        let (own, its) = (format!("{path}/"), format!("{}/", other.path));
        if own.starts_with(&its) || its.starts_with(&own) {
            return Ok(Some(format!(
                "{} zonepath ({path}) and {} zonepath ({}) overlap.",
                target.name, other.name, other.path
            )));
        }
    }
    Ok(None)
}

impl Host {
    /// Whether the file system of a path ignores set-user-id bits.
    fn is_nosuid(&self, path: &str) -> bool {
        let holds = |at: &str| at == "/" || format!("{path}/").starts_with(&format!("{at}/"));
        let nearest = self
            .datasets
            .iter()
            .filter_map(|(name, dataset)| Some((name, dataset.mounted.as_deref()?)))
            .filter(|(_, at)| holds(at))
            .max_by_key(|(_, at)| at.len());
        nearest.is_some_and(|(name, _)| !self.is_on(name, "setuid"))
    }
}

/// Warnings about the links of a zone, printed before it boots.
fn network(host: &Host, target: &Target) -> Vec<String> {
    let zone = &target.configured;
    let warnings = zone.links.iter().filter_map(|net| {
        let name = net.link.name.as_str();
        let skipping = |why: &str| {
            Some(format!(
                "WARNING: skipping network interface '{name}' {why}"
            ))
        };
        let plumbed = host.interfaces.contains_key(name);
        if !zone.exclusive {
            return (!plumbed)
                .then(|| skipping("which may not be present/plumbed in the global zone."))?;
        }
        if plumbed {
            return skipping("which is used in the global zone.");
        }
        match host.links.get(name).filter(|link| link.active) {
            None if host.flavour == Flavour::Gate => Some(format!(
                "WARNING: skipping network interface '{name}': object not found"
            )),
            None => None,
            Some(link) => match &link.zone {
                Some(owner) if *owner != target.name => {
                    skipping(&format!("which is used by the non-global zone '{owner}'."))
                }
                _ => None,
            },
        }
    });
    warnings.collect()
}

/// Problems with the file systems of a zone (`verify_filesystems`).
fn filesystems(host: &Host, disk: &Disk, document: &Element) -> Vec<String> {
    let wrong = document.named("filesystem").filter_map(|fs| {
        let [directory, kind, special, raw] =
            ["directory", "type", "special", "raw"].map(|name| fs.attr_or_empty(name));
        let cannot = |why: &str| Some(format!("cannot verify fs {directory}: {why}"));
        let could_not = |why: &str| Some(format!("could not verify fs {directory}: {why}"));
        let no_access = |path: &str| {
            could_not(&format!(
                "could not access {path}: No such file or directory"
            ))
        };
        if matches!(kind, "proc" | "mntfs" | "autofs") || kind.starts_with("nfs") {
            return cannot(&format!("type {kind} is not allowed."));
        }
        if !MOUNTED.contains(&kind) {
            return no_access(&format!("/usr/lib/fs/{kind}/mount"));
        }
        match (CHECKED.contains(&kind), raw.is_empty()) {
            (false, false) => {
                return cannot(&format!(
                    "'raw' device specified but no fsck executable exists for {kind}"
                ));
            }
            // A regular file is not a device.
            (true, true) if disk.kind(special) != Some(Kind::File) => {
                return could_not(&format!(
                    "must specify 'raw' device for {kind} file systems"
                ));
            }
            _ => {}
        }
        if kind == "zfs" {
            if !host.has_dataset(special) {
                return could_not(&format!("could not access zfs dataset '{special}'"));
            }
            if host.mountpoint(special).0 != "legacy" {
                return could_not(&format!("zfs '{special}' mountpoint is not \"legacy\""));
            }
        } else if !disk.exists(special) {
            return no_access(special);
        }
        match raw.is_empty() || disk.exists(raw) {
            true => None,
            false => no_access(raw),
        }
    });
    wrong.collect()
}
