//! Readies and boots a zone: links, mounts, delegated datasets, init.

use super::super::configured::Configured;
use super::super::install::below;
use super::super::ours;
use super::{dead, say, teardown};
use crate::fakehost::disk::{Disk, DiskOp, Kind};
use crate::fakehost::exit;
use crate::fakehost::host::{Host, Inits, KernelZone, Link, LinkClass, ZoneMount, ZoneStatus};
use crate::fakehost::run::{Run, Step, Stop, now};

/// The longest path of an init, in bytes.
const INIT_LONGEST: usize = 31;

/// The exit status of a failed mount(8).
const MOUNT_FAILED: i32 = 33;

/// The marker file of a distribution for `lx_boot`, a word that it must contain, and the script that is run then.
const DISTRIBUTIONS: &[(&str, &str, &str)] = &[
    ("etc/redhat-release", "", "redhat"),
    ("etc/lsb-release", "Ubuntu", "ubuntu"),
    ("etc/debian_version", "", "debian"),
    ("etc/alpine-release", "", "busybox"),
    ("etc/SuSE-release", "", "suse"),
    ("etc/void-release", "", "void"),
];

/// What is said of a zone with shares on a host whose default scheduling class is another.
const NO_FAIR_SHARE: &str = "WARNING: The zone.cpu-shares rctl is set but\nFSS is not the default scheduling class for\nthis zone.  FSS will be used for processes\nin the zone but to get the full benefit of FSS,\nit should be the default scheduling class.\nSee dispadmin(8) for more details.";

/// A zone that is booting.
pub(super) struct Boot<'a> {
    pub(super) zone: &'a Configured,
    pub(super) docker: bool,
    pub(super) words: Vec<String>,
}

impl Boot<'_> {
    fn fail(&self, run: &mut Run, text: &str) -> Step<i32> {
        say(run, &self.zone.name, text);
        // Takes everything down again, like a halt.
        teardown(run.host(), &self.zone.name);
        Err(Stop::Ended(exit::ERROR))
    }

    /// Creates the zone in the kernel.
    fn create(&self, run: &mut Run, status: ZoneStatus) {
        let zone = self.zone;
        let id = run.host().zone_id();
        run.host().zones.insert(
            zone.name.clone(),
            KernelZone {
                id,
                status,
                brand: zone.brand.clone(),
                path: zone.path.clone(),
                booted: now(),
                links: Vec::new(),
                mounts: Vec::new(),
                rctls: zone.rctls.clone(),
                datasets: Vec::new(),
                mounted: Default::default(),
                dead: None,
                init: None,
                stuck: None,
                cpu: (0, 0),
                memory: (0, 0),
            },
        );
    }

    /// Mounts it for maintenance: without its configured file systems and its network.
    pub(super) fn maintain(&self, run: &mut Run) -> Step<i32> {
        self.create(run, ZoneStatus::Mounted);
        Ok(exit::OK)
    }

    /// Creates the zone in the kernel, with its mounts and its network.
    pub(super) fn ready(&self, run: &mut Run) -> Step<i32> {
        let zone = self.zone;
        let root = zone.root();
        let mounted = below(run, &root);
        if !mounted.is_empty() {
            let text = format!(
                "These file-systems are mounted on subdirectories of {root}:\n  {}",
                mounted.join("\n  ")
            );
            return self.fail(run, &text);
        }
        if run.disk().kind(&root) != Some(Kind::Directory) {
            return self.fail(run, "zone_create failed: No such file or directory");
        }
        if let Err(wrong) = zone.check_privileges() {
            return self.fail(run, &wrong.to_string());
        }
        if zone.rctls.contains_key("zone.cpu-shares")
            && run.host().scheduling.as_deref() != Some("FSS")
        {
            // And its processes are in FSS all the same (`setup_zone_rm`).
            say(run, &zone.name, NO_FAIR_SHARE);
        }
        if let Err(text) = make_vnics(run.host(), zone) {
            return self.fail(run, &text);
        }
        self.create(run, ZoneStatus::Ready);
        run.point("created")?;
        let mut mounts = ours::platform(run.disk(), &zone.brand, false);
        mounts.extend(zone.mounts.iter().cloned());
        mounts.sort_by(|a, b| a.directory.cmp(&b.directory));
        self.mount(run, &mounts)?;
        run.point("mounted")?;
        for dataset in &zone.datasets {
            if let Err(text) = delegate(run, zone, dataset) {
                return self.fail(run, &text);
            }
        }
        if zone.exclusive {
            for net in &zone.links {
                if let Err(text) = give_link(run.host(), zone, &net.link) {
                    return self.fail(run, &text);
                }
            }
        }
        run.point("ready")?;
        Ok(exit::OK)
    }

    /// Mounts file systems in the zone, in order.
    fn mount(&self, run: &mut Run, mounts: &[ZoneMount]) -> Step {
        let root = self.zone.root();
        for mount in mounts {
            let (host, disk) = run.view();
            if let Err(text) = mount_in(host, disk, &root, mount) {
                self.fail(run, &text)?;
            }
            if let Some(z) = run.host().zones.get_mut(&self.zone.name) {
                z.mounts.push(mount.clone());
            }
        }
        Ok(())
    }

    /// Runs the brand's boot hook and starts init.
    pub(super) fn boot(&self, run: &mut Run) -> Step<i32> {
        let zone = self.zone;
        let root = zone.root();
        let inside = ours::platform(run.disk(), &zone.brand, true);
        self.mount(run, &inside)?;
        let mut words = self.words.clone();
        if words.is_empty() {
            words = zone
                .bootargs
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        }
        let chosen = words
            .iter()
            .position(|w| w == "-i")
            .and_then(|at| words.get(at + 1));
        let brands_own = match zone.brand.as_str() {
            // The zone's /usr is the host's.
            ours::BRAND => Some(ours::INIT),
            _ => None,
        };
        if let Some(init) = chosen.map(String::as_str).or(brands_own) {
            let at = match chosen {
                Some(_) => format!("{root}{init}"),
                None => init.to_owned(),
            };
            if !run.disk().exists(&at) {
                return self.fail(
                    run,
                    &format!("could not stat {root}{init}: No such file or directory"),
                );
            }
            if init.len() > INIT_LONGEST {
                return self.fail(run, "could not set zone boot file: File name too long");
            }
        }
        if zone.brand == "lx" {
            let script = match distribution(run.disk(), &root, self.docker) {
                Ok(script) => script,
                Err(text) => {
                    let text = format!(
                        "{text}\nexec /usr/lib/brand/lx/lx_boot {} {} failed",
                        zone.name, zone.path
                    );
                    return self.fail(run, &text);
                }
            };
            if script == "busybox" {
                leave_network_script(run, &root);
            }
        } else if zone.brand == ours::BRAND && chosen.is_none() && run.host().inits == Inits::Real {
            return run.not_played("the init of a reddwarf zone, a program of illumos,");
        }
        run.point("hooked")?;
        let (host, disk) = run.view();
        let dead = match zone.brand.as_str() {
            "lx" => dead(host, disk, zone),
            _ => None,
        };
        if let Some(z) = host.zones.get_mut(&zone.name) {
            z.status = ZoneStatus::Running;
            z.booted = now();
            z.dead = dead;
        }
        if run.host().inits == Inits::Real {
            crate::fakehost::real::start(run, zone)?;
        }
        run.point("booted")?;
        Ok(exit::OK)
    }
}

/// Creates the VNICs for `global-nic`, if they do not exist.
fn make_vnics(host: &mut Host, zone: &Configured) -> Result<(), String> {
    for net in &zone.links {
        let Some(over) = &net.global_nic else {
            continue;
        };
        if host.links.contains_key(&net.link.name) {
            continue;
        }
        if !host.links.get(over).is_some_and(|l| l.active) {
            return Err(format!(
                "dladm: invalid link name '{over}'\nfailed to create VNIC {}",
                net.link.name
            ));
        }
        let mac = net.mac.clone().unwrap_or_else(|| host.mac());
        let mut link = Link::new(LinkClass::Vnic, Some(over.clone()), mac);
        link.vlan = net
            .vlan
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        host.links.insert(net.link.name.clone(), link);
    }
    Ok(())
}

/// Mounts a file system of a zone: no component of the path may be a symbolic link, and missing ones become directories
/// (`mount_one`).
fn mount_in(host: &mut Host, disk: &Disk, root: &str, mount: &ZoneMount) -> Result<(), String> {
    let parts: Vec<&str> = mount
        .directory
        .split('/')
        .filter(|p| !p.is_empty())
        .collect();
    let target = format!("{root}{}", mount.directory);
    let invalid = |why: String| Err(format!("{why}\n{target} is not a valid mount point"));
    let mut at = root.to_owned();
    for (n, part) in parts.iter().enumerate() {
        at = format!("{at}/{part}");
        match disk.kind(&at) {
            Some(Kind::Symlink) => return invalid(format!("{at} is a symlink")),
            Some(Kind::Directory) => {}
            Some(_) if n + 1 < parts.len() => return invalid(format!("{at} is not a directory")),
            Some(_) => {}
            None => host.pending.push(DiskOp::Directory {
                at: at.clone(),
                mode: 0o755,
            }),
        }
    }
    let to = disk.kind(&at).unwrap_or(Kind::Directory);
    let fits = match (mount.kind.as_str(), disk.kind(&mount.special)) {
        // Neither lofs nor what is above it compares types: a file hides a directory.
        ("lofs", from) => from.is_some(),
        ("mntfs", _) => to == Kind::File,
        _ => true,
    };
    if fits {
        return Ok(());
    }
    // Errors of mount(8) itself are not shown: zoneadmd closes its output.
    let options = match mount.options.is_empty() {
        true => String::new(),
        false => format!("-o {} ", mount.options.join(",")),
    };
    Err(format!(
        "\"/usr/lib/fs/{}/mount {options}{} {target}\" failed with exit code {MOUNT_FAILED}",
        mount.kind, mount.special
    ))
}

/// Delegates a dataset to a zone, which sets its property `zoned`.
fn delegate(run: &mut Run, zone: &Configured, dataset: &str) -> Result<(), String> {
    let (host, disk) = run.view();
    if !host.has_dataset(dataset) {
        return Err(format!("cannot open ZFS dataset '{dataset}'"));
    }
    // The kernel does not accept the same dataset in two zones.
    if !host.is_on(dataset, "zoned")
        && host
            .set_property(dataset, "zoned", Some("on"), disk)
            .is_err()
    {
        return Err(format!(
            "cannot set 'zoned' property for ZFS dataset '{dataset}'"
        ));
    }
    if let Some(z) = host.zones.get_mut(&zone.name) {
        z.datasets.push(dataset.to_owned());
    }
    Ok(())
}

/// Assigns a link to a zone, with the protection in its configuration.
fn give_link(
    host: &mut Host,
    zone: &Configured,
    net: &crate::fakehost::host::ZoneLink,
) -> Result<(), String> {
    let again = host.zones[&zone.name]
        .links
        .iter()
        .any(|l| l.name == net.name);
    let name = &net.name;
    if host.interfaces.contains_key(name) {
        return Err(format!(
            "WARNING: skipping network interface '{name}' which is used in the global zone\nfailed to add network device: No such file or directory"
        ));
    }
    let Some(link) = host.links.get_mut(name).filter(|l| l.active) else {
        return Err("failed to add network device: No such file or directory".to_owned());
    };
    if link.zone.as_ref().is_some_and(|z| *z != zone.name) {
        return Err(format!(
            "WARNING: unable to add network interface '{name}': link busy\nfailed to add network device: Device busy"
        ));
    }
    if let Some(allowed) = &net.allowed {
        let set = |property| !again && link.properties.contains_key(property);
        let what = match (set("protection"), set("allowed-ips")) {
            (true, _) => Some("Protection"),
            (_, true) => Some("allowed-ips"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(format!(
                "{what} is already set\nfailed to add address: Invalid argument"
            ));
        }
        let address = allowed.split('/').next().unwrap_or(allowed);
        let ips = match link.properties.get("allowed-ips") {
            Some(before) => format!("{before},{address}"),
            None => address.to_owned(),
        };
        link.properties
            .insert("protection".to_owned(), "ip-nospoof".to_owned());
        link.properties.insert("allowed-ips".to_owned(), ips);
    }
    link.zone = Some(zone.name.clone());
    if let Some(z) = host.zones.get_mut(&zone.name) {
        z.links.push(net.clone());
    }
    Ok(())
}

/// What `lx_boot_zone_busybox` does at each boot: it writes a script into the global zone's `/tmp`, and moves it away
/// only where the root has a file or link of its name.
fn leave_network_script(run: &mut Run, root: &str) {
    let (host, disk) = run.view();
    let own = format!("{root}/etc/init.d/networking");
    let at = match disk.kind(&own) {
        Some(Kind::File | Kind::Symlink) => own,
        _ => format!("/tmp/lx-busybox.{}", host.number()),
    };
    let text = "#!/bin/sh\n".to_owned();
    host.pending.push(DiskOp::File { at, text });
}

/// The checks of `lx_boot`: the distribution of the root, whose script is run.
fn distribution(disk: &Disk, root: &str, docker: bool) -> Result<&'static str, String> {
    let found = match docker {
        true => Some("docker"),
        false => DISTRIBUTIONS
            .iter()
            .find(|(marker, word, _)| {
                std::fs::read(disk.real(&format!("{root}/{marker}")))
                    .is_ok_and(|text| String::from_utf8_lossy(&text).contains(word))
            })
            .map(|(_, _, name)| *name),
    };
    let Some(name) = found else {
        return Err("Unsupported distribution!".to_owned());
    };
    let script = format!("/usr/lib/brand/lx/lx_boot_zone_{name}");
    match disk.exists(&script) {
        true => Ok(name),
        false => Err(format!(
            "/usr/lib/brand/lx/lx_boot[1]: .: {script}: cannot open [No such file or directory]"
        )),
    }
}
