//! What a zone consists of on this host: names, paths, configuration. A pure function of the specification and the
//! settings.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::config;
use super::native::Interface;
use crate::illumos::{Command, Tool};
use crate::net::illumos::{NetworkConfig, Vnic, redirect};
use crate::zone::{
    Limits, Mount, ProcessSpec, Propagation, Root, System, USUAL_CAPABILITIES, ZoneError, ZoneName,
    ZoneNetwork, ZoneSpec,
};

/// The brand of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Brand {
    /// Linux system calls on illumos: images as they are.
    Lx,
    /// illumos programs, with the host's own libraries.
    Reddwarf,
}

impl Brand {
    /// Every brand.
    pub const ALL: [Brand; 2] = [Brand::Lx, Brand::Reddwarf];

    /// The brand with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|brand| brand.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Brand::Lx => "lx",
            Brand::Reddwarf => "reddwarf",
        }
    }

    /// The system of its programs.
    pub fn system(self) -> System {
        match self {
            Brand::Lx => System::Linux,
            Brand::Reddwarf => System::Illumos,
        }
    }
}

/// The host's settings for zones and their network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The default brand.
    pub brand: Brand,
    /// The dataset of zonepaths.
    pub zones_dataset: String,
    /// Where it is mounted.
    pub zones_directory: PathBuf,
    /// The agent's directory: it has the zones' read-only files in `pods/OWNER`, and the records of zones in
    /// `zones/NAME`.
    pub data: PathBuf,
    /// The snapshots from which zones are installed, for the brands that this host supports.
    pub sandboxes: BTreeMap<Brand, String>,
    /// How zones are connected.
    pub network: NetworkConfig,
    /// The result of `uname -r` in lx zones: without it, it is 2.4, which no libc accepts.
    pub kernel_version: String,
    /// The quota of a zone's own dataset beyond the sandbox, in bytes.
    pub sandbox_quota: u64,
}

/// Files that zones' processes may write: homes, and what is mounted in them.
pub const WRITABLE: &str = "/rd/rw";
/// Read-only files: content from the API, hosts, resolv.conf, and the zone's description.
pub const READABLE: &str = "/rd/ro";
/// The directory with the socket on which the supervisor dials the agent.
pub const CONTROL: &str = "/rd/ctl";
/// The directory of the host directories shared with the zone, by number.
pub const SHARES: &str = "/rd/v";
/// The directory of delegated datasets, by number: the zone's supervisor mounts them there.
pub const DATASETS: &str = "/rd/d";

/// The mountpoint of a delegated dataset, by its number.
pub fn dataset_directory(number: usize) -> PathBuf {
    PathBuf::from(format!("{DATASETS}/{number}"))
}

/// Everything about one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub zone: ZoneName,
    /// The owner: its name without `rd-`.
    pub owner: String,
    /// Its brand.
    pub brand: Brand,
    /// Its zonepath.
    pub path: PathBuf,
    /// The zonepath's dataset, which zoneadm(8) makes.
    pub dataset: String,
    /// The snapshot from which it is installed; None if this host no longer creates zones of this brand.
    pub sandbox: Option<String>,
    /// The quota of its dataset, in bytes.
    pub quota: u64,
    /// Its link.
    pub vnic: Vnic,
    /// The configuration of its interface.
    pub interface: Interface,
    /// The NAT rules of its host ports.
    pub rules: Vec<String>,
    /// Its configuration: a command file for zonecfg(8).
    pub configuration: String,
    /// The path of that file.
    pub file: PathBuf,
    /// The directory of its records.
    pub directory: PathBuf,
    /// The host directory that is mounted at [`CONTROL`].
    pub control: PathBuf,
    /// Directories of the host by their paths in the zone.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// Delegated datasets by their mountpoints in the zone.
    pub datasets: BTreeMap<PathBuf, String>,
    /// Shared files: for each an empty file must exist in the sandbox before the zone boots.
    pub files: Vec<PathBuf>,
}

/// The owner's part of a name that begins with `rd-`.
pub fn owner(zone: &ZoneName) -> &str {
    zone.as_str().strip_prefix("rd-").unwrap_or(zone.as_str())
}

fn refused(what: String, reason: impl Into<String>) -> ZoneError {
    ZoneError::Refused {
        operation: "run",
        what,
        reason: reason.into(),
    }
}

impl Layout {
    /// The layout of a zone. `is_file` returns whether a shared path is a file.
    ///
    /// # Errors
    /// [`ZoneError::Refused`]: this host cannot run such a zone.
    pub fn of(
        spec: &ZoneSpec,
        settings: &Settings,
        is_file: impl Fn(&Path) -> bool,
    ) -> Result<Self, ZoneError> {
        let zone = spec.name.clone();
        let no = |reason: &str| refused(format!("zone {zone}"), reason);
        let brand = match &spec.brand {
            None => settings.brand,
            Some(name) => Brand::named(name).ok_or_else(|| {
                no(&format!(
                    "the brand {name:?} is not offered: there are lx and reddwarf"
                ))
            })?,
        };
        if brand == Brand::Lx && !spec.datasets.is_empty() {
            return Err(no(
                "volumes are delegated to zones of the brand reddwarf only: nothing in an lx zone mounts a dataset",
            ));
        }
        let ZoneNetwork::Own {
            address,
            prefix,
            gateway,
            mac,
            link,
            ports,
            bandwidth,
        } = &spec.network
        else {
            return Err(no(
                "hostNetwork is not offered: a zone always has a network of its own",
            ));
        };
        if spec.host_processes {
            return Err(no(
                "hostPID is not offered: a zone sees its own processes only",
            ));
        }
        if spec.host_ipc {
            return Err(no("hostIPC is not offered: a zone has its own"));
        }
        if let Some(name) = spec.sysctls.keys().next() {
            return Err(no(&format!(
                "the sysctl {name} is not offered: zones have no Linux kernel"
            )));
        }
        let (IpAddr::V4(address), IpAddr::V4(gateway)) = (*address, *gateway) else {
            return Err(no("IPv6 is not offered yet"));
        };
        let prefix = *prefix;
        if !(1..=30).contains(&prefix)
            || !same_network(address, gateway, prefix)
            || address == gateway
        {
            return Err(no(&format!(
                "the router {gateway} is not another host of {address}/{prefix}: an lx zone would wait for ever for its route"
            )));
        }
        if !crate::net::illumos::is_link_name(link) {
            return Err(no(&format!("{link:?} is not the name of a link")));
        }
        let external = settings.network.external();
        let mut rules = Vec::new();
        for port in ports {
            let Some(external) = external else {
                return Err(no(
                    "hostPort needs a link that leads out: name it with --physical-nic, on an etherstub's network",
                ));
            };
            if !matches!(port.protocol.as_str(), "TCP" | "UDP") {
                return Err(no(&format!(
                    "host ports of protocol {} are not offered",
                    port.protocol
                )));
            }
            let at = match port.host_address {
                None => None,
                Some(IpAddr::V4(at)) if at.is_unspecified() => None,
                Some(IpAddr::V4(at)) => Some(at),
                Some(IpAddr::V6(_)) => {
                    return Err(no("host ports on IPv6 addresses are not offered yet"));
                }
            };
            rules.push(redirect(
                external,
                at,
                port.host,
                address,
                port.zone,
                &port.protocol,
            ));
        }
        let owner = owner(&zone).to_owned();
        let directory = settings.data.join("zones").join(zone.as_str());
        let control = directory.join("ctl");
        let mut mounts = BTreeMap::from([
            (
                PathBuf::from(WRITABLE),
                settings.zones_directory.join("pods").join(&owner),
            ),
            (
                PathBuf::from(READABLE),
                settings.data.join("pods").join(&owner),
            ),
            (PathBuf::from(CONTROL), control.clone()),
        ]);
        let mut files = Vec::new();
        let mut shares = spec.shares.clone();
        shares.sort();
        shares.dedup();
        for (number, share) in shares.into_iter().enumerate() {
            let target = PathBuf::from(format!("{SHARES}/{number}"));
            if is_file(&share) {
                files.push(target.clone());
            }
            mounts.insert(target, share);
        }
        let path = settings.zones_directory.join(zone.as_str());
        let mut layout = Layout {
            dataset: format!("{}/{zone}", settings.zones_dataset),
            sandbox: settings.sandboxes.get(&brand).cloned(),
            brand,
            quota: settings.sandbox_quota,
            vnic: Vnic {
                link: link.clone(),
                mac: mac.clone(),
                over: settings.network.over().to_owned(),
                vlan: settings.network.vlan(),
                bandwidth: *bandwidth,
            },
            interface: Interface {
                link: link.clone(),
                address,
                prefix,
                gateway,
            },
            rules,
            configuration: String::new(),
            file: directory.join("zonecfg"),
            directory,
            control,
            mounts,
            datasets: (0..)
                .map(dataset_directory)
                .zip(spec.datasets.iter().cloned())
                .collect(),
            files,
            zone,
            owner,
            path,
        };
        layout.configuration = config::write(&layout, settings, &spec.limits, &spec.labels)
            .map_err(|reason| refused(format!("zone {}", layout.zone), reason))?;
        Ok(layout)
    }

    /// The path in the zone of a host path. A path without a leading slash is the name of a dataset.
    pub fn inside(&self, path: &Path) -> Option<PathBuf> {
        let mounts = self.mounts.iter();
        let mounts = mounts.map(|(target, source)| (target, source.as_path()));
        let datasets = self.datasets.iter();
        let datasets = datasets.map(|(target, name)| (target, Path::new(name.as_str())));
        mounts.chain(datasets).find_map(|(target, source)| {
            let rest = path.strip_prefix(source).ok()?;
            Some(match rest.as_os_str().is_empty() {
                true => target.clone(),
                false => target.join(rest),
            })
        })
    }

    /// A process as described to the supervisor, with paths inside the zone.
    ///
    /// # Errors
    /// [`ZoneError::Refused`]: the zone cannot run such a process, or a path is not shared with it.
    pub fn process(&self, process: &ProcessSpec) -> Result<ProcessSpec, ZoneError> {
        let what = || format!("process {} in zone {}", process.id, self.zone);
        let rights = &process.rights;
        let no = |reason: &str| refused(what(), reason);
        if rights.privileged {
            return Err(no(
                "privileged containers are not offered: the zone is the boundary",
            ));
        }
        let usual = |name: &String| USUAL_CAPABILITIES.contains(&name.as_str());
        if let Some(more) = rights.capabilities.iter().find(|name| !usual(name)) {
            return Err(no(&format!(
                "the capability {more} is not offered: zones have no Linux kernel to give it"
            )));
        }
        if rights.seccomp {
            return Err(no(
                "seccomp profiles are not enforced in zones; leave seccompProfile away",
            ));
        }
        let translated = |path: &Path| {
            self.inside(path).ok_or_else(|| {
                no(&format!(
                    "{} is not shared with the zone: volumes must be there when the pod's zone is made",
                    path.display()
                ))
            })
        };
        let Root::Directory(root) = &process.root else {
            return Err(no(
                "its root is layers of overlayfs, which zones do not have",
            ));
        };
        let is_broken = |path: &Path| path.as_os_str().as_encoded_bytes().contains(&b'\n');
        if self.brand == Brand::Lx && process.mounts.iter().any(|mount| is_broken(&mount.target)) {
            return Err(no(
                "a mount path with a newline cannot be found again in lx's table of mounts",
            ));
        }
        let mounts = process
            .mounts
            .iter()
            .map(|mount| match mount.propagation {
                Propagation::Bidirectional => {
                    Err(no("mountPropagation: Bidirectional is not offered"))
                }
                _ => Ok(Mount {
                    source: translated(&mount.source)?,
                    ..mount.clone()
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(ProcessSpec {
            root: Root::Directory(translated(root)?),
            mounts,
            log: translated(&process.log)?,
            ..process.clone()
        })
    }

    /// Shows the zone's state.
    pub fn show(&self) -> Command {
        Command::new(Tool::Zoneadm, ["-z", self.zone.as_str(), "list", "-p"])
    }
    /// Shows its attributes, including its mark.
    pub fn attributes(zone: &ZoneName) -> Command {
        Command::new(Tool::Zonecfg, ["-z", zone.as_str(), "info", "attr"])
    }
    /// Configures it from [`Layout::file`].
    pub fn configure(&self) -> Command {
        let file = self.file.display().to_string();
        Command::new(Tool::Zonecfg, ["-z", self.zone.as_str(), "-f", &file]).within(60)
    }
    /// Removes its configuration.
    pub fn unconfigure(&self) -> Command {
        Command::new(Tool::Zonecfg, ["-z", self.zone.as_str(), "delete", "-F"]).within(60)
    }
    fn zoneadm(&self, words: &[&str], seconds: u64) -> Command {
        let start = ["-z", self.zone.as_str()].into_iter();
        Command::new(Tool::Zoneadm, start.chain(words.iter().copied())).within(seconds)
    }
    /// Installs it as a clone of the sandbox. Processes of its hook may outlive it.
    pub fn install(&self) -> Command {
        let sandbox = self.sandbox.as_deref().unwrap_or_default();
        self.zoneadm(&["install", "-s", sandbox], 300)
            .owned(self.zone.as_str())
    }
    /// Uninstalls it. Processes of its hook may outlive it.
    pub fn uninstall(&self) -> Command {
        self.zoneadm(&["uninstall", "-F"], 300)
            .owned(self.zone.as_str())
    }
    /// Boots it.
    pub fn boot(&self) -> Command {
        self.zoneadm(&["boot"], 120)
    }
    /// Halts it.
    pub fn halt(&self) -> Command {
        self.zoneadm(&["halt"], 120)
    }
    /// Ends a maintenance mount that somebody left.
    pub fn unmount(&self) -> Command {
        self.zoneadm(&["unmount"], 120)
    }
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX << (32 - u32::from(prefix));
    u32::from(one) & mask == u32::from(other) & mask
}

/// The limits of a zone as properties of its configuration, in order; amounts that zonecfg(8) would reject are raised
/// to its minimum.
pub fn caps(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Some(pids) = limits.pids {
        all.push(("max-lwps", pids.max(100).to_string()));
    }
    if let Some(shares) = limits.cpu_shares {
        // 100 shares stand for one CPU.
        all.push(("cpu-shares", (shares * 100 / 1024).max(1).to_string()));
    }
    all
}
