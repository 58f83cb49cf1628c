//! The files of a host, below its root directory.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A change on disk. It can be repeated after it was done in part: the state that it belongs to is written before it,
/// and again after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskOp {
    /// Creates the empty file tree of a dataset.
    Fresh {
        /// Its id.
        id: u64,
    },
    /// Copies the files of a dataset or snapshot.
    Copy {
        /// The source.
        from: Files,
        /// The id of the copy.
        to: u64,
        /// Directories in the global zone that belong to other datasets.
        except: Vec<String>,
    },
    /// Removes the files of a dataset that is not mounted, or of a snapshot.
    Discard {
        /// Its id.
        id: u64,
    },
    /// Mounts the files of a dataset at a directory.
    Mount {
        /// Its id.
        id: u64,
        /// The directory in the global zone.
        at: String,
    },
    /// Unmounts them; an empty directory stays.
    Unmount {
        /// Its id.
        id: u64,
        /// The directory in the global zone.
        at: String,
    },
    /// Creates a directory and its parents.
    Directory {
        /// The directory in the global zone.
        at: String,
        /// Its mode.
        mode: u32,
    },
    /// Removes a directory if it is empty.
    RemoveDirectory {
        /// The directory in the global zone.
        at: String,
    },
    /// Removes a directory recursively.
    RemoveTree {
        /// The directory in the global zone.
        at: String,
    },
    /// Writes a file anew. A symbolic link of its name is replaced.
    File {
        /// The file in the global zone.
        at: String,
        /// Its content.
        text: String,
    },
    /// Sets the mode of a file.
    Mode {
        /// The file in the global zone.
        at: String,
        /// Its mode.
        mode: u32,
    },
}

/// The location of the files of a dataset or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// Mounted at a directory in the global zone.
    At(String),
    /// In the data directory, under an id.
    Of(u64),
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// The directory of a host.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The host in `root`.
    pub fn new(root: &Path) -> Self {
        Disk {
            root: root.to_owned(),
        }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The real path of a path in the global zone. A path that is already in the host's directory stays unchanged.
    pub fn real(&self, path: &str) -> PathBuf {
        if Path::new(path).starts_with(&self.root) {
            return PathBuf::from(path);
        }
        self.root.join(path.trim_start_matches('/'))
    }

    /// The real path of files.
    pub fn files(&self, files: &Files) -> PathBuf {
        match files {
            Files::At(path) => self.real(path),
            Files::Of(id) => self.data(*id),
        }
    }

    fn data(&self, id: u64) -> PathBuf {
        self.root.join("var/fakehost/data").join(id.to_string())
    }

    /// The type of the file at a path in the global zone; links are not followed.
    pub fn kind(&self, path: &str) -> Option<Kind> {
        kind(&self.real(path))
    }

    /// The type of the file at a path below the files of a dataset.
    pub fn kind_in(&self, files: &Files, path: &str) -> Option<Kind> {
        kind(&self.files(files).join(path))
    }

    /// Whether a path in the global zone exists, following links.
    pub fn exists(&self, path: &str) -> bool {
        self.real(path).exists()
    }

    /// The mode bits of a path in the global zone.
    pub fn mode(&self, path: &str) -> Option<u32> {
        fs::symlink_metadata(self.real(path))
            .ok()
            .map(|m| m.mode() & 0o7777)
    }

    /// Whether a directory below the files of a dataset is empty; a missing one counts as empty.
    pub fn is_empty_in(&self, files: &Files, path: &str) -> bool {
        let entries = fs::read_dir(self.files(files).join(path));
        entries.map_or(true, |mut entries| entries.next().is_none())
    }

    /// The total size of files in bytes, without directories of other datasets.
    pub fn bytes(&self, files: &Files, except: &[String]) -> u64 {
        let except: Vec<PathBuf> = except.iter().map(|p| self.real(p)).collect();
        let (mut sum, mut left) = (0, vec![self.files(files)]);
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if !meta.is_dir() {
                    sum += meta.len();
                } else if !except.contains(&entry.path()) {
                    left.push(entry.path());
                }
            }
        }
        sum
    }

    /// Applies a change.
    pub fn apply(&self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Fresh { id } => fs::create_dir_all(self.data(*id)),
            DiskOp::Copy { from, to, except } => {
                let (whole, partial) = (self.data(*to), self.data(*to).with_extension("new"));
                if whole.exists() {
                    return Ok(());
                }
                remove_tree(&partial)?;
                let except: Vec<PathBuf> = except.iter().map(|p| self.real(p)).collect();
                copy_tree(&self.files(from), &partial, &except)?;
                fs::rename(partial, whole)
            }
            DiskOp::Discard { id } => remove_tree(&self.data(*id)),
            DiskOp::Mount { id, at } => {
                let (data, at) = (self.data(*id), self.real(at));
                if data.exists() {
                    fs::create_dir_all(&at)?;
                    fs::rename(data, at)?;
                }
                Ok(())
            }
            DiskOp::Unmount { id, at } => {
                let (data, at) = (self.data(*id), self.real(at));
                if !data.exists() {
                    fs::rename(&at, data)?;
                }
                fs::create_dir_all(at)
            }
            DiskOp::Directory { at, mode } => {
                let at = self.real(at);
                if at.is_dir() {
                    return Ok(());
                }
                fs::create_dir_all(&at)?;
                fs::set_permissions(at, fs::Permissions::from_mode(*mode))
            }
            DiskOp::RemoveDirectory { at } => {
                let _ = fs::remove_dir(self.real(at));
                Ok(())
            }
            DiskOp::RemoveTree { at } => remove_tree(&self.real(at)),
            DiskOp::File { at, text } => {
                let path = self.real(at);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => fs::write(path, text),
                }
            }
            DiskOp::Mode { at, mode } => {
                fs::set_permissions(self.real(at), fs::Permissions::from_mode(*mode))
            }
        }
    }
}

fn kind(path: &Path) -> Option<Kind> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    Some(if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink
    } else if kind.is_file() {
        Kind::File
    } else {
        Kind::Other
    })
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a directory with modes, owners (if permitted) and links; sockets and devices are left out.
fn copy_tree(from: &Path, to: &Path, except: &[PathBuf]) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            if except.contains(&source) {
                fs::create_dir(&target)?;
            } else {
                copy_tree(&source, &target, except)?;
            }
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        } else {
            continue;
        }
        own(&source, &target);
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    own(from, to);
    Ok(())
}

/// Sets the owner of a copy to that of its original; without the privilege it stays the caller's.
fn own(from: &Path, to: &Path) {
    if let Ok(meta) = fs::symlink_metadata(from) {
        let _ = std::os::unix::fs::lchown(to, Some(meta.uid()), Some(meta.gid()));
    }
}
