//! Spontaneous events: a reboot of the host, and of a zone.

use super::disk::Disk;
use super::host::Host;
use super::run::{Run, Step};
use super::zfs;
use super::zoneadm::{Configured, OURS};

/// The state of a host that goes down: only persistent links and properties, addresses, routes and services, datasets,
/// and zone configurations remain. Nothing runs and nothing is mounted any more.
fn goes_down(host: &mut Host, disk: &Disk) {
    host.boots += 1;
    host.zones.clear();
    let mut mounted: Vec<String> = host
        .datasets
        .iter()
        .filter(|(_, d)| d.mounted.is_some())
        .map(|(name, _)| name.clone())
        .collect();
    mounted.sort_by(|a, b| host.datasets[b].mounted.cmp(&host.datasets[a].mounted));
    for d in host.datasets.values_mut() {
        d.held_open = false;
    }
    for name in mounted {
        // Nothing is in use any more, so this cannot fail.
        let _ = host.unmount(&name, disk, true);
    }
    for pool in host.pools.values_mut() {
        pool.imported = !pool.late;
    }
    host.links.retain(|_, link| !link.temporary);
    for link in host.links.values_mut() {
        link.active = true;
        link.zone = None;
        link.properties = link.persistent.clone();
    }
    for interface in host.interfaces.values_mut() {
        interface.addresses.retain(|_, a| !a.temporary);
    }
    let links = &host.links;
    host.interfaces
        .retain(|name, i| !i.temporary && (name == "lo0" || links.contains_key(name)));
    host.routes.retain(|r| r.persistent);
    host.nat.clear();
    for service in host.services.values_mut() {
        service.state = if service.enabled {
            "online"
        } else {
            "disabled"
        }
        .to_owned();
    }
}

/// Reboots the host, with the zones that boot automatically.
pub fn reboot_host(run: &mut Run) -> Step {
    if run.host().inits == super::Inits::Real {
        let zones: Vec<String> = run.host().zones.keys().cloned().collect();
        for zone in zones {
            super::real::end(run, &zone)?;
        }
    }
    let (host, disk) = run.view();
    goes_down(host, disk);
    // The unmounted files must be read again from disk.
    run.point("down")?;
    let (host, disk) = run.view();
    zfs::import(host, disk);
    super::nat::load(run)?;
    run.point("up")?;
    if run
        .host()
        .services
        .get("svc:/system/zones:default")
        .is_none_or(|s| s.state != "online")
    {
        return Ok(());
    }
    let store = run.machine.configurations()?;
    for entry in store.index()? {
        let configured = store
            .load(&entry.name)
            .ok()
            .flatten()
            .map(|d| Configured::read(&d));
        if configured.is_some_and(|c| c.autoboot) {
            let words = ["-z", &entry.name, "boot"].map(str::to_owned);
            let daemon = run.machine.helper("zoneadmd", &words, true)?;
            run.wait_for(daemon)?;
        }
    }
    Ok(())
}

/// Ends the init of a zone: an lx zone boots again, with another id, and one whose brand has `restartinit` off halts.
/// With `off` a zone of any brand halts. Does nothing for a zone that is not running.
pub fn end_init(run: &mut Run, zone: &str, off: bool) -> Step<bool> {
    let zones = &run.host().zones;
    let running = zones.get(zone);
    let Some(running) = running.filter(|z| z.status == super::ZoneStatus::Running) else {
        return Ok(false);
    };
    let then = match off || running.brand == OURS {
        true => "halt",
        false => "reboot",
    };
    let words = ["-z", zone, then].map(str::to_owned);
    let daemon = run.machine.helper("zoneadmd", &words, true)?;
    run.wait_for(daemon)?;
    Ok(true)
}
