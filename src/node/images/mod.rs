//! Images on this host: what is known of each, and its layers in the storage engine.
//!
//! A record a file, written whole: the command line and a running agent see the same images without talking.

mod keyring;
mod load;
mod pull;
mod reference;
mod unpack;
mod zstd;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::blocking::{Broke, blocking};
use crate::private::write_whole;
use crate::storage::{StorageEngine, StorageError};

pub use keyring::{Access, Credentials, Holder, Keyring};
pub use pull::Registries;
pub use reference::Reference;

/// What an image says about running it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// Who, as `USER[:GROUP]`.
    pub user: String,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// The program.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    pub cmd: Option<Vec<String>>,
    /// Where.
    pub working_dir: String,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// `docker.io/library/busybox:latest`, ...
    pub names: Vec<String>,
    /// `docker.io/library/busybox@sha256:...`, ...
    pub digests: Vec<String>,
    /// How to run it.
    pub config: RunConfig,
    /// Its layers, lowest first.
    pub chains: Vec<String>,
    /// Bytes that its layers take.
    pub size: u64,
    /// When it came.
    pub loaded: Timestamp,
    /// It came from its registry, and can be asked for there again; else it was loaded by hand.
    #[serde(default)]
    pub pulled: bool,
    /// Who may use it, by the repositories that it was pulled from for pods. None where that is not judged: it was here
    /// before, or was fetched by hand.
    #[serde(default)]
    pub access: Option<BTreeMap<String, Access>>,
}

impl Image {
    /// The one of `list` with this name, digest or id.
    ///
    /// # Errors
    /// [`ImageError::Name`]
    pub fn named<'i>(list: &'i [Image], name: &str) -> Result<Option<&'i Image>, ImageError> {
        let by_id = |image: &&Image| {
            image.id == name
                || image
                    .id
                    .strip_prefix("sha256:")
                    .is_some_and(|id| name.len() >= 12 && id.starts_with(name))
        };
        match Reference::parse(name) {
            Ok(reference) => {
                let full = reference.to_string();
                let digest = reference.by_digest();
                let named = list.iter().find(|image| match &digest {
                    Some(digest) => image.digests.contains(digest),
                    None => image.names.contains(&full),
                });
                Ok(named.or_else(|| list.iter().find(by_id)))
            }
            Err(error) => list.iter().find(by_id).map(Some).ok_or(error),
        }
    }

    /// What containers that run it are labelled with, [`IMAGE_ID`](super::machine::IMAGE_ID).
    pub fn label(&self) -> &str {
        self.digests.first().unwrap_or(&self.id)
    }

    /// Whether a pod that has these credentials for a repository may use it as an image of that.
    pub fn admits(&self, repository: &str, credentials: &[&Credentials]) -> bool {
        let Some(access) = self.access.as_ref().filter(|_| self.pulled) else {
            return true;
        };
        let access = access.get(repository);
        access.is_some_and(|access| access.admits(credentials))
    }

    /// Admits whom another record of it admits, too.
    fn admit(&mut self, others: Option<BTreeMap<String, Access>>) {
        for (repository, access) in others.into_iter().flatten() {
            let own = self.access.get_or_insert_default().entry(repository);
            match own {
                Entry::Vacant(own) => drop(own.insert(access)),
                Entry::Occupied(mut own) => own.get_mut().extend(access),
            }
        }
    }

    /// Whether this is what a container with such a label runs.
    pub fn has_label(&self, label: &str) -> bool {
        self.id == label || self.digests.iter().any(|digest| digest == label)
    }
}

/// Why something cannot be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that is none.
    #[error("couldn't parse image name {name:?}: invalid reference format")]
    Name {
        /// As given.
        name: String,
    },
    /// It is not here.
    #[error("image {0} is not on this host")]
    Absent(String),
    /// Its content is not what it says.
    #[error("the image is not sound: {0}")]
    Content(String),
    /// The registry does not give it.
    #[error("{0}")]
    Registry(String),
    /// The storage engine failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file could not be used.
    #[error("cannot {attempted} {}: {cause}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl From<Broke> for ImageError {
    fn from(broke: Broke) -> Self {
        ImageError::Content(broke.to_string())
    }
}

/// What is fetched or unpacked at the moment: a second one waits, and finds it there.
type Busy = Arc<parking_lot::Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// The images of a host. Clones are the same.
#[derive(Clone)]
pub struct Images {
    records: PathBuf,
    engine: Arc<dyn StorageEngine>,
    busy: Busy,
}

/// Whose lock is held, shared, while layers are there that no image has yet.
const ADDITIONS: &str = ".lock";
/// Whose lock is held while records are changed by what they were.
const RECORDS: &str = ".records.lock";

/// Whether a layer is among those that an engine has, which may call it by the beginning of its digest.
fn has_layer(known: &[String], chain: &str) -> bool {
    let digits = chain.rsplit(':').next().unwrap_or(chain);
    known.iter().any(|known| digits.starts_with(known.as_str()))
}

/// Takes a damaged record out of the way, so that it is complained of once; what is in it may help somebody.
fn set_aside(path: &Path, damage: &serde_json::Error) {
    let aside = path.with_extension("damaged");
    let moved = std::fs::rename(path, &aside);
    tracing::warn!(
        path = %path.display(), %damage, moved = ?moved.map(|()| aside),
        "the record of an image is damaged; it has to be pulled or loaded again"
    );
}

impl Images {
    /// The images recorded in `directory` whose layers are in `engine`.
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

    /// Says to other processes, while the file is open, that layers are here that no image has yet. Waits for one that
    /// removes such.
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

    /// Has records to itself while the file is open: other processes, and other tasks of this one, wait. Held for a few
    /// files' reading and writing, never while something is fetched or unpacked.
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

    /// Removes what was left by an addition or removal that did not come to its end; nothing while one is under way.
    ///
    /// # Errors
    /// What storage says; layers that a root uses stay without one.
    pub async fn sweep(&self) -> Result<(), ImageError> {
        let lock = self.lock()?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(()),
            Err(std::fs::TryLockError::Error(cause)) => return Err(self.cannot_lock(cause)),
        }
        for entry in std::fs::read_dir(&self.records)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".pull-") || name.starts_with(".load-") {
                // What cannot be removed now is tried again the next time.
                let _ = crate::storage::remove_tree(&entry.path());
            }
        }
        let (images, unread) = self.listed()?;
        if unread.is_some() {
            // Whose the layers are is not known.
            return Ok(());
        }
        for layer in self.engine.layers().await? {
            let of = |image: &Image| {
                let own = std::slice::from_ref(&layer);
                image.chains.iter().any(|chain| has_layer(own, chain))
            };
            if !images.iter().any(of) {
                match self.engine.remove_layer(&layer).await {
                    Ok(()) => tracing::info!(layer, "a layer of no image is removed"),
                    Err(StorageError::Refused { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Every image, newest last. One whose record is damaged is none: it keeps no other from being used.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.listed().map(|(list, _)| list)
    }

    /// As [`Images::list`], and why there may be more: a record that the system does not give now.
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

    /// The image of this name, digest or id.
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

    /// Records an image; names that it takes are taken from others.
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

    /// Notes that an image that was just recorded came from its registry. What others made of its record since stays.
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

    /// Writes a record; whoever does has the records to itself.
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

    /// Takes an image's record away; the image, and the layers that others have.
    fn take_out(&self, name: &str) -> Result<(Image, BTreeSet<String>), ImageError> {
        let _alone = self.changing()?;
        let (others, unread) = self.listed()?;
        if let Some(error) = unread {
            // It may have the same layers.
            return Err(error);
        }
        let image = Image::named(&others, name)?.cloned();
        let image = image.ok_or_else(|| ImageError::Absent(name.to_owned()))?;
        let path = self.record(&image);
        // The record first: what a crash leaves are layers of no image, which are swept.
        std::fs::remove_file(&path).map_err(|cause| ImageError::File {
            attempted: "remove",
            path,
            cause,
        })?;
        let others = others.into_iter().filter(|other| other.id != image.id);
        let kept = others.flat_map(|other| other.chains).collect();
        Ok((image, kept))
    }

    /// Removes an image and the layers that no other has.
    ///
    /// # Errors
    /// [`ImageError::Absent`] and what storage says: an image that a container runs is refused and stays.
    pub async fn remove(&self, name: &str) -> Result<Image, ImageError> {
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
mod tests {
    use super::*;

    fn image(id: &str, names: &[&str]) -> Image {
        Image {
            id: id.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            digests: Vec::new(),
            config: RunConfig::default(),
            chains: Vec::new(),
            size: 1,
            loaded: Timestamp::UNIX_EPOCH,
            pulled: false,
            access: None,
        }
    }

    fn images_in(directory: &Path) -> Images {
        let pool = directory.to_str().expect("text");
        let config = crate::storage::StoragePoolConfig::derive(pool, None, None, None);
        let engine = crate::storage::Directories::new(&config.expect("sound"));
        Images::new(&directory.join("records"), Arc::new(engine))
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let images = images_in(directory.path());
        images.save(image("sha256:aa", &["a"])).expect("recorded");
        let damaged = images.records.join("bb.json");
        std::fs::write(&damaged, "").expect("written");
        // As a file that the system refuses to read.
        std::fs::create_dir(images.records.join("cc.json")).expect("made");
        for _ in 0..2 {
            let ids: Vec<_> = images
                .list()
                .expect("read")
                .into_iter()
                .map(|one| one.id)
                .collect();
            assert_eq!(ids, ["sha256:aa"]);
        }
        assert!(!damaged.exists() && damaged.with_extension("damaged").exists());
        let refused = images
            .take_out("sha256:aa")
            .err()
            .map(|error| error.to_string());
        let refused = refused.expect("cc may have its layers");
        assert!(refused.contains("cc.json"), "{refused}");
    }

    #[test]
    fn an_image_that_was_pulled_with_a_secret_is_not_for_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let images = images_in(directory.path());
        let holder = |name: &str| Holder {
            name: name.into(),
            hash: name.into(),
            ..Holder::default()
        };
        let own = |name: &str| Credentials {
            user: String::new(),
            password: String::new(),
            holder: holder(name),
        };
        let fetched = |access: Option<Access>| {
            let access = access.map(|access| BTreeMap::from([("r/a".to_owned(), access)]));
            let image = image("sha256:aa", &["r/a:1"]);
            let saved = images.save(Image { access, ..image }).expect("recorded");
            images.came_from_registry(saved).expect("recorded")
        };
        let by_hand = fetched(None);
        assert!(by_hand.admits("r/a", &[]));
        let with_one = fetched(Some(Access::Holders(vec![holder("one")])));
        assert!(with_one.admits("r/a", &[&own("one")]));
        assert!(!with_one.admits("r/a", &[&own("two")]) && !with_one.admits("r/a", &[]));
        assert!(
            !with_one.admits("r/b", &[&own("one")]),
            "another repository"
        );
        let with_both = fetched(Some(Access::Holders(vec![holder("two")])));
        assert!(with_both.admits("r/a", &[&own("one")]) && with_both.admits("r/a", &[&own("two")]));
        assert!(fetched(Some(Access::Anyone)).admits("r/a", &[]));
    }

    #[test]
    fn what_several_record_at_once_is_all_recorded() {
        let directory = tempfile::tempdir().expect("a directory");
        const WRITERS: usize = 8;
        for round in 0..20 {
            let barrier = std::sync::Barrier::new(WRITERS);
            std::thread::scope(|scope| {
                for writer in 0..WRITERS {
                    // Each as another process has them: nothing is shared but the files.
                    let images = images_in(directory.path());
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let own = format!("own-{round}-{writer}");
                        barrier.wait();
                        let saved = images.save(image("sha256:a", &[&own]));
                        saved.and_then(|image| images.came_from_registry(image))
                    });
                }
            });
        }
        let images = images_in(directory.path());
        let list = images.list().expect("read");
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].names.len(), 20 * WRITERS, "{:?}", list[0].names);
        // A name has one image.
        images
            .save(image("sha256:b", &["own-0-0"]))
            .expect("recorded");
        assert_eq!(
            images.list().expect("read")[0].names.len(),
            20 * WRITERS - 1
        );
    }
}
