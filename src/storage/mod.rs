//! Storage of images, container roots and volumes.
//!
//! [`StorageEngine`] is the node agent's interface to a platform: image layers are unpacked once, roots are created
//! from them cheaply, volumes have a size. Engines: plain directories with overlay mounts (Linux), ZFS (illumos).

pub mod beneath;
mod config;
mod directories;
mod ownership;
mod size;
pub mod zfs;

use std::path::PathBuf;

use futures::future::BoxFuture;

use crate::blocking::Broke;
use crate::zone::Root;

pub use config::{ConfigError, StoragePoolConfig};
pub(crate) use directories::remove_tree;
pub use directories::{Directories, names};
pub use ownership::Ownership;
pub(crate) use size::tree_size;
pub use zfs::ZfsStorageEngine;

/// The result of a storage operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StorageError>>;

/// Why a storage operation failed. The text names the operation and its object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The object does not exist.
    #[error("cannot {operation} {what}: it does not exist")]
    NotFound {
        /// The operation.
        operation: &'static str,
        /// The subject.
        what: String,
    },
    /// It is in use, or exists as something else.
    #[error("cannot {operation} {what}: {reason}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The subject.
        what: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The system failed.
    #[error("cannot {operation} {what}: {cause}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The subject.
        what: String,
        /// The system's error.
        cause: String,
    },
}

impl From<Broke> for StorageError {
    fn from(broke: Broke) -> Self {
        StorageError::Failed {
            operation: "finish",
            what: "file work".into(),
            cause: broke.to_string(),
        }
    }
}

/// How the unpacker represents files that a layer deletes from the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// By removing them: the directory contains the layers below, too.
    Apply,
    /// By overlayfs whiteouts: the directory contains only this layer.
    Overlay,
}

/// A layer being unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDirectory {
    /// Where to unpack.
    pub path: PathBuf,
    /// How to represent deleted files.
    pub whiteouts: Whiteouts,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Its size limit in bytes, if the engine enforces one.
    pub quota: Option<u64>,
}

/// The size of the pool, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Total size.
    pub total: u64,
    /// Free space.
    pub available: u64,
    /// Total and free inodes; zero if unlimited.
    pub inodes: (u64, u64),
}

/// A platform's storage for images, roots and volumes. Every operation is idempotent: if the result exists already, it
/// succeeds and changes nothing.
///
/// Layers are named by chain ID: the digest of a layer and all below it, so that equal layers are stored once.
pub trait StorageEngine: Send + Sync + 'static {
    /// Creates missing base datasets or directories. Does not touch anything else.
    fn prepare(&self) -> Answer<'_, ()>;

    /// Chain IDs of complete layers.
    fn layers(&self) -> Answer<'_, Vec<String>>;

    /// Removes unfinished layers. Nobody may be making one meanwhile.
    fn sweep_layers(&self) -> Answer<'_, ()>;

    /// Starts a layer on top of `parent`; discards an earlier unfinished one.
    fn begin_layer<'a>(
        &'a self,
        parent: Option<&'a str>,
        chain: &'a str,
    ) -> Answer<'a, LayerDirectory>;

    /// Marks a layer as complete and immutable.
    fn seal_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()>;

    /// Removes a layer that no root and no other layer uses.
    fn remove_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()>;

    /// The directory in which processes of `owner` may write outside their roots, created if missing; `quota` limits
    /// everything they write, in bytes, if the engine supports that.
    fn make_home<'a>(&'a self, owner: &'a str, quota: Option<u64>) -> Answer<'a, PathBuf>;

    /// Removes the directory of `owner` with everything in it, and its roots.
    fn remove_home<'a>(&'a self, owner: &'a str) -> Answer<'a, ()>;

    /// All owners with such a directory.
    fn homes(&self) -> Answer<'_, Vec<String>>;

    /// A writable root called `name` (`OWNER/NAME-GENERATION`) with the layers `chains`, lowest first.
    fn make_root<'a>(&'a self, name: &'a str, chains: &'a [String]) -> Answer<'a, Root>;

    /// Removes a root and everything written to it.
    fn remove_root<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// Names of all roots.
    fn roots(&self) -> Answer<'_, Vec<String>>;

    /// Bytes written to a root.
    fn root_usage<'a>(&'a self, name: &'a str) -> Answer<'a, u64>;

    /// Creates a volume with a size limit, empty or as a copy of the volume `source`.
    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        quota: Option<u64>,
        source: Option<&'a str>,
    ) -> Answer<'a, Volume>;

    /// A volume delegated to a zone, created empty if missing; returns the name by which zones know it. From then on
    /// the host does not mount it.
    fn delegate_volume<'a>(&'a self, name: &'a str, quota: Option<u64>) -> Answer<'a, String>;

    /// Changes the size limit of a volume.
    fn resize_volume<'a>(&'a self, name: &'a str, quota: u64) -> Answer<'a, Volume>;

    /// Removes a volume and everything in it.
    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// All volumes.
    fn volumes(&self) -> Answer<'_, Vec<Volume>>;

    /// The total and free size of the pool.
    fn capacity(&self) -> Answer<'_, Capacity>;
}
