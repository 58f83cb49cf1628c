//! Space accounting of file systems.

use super::names;
use crate::fakehost::disk::{Disk, Files};
use crate::fakehost::host::{Health, Host, Inits};

/// The size of an empty file system, in bytes.
const EMPTY: u64 = 24 << 10;

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Freed if it were destroyed.
    pub used: u64,
    /// Still available to it.
    pub available: u64,
    /// Accessible through it.
    pub referenced: u64,
    /// Used only by its snapshots.
    pub snapshots: u64,
    /// Used by its children.
    pub children: u64,
    /// Reserved for it.
    pub reserved: u64,
}

impl Host {
    /// The location of the files of a file system or snapshot.
    pub fn files(&self, name: &str) -> Option<Files> {
        match name.split_once('@') {
            Some((dataset, snapshot)) => self
                .datasets
                .get(dataset)?
                .snapshots
                .iter()
                .find(|s| s.name == snapshot)
                .map(|s| Files::Of(s.id)),
            None => self.datasets.get(name).map(|d| match &d.mounted {
                Some(at) => Files::At(at.clone()),
                None => Files::Of(d.id),
            }),
        }
    }

    /// Directories in the files of a file system at which others are mounted.
    pub fn mounted_within(&self, dataset: &str) -> Vec<String> {
        let own = self.datasets.get(dataset).and_then(|d| d.mounted.as_ref());
        self.datasets
            .values()
            .filter_map(|d| d.mounted.as_ref())
            .filter(|at| Some(*at) != own)
            .cloned()
            .collect()
    }

    /// The bytes accessible through a file system or snapshot.
    pub fn referenced(&self, name: &str, disk: &Disk) -> u64 {
        let dataset = name.split('@').next().unwrap_or(name);
        let filled = match name.contains('@') {
            true => 0,
            false => self.datasets.get(name).map_or(0, |d| d.filled),
        };
        let files = self
            .files(name)
            .map_or(0, |files| disk.bytes(&files, &self.mounted_within(dataset)));
        EMPTY + filled + files
    }

    /// The space used by a file system itself, by its snapshots, and by its reservation.
    fn own(&self, name: &str, disk: &Disk) -> Usage {
        let Some(dataset) = self.datasets.get(name) else {
            return Usage::default();
        };
        let referenced = self.referenced(name, disk);
        let shared = dataset
            .origin
            .as_deref()
            .map_or(0, |origin| self.referenced(origin, disk));
        let mut snapshots = 0;
        let mut later = referenced;
        for snapshot in dataset.snapshots.iter().rev() {
            let bytes = self.referenced(&format!("{name}@{}", snapshot.name), disk);
            snapshots += bytes.saturating_sub(later);
            later = bytes;
        }
        // An unchanged clone takes a block.
        let alone = referenced.saturating_sub(shared).max(512);
        let reserved = self
            .limit(name, "refreservation")
            .map_or(0, |bytes| bytes.saturating_sub(referenced));
        Usage {
            used: alone + snapshots + reserved,
            referenced,
            snapshots,
            reserved,
            ..Usage::default()
        }
    }

    /// The space used by a file system and its descendants, without the available space.
    fn used(&self, name: &str, disk: &Disk) -> Usage {
        let mut usage = self.own(name, disk);
        let children = self
            .datasets
            .keys()
            .filter(|child| names::parent(child) == Some(name));
        for child in children {
            let kept = self.limit(child, "reservation").unwrap_or(0);
            usage.children += self.used(child, disk).used.max(kept);
        }
        usage.used += usage.children;
        usage
    }

    /// The free space of a pool, in bytes.
    pub fn free(&self, pool: &str, disk: &Disk) -> u64 {
        let Some(p) = self.pools.get(pool) else {
            return 0;
        };
        p.size
            .saturating_sub(p.taken)
            .saturating_sub(self.used(pool, disk).used)
    }

    /// The space that a file system uses and may use.
    pub fn usage(&self, name: &str, disk: &Disk) -> Usage {
        let mut usage = self.used(name, disk);
        let mut available = self.free(names::pool(name), disk);
        let mut at = Some(name);
        while let Some(dataset) = at {
            if let Some(quota) = self.limit(dataset, "quota") {
                available = available.min(quota.saturating_sub(self.used(dataset, disk).used));
            }
            at = names::parent(dataset);
        }
        if let Some(quota) = self.limit(name, "refquota") {
            available = available.min(quota.saturating_sub(usage.referenced));
        }
        usage.available = available;
        usage
    }

    /// Checks whether a pool can be changed.
    ///
    /// # Errors
    /// The reason in the tools' words.
    pub fn writable(&self, dataset: &str) -> Result<(), &'static str> {
        match self.pools.get(names::pool(dataset)).map(|p| p.health) {
            Some(Health::Suspended) => Err("pool I/O is currently suspended"),
            Some(Health::ReadOnly) => Err("pool is read-only"),
            _ => Ok(()),
        }
    }
}

/// Whether a process of this computer has a file at or below a path open or as its working directory: only relevant for
/// real zones.
pub fn open_files(host: &Host, disk: &Disk, path: &str) -> bool {
    if host.inits != Inits::Real {
        return false;
    }
    let real = disk.real(path);
    let inside =
        |link: std::path::PathBuf| std::fs::read_link(link).is_ok_and(|to| to.starts_with(&real));
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
        })
        .any(|process| {
            inside(process.path().join("cwd"))
                || std::fs::read_dir(process.path().join("fd"))
                    .into_iter()
                    .flatten()
                    .flatten()
                    .any(|fd| inside(fd.path()))
        })
}
