//! zfs(8) in a zone: what it sees and may change (`zone_dataset_visible`, `zfs_dozonecheck`, `zfs_secpolicy_setprop`).
//!
//! The files of what is mounted in a zone are not shown in its root; only where it is mounted is kept.

use super::super::exit;
use super::super::run::{Run, Step};
use super::properties::{self, Source};
use super::{fail, names, options};
use crate::fakehost::disk::Disk;
use crate::fakehost::host::Host;

/// The subcommands that are played in a zone and change something: their options, and how their messages begin.
const CHANGES: &[(&str, &str, &str)] = &[
    ("create", "V:b:so:p", "cannot create"),
    ("clone", "o:p", "cannot create"),
    ("snapshot", "ro:", "cannot create snapshot"),
    ("destroy", "vpndfrR", "cannot destroy"),
    ("set", "", "cannot set property for"),
    ("promote", "", "cannot promote"),
    ("mount", "avo:O", "cannot mount"),
    ("hold", "r", "cannot hold snapshot"),
    ("release", "r", "cannot release hold from snapshot"),
];

/// Limits that a zone may only change below the dataset that was delegated to it.
const OUTER_LIMITS: [&str; 3] = ["quota", "filesystem_limit", "snapshot_limit"];

fn dataset(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

/// Ends a zone's command that names what the zone does not see, or would change what it may not.
pub(super) fn permit(run: &mut Run, command: &str, args: &[String]) -> Step {
    let Some(zone) = run.zone.clone() else {
        return Ok(());
    };
    if matches!(command, "list" | "get" | "holds") {
        return Ok(());
    }
    let Some((_, known, cannot)) = CHANGES.iter().find(|(name, ..)| *name == command) else {
        return run.not_played(&format!("zfs {command} in a zone"));
    };
    let words = options(run, command, args, known)?.rest;
    let host = run.host();
    let named: Vec<&String> = match command {
        "set" => words.iter().filter(|word| !word.contains('=')).collect(),
        "hold" | "release" => words.iter().skip(1).collect(),
        _ => words.iter().collect(),
    };
    for (number, name) in named.iter().enumerate() {
        // Where something is made, what is above it is changed.
        let made = command == "create" || (command == "clone" && number == 1);
        let changed = match made {
            true => names::parent(name).unwrap_or(name),
            false => dataset(name),
        };
        if !host.sees(&zone, changed) {
            let text = match made {
                true => format!("{cannot} '{name}': parent does not exist"),
                false => format!("cannot open '{name}': dataset does not exist"),
            };
            return fail(run, &text);
        }
        let origin = match command {
            "promote" => host.datasets.get(changed).and_then(|d| d.origin.clone()),
            _ => None,
        };
        let origin = origin.as_deref().map(dataset);
        if !host.may_change(&zone, changed) || origin.is_some_and(|o| !host.may_change(&zone, o)) {
            return fail(run, &format!("{cannot} '{name}': permission denied"));
        }
    }
    Ok(())
}

impl Host {
    fn delegated_to(&self, zone: &str) -> &[String] {
        self.zones.get(zone).map_or(&[], |zone| &zone.datasets)
    }

    /// Whether a zone sees a dataset: one that was delegated to it, or one above or below.
    pub fn sees(&self, zone: &str, name: &str) -> bool {
        let delegated = self.delegated_to(zone);
        let is_near = |own: &String| names::is_below(name, own) || names::is_below(own, name);
        delegated.iter().any(is_near)
    }

    /// Whether a zone may change a dataset.
    pub fn may_change(&self, zone: &str, name: &str) -> bool {
        let delegated = self.delegated_to(zone);
        delegated.iter().any(|own| names::is_below(name, own)) && self.is_on(name, "zoned")
    }

    /// Whether a dataset is at or below one that a running zone has, other than `zone`.
    pub fn is_another_zones(&self, name: &str, zone: Option<&str>) -> bool {
        let others = self
            .zones
            .iter()
            .filter(|(other, _)| Some(other.as_str()) != zone);
        let mut datasets = others.flat_map(|(_, zone)| &zone.datasets);
        datasets.any(|own| names::is_below(name, own))
    }

    /// Where a zone has mounted a dataset.
    pub fn mounted_in_zone(&self, name: &str) -> Option<&String> {
        self.zones.values().find_map(|zone| zone.mounted.get(name))
    }

    /// Sets a property of a dataset that the zone may change.
    ///
    /// # Errors
    /// The message.
    pub fn set_in_zone(
        &mut self,
        zone: &str,
        name: &str,
        property: &str,
        value: &str,
        disk: &Disk,
    ) -> Result<(), String> {
        let wrong = |why: &str| format!("cannot set property for '{name}': {why}");
        let full = properties::find(property).map_or(property, |p| p.name);
        let set_point = match self.property(name, "zoned") {
            Some((_, Source::Inherited(from))) => from,
            _ => name.to_owned(),
        };
        if full == "zoned" || (OUTER_LIMITS.contains(&full) && name.len() <= set_point.len()) {
            return Err(wrong("permission denied"));
        }
        if !matches!(full, "mountpoint" | "canmount") {
            let set = self.set_property(name, property, Some(value), disk);
            return set.map_err(|(text, _)| text);
        }
        let value = properties::check(property, value, false).map_err(|why| wrong(&why))?;
        let had_none = !self.mountpoint(name).0.starts_with('/');
        if let Some(d) = self.datasets.get_mut(name) {
            d.properties.insert(full.to_owned(), value.clone());
        }
        match full {
            "mountpoint" => {
                for below in self.tree(name) {
                    let (_, source) = self.mountpoint(&below);
                    if below == name || source == Source::Inherited(name.to_owned()) {
                        self.place_in_zone(zone, &below, had_none);
                    }
                }
            }
            _ if value == "off" => {
                if let Some(zone) = self.zones.get_mut(zone) {
                    zone.mounted.remove(name);
                }
            }
            // canmount alone does not mount one.
            _ => {}
        }
        Ok(())
    }

    /// Mounts a dataset in a zone where its properties say: one that was mounted before; and one that mounts itself if
    /// it is `anew`, just made or without a mountpoint until now (`changelist_postfix`).
    pub fn place_in_zone(&mut self, zone: &str, name: &str, anew: bool) {
        let (mountpoint, _) = self.mountpoint(name);
        let can = self.property(name, "canmount").map(|(value, _)| value);
        let Some(zone) = self.zones.get_mut(zone) else {
            return;
        };
        let before = zone.mounted.remove(name).is_some();
        let mounts = match can.as_deref() {
            Some("on") => before || anew,
            Some("noauto") => before,
            _ => false,
        };
        if mounts && mountpoint.starts_with('/') {
            zone.mounted.insert(name.to_owned(), mountpoint);
        }
    }
}

/// `zfs mount DATASET` in a zone.
pub(super) fn mount(run: &mut Run, zone: &str, name: &str) -> Step<i32> {
    let host = run.host();
    let (mountpoint, _) = host.mountpoint(name);
    let can = host.property(name, "canmount").map(|(value, _)| value);
    let wrong = if mountpoint == "legacy" {
        Some("legacy mountpoint\nuse mount(8) to mount this filesystem")
    } else if mountpoint == "none" {
        Some("no mountpoint set")
    } else if can.as_deref() == Some("off") {
        Some("'canmount' property is set to 'off'")
    } else if host.mounted_in_zone(name).is_some() {
        Some("filesystem already mounted")
    } else {
        None
    };
    if let Some(why) = wrong {
        return fail(run, &format!("cannot mount '{name}': {why}"));
    }
    if let Some(zone) = host.zones.get_mut(zone) {
        zone.mounted.insert(name.to_owned(), mountpoint);
    }
    Ok(exit::OK)
}
