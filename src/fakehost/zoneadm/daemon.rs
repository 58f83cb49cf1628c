//! zoneadmd(8): readies, boots and halts zones. It continues when the zoneadm that asked is gone.

use std::time::Duration;

use super::configured::Configured;
use super::install::below;
use super::ours;
use crate::fakehost::disk::{Disk, Kind};
use crate::fakehost::exit;
use crate::fakehost::host::{Host, Inits, KernelZone, Link, LinkClass, ZoneMount, ZoneStatus};
use crate::fakehost::ipadm::cidr;
use crate::fakehost::run::{Run, Step, Stop, now};
use crate::fakehost::store::IndexState;

/// The longest path of an init, in bytes.
const INIT_LONGEST: usize = 31;

/// The exit status of a failed mount(8).
const MOUNT_FAILED: i32 = 33;

/// How long a zone may take to shut down: the stop timeout of svc:/system/zones.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(100);
/// How often to check whether it did.
const LOOK: Duration = Duration::from_millis(5);

/// The marker file of a distribution for `lx_boot`, a word that it must contain, and the script that is run then.
const DISTRIBUTIONS: &[(&str, &str, &str)] = &[
    ("etc/redhat-release", "", "redhat"),
    ("etc/lsb-release", "Ubuntu", "ubuntu"),
    ("etc/debian_version", "", "debian"),
    ("etc/alpine-release", "", "busybox"),
    ("etc/SuSE-release", "", "suse"),
    ("etc/void-release", "", "void"),
];

/// `zoneadmd -z ZONE COMMAND args...`
pub fn zoneadmd(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let [_, name, command, rest @ ..] = args else {
        run.complain("usage: zoneadmd -z ZONE COMMAND");
        return Ok(exit::USAGE);
    };
    let lock = run.lock_file(&format!("{name}.zoneadmd.lock"))?;
    let store = run.machine.configurations()?;
    let (Some(entry), Ok(Some(document))) = (store.entry(name), store.load(name)) else {
        run.complain(&format!("zone '{name}': No such zone configured"));
        return Ok(exit::ERROR);
    };
    let zone = Configured::read(&document);
    let docker = document
        .named("attr")
        .any(|a| a.attr("name") == Some("docker") && a.attr("value") == Some("true"));
    let boot = Boot {
        zone: &zone,
        docker,
        words: rest.to_vec(),
    };
    let status = run.host().zones.get(name).map(|z| z.status);
    let invalid = |run: &mut Run, state: &str| {
        let text = format!("{command} operation is invalid for zones in state '{state}'");
        say(run, name, &text);
        Ok(exit::ERROR)
    };
    if status.is_none() && entry.state != IndexState::Installed {
        return invalid(run, entry.state.word());
    }
    use ZoneStatus::{Down, Mounted, Ready, Running, ShuttingDown};
    match (command.as_str(), status) {
        ("mount", None) => boot.maintain(run),
        ("unmount", Some(Mounted)) => {
            run.host().zones.remove(name);
            Ok(exit::OK)
        }
        ("unmount", None) => {
            say(run, name, "zone is already unmounted");
            Ok(exit::OK)
        }
        (_, Some(Mounted)) => invalid(run, Mounted.word()),
        ("ready", Some(Ready)) => {
            say(run, name, "zone is already ready");
            Ok(exit::OK)
        }
        ("ready", Some(_)) => {
            halt(run, &zone)?;
            boot.ready(run)
        }
        ("ready", None) => boot.ready(run),
        ("boot", None) => {
            boot.ready(run)?;
            boot.boot(run)
        }
        ("boot", Some(Ready)) => boot.boot(run),
        ("boot", Some(Running | ShuttingDown | Down)) => {
            say(run, name, "zone is already booted");
            Ok(exit::OK)
        }
        ("halt" | "shutdown", None) => {
            say(run, name, "zone is already halted");
            Ok(exit::OK)
        }
        ("halt", Some(_)) => halt(run, &zone),
        ("reboot", Some(Running | ShuttingDown | Down)) => {
            halt(run, &zone)?;
            boot.ready(run)?;
            boot.boot(run)
        }
        ("shutdown", Some(Running | ShuttingDown | Down)) => {
            if !shutdown(run, &zone)? {
                say(run, name, "unable to shutdown zone");
                return Ok(exit::ERROR);
            }
            // Other commands are served meanwhile, such as the zone's own halt.
            drop(lock);
            for _ in 0..SHUTDOWN_WAIT.as_millis() / LOOK.as_millis() {
                // If somebody changes its state again at once, that is not noticed, and the wait is in vain.
                let installed = store.entry(name).map(|entry| entry.state);
                let gone = !run.host().zones.contains_key(name);
                if gone && installed == Some(IndexState::Installed) {
                    return Ok(exit::OK);
                }
                run.away(|_| std::thread::sleep(LOOK))?;
            }
            say(run, name, "unable to shutdown zone");
            Ok(exit::ERROR)
        }
        (_, status) => invalid(run, status.map_or(entry.state.word(), ZoneStatus::word)),
    }
}

/// Prints a message of zoneadmd through zoneadm, each line prefixed with the zone (`zonecfg_call_zoneadmd`).
fn say(run: &mut Run, zone: &str, text: &str) {
    for line in text.lines() {
        run.complain(&format!("zone '{zone}': {line}"));
    }
}

/// Shuts a zone down by `/bin/sh -c 'exec INIT 0'` in it; returns whether that was possible.
fn shutdown(run: &mut Run, zone: &Configured) -> Step<bool> {
    let root = zone.root();
    let disk = run.disk();
    let shell = match zone.brand.as_str() {
        // /usr is the host's there.
        ours::BRAND => std::fs::read_link(disk.real(&format!("{root}/bin")))
            .is_ok_and(|to| to.as_os_str() == "usr/bin"),
        _ => disk.real(&format!("{root}/bin/sh")).is_file(),
    };
    if !shell {
        return Ok(false);
    }
    if run.host().inits == Inits::Real {
        return super::super::real::shut_down(run, zone);
    }
    if run
        .host()
        .zones
        .get(&zone.name)
        .is_some_and(|z| z.dead.is_none())
    {
        halt(run, zone)?;
    }
    Ok(true)
}

/// A zone that is booting.
struct Boot<'a> {
    zone: &'a Configured,
    docker: bool,
    words: Vec<String>,
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
                dead: None,
                init: None,
                stuck: None,
                cpu: (0, 0),
                memory: (0, 0),
            },
        );
    }

    /// Mounts it for maintenance: without its configured file systems and its network.
    fn maintain(&self, run: &mut Run) -> Step<i32> {
        self.create(run, ZoneStatus::Mounted);
        Ok(exit::OK)
    }

    /// Creates the zone in the kernel, with its mounts and its network.
    fn ready(&self, run: &mut Run) -> Step<i32> {
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
    fn boot(&self, run: &mut Run) -> Step<i32> {
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
            if let Err(text) = distribution(run.disk(), &root, self.docker) {
                let text = format!(
                    "{text}\nexec /usr/lib/brand/lx/lx_boot {} {} failed",
                    zone.name, zone.path
                );
                return self.fail(run, &text);
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
            super::super::real::start(run, zone)?;
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
            None => host.pending.push(crate::fakehost::disk::DiskOp::Directory {
                at: at.clone(),
                mode: 0o755,
            }),
        }
    }
    let to = disk.kind(&at).unwrap_or(Kind::Directory);
    let fits = match (mount.kind.as_str(), disk.kind(&mount.special)) {
        // A file is mounted on a file, a directory on a directory.
        ("lofs", from) => from == Some(to),
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

/// The checks of `lx_boot`: the distribution of the root, and its script.
fn distribution(disk: &Disk, root: &str, docker: bool) -> Result<(), String> {
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
        true => Ok(()),
        false => Err(format!(
            "/usr/lib/brand/lx/lx_boot[1]: .: {script}: cannot open [No such file or directory]"
        )),
    }
}

/// Why lxinit pauses forever instead of starting init: the zone is `running` all the same.
fn dead(host: &Host, disk: &Disk, zone: &Configured) -> Option<String> {
    let links = &host.zones.get(&zone.name)?.links;
    for (at, link) in links.iter().enumerate() {
        if links[..at].iter().any(|l| l.name == link.name) {
            return Some(format!(
                "lxinit: ipadm_create_if({}): Interface already exists",
                link.name
            ));
        }
        if let (Some(allowed), Some(router)) = (&link.allowed, &link.router)
            && !leads_out(allowed, router)
        {
            return Some(format!(
                "lxinit: failed to add default route {router}: Network is unreachable"
            ));
        }
    }
    let init = format!("{}/sbin/init", zone.root());
    // A link in the zone's root is resolved inside it: only its existence is checked.
    match disk.kind(&init) {
        None => Some("lxinit: execve(/sbin/init): No such file or directory".to_owned()),
        Some(Kind::File) if disk.mode(&init).is_some_and(|mode| mode & 0o111 == 0) => {
            Some("lxinit: execve(/sbin/init): Permission denied".to_owned())
        }
        Some(Kind::Directory) => Some("lxinit: execve(/sbin/init): Permission denied".to_owned()),
        Some(_) => None,
    }
}

/// Whether a router is in the network of an address.
fn leads_out(allowed: &str, router: &str) -> bool {
    cidr(allowed).is_some_and(|(address, network)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        network.prefix < most && router.parse().is_ok_and(|r| network.contains(r))
    })
}

/// Removes a zone from the kernel: its links lose all protection properties and become free.
pub fn teardown(host: &mut Host, name: &str) {
    host.zones.remove(name);
    for link in host
        .links
        .values_mut()
        .filter(|l| l.zone.as_deref() == Some(name))
    {
        link.zone = None;
        link.properties.remove("protection");
        link.properties.remove("allowed-ips");
    }
}

/// Kills everything in a zone and takes it down.
fn halt(run: &mut Run, zone: &Configured) -> Step<i32> {
    let name = &zone.name;
    let set = |run: &mut Run, status| {
        if let Some(z) = run.host().zones.get_mut(name) {
            z.status = status;
        }
    };
    let stuck = |run: &mut Run, at| {
        run.host()
            .zones
            .get(name)
            .is_some_and(|z| z.stuck == Some(at))
    };
    set(run, ZoneStatus::ShuttingDown);
    run.point("shutting_down")?;
    // A process cannot be killed: the call does not return.
    while stuck(run, ZoneStatus::ShuttingDown) {
        run.away(|_| std::thread::sleep(LOOK))?;
    }
    if run.host().inits == Inits::Real {
        super::super::real::end(run, name)?;
    }
    set(run, ZoneStatus::Down);
    run.point("down")?;
    if stuck(run, ZoneStatus::Down) {
        say(run, name, &format!("unable to unmount '{}'", zone.root()));
        say(run, name, "unable to unmount file systems in zone");
        say(run, name, "unable to destroy zone");
        return Err(Stop::Ended(exit::ERROR));
    }
    if let Some(z) = run.host().zones.get_mut(name) {
        z.mounts.clear();
    }
    run.point("unmounted")?;
    teardown(run.host(), name);
    for net in zone.links.iter().filter(|n| n.global_nic.is_some()) {
        run.host().links.remove(&net.link.name);
    }
    run.point("halted")?;
    Ok(exit::OK)
}
