//! Changes of datasets. Each returns the tool's error message if it fails.

use super::mount::Remount;
use super::names;
use super::properties;
use crate::fakehost::disk::{Disk, DiskOp};
use crate::fakehost::host::{Dataset, Host, Snapshot};
use crate::fakehost::run::now;

/// The result of creating a file system.
pub enum Made {
    /// Created, and mounted if it should be.
    Whole,
    /// Created, but mounting failed.
    Unmounted(String),
}

impl Dataset {
    /// A file system without properties and files.
    pub fn new(id: u64, created: u64) -> Self {
        Dataset {
            id,
            created,
            properties: Default::default(),
            snapshots: Vec::new(),
            origin: None,
            mounted: None,
            filled: 0,
            held_open: false,
        }
    }
}

impl Host {
    /// Checks whether a dataset can be created under a name.
    fn room_for(&self, name: &str, disk: &Disk) -> Result<(), String> {
        if let Some(wrong) = names::wrong(name, false) {
            return Err(wrong);
        }
        if self.has_dataset(name) {
            return Err("dataset already exists".to_owned());
        }
        let pool = names::pool(name);
        if !self.has_pool(pool) {
            return Err(format!("no such pool '{pool}'"));
        }
        let parent = names::parent(name).unwrap_or(name);
        if !self.has_dataset(parent) {
            return Err("parent does not exist".to_owned());
        }
        self.writable(name)?;
        if self.usage(parent, disk).available == 0 {
            return Err("out of space".to_owned());
        }
        Ok(())
    }

    /// Creates a file system, empty or from a snapshot, and mounts it.
    ///
    /// # Errors
    /// The text after `cannot create`.
    pub fn create_dataset(
        &mut self,
        name: &str,
        origin: Option<&str>,
        set: &[(String, String)],
        disk: &Disk,
    ) -> Result<Made, String> {
        let wrong = |why: String| format!("cannot create '{name}': {why}");
        if names::wrong(name, false).is_none() && self.has_dataset(name) {
            return Err(wrong("dataset already exists".to_owned()));
        }
        let mut dataset = Dataset::new(0, now());
        for (property, value) in set {
            let value = properties::check(property, value, origin.is_none()).map_err(wrong)?;
            let property = properties::find(property).map_or(property.as_str(), |p| p.name);
            dataset.properties.insert(property.to_owned(), value);
        }
        self.room_for(name, disk).map_err(wrong)?;
        if origin.is_some_and(|origin| names::pool(origin) != names::pool(name)) {
            return Err(wrong("source and target pools differ".to_owned()));
        }
        let parent = names::parent(name).unwrap_or(name);
        let available = self.usage(parent, disk).available;
        for (property, value) in &dataset.properties {
            let bytes: u64 = value.parse().unwrap_or(0);
            if property.ends_with("reservation") && bytes > available {
                return Err(wrong("out of space".to_owned()));
            }
        }
        let referenced = origin.map_or(0, |origin| self.referenced(origin, disk));
        let refquota = dataset.properties.get("refquota");
        if refquota.is_some_and(|v| {
            v.parse()
                .is_ok_and(|quota: u64| quota > 0 && quota < referenced)
        }) {
            return Err(wrong("out of space".to_owned()));
        }
        dataset.id = self.number();
        dataset.origin = origin.map(str::to_owned);
        self.pending.push(match origin.and_then(|o| self.files(o)) {
            Some(from) => DiskOp::Copy {
                from,
                to: dataset.id,
                except: Vec::new(),
            },
            None => DiskOp::Fresh { id: dataset.id },
        });
        self.datasets.insert(name.to_owned(), dataset);
        if !self.mounts_itself(name) {
            return Ok(Made::Whole);
        }
        Ok(match self.mount(name, disk) {
            Ok(()) => Made::Whole,
            Err(text) => Made::Unmounted(text),
        })
    }

    /// Creates snapshots with the same name of several file systems at once.
    ///
    /// # Errors
    /// The text after `cannot create snapshot`.
    pub fn snapshot(
        &mut self,
        datasets: &[String],
        name: &str,
        set: &[(String, String)],
        disk: &Disk,
    ) -> Result<(), String> {
        for dataset in datasets {
            let full = format!("{dataset}@{name}");
            let wrong = |why: &str| format!("cannot create snapshot '{full}': {why}");
            if let Some(why) = names::wrong(&full, true) {
                return Err(wrong(&why));
            }
            if self.has_zfs(&full) {
                return Err(wrong("dataset already exists"));
            }
            self.writable(dataset).map_err(wrong)?;
            if self.usage(dataset, disk).available == 0 {
                return Err(wrong("out of space"));
            }
            for (property, value) in set {
                if !properties::is_user(property) {
                    return Err(wrong("property doesn't apply to datasets of this type"));
                }
                properties::check(property, value, true).map_err(|why| wrong(&why))?;
            }
        }
        for dataset in datasets {
            let id = self.number();
            let (Some(from), except) = (self.files(dataset), self.mounted_within(dataset)) else {
                continue;
            };
            self.pending.push(DiskOp::Copy {
                from,
                to: id,
                except,
            });
            if let Some(d) = self.datasets.get_mut(dataset) {
                d.snapshots.push(Snapshot {
                    name: name.to_owned(),
                    id,
                    created: now(),
                    properties: set.iter().cloned().collect(),
                    holds: Default::default(),
                    deferred: false,
                });
            }
        }
        Ok(())
    }

    /// Destroys a snapshot; with `defer`, once nothing needs it any more.
    ///
    /// # Errors
    /// The text after `cannot destroy`.
    pub fn destroy_snapshot(&mut self, full: &str, defer: bool) -> Result<(), String> {
        let wrong = |why: &str| format!("cannot destroy '{full}': {why}");
        let Some((dataset, name)) = full.split_once('@') else {
            return Err(wrong("missing '@' delimiter in snapshot name"));
        };
        self.writable(dataset).map_err(wrong)?;
        let cloned = !self.clones(full).is_empty();
        let Some(d) = self.datasets.get_mut(dataset) else {
            return Err(wrong("dataset does not exist"));
        };
        let Some(at) = d.snapshots.iter().position(|s| s.name == name) else {
            return Err(wrong("dataset does not exist"));
        };
        let held = !d.snapshots[at].holds.is_empty();
        if defer && (held || cloned) {
            d.snapshots[at].deferred = true;
            return Ok(());
        }
        if held {
            return Err(wrong("dataset is busy"));
        }
        if cloned {
            return Err(wrong("snapshot is cloned"));
        }
        let id = d.snapshots.remove(at).id;
        self.pending.push(DiskOp::Discard { id });
        Ok(())
    }

    /// Unmounts and destroys a file system without children and snapshots.
    ///
    /// # Errors
    /// The text after `cannot unmount` or `cannot destroy`.
    pub fn destroy_dataset(&mut self, name: &str, force: bool, disk: &Disk) -> Result<(), String> {
        self.destroy_dataset_in(None, name, force, disk)
    }

    /// The same, in a zone if one is named.
    ///
    /// # Errors
    /// The text after `cannot unmount` or `cannot destroy`.
    pub fn destroy_dataset_in(
        &mut self,
        zone: Option<&str>,
        name: &str,
        force: bool,
        disk: &Disk,
    ) -> Result<(), String> {
        let wrong = |why: &str| format!("cannot destroy '{name}': {why}");
        self.writable(name).map_err(wrong)?;
        if self.is_another_zones(name, zone) {
            return Err(wrong("dataset is busy"));
        }
        let children = self
            .datasets
            .keys()
            .any(|child| names::parent(child) == Some(name));
        if children || !self.datasets[name].snapshots.is_empty() {
            return Err(wrong("filesystem has children"));
        }
        self.unmount(name, disk, force)?;
        self.remove_mountpoint(name);
        if let Some(d) = self.datasets.remove(name) {
            for zone in self.zones.values_mut() {
                zone.mounted.remove(name);
            }
            self.pending.push(DiskOp::Discard { id: d.id });
            if let Some(origin) = d.origin {
                self.release_deferred(&origin);
            }
        }
        Ok(())
    }

    /// Destroys a deferred snapshot if its last clone or hold is gone.
    pub fn release_deferred(&mut self, full: &str) {
        let deferred = full.split_once('@').is_some_and(|(dataset, name)| {
            self.datasets.get(dataset).is_some_and(|d| {
                d.snapshots
                    .iter()
                    .any(|s| s.name == name && s.deferred && s.holds.is_empty())
            })
        });
        if deferred && self.clones(full).is_empty() {
            let _ = self.destroy_snapshot(full, false);
        }
    }

    /// Sets a property, or without a value lets it be inherited again.
    ///
    /// # Errors
    /// The message; the flag says whether the property was set nevertheless.
    pub fn set_property(
        &mut self,
        name: &str,
        property: &str,
        value: Option<&str>,
        disk: &Disk,
    ) -> Result<(), (String, bool)> {
        let wrong = |why: &str| (format!("cannot set property for '{name}': {why}"), false);
        let kept = match value {
            Some(value) => Some(properties::check(property, value, false).map_err(|w| wrong(&w))?),
            None => None,
        };
        let property = properties::find(property).map_or(property, |p| p.name);
        self.writable(name).map_err(wrong)?;
        let put = |properties: &mut std::collections::BTreeMap<String, String>| match &kept {
            Some(value) => {
                properties.insert(property.to_owned(), value.clone());
            }
            None => {
                properties.remove(property);
            }
        };
        if let Some((dataset, snapshot)) = name.split_once('@') {
            if !properties::is_user(property) {
                return Err(wrong("this property can not be modified for snapshots"));
            }
            let found = self
                .datasets
                .get_mut(dataset)
                .and_then(|d| d.snapshots.iter_mut().find(|s| s.name == snapshot));
            if let Some(snapshot) = found {
                put(&mut snapshot.properties);
            }
            return Ok(());
        }
        let bytes: u64 = kept.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        let usage = self.usage(name, disk);
        match property {
            "quota" if bytes > 0 && bytes < usage.used => {
                return Err(wrong("size is less than current used or reserved space"));
            }
            "refquota" if bytes > 0 && bytes < usage.referenced => {
                return Err(wrong("size is less than current used or reserved space"));
            }
            "reservation" | "refreservation" => {
                let had = self.limit(name, property).unwrap_or(0);
                let more = bytes.saturating_sub(had.max(match property {
                    "reservation" => usage.used,
                    _ => usage.referenced,
                }));
                if more > usage.available {
                    return Err(wrong("size is greater than available space"));
                }
            }
            _ => {}
        }
        if property == "mountpoint" && self.is_on(name, "zoned") {
            // Only the zone may change its mountpoint.
            return Err(wrong(
                "'mountpoint' cannot be set on dataset in a non-global zone",
            ));
        }
        let zoned = property == "zoned" || self.is_on(name, "zoned");
        if !matches!(property, "mountpoint" | "zoned" | "canmount")
            || (zoned && property == "mountpoint")
        {
            if let Some(d) = self.datasets.get_mut(name) {
                put(&mut d.properties);
            }
            return Ok(());
        }
        if property == "zoned" && kept.as_deref() != Some("on") && self.is_another_zones(name, None)
        {
            return Err(wrong("dataset is busy"));
        }
        let was_mountable = self.mountable(name).is_some();
        let change = |host: &mut Host| {
            if let Some(d) = host.datasets.get_mut(name) {
                put(&mut d.properties);
            }
        };
        match self.remounting(name, disk, change, str::to_owned) {
            Ok(()) => {}
            Err(Remount::Unmount(text)) => return Err((text, false)),
            Err(Remount::Mount(text)) => {
                let text = format!("{text}\nproperty may be set but unable to remount filesystem");
                return Err((text, true));
            }
        }
        // A file system that becomes mountable is mounted; canmount alone does not mount one.
        if property == "mountpoint" && !was_mountable && self.mounts_itself(name) {
            self.mount(name, disk).map_err(|text| {
                (
                    format!("{text}\nproperty may be set but unable to remount filesystem"),
                    true,
                )
            })?;
        }
        Ok(())
    }

    /// Renames a file system and its descendants, or a snapshot.
    ///
    /// # Errors
    /// The message.
    pub fn rename(&mut self, from: &str, to: &str, disk: &Disk) -> Result<(), String> {
        let wrong = |why: &str| format!("cannot rename '{from}': {why}");
        if let Some((dataset, name)) = from.split_once('@') {
            let (to_dataset, to_name) = to.split_once('@').unwrap_or((dataset, to));
            if to_dataset != dataset {
                return Err(format!(
                    "cannot rename to '{to}': snapshots must be part of same dataset"
                ));
            }
            let full = format!("{dataset}@{to_name}");
            if let Some(why) = names::wrong(&full, true) {
                return Err(format!("cannot rename to '{full}': {why}"));
            }
            if self.has_zfs(&full) {
                return Err(wrong("dataset already exists"));
            }
            for d in self.datasets.values_mut() {
                if d.origin.as_deref() == Some(from) {
                    d.origin = Some(full.clone());
                }
            }
            if let Some(s) = self
                .datasets
                .get_mut(dataset)
                .and_then(|d| d.snapshots.iter_mut().find(|s| s.name == name))
            {
                s.name = to_name.to_owned();
            }
            return Ok(());
        }
        if let Some(why) = names::wrong(to, false) {
            return Err(format!("cannot rename to '{to}': {why}"));
        }
        if names::pool(from) != names::pool(to) {
            return Err(format!(
                "cannot rename to '{to}': datasets must be within same pool"
            ));
        }
        let Some(parent) = names::parent(to) else {
            return Err(format!("cannot rename to '{to}': dataset already exists"));
        };
        if names::is_below(to, from) && to != from {
            return Err(format!(
                "cannot rename to '{to}': New dataset name cannot be a descendant of current dataset name"
            ));
        }
        if !self.has_dataset(parent) {
            return Err(format!("cannot rename to '{to}': parent does not exist"));
        }
        if names::parent(from).is_none() {
            return Err(wrong("dataset is busy"));
        }
        if self.has_dataset(to) {
            return Err(wrong("dataset already exists"));
        }
        if self.is_on(from, "zoned") {
            return Err(wrong("dataset is used in a non-global zone"));
        }
        self.writable(from).map_err(wrong)?;
        let new_name = |name: &str| match names::is_below(name, from) {
            true => format!("{to}{}", &name[from.len()..]),
            false => name.to_owned(),
        };
        let change = |host: &mut Host| {
            let datasets = std::mem::take(&mut host.datasets);
            for (name, mut dataset) in datasets {
                if let Some(origin) = &dataset.origin
                    && let Some((source, snapshot)) = origin.split_once('@')
                {
                    dataset.origin = Some(format!("{}@{snapshot}", new_name(source)));
                }
                host.datasets.insert(new_name(&name), dataset);
            }
        };
        match self.remounting(from, disk, change, new_name) {
            Ok(()) => Ok(()),
            Err(Remount::Unmount(text) | Remount::Mount(text)) => Err(text),
        }
    }

    /// Makes a clone the owner of the data that it shares with its origin.
    ///
    /// # Errors
    /// The message.
    pub fn promote(&mut self, name: &str) -> Result<(), String> {
        let wrong = |why: &str| format!("cannot promote '{name}': {why}");
        let Some(origin) = self.datasets[name].origin.clone() else {
            return Err(wrong("not a cloned filesystem"));
        };
        self.writable(name).map_err(wrong)?;
        let Some((source, snapshot)) = origin.split_once('@') else {
            return Err(wrong("dataset does not exist"));
        };
        let last = self.datasets[source]
            .snapshots
            .iter()
            .position(|s| s.name == snapshot)
            .map_or(0, |at| at + 1);
        let moved: Vec<Snapshot> = self.datasets[source].snapshots[..last].to_vec();
        for one in &moved {
            if self.datasets[name]
                .snapshots
                .iter()
                .any(|s| s.name == one.name)
            {
                return Err(wrong(&format!(
                    "conflicting snapshot '{}' from parent '{origin}'",
                    one.name
                )));
            }
        }
        let above = self.datasets[source].origin.clone();
        for d in self.datasets.values_mut() {
            let of_source = d.origin.as_deref().and_then(|o| o.split_once('@'));
            if let Some((from, s)) = of_source
                && from == source
                && moved.iter().any(|m| m.name == s)
            {
                d.origin = Some(format!("{name}@{s}"));
            }
        }
        if let Some(d) = self.datasets.get_mut(source) {
            d.snapshots.drain(..last);
            d.origin = Some(format!("{name}@{snapshot}"));
        }
        if let Some(d) = self.datasets.get_mut(name) {
            d.origin = above;
            d.snapshots.splice(0..0, moved);
        }
        Ok(())
    }
}
