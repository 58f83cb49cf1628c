//! What is done with directories and the notes beside them.

use std::path::Path;
use std::{fs, io};

use super::super::StorageError;
use crate::private;

/// A digest without its algorithm: short, so that many layers fit in the mount options.
pub(super) fn hex(chain: &str) -> &str {
    let digits = chain.rsplit(':').next().unwrap_or(chain);
    digits.get(..40).unwrap_or(digits)
}

/// Checks that a name consists of one or more plain components, so that it cannot escape from its directory.
pub(super) fn plain(operation: &'static str, name: &str) -> Result<(), StorageError> {
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

pub(super) fn failed(
    operation: &'static str,
    what: impl std::fmt::Display,
    cause: io::Error,
) -> StorageError {
    StorageError::Failed {
        operation,
        what: what.to_string(),
        cause: cause.to_string(),
    }
}

/// Waits until everything below a directory is on the disk.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
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
pub(super) fn take_note(note: &Path) -> io::Result<()> {
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

pub(super) fn remove_note(note: &Path) -> io::Result<()> {
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
pub(super) fn user_of(roots: &Path, hex: &str) -> io::Result<Option<String>> {
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
