//! Storage in plain directories: a layer is a directory, a root is an overlay of layers that its process mounts.
//!
//! ```text
//! IMAGES/layers/HEX/          a complete layer          IMAGES/layers/.HEX   one being unpacked
//! ZONES/roots/OWNER/NAME/{upper,work}                   ZONES/roots/OWNER/NAME/layers   the list of its layers
//! VOLUMES/NAME/               a volume
//! ZONES/homes/OWNER/          what processes write outside of their roots
//! NOTES/NAME                  a note that a volume was made, or that it is being removed
//! ```

mod files;

use std::path::{Path, PathBuf};
use std::{fs, io};

use futures::FutureExt as _;

use self::files::{
    Noted, failed, finish_removal, hex, missing, note_removal, plain, read_note, sync_tree,
    take_note, user_of,
};
use super::size::tree_size;
use super::{
    Answer, Capacity, LayerDirectory, StorageEngine, StorageError, StoragePoolConfig, Volume,
    Whiteouts,
};
use crate::blocking::blocking;
use crate::private;
use crate::zone::Root;

pub use self::files::names;
pub(crate) use self::files::remove_tree;

/// The storage engine for plain directories.
pub struct Directories {
    zones: PathBuf,
    images: PathBuf,
    volumes: PathBuf,
    notes: Option<PathBuf>,
}

impl Directories {
    /// An engine in the directories of `config`, which [`StorageEngine::prepare`] creates.
    pub fn new(config: &StoragePoolConfig) -> Self {
        let [zones, images, volumes] = config.directories();
        Directories {
            zones,
            images,
            volumes,
            notes: None,
        }
    }

    /// The same engine, which notes in the directory `notes` which volumes it made: a volume that it noted and does not
    /// find is never made again, empty, and never counts as removed, as when the file system of the volumes is not
    /// mounted.
    pub fn with_notes(self, notes: PathBuf) -> Self {
        let notes = Some(notes);
        Directories { notes, ..self }
    }

    fn note(&self, volume: &str) -> Option<PathBuf> {
        self.notes.as_ref().map(|notes| notes.join(volume))
    }

    fn layer(&self, chain: &str) -> PathBuf {
        self.images.join("layers").join(hex(chain))
    }
    fn unfinished(&self, chain: &str) -> PathBuf {
        self.images.join("layers").join(format!(".{}", hex(chain)))
    }
    fn root(&self, name: &str) -> PathBuf {
        self.zones.join("roots").join(name)
    }
    fn home(&self, owner: &str) -> PathBuf {
        self.zones.join("homes").join(owner)
    }
    fn volume(&self, name: &str) -> PathBuf {
        self.volumes.join(name)
    }
}

impl StorageEngine for Directories {
    fn prepare(&self) -> Answer<'_, ()> {
        // Images contain setuid programs and devices open to anyone: other users of this host must not reach them,
        // nor the data of pods.
        let wanted = [
            self.zones.clone(),
            self.zones.join("roots"),
            self.images.clone(),
            self.images.join("layers"),
            self.volumes.clone(),
        ];
        blocking(move || {
            for path in wanted {
                private::directory(&path)
                    .map_err(|error| failed("make the directory", path.display(), error))?;
            }
            Ok(())
        })
        .boxed()
    }

    fn layers(&self) -> Answer<'_, Vec<String>> {
        let directory = self.images.join("layers");
        blocking(move || {
            let mut found =
                names(&directory).map_err(|error| failed("read", directory.display(), error))?;
            found.retain(|name| !name.starts_with('.'));
            found.sort();
            Ok(found)
        })
        .boxed()
    }

    fn sweep_layers(&self) -> Answer<'_, ()> {
        let directory = self.images.join("layers");
        blocking(move || {
            let found =
                names(&directory).map_err(|error| failed("read", directory.display(), error))?;
            for name in found.iter().filter(|name| name.starts_with('.')) {
                let left = directory.join(name);
                tracing::info!(path = %left.display(), "removing an unfinished layer");
                remove_tree(&left).map_err(|error| {
                    failed("remove the unfinished layer", left.display(), error)
                })?;
            }
            Ok(())
        })
        .boxed()
    }

    fn begin_layer<'a>(
        &'a self,
        _parent: Option<&'a str>,
        chain: &'a str,
    ) -> Answer<'a, LayerDirectory> {
        let path = self.unfinished(chain);
        let checked = plain("unpack", hex(chain));
        blocking(move || {
            checked?;
            remove_tree(&path)
                .and_then(|()| fs::create_dir(&path))
                .map_err(|error| failed("make the layer", path.display(), error))?;
            Ok(LayerDirectory {
                path,
                whiteouts: Whiteouts::Overlay,
            })
        })
        .boxed()
    }

    fn seal_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()> {
        let (from, to) = (self.unfinished(chain), self.layer(chain));
        blocking(move || {
            if to.exists() {
                return Ok(());
            }
            // A complete layer is never looked at again: it must be complete also after a power cut.
            sync_tree(&from)
                .and_then(|()| fs::rename(&from, &to))
                .and_then(|()| match to.parent() {
                    Some(above) => fs::File::open(above)?.sync_all(),
                    None => Ok(()),
                })
                .map_err(|error| failed("complete the layer", to.display(), error))
        })
        .boxed()
    }

    fn remove_layer<'a>(&'a self, chain: &'a str) -> Answer<'a, ()> {
        let (from, doomed) = (self.layer(chain), self.unfinished(chain));
        let roots = self.zones.join("roots");
        let own = hex(chain).to_owned();
        blocking(move || {
            let user =
                user_of(&roots, &own).map_err(|error| failed("read", roots.display(), error))?;
            if let Some(user) = user {
                return Err(StorageError::Refused {
                    operation: "remove the layer",
                    what: own,
                    reason: format!("{user} is made of it; delete its pod first"),
                });
            }
            // Renamed first, so that a partly removed layer is never taken for a complete one.
            match fs::rename(&from, &doomed) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove the layer", from.display(), error));
                }
                _ => {}
            }
            remove_tree(&doomed).map_err(|error| failed("remove the layer", from.display(), error))
        })
        .boxed()
    }

    fn make_home<'a>(&'a self, owner: &'a str, _: Option<u64>) -> Answer<'a, PathBuf> {
        let home = self.home(owner);
        let checked = plain("make the home", owner);
        blocking(move || {
            checked?;
            fs::create_dir_all(&home)
                .map_err(|error| failed("make the home", home.display(), error))?;
            Ok(home)
        })
        .boxed()
    }

    fn remove_home<'a>(&'a self, owner: &'a str) -> Answer<'a, ()> {
        let (home, roots) = (self.home(owner), self.root(owner));
        let checked = plain("remove the home", owner);
        blocking(move || {
            checked?;
            for path in [roots, home] {
                remove_tree(&path)
                    .map_err(|error| failed("remove the home", path.display(), error))?;
            }
            Ok(())
        })
        .boxed()
    }

    fn homes(&self) -> Answer<'_, Vec<String>> {
        let directory = self.zones.join("homes");
        blocking(move || {
            names(&directory).map_err(|error| failed("read", directory.display(), error))
        })
        .boxed()
    }

    fn make_root<'a>(&'a self, name: &'a str, chains: &'a [String]) -> Answer<'a, Root> {
        let root = self.root(name);
        let checked = plain("make the root", name);
        let lower: Vec<PathBuf> = chains.iter().rev().map(|chain| self.layer(chain)).collect();
        blocking(move || {
            checked?;
            if let Some(missing) = lower.iter().find(|path| !path.is_dir()) {
                return Err(StorageError::NotFound {
                    operation: "make a root of the layer",
                    what: missing.display().to_string(),
                });
            }
            let (upper, work) = (root.join("upper"), root.join("work"));
            let mut list = String::new();
            for path in &lower {
                list.extend(path.file_name().and_then(|name| name.to_str()));
                list.push('\n');
            }
            // Written first, so that a layer is kept as long as any part of the root exists.
            fs::create_dir_all(&root)
                .and_then(|()| fs::write(root.join("layers"), list))
                .map_err(|error| failed("make the root", root.display(), error))?;
            for path in [&upper, &work] {
                fs::create_dir_all(path)
                    .map_err(|error| failed("make the root", path.display(), error))?;
            }
            Ok(Root::Overlay { lower, upper, work })
        })
        .boxed()
    }

    fn remove_root<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        let root = self.root(name);
        let checked = plain("remove the root", name);
        blocking(move || {
            checked?;
            remove_tree(&root).map_err(|error| failed("remove the root", root.display(), error))?;
            if let Some(owner) = root.parent()
                && owner.file_name().is_some_and(|part| part != "roots")
            {
                // Removes the owner's directory with its last root.
                let _ = fs::remove_dir(owner);
            }
            Ok(())
        })
        .boxed()
    }

    fn roots(&self) -> Answer<'_, Vec<String>> {
        let directory = self.zones.join("roots");
        blocking(move || {
            let mut found = Vec::new();
            let read =
                |path: &Path| names(path).map_err(|error| failed("read", path.display(), error));
            for owner in read(&directory)? {
                for name in read(&directory.join(&owner))? {
                    found.push(format!("{owner}/{name}"));
                }
            }
            found.sort();
            Ok(found)
        })
        .boxed()
    }

    fn root_usage<'a>(&'a self, name: &'a str) -> Answer<'a, u64> {
        let root = self.root(name).join("upper");
        blocking(move || Ok(tree_size(&root))).boxed()
    }

    fn make_volume<'a>(
        &'a self,
        name: &'a str,
        quota: Option<u64>,
        source: Option<&'a str>,
    ) -> Answer<'a, Volume> {
        let path = self.volume(name);
        let checked = plain("make the volume", name);
        let copied = source.map(|source| self.volume(source));
        let (name, note) = (name.to_owned(), self.note(name));
        blocking(move || {
            checked?;
            let noted = || match &note {
                Some(note) => take_note(note, &path)
                    .map_err(|error| failed("note the volume", note.display(), error)),
                None => Ok(()),
            };
            let known = match &note {
                Some(note) => read_note(note)
                    .map_err(|error| failed("read the note", note.display(), error))?,
                None => Noted::Nothing,
            };
            if let Some(note) = note.as_ref().filter(|_| known == Noted::Removing) {
                // The one that is made is another one, and gets nothing of what is left of it.
                finish_removal(&path, note)
                    .map_err(|error| failed("remove the volume", path.display(), error))?;
            }
            let volume = Volume {
                name,
                path: path.clone(),
                quota,
            };
            if path.is_dir() {
                noted()?;
                return Ok(volume);
            }
            if let Some(note) = note.as_ref().filter(|_| known == Noted::Made) {
                let otherwise = "to begin with an empty one";
                return Err(missing("use the volume", &path, note, otherwise));
            }
            match copied {
                None => fs::create_dir_all(&path)
                    .map_err(|error| failed("make the volume", path.display(), error))?,
                Some(source) => {
                    // A copy appears complete or not at all.
                    let partial = path.with_file_name(format!(".{}", volume.name));
                    // If a killed agent left this directory, cp would copy the source into it, not its content.
                    remove_tree(&partial)
                        .map_err(|error| failed("make the volume", path.display(), error))?;
                    let done = std::process::Command::new("cp")
                        .args(["-a", "--reflink=auto", "--"])
                        .arg(&source)
                        .arg(&partial)
                        .output()
                        .map_err(|error| failed("copy the volume", source.display(), error))?;
                    if !done.status.success() {
                        let _ = remove_tree(&partial);
                        return Err(StorageError::Failed {
                            operation: "copy the volume",
                            what: source.display().to_string(),
                            cause: String::from_utf8_lossy(&done.stderr).trim().to_owned(),
                        });
                    }
                    fs::rename(&partial, &path)
                        .map_err(|error| failed("make the volume", path.display(), error))?;
                }
            }
            noted()?;
            Ok(volume)
        })
        .boxed()
    }

    fn delegate_volume<'a>(&'a self, name: &'a str, _: Option<u64>) -> Answer<'a, String> {
        let what = self.volume(name).display().to_string();
        let refused = StorageError::Refused {
            operation: "delegate the volume",
            what,
            reason: "it is a directory, and only datasets are delegated".into(),
        };
        std::future::ready(Err(refused)).boxed()
    }

    fn resize_volume<'a>(&'a self, name: &'a str, quota: u64) -> Answer<'a, Volume> {
        let path = self.volume(name);
        let name = name.to_owned();
        blocking(move || match path.is_dir() {
            true => Ok(Volume {
                name,
                path,
                quota: Some(quota),
            }),
            false => Err(StorageError::NotFound {
                operation: "resize the volume",
                what: name,
            }),
        })
        .boxed()
    }

    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        let (path, note) = (self.volume(name), self.note(name));
        let checked = plain("remove the volume", name);
        blocking(move || {
            checked?;
            let broke = |error| failed("remove the volume", path.display(), error);
            let Some(note) = note else {
                return remove_tree(&path).map_err(broke);
            };
            match read_note(&note).map_err(broke)? {
                Noted::Made if !path.exists() => {
                    let otherwise = "if its data is gone for good";
                    return Err(missing("remove the volume", &path, &note, otherwise));
                }
                // A crash must not leave a note of a volume that was removed.
                Noted::Made => note_removal(&note).map_err(broke)?,
                Noted::Nothing | Noted::Removing => {}
            }
            finish_removal(&path, &note).map_err(broke)
        })
        .boxed()
    }

    fn volumes(&self) -> Answer<'_, Vec<Volume>> {
        let directory = self.volumes.clone();
        blocking(move || {
            let mut found =
                names(&directory).map_err(|error| failed("read", directory.display(), error))?;
            found.retain(|name| !name.starts_with('.'));
            found.sort();
            Ok(found
                .into_iter()
                .map(|name| Volume {
                    path: directory.join(&name),
                    name,
                    quota: None,
                })
                .collect())
        })
        .boxed()
    }

    fn capacity(&self) -> Answer<'_, Capacity> {
        let path = self.zones.clone();
        blocking(move || {
            let found = rustix::fs::statvfs(&path)
                .map_err(|error| failed("measure", path.display(), error.into()))?;
            Ok(Capacity {
                total: found.f_blocks * found.f_frsize,
                available: found.f_bavail * found.f_frsize,
                inodes: (found.f_files, found.f_favail),
            })
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests;
