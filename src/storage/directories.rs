//! Storage in plain directories: a layer is a directory, a root is an overlay of layers that its process mounts.
//!
//! ```text
//! IMAGES/layers/HEX/          a complete layer          IMAGES/layers/.HEX   one being unpacked
//! ZONES/roots/OWNER/NAME/{upper,work}                   ZONES/roots/OWNER/NAME/layers   the list of its layers
//! VOLUMES/NAME/               a volume
//! ZONES/homes/OWNER/          what processes write outside of their roots
//! NOTES/NAME                  a note that a volume was made
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::FutureExt as _;

use super::size::tree_size;
use super::{
    Answer, Capacity, LayerDirectory, StorageEngine, StorageError, StoragePoolConfig, Volume,
    Whiteouts,
};
use crate::blocking::blocking;
use crate::private;
use crate::zone::Root;

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
    /// find is never made again, empty, as when the file system of the volumes is not mounted.
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

/// A digest without its algorithm: short, so that many layers fit in the mount options.
fn hex(chain: &str) -> &str {
    let digits = chain.rsplit(':').next().unwrap_or(chain);
    digits.get(..40).unwrap_or(digits)
}

/// Checks that a name consists of one or more plain components, so that it cannot escape from its directory.
fn plain(operation: &'static str, name: &str) -> Result<(), StorageError> {
    let fine = !name.is_empty()
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    match fine {
        true => Ok(()),
        false => Err(StorageError::Refused {
            operation,
            what: format!("{name:?}"),
            reason: "it is not a plain name".into(),
        }),
    }
}

fn failed(operation: &'static str, what: impl std::fmt::Display, cause: io::Error) -> StorageError {
    StorageError::Failed {
        operation,
        what: what.to_string(),
        cause: cause.to_string(),
    }
}

/// Waits until everything below a directory is on the disk.
fn sync_tree(path: &Path) -> io::Result<()> {
    let directory = fs::File::open(path)?;
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::syncfs(directory)?);
    #[cfg(not(target_os = "linux"))]
    {
        drop(directory);
        rustix::fs::sync();
        Ok(())
    }
}

/// Notes that a volume was made, for good.
fn take_note(note: &Path) -> io::Result<()> {
    if note.exists() {
        return Ok(());
    }
    if let Some(above) = note.parent() {
        fs::create_dir_all(above)?;
    }
    private::write_whole(note, b"")
}

/// Removes a tree; succeeds if it does not exist.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_note(note: &Path) -> io::Result<()> {
    match fs::remove_file(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names in a directory; empty if it does not exist.
///
/// # Errors
/// The directory cannot be read.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A root in `roots` that uses the layer `hex`.
fn user_of(roots: &Path, hex: &str) -> io::Result<Option<String>> {
    for owner in names(roots)? {
        for name in names(&roots.join(&owner))? {
            let list = roots.join(&owner).join(&name).join("layers");
            // A root that is removed at the same time uses nothing.
            let list = fs::read_to_string(list).unwrap_or_default();
            if list.lines().any(|line| line == hex) {
                return Ok(Some(format!("{owner}/{name}")));
            }
        }
    }
    Ok(None)
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
                Some(note) => {
                    take_note(note).map_err(|error| failed("note the volume", note.display(), error))
                }
                None => Ok(()),
            };
            let volume = Volume {
                name,
                path: path.clone(),
                quota,
            };
            if path.is_dir() {
                noted()?;
                return Ok(volume);
            }
            if let Some(note) = note.as_ref().filter(|note| note.exists()) {
                return Err(StorageError::Refused {
                    operation: "use the volume",
                    what: path.display().to_string(),
                    reason: format!(
                        "it was made earlier and is gone: mount the file system that has it, or remove {} to begin with an empty one",
                        note.display()
                    ),
                });
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
            remove_tree(&path)
                .and_then(|()| note.map_or(Ok(()), |note| remove_note(&note)))
                .map_err(|error| failed("remove the volume", path.display(), error))
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn layers_roots_and_volumes_are_made_once_and_removed_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = directory.path().display().to_string();
        let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a pool");
        let engine = Directories::new(&config);
        engine.prepare().await.expect("prepared");
        engine.prepare().await.expect("prepared again");
        let chain =
            "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned();
        assert!(
            engine
                .make_root("u/web-0", std::slice::from_ref(&chain))
                .await
                .is_err()
        );
        let layer = engine.begin_layer(None, &chain).await.expect("begun");
        fs::write(layer.path.join("half"), "x").expect("written");
        assert!(
            engine.layers().await.expect("read").is_empty(),
            "not sealed"
        );
        let layer = engine.begin_layer(None, &chain).await.expect("begun anew");
        assert!(!layer.path.join("half").exists());
        let other = "sha256:ff".to_owned();
        let killed = engine.begin_layer(None, &other).await.expect("begun");
        fs::write(killed.path.join("half"), "x").expect("written");
        engine.seal_layer(&chain).await.expect("sealed");
        engine.seal_layer(&chain).await.expect("sealed again");
        assert_eq!(engine.layers().await.expect("read"), [hex(&chain)]);
        engine.sweep_layers().await.expect("swept");
        assert!(!killed.path.exists(), "never finished");
        assert_eq!(engine.layers().await.expect("read"), [hex(&chain)]);
        for _ in 0..2 {
            engine
                .make_root("u/web-0", std::slice::from_ref(&chain))
                .await
                .expect("a root");
        }
        let error = engine.remove_layer(&chain).await.expect_err("in use");
        assert!(error.to_string().contains("u/web-0"), "{error}");
        assert_eq!(engine.layers().await.expect("read").len(), 1);
        for name in ["../x", "", "a//b", "a/.."] {
            assert!(engine.make_root(name, &[]).await.is_err(), "{name:?}");
            assert!(engine.remove_root(name).await.is_err(), "{name:?}");
        }
        assert_eq!(engine.roots().await.expect("read"), ["u/web-0"]);
        engine.remove_root("u/web-0").await.expect("removed");
        engine.remove_root("u/web-0").await.expect("removed again");
        assert!(engine.roots().await.expect("read").is_empty());
        engine.remove_layer(&chain).await.expect("used no more");
        assert!(engine.layers().await.expect("read").is_empty());
        let volume = engine
            .make_volume("pv1", Some(1), None)
            .await
            .expect("a volume");
        fs::write(volume.path.join("data"), "x").expect("written");
        let left = directory.path().join("volumes/.pv2");
        fs::create_dir_all(&left).expect("left by a copy that was killed");
        let copy = engine
            .make_volume("pv2", None, Some("pv1"))
            .await
            .expect("a copy");
        assert_eq!(
            fs::read_to_string(copy.path.join("data")).expect("there"),
            "x"
        );
        engine.remove_volume("pv1").await.expect("removed");
        assert_eq!(engine.volumes().await.expect("read").len(), 1);
        assert!(engine.capacity().await.expect("measured").total > 0);
    }

    #[tokio::test]
    async fn a_volume_that_is_gone_is_not_made_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let pool = directory.path().join("pool").display().to_string();
        let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a pool");
        let engine = Directories::new(&config).with_notes(directory.path().join("notes"));
        let make = async || engine.make_volume("pv1", None, None).await;
        let volume = make().await.expect("made");
        make().await.expect("there");
        // Stands for a disk that was not mounted after a boot.
        let aside = directory.path().join("unmounted");
        fs::rename(&volume.path, &aside).expect("moved");
        let error = make().await.expect_err("gone").to_string();
        assert!(error.contains("mount the file system"), "{error}");
        assert!(!volume.path.exists());
        fs::rename(&aside, &volume.path).expect("moved");
        make().await.expect("there again");
        engine.remove_volume("pv1").await.expect("removed");
        engine.remove_volume("pv1").await.expect("removed already");
        make().await.expect("another volume of the name");
        // Volumes of an earlier version have no notes yet.
        fs::remove_file(directory.path().join("notes/pv1")).expect("removed");
        make().await.expect("there");
        assert!(directory.path().join("notes/pv1").exists());
    }
}
