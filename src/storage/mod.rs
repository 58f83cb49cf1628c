//! Where images, roots of processes and volumes are kept.
//!
//! [`StorageEngine`] is what the node agent asks of a platform: layers of images are unpacked once, roots are made
//! from them at no cost, volumes have a size. Engines: plain directories with overlay mounts (Linux), ZFS (illumos).

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

/// What an operation resolves to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StorageError>>;

/// Why an operation on storage failed. The text says what was attempted on what.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// There is no such thing.
    #[error("cannot {operation} {what}: it does not exist")]
    NotFound {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        what: String,
    },
    /// It is in use, or there already as something else.
    #[error("cannot {operation} {what}: {reason}")]
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        what: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The system failed.
    #[error("cannot {operation} {what}: {cause}")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        what: String,
        /// What the system says.
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

/// How a layer that is being unpacked says that something of the layers below is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// By removing it: the directory holds the layers below too.
    Apply,
    /// By overlayfs' marks: the directory holds this layer alone.
    Overlay,
}

/// A layer being unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDirectory {
    /// Where to unpack.
    pub path: PathBuf,
    /// How to say that something is gone.
    pub whiteouts: Whiteouts,
}

/// A volume as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where it is found.
    pub path: PathBuf,
    /// Its size limit, in bytes, where the engine keeps one.
    pub quota: Option<u64>,
}

/// How full the pool is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All there is.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
    /// Files that may exist, and that may still be made; zero where there is no limit.
    pub inodes: (u64, u64),
}

/// A platform that keeps images, roots and volumes. Every operation may be repeated: asking for what already holds
/// succeeds and changes nothing.
///
/// Chains name layers: the digest of a layer and all below it, so that the same layers are kept once.
pub trait StorageEngine: Send + Sync + 'static {
    /// Makes what is missing of the base datasets. Nothing of anybody else's is touched.
    fn prepare(&self) -> Answer<'_, ()>;

    /// Chains of layers that are complete.
    fn layers(&self) -> Answer<'_, Vec<String>>;

    /// Begins a layer anew on the layer `parent`; an earlier unfinished one is thrown away.
    fn begin_layer<'a>(
        &'a self,
        parent: Option<&'a str>,
        chain: &'a str,
    ) -> Answer<'a, LayerDirectory>;

    /// Declares a layer complete and never changed again.
    fn seal_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()>;

    /// Removes a layer that no root and no other layer uses.
    fn remove_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()>;

    /// A directory that the processes of `owner` may write, beside their roots, made if it is missing; with `quota`,
    /// all that they write is limited to so many bytes where the engine can do that.
    fn make_home<'a>(&'a self, owner: &'a str, quota: Option<u64>) -> Answer<'a, PathBuf>;

    /// Removes the directory of `owner` with everything in it, and its roots.
    fn remove_home<'a>(&'a self, owner: &'a str) -> Answer<'a, ()>;

    /// Everybody who has such a directory.
    fn homes(&self) -> Answer<'_, Vec<String>>;

    /// A writable root named `name` (`OWNER/NAME-GENERATION`) made of the layers `chains`, lowest first.
    fn make_root<'a>(&'a self, name: &'a str, chains: &'a [String]) -> Answer<'a, Root>;

    /// Removes a root and what was written to it.
    fn remove_root<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// Names of all roots.
    fn roots(&self) -> Answer<'_, Vec<String>>;

    /// What was written to a root, in bytes.
    fn root_usage<'a>(&'a self, name: &'a str) -> Answer<'a, u64>;

    /// A volume of this name with a size limit, empty or a copy of the volume `source`.
    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        quota: Option<u64>,
        source: Option<&'a str>,
    ) -> Answer<'a, Volume>;

    /// A volume that a zone is to have whole, empty if it is not there yet: the name that zones know it by. Nothing else
    /// mounts it from then on.
    fn delegate_volume<'a>(&'a self, name: &'a str, quota: Option<u64>) -> Answer<'a, String>;

    /// Changes the size limit of a volume.
    fn resize_volume<'a>(&'a self, name: &'a str, quota: u64) -> Answer<'a, Volume>;

    /// Removes a volume and everything in it.
    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// All volumes.
    fn volumes(&self) -> Answer<'_, Vec<Volume>>;

    /// How full the pool is.
    fn capacity(&self) -> Answer<'_, Capacity>;
}
