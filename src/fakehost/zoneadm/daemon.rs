//! zoneadmd(8): readies, boots and halts zones. It continues when the zoneadm that asked is gone.

mod boot;

use std::time::Duration;

use self::boot::Boot;
use super::configured::Configured;
use super::ours;
use crate::fakehost::disk::{Disk, Kind};
use crate::fakehost::exit;
use crate::fakehost::host::{Host, Inits, ZoneStatus};
use crate::fakehost::ipadm::cidr;
use crate::fakehost::run::{Run, Step, Stop};
use crate::fakehost::store::IndexState;

/// How long a zone may take to shut down: the stop timeout of svc:/system/zones.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(100);
/// How often to check whether it did.
const LOOK: Duration = Duration::from_millis(5);

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
