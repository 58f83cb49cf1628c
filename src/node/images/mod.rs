//! The images on this host: a record of each, and its layers in the storage engine.
//!
//! Each record is a file that is replaced as a whole: the command line and a running agent see the same images without
//! communicating.

mod image;
mod keyring;
mod load;
mod pull;
mod reference;
mod unpack;
mod zstd;

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blocking::{Broke, blocking};
use crate::private::write_whole;
use crate::storage::{StorageEngine, StorageError};

pub use self::image::{Image, RunConfig};
pub use keyring::{Access, Credentials, Holder, Keyring};
pub use pull::Registries;
pub use reference::Reference;

/// Why an operation on an image failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is invalid.
    #[error("couldn't parse image name {name:?}: invalid reference format")]
    Name {
        /// The given name.
        name: String,
    },
    /// There is no such image here.
    #[error("image {0} is not on this host")]
    Absent(String),
    /// Its content does not match its digests.
    #[error("the image is not sound: {0}")]
    Content(String),
    /// The registry did not provide it.
    #[error("{0}")]
    Registry(String),
    /// The storage engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nothing can be removed while images are added: they may rely on layers that belong to no other image.
    #[error(
        "other images are being added, which may have the same layers: try again when that is done"
    )]
    Adding,
    /// A file operation failed.
    #[error("cannot {attempted} {}: {cause}", path.display())]
    File {
        /// The operation.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

impl From<Broke> for ImageError {
    fn from(broke: Broke) -> Self {
        ImageError::Content(broke.to_string())
    }
}

/// Fetches and unpackings in progress: a second one for the same thing waits, and finds it done.
type Busy = Arc<parking_lot::Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// The images of a host. Clones share the same images.
#[derive(Clone)]
pub struct Images {
    records: PathBuf,
    engine: Arc<dyn StorageEngine>,
    busy: Busy,
}

/// A file whose lock is held, shared, while there are layers that no image has yet; and alone by whoever removes layers.
const ADDITIONS: &str = ".lock";
/// A file whose lock is held while records are read and changed.
const RECORDS: &str = ".records.lock";

/// Whether an engine has a layer, which it may name by the beginning of its digest.
fn has_layer(known: &[String], chain: &str) -> bool {
    let digits = chain.rsplit(':').next().unwrap_or(chain);
    known.iter().any(|known| digits.starts_with(known.as_str()))
}

/// Renames a damaged record, so that the error is logged once and the content is kept.
fn set_aside(path: &Path, damage: &serde_json::Error) {
    let aside = path.with_extension("damaged");
    let moved = std::fs::rename(path, &aside);
    tracing::warn!(
        path = %path.display(), %damage, moved = ?moved.map(|()| aside),
        "the record of an image is damaged; it has to be pulled or loaded again"
    );
}

impl Images {
    /// The images recorded in `directory`, with layers in `engine`.
    pub fn new(directory: &Path, engine: Arc<dyn StorageEngine>) -> Self {
        Images {
            records: directory.to_owned(),
            engine,
            busy: Busy::default(),
        }
    }

    /// Waits until nobody else in this process does the same.
    async fn alone(&self, what: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock();
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            busy.entry(what.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// While the returned file is open, other processes know that there are layers that no image has yet. Waits for a
    /// running removal of such layers.
    async fn adding(&self) -> Result<File, ImageError> {
        let own = self.clone();
        blocking(move || {
            let lock = own.lock()?;
            lock.lock_shared().map_err(|cause| own.cannot_lock(cause))?;
            Ok(lock)
        })
        .await
    }

    fn lock(&self) -> Result<File, ImageError> {
        self.lock_file(ADDITIONS)
    }

    /// Locks the records while the returned file is open: other processes and other tasks wait. Held for reading and
    /// writing a few files, never during fetching or unpacking.
    fn changing(&self) -> Result<File, ImageError> {
        let lock = self.lock_file(RECORDS)?;
        lock.lock().map_err(|cause| self.cannot_lock(cause))?;
        Ok(lock)
    }

    fn lock_file(&self, name: &str) -> Result<File, ImageError> {
        let opened = std::fs::create_dir_all(&self.records)
            .and_then(|()| File::create(self.records.join(name)));
        opened.map_err(|cause| self.cannot_lock(cause))
    }

    fn cannot_lock(&self, cause: io::Error) -> ImageError {
        ImageError::File {
            attempted: "lock",
            path: self.records.clone(),
            cause,
        }
    }

    /// Removes what interrupted additions and removals left behind; does nothing while an addition is running.
    ///
    /// # Errors
    /// Errors of storage; layers that a root uses stay, which is no error.
    pub async fn sweep(&self) -> Result<(), ImageError> {
        let own = self.clone();
        let Some((_lock, images, unread)) = blocking(move || own.swept()).await? else {
            return Ok(());
        };
        self.engine.sweep_layers().await?;
        if unread.is_some() {
            // The owners of the layers are unknown.
            return Ok(());
        }
        for layer in self.engine.layers().await? {
            let of = |image: &Image| {
                let own = std::slice::from_ref(&layer);
                image.chains.iter().any(|chain| has_layer(own, chain))
            };
            if !images.iter().any(of) {
                match self.engine.remove_layer(&layer).await {
                    Ok(()) => tracing::info!(layer, "removing a layer that belongs to no image"),
                    Err(StorageError::Refused { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Removes temporary files of interrupted additions. Returns the lock that keeps out new ones, with all images; None
    /// while one is running.
    #[expect(clippy::type_complexity, reason = "of one caller")]
    fn swept(&self) -> Result<Option<(File, Vec<Image>, Option<ImageError>)>, ImageError> {
        let Some(lock) = self.alone_with_layers()? else {
            return Ok(None);
        };
        for entry in std::fs::read_dir(&self.records)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_left = name.starts_with(".load-")
                || name.starts_with(pull::SCRATCH) && !pull::is_in_use(&entry.path());
            if is_left {
                // If it cannot be removed now, it is tried again next time.
                let _ = crate::storage::remove_tree(&entry.path());
            }
        }
        let (images, unread) = self.listed()?;
        Ok(Some((lock, images, unread)))
    }

    /// Every image, newest last. One with a damaged record is left out, and does not affect the others.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.listed().map(|(list, _)| list)
    }

    /// Like [`Images::list`], and why there may be more: a record that cannot be read now.
    fn listed(&self) -> Result<(Vec<Image>, Option<ImageError>), ImageError> {
        let wrong = |path: &Path, cause| ImageError::File {
            attempted: "read",
            path: path.to_owned(),
            cause,
        };
        let entries = match std::fs::read_dir(&self.records) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
            other => other.map_err(|error| wrong(&self.records, error))?,
        };
        let (mut list, mut unread): (Vec<Image>, _) = (Vec::new(), None);
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match std::fs::read(&path) {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the record of an image cannot be read");
                    unread = Some(wrong(&path, error));
                }
                Ok(text) => match serde_json::from_slice(&text) {
                    Ok(image) => list.push(image),
                    Err(error) => set_aside(&path, &error),
                },
            }
        }
        list.sort_by(|a, b| (a.loaded, &a.id).cmp(&(b.loaded, &b.id)));
        Ok((list, unread))
    }

    /// The image with this name, digest or id.
    ///
    /// # Errors
    /// [`ImageError::Name`], [`ImageError::File`].
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        Ok(Image::named(&self.list()?, name)?.cloned())
    }

    fn record(&self, image: &Image) -> PathBuf {
        let hex = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        self.records.join(format!("{hex}.json"))
    }

    /// Records an image; its names are removed from other images.
    fn save(&self, mut image: Image) -> Result<Image, ImageError> {
        let _alone = self.changing()?;
        for mut other in self.list()? {
            if other.id == image.id {
                for name in other.names {
                    if !image.names.contains(&name) {
                        image.names.push(name);
                    }
                }
                for digest in other.digests {
                    if !image.digests.contains(&digest) {
                        image.digests.push(digest);
                    }
                }
                image.admit(other.access);
            } else if other.names.iter().any(|name| image.names.contains(name)) {
                other.names.retain(|name| !image.names.contains(name));
                self.write(&other)?;
            }
        }
        self.write(&image)?;
        Ok(image)
    }

    /// Marks an image that was just recorded as pulled. Other changes of its record since then are kept.
    fn came_from_registry(&self, image: Image) -> Result<Image, ImageError> {
        let _alone = self.changing()?;
        let mut list = self.list()?.into_iter();
        match list.find(|known| known.id == image.id) {
            Some(known) => {
                let pulled = true;
                let image = Image { pulled, ..known };
                self.write(&image)?;
                Ok(image)
            }
            // Removed meanwhile.
            None => Err(ImageError::Absent(image.id)),
        }
    }

    /// Writes a record; the caller holds the lock of the records.
    fn write(&self, image: &Image) -> Result<(), ImageError> {
        let path = self.record(image);
        let written = std::fs::create_dir_all(&self.records)
            .and_then(|()| write_whole(&path, &serde_json::to_vec(image)?));
        written.map_err(|cause| ImageError::File {
            attempted: "write",
            path,
            cause,
        })
    }

    /// Deletes an image's record; returns the image, and the layers that other images have.
    fn take_out(&self, name: &str) -> Result<(Image, BTreeSet<String>), ImageError> {
        let _alone = self.changing()?;
        let (others, unread) = self.listed()?;
        if let Some(error) = unread {
            // The unreadable one may have the same layers.
            return Err(error);
        }
        let image = Image::named(&others, name)?.cloned();
        let image = image.ok_or_else(|| ImageError::Absent(name.to_owned()))?;
        let path = self.record(&image);
        // The record first: a crash then leaves only layers without an image, which [`Images::sweep`] removes.
        std::fs::remove_file(&path).map_err(|cause| ImageError::File {
            attempted: "remove",
            path,
            cause,
        })?;
        let others = others.into_iter().filter(|other| other.id != image.id);
        let kept = others.flat_map(|other| other.chains).collect();
        Ok((image, kept))
    }

    /// Keeps out additions while the returned file is open. Does not wait for running ones, because whoever frees disk
    /// space has other means.
    async fn removing(&self) -> Result<File, ImageError> {
        let own = self.clone();
        let lock = blocking(move || own.alone_with_layers()).await?;
        lock.ok_or(ImageError::Adding)
    }

    /// The lock that keeps out additions; None while one is running.
    fn alone_with_layers(&self) -> Result<Option<File>, ImageError> {
        let lock = self.lock()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(self.cannot_lock(cause)),
        }
    }

    /// Removes an image, and the layers that no other image has.
    ///
    /// # Errors
    /// [`ImageError::Absent`], [`ImageError::Adding`] and errors of storage: an image in use by a container is not
    /// removed.
    pub async fn remove(&self, name: &str) -> Result<Image, ImageError> {
        let _alone = self.removing().await?;
        let (own, name) = (self.clone(), name.to_owned());
        let (image, kept) = blocking(move || own.take_out(&name)).await?;
        for chain in image.chains.iter().rev() {
            if kept.contains(chain) {
                continue;
            }
            if let Err(error) = self.engine.remove_layer(chain).await {
                if matches!(error, StorageError::Refused { .. }) {
                    let own = self.clone();
                    blocking(move || own.save(image)).await?;
                }
                return Err(error.into());
            }
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests;
