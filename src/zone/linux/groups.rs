//! Control groups, version 1 (one hierarchy per controller) or version 2 (a single hierarchy).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::devices;
use crate::zone::{Limits, Usage};

/// Where the system mounts control groups.
const ROOT: &str = "/sys/fs/cgroup";
/// The controllers that enforce limits, named the same in both versions.
const LIMITING: [&str; 3] = ["cpu", "memory", "pids"];
/// The controller that restricts devices, in version 1.
const DEVICES: &str = "devices";
/// The length of a CPU quota period, in microseconds.
const PERIOD: u64 = 100_000;

/// The hierarchies of this host, with our groups in them.
#[derive(Debug, Clone)]
pub struct Groups {
    version: Version,
    /// Our directory in each hierarchy.
    ours: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
enum Version {
    /// Version 1: a hierarchy per controller, one of which has device lists.
    One,
    /// Version 2: one hierarchy, and the program that restricts devices in it.
    Two(Arc<OwnedFd>),
}

impl Groups {
    /// The hierarchies of this host, with our groups under `name`.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn find(name: &str) -> Result<Self, String> {
        let root = Path::new(ROOT);
        if let Ok(offered) = fs::read_to_string(root.join("cgroup.controllers")) {
            let offered: Vec<&str> = offered.split_whitespace().collect();
            all_there(|controller| offered.contains(&controller))?;
            let program = devices::load().map_err(|error| {
                format!(
                    "containers would have all devices of this host: the kernel takes no program for control groups ({error}); use one with CONFIG_CGROUP_BPF"
                )
            })?;
            return Ok(Groups {
                version: Version::Two(Arc::new(program)),
                ours: vec![root.join(name)],
            });
        }
        let mut ours: Vec<PathBuf> = Vec::new();
        for controller in ["cpu", "cpuacct", "memory", "pids", DEVICES] {
            let Ok(path) = fs::canonicalize(root.join(controller)) else {
                continue;
            };
            let own = path.join(name);
            if path.join("cgroup.procs").exists() && !ours.contains(&own) {
                ours.push(own);
            }
        }
        if ours.is_empty() {
            return Err(format!(
                "no control groups are mounted under {ROOT}: mount -t cgroup2 none {ROOT}"
            ));
        }
        if !root.join(DEVICES).join("devices.deny").exists() {
            return Err(format!(
                "containers would have all devices of this host: the control groups `{DEVICES}` are not mounted: mkdir -p {ROOT}/{DEVICES} && mount -t cgroup -o {DEVICES} none {ROOT}/{DEVICES}"
            ));
        }
        all_there(|controller| root.join(controller).join("cgroup.procs").exists())?;
        Ok(Groups {
            version: Version::One,
            ours,
        })
    }

    fn is_unified(&self) -> bool {
        matches!(self.version, Version::Two(_))
    }

    /// Gives all zones together the weight of a host of this many millicores: otherwise they would count as much as a
    /// single service of the system. Follows `createNodeAllocatableCgroups` of pkg/kubelet/cm.
    ///
    /// # Errors
    /// Errors of control groups.
    pub fn share(&self, millis: u64) -> io::Result<()> {
        for own in &self.ours {
            if let Some(above) = own.parent().filter(|_| self.is_unified()) {
                hand_down(above)?;
            }
            fs::create_dir_all(own)?;
        }
        let limits = Limits {
            cpu_shares: Some(millis * 1024 / 1000),
            ..Limits::default()
        };
        self.limit("", &limits)
    }

    /// The directories of a zone's groups, one for each hierarchy.
    pub fn zone(&self, zone: &str) -> Vec<PathBuf> {
        self.ours.iter().map(|own| own.join(zone)).collect()
    }

    /// Creates the groups of a zone, and one for its supervisor in them, with limits on the zone.
    pub fn make_zone(&self, zone: &str, limits: &Limits) -> io::Result<()> {
        for own in self.zone(zone) {
            if self.is_unified() {
                hand_down(&own)?;
            }
            fs::create_dir_all(own.join("init"))?;
        }
        self.limit(zone, limits)
    }

    /// Creates a group in a zone's group, with limits; only a `privileged` one may use all devices.
    pub fn make(
        &self,
        zone: &str,
        name: &str,
        limits: &Limits,
        privileged: bool,
    ) -> io::Result<()> {
        for own in self.zone(zone) {
            let group = own.join(name);
            fs::create_dir_all(&group)?;
            let restrained = match &self.version {
                _ if privileged => Ok(()),
                Version::Two(program) => devices::attach(program, &group),
                Version::One if group.join("devices.deny").exists() => devices::list(&group),
                Version::One => Ok(()),
            };
            restrained.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("restrain the devices of {}: {error}", group.display()),
                )
            })?;
        }
        let group = format!("{zone}/{name}");
        if self.is_unified() {
            // As upstream does: a container that runs out of memory is killed as a whole, and does not swap.
            self.set(&group, "memory.oom.group", "1")?;
            self.set(&group, "memory.swap.max", "0")?;
        }
        self.limit(&group, limits)
    }

    /// Sets limits.
    pub fn limit(&self, group: &str, limits: &Limits) -> io::Result<()> {
        let set = |file: &str, value: String| self.set(group, file, &value);
        if let Some(shares) = limits.cpu_shares {
            match self.is_unified() {
                true => {
                    let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
                    set("cpu.weight", weight.to_string())?;
                }
                false => set("cpu.shares", shares.max(2).to_string())?,
            }
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = (millis * PERIOD / 1000).max(1000);
            match self.is_unified() {
                true => set("cpu.max", format!("{quota} {PERIOD}"))?,
                false => {
                    set("cpu.cfs_period_us", PERIOD.to_string())?;
                    set("cpu.cfs_quota_us", quota.to_string())?;
                }
            }
        }
        if let Some(memory) = limits.memory {
            match self.is_unified() {
                true => set("memory.max", memory.to_string())?,
                false => set("memory.limit_in_bytes", memory.to_string())?,
            }
        }
        if let Some(pids) = limits.pids {
            set("pids.max", pids.to_string())?;
        }
        Ok(())
    }

    /// Writes to a file of a group; a missing swap file on a kernel without swap support is ignored.
    fn set(&self, group: &str, file: &str, value: &str) -> io::Result<()> {
        let mut files = self.ours.iter().map(|own| own.join(group).join(file));
        let Some(path) = files.find(|path| path.exists()) else {
            return Ok(());
        };
        fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// The resource usage of a group, including its children.
    pub fn usage(&self, group: &str) -> Usage {
        let read = |file: &str| {
            self.ours
                .iter()
                .find_map(|own| fs::read_to_string(own.join(group).join(file)).ok())
        };
        let number = |file: &str| read(file).and_then(|text| text.trim().parse::<u64>().ok());
        let field = |file: &str, key: &str| {
            read(file)?.lines().find_map(|line| {
                let (name, value) = line.split_once(' ')?;
                (name == key).then(|| value.trim().parse::<u64>().ok())?
            })
        };
        let (cpu, memory, inactive) = match self.is_unified() {
            true => (
                field("cpu.stat", "usage_usec").map(|micros| micros * 1000),
                number("memory.current"),
                field("memory.stat", "inactive_file"),
            ),
            false => (
                number("cpuacct.usage"),
                number("memory.usage_in_bytes"),
                field("memory.stat", "total_inactive_file"),
            ),
        };
        let memory = memory.unwrap_or(0);
        Usage {
            cpu: cpu.unwrap_or(0),
            memory,
            working_set: memory.saturating_sub(inactive.unwrap_or(0)),
            pids: number("pids.current").unwrap_or(0),
        }
    }

    /// The ids of the processes in a zone's groups.
    pub fn processes(&self, zone: &str) -> Vec<i32> {
        let mut found = Vec::new();
        let mut left = self.zone(zone);
        while let Some(path) = left.pop() {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            left.extend(children(&path));
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| *pid > 0);
        found
    }

    /// Removes groups of zones that no longer exist, if nothing runs in them.
    pub fn sweep(&self, known: &dyn Fn(&str) -> bool) {
        for own in &self.ours {
            for child in children(own) {
                let name = child
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if !known(&name) && self.processes(&name).is_empty() {
                    let _ = self.remove_zone(&name);
                }
            }
        }
    }

    /// Removes the group of a process; there must be no process in it.
    pub fn remove(&self, zone: &str, name: &str) -> io::Result<()> {
        let mut all = self.ours.iter().map(|own| own.join(zone).join(name));
        all.try_for_each(remove_groups)
    }

    /// Removes a zone's groups; there must be no process in them.
    pub fn remove_zone(&self, zone: &str) -> io::Result<()> {
        self.zone(zone).into_iter().try_for_each(remove_groups)
    }
}

/// Whether the host supports all limits that pods may have.
///
/// # Errors
/// The first one that is missing, and how to get it.
fn all_there(offered: impl Fn(&str) -> bool) -> Result<(), String> {
    match LIMITING.iter().find(|controller| !offered(controller)) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "limits would not be kept: the control groups under {ROOT} have no controller `{missing}`; boot with it enabled (cgroup_enable={missing}), or mount it"
        )),
    }
}

/// Creates a group of version 2, and lets it and those above it hand the controllers to the groups in them.
fn hand_down(group: &Path) -> io::Result<()> {
    let mut above: Vec<&Path> = group
        .ancestors()
        .take_while(|path| *path != Path::new("/sys/fs"))
        .collect();
    above.reverse();
    for path in above {
        fs::create_dir_all(path)?;
        for controller in LIMITING {
            let control = path.join("cgroup.subtree_control");
            fs::write(control, format!("+{controller}")).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("hand {controller} to {}: {error}", path.display()),
                )
            })?;
        }
    }
    Ok(())
}

fn children(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group with everything in it, the innermost first: containers may have made groups of their own.
fn remove_groups(group: PathBuf) -> io::Result<()> {
    let mut all = vec![group];
    let mut next = 0;
    while let Some(group) = all.get(next) {
        let inner = children(group);
        all.extend(inner);
        next += 1;
    }
    all.iter()
        .rev()
        .try_for_each(|group| match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_containers_made_are_removed_with_theirs() {
        // Directories stand for groups: both are only removed when nothing is in them.
        let above = tempfile::tempdir().expect("a directory");
        let groups = Groups {
            version: Version::One,
            ours: ["cpu", "memory"].map(|name| above.path().join(name)).into(),
        };
        let make = |path: &str| {
            for own in groups.zone("zone") {
                fs::create_dir_all(own.join(path)).expect("made");
            }
        };
        for path in [
            "init",
            "a-0",
            "dind-0/docker/id/inner",
            "dind-0/system.slice/x.service",
        ] {
            make(path);
        }
        groups.remove("zone", "dind-0").expect("removed");
        for own in groups.zone("zone") {
            assert!(!own.join("dind-0").exists() && own.join("a-0").exists());
        }
        make("dind-1/docker/id");
        for _ in 0..2 {
            groups.remove_zone("zone").expect("removed");
        }
        for own in &groups.ours {
            assert!(own.exists() && !own.join("zone").exists());
        }
    }
}
