//! Mounting file systems in the global zone, and reasons why they are busy.

use super::names;
use super::properties::Source;
use super::space;
use crate::fakehost::disk::{Disk, DiskOp, Files, Kind};
use crate::fakehost::host::{Health, Host};

/// Whether a path is a directory or below it.
pub fn path_is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Host {
    /// The mountpoint of a file system; None with `canmount=off`, without a path, or if zoned.
    pub fn mountable(&self, dataset: &str) -> Option<String> {
        let (mountpoint, _) = self.mountpoint(dataset);
        let possible = mountpoint.starts_with('/')
            && self
                .property(dataset, "canmount")
                .is_some_and(|(v, _)| v != "off")
            && !self.is_on(dataset, "zoned");
        possible.then_some(mountpoint)
    }

    /// Whether it is mounted automatically.
    pub fn mounts_itself(&self, dataset: &str) -> bool {
        self.property(dataset, "canmount")
            .is_some_and(|(v, _)| v == "on")
    }

    /// Whether files at and below a path in the global zone are in use.
    pub fn busy(&self, path: &str, disk: &Disk, force: bool) -> bool {
        let used_by_zone = self.zones.values().any(|zone| {
            path_is_below(&zone.path, path)
                || zone.mounts.iter().any(|m| path_is_below(&m.special, path))
        });
        let held = |name: &str| {
            self.datasets
                .values()
                .any(|d| d.held_open && d.mounted.as_deref() == Some(name))
        };
        used_by_zone
            || self
                .datasets
                .values()
                .filter_map(|d| d.mounted.as_deref())
                .any(|at| at != path && path_is_below(at, path))
            || (!force && (held(path) || space::open_files(self, disk, path)))
    }

    /// Mounts a file system, unless it is mounted or cannot be mounted.
    ///
    /// # Errors
    /// The text after `cannot mount`.
    pub fn mount(&mut self, dataset: &str, disk: &Disk) -> Result<(), String> {
        let Some(at) = self.mountable(dataset) else {
            return Ok(());
        };
        if self.datasets[dataset].mounted.is_some() {
            return Ok(());
        }
        let taken = self
            .datasets
            .values()
            .any(|d| d.mounted.as_deref() == Some(&at));
        let (files, below) = self.files_of(&at);
        if taken || !disk.is_empty_in(&files, below) {
            return Err(format!("cannot mount '{at}': directory is not empty"));
        }
        let kind = disk.kind_in(&files, below);
        if kind.is_some_and(|kind| kind != Kind::Directory) {
            return Err(format!(
                "cannot mount '{at}': failed to create mountpoint: Not a directory"
            ));
        }
        let id = self.datasets[dataset].id;
        self.pending.push(DiskOp::Mount { id, at: at.clone() });
        if let Some(d) = self.datasets.get_mut(dataset) {
            d.mounted = Some(at);
        }
        Ok(())
    }

    /// The location of a path before this step's mounts are applied on disk: below a file system that is about to be
    /// mounted it is still among that one's files.
    fn files_of<'a>(&self, path: &'a str) -> (Files, &'a str) {
        let mounts = self.pending.iter().filter_map(|op| match op {
            DiskOp::Mount { id, at } if at != path && path_is_below(path, at) => Some((*id, at)),
            _ => None,
        });
        match mounts.max_by_key(|(_, at)| at.len()) {
            Some((id, at)) => (Files::Of(id), path[at.len()..].trim_start_matches('/')),
            None => (Files::At("/".to_owned()), path.trim_start_matches('/')),
        }
    }

    /// Unmounts a mounted file system.
    ///
    /// # Errors
    /// The text after `cannot unmount`.
    pub fn unmount(&mut self, dataset: &str, disk: &Disk, force: bool) -> Result<(), String> {
        let Some(at) = self.datasets.get(dataset).and_then(|d| d.mounted.clone()) else {
            return Ok(());
        };
        if self.busy(&at, disk, force) {
            return Err(format!("cannot unmount '{at}': Device busy"));
        }
        if let Some(d) = self.datasets.get_mut(dataset) {
            d.mounted = None;
            d.held_open = false;
            self.pending.push(DiskOp::Unmount { id: d.id, at });
        }
        Ok(())
    }

    /// Removes the mountpoint directory of an unmounted file system, as libzfs does for inherited and default
    /// mountpoints.
    pub fn remove_mountpoint(&mut self, dataset: &str) {
        let (at, source) = self.mountpoint(dataset);
        if source != Source::Local && self.mountable(dataset).is_some() {
            self.pending.push(DiskOp::RemoveDirectory { at });
        }
    }

    /// Does something with all file systems below `top` unmounted, descendants first. Afterwards those that were
    /// mounted are mounted again, at their new places; `renamed` maps old dataset names to new ones.
    ///
    /// # Errors
    /// One cannot be unmounted (nothing was done then), or cannot be mounted again (everything was done).
    pub fn remounting(
        &mut self,
        top: &str,
        disk: &Disk,
        change: impl FnOnce(&mut Host),
        renamed: impl Fn(&str) -> String,
    ) -> Result<(), Remount> {
        let mounted: Vec<String> = self
            .tree(top)
            .into_iter()
            .filter(|name| self.datasets[name].mounted.is_some())
            .collect();
        let (before, pending) = (self.datasets.clone(), self.pending.clone());
        for name in mounted.iter().rev() {
            if let Err(text) = self.unmount(name, disk, false) {
                self.datasets = before;
                self.pending = pending;
                return Err(Remount::Unmount(text));
            }
            self.remove_mountpoint(name);
        }
        change(self);
        let mut wrong = Vec::new();
        for name in &mounted {
            // Files unmounted in this step are still at their old place on disk.
            let name = renamed(name);
            let moved = self
                .mountable(&name)
                .is_some_and(|at| before.values().any(|d| d.mounted.as_deref() == Some(&at)));
            let result = match moved {
                true => self.mount_unseen(&name),
                false => self.mount(&name, disk),
            };
            if let Err(text) = result {
                wrong.push(text);
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Remount::Mount(wrong.join("\n"))),
        }
    }

    /// Mounts at a place that was occupied by a mount of this same step.
    fn mount_unseen(&mut self, dataset: &str) -> Result<(), String> {
        let Some(at) = self.mountable(dataset) else {
            return Ok(());
        };
        if let Some(d) = self.datasets.get_mut(dataset) {
            self.pending.push(DiskOp::Mount {
                id: d.id,
                at: at.clone(),
            });
            d.mounted = Some(at);
        }
        Ok(())
    }
}

/// Why file systems could not be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remount {
    /// One is busy: nothing was done.
    Unmount(String),
    /// One cannot be mounted again: everything else was done.
    Mount(String),
}

/// Mounts everything that is mounted automatically, as at boot and at import. Returns the errors of the others.
pub fn import(host: &mut Host, disk: &Disk) -> Vec<String> {
    let mut names: Vec<(String, String)> = host
        .datasets
        .keys()
        .filter(|name| host.has_pool(names::pool(name)) && host.mounts_itself(name))
        .filter(|name| {
            host.pools
                .get(names::pool(name))
                .is_some_and(|p| p.health != Health::Suspended)
        })
        .filter_map(|name| Some((host.mountable(name)?, name.clone())))
        .collect();
    names.sort_by(|a, b| a.0.split('/').cmp(b.0.split('/')));
    names
        .iter()
        .filter_map(|(_, name)| host.mount(name, disk).err())
        .collect()
}
