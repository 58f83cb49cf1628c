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

/// What a note tells of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is no note.
    Nothing,
    /// The volume was made.
    Made,
    /// Its removal was begun.
    Removing,
}

/// The content of a note about a volume whose removal was begun. Other notes are empty.
const REMOVING: &[u8] = b"being removed\n";

/// Reads a note.
pub(super) fn read_note(note: &Path) -> io::Result<Noted> {
    match fs::read(note) {
        Ok(text) if text.is_empty() => Ok(Noted::Made),
        Ok(_) => Ok(Noted::Removing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::Nothing),
        Err(error) => Err(error),
    }
}

/// Notes that the removal of a volume begins: from now on it may be missing.
pub(super) fn note_removal(note: &Path) -> io::Result<()> {
    write_note(note, REMOVING)
}

/// Removes a volume whose removal was begun, and then its note.
pub(super) fn finish_removal(volume: &Path, note: &Path) -> io::Result<()> {
    remove_tree(volume)?;
    remove_note(note)
}

/// The refusal of an operation on a volume that was made earlier and is missing; `otherwise` says when to remove its
/// note instead of mounting it.
pub(super) fn missing(
    operation: &'static str,
    volume: &Path,
    note: &Path,
    otherwise: &str,
) -> StorageError {
    StorageError::Refused {
        operation,
        what: volume.display().to_string(),
        reason: format!(
            "it was made earlier and is gone: mount the file system that has it, or remove {} {otherwise}",
            note.display()
        ),
    }
}

/// Notes that a volume was made, for good.
pub(super) fn take_note(note: &Path, volume: &Path) -> io::Result<()> {
    if note.exists() {
        return Ok(());
    }
    // After a power cut there must be no note without the directory.
    if let Some(above) = volume.parent() {
        fs::File::open(above)?.sync_all()?;
    }
    write_note(note, b"")
}

fn write_note(note: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(above) = note.parent() {
        fs::create_dir_all(above)?;
    }
    private::write_whole(note, content)
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
