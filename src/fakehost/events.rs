//! What happens to a host by itself: its own reboot, and that of a zone.

use super::disk::Disk;
use super::host::Host;
use super::run::{Run, Step};
use super::zfs;
use super::zoneadm::{Configured, OURS};

/// What is left of a host when it goes down: persistent links and their properties, persistent addresses and routes,
/// what is enabled, every dataset, every zone configuration. Nothing runs and nothing is mounted any more.
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
        // Nothing is in use any more, so nothing can refuse.
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

/// The host reboots. Zones that are to boot with it do.
pub fn reboot_host(run: &mut Run) -> Step {
    if run.host().inits == super::Inits::Real {
        let zones: Vec<String> = run.host().zones.keys().cloned().collect();
        for zone in zones {
            super::real::end(run, &zone)?;
        }
    }
    let (host, disk) = run.view();
    goes_down(host, disk);
    // What was unmounted is looked at on disk again.
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

/// The init of a zone exits: an lx zone boots again, with another id, and one whose brand has `restartinit` off halts. One
/// that turns its zone `off` halts it in any brand. Nothing happens to a zone that does not run.
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
