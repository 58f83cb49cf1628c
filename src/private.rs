//! Directories and files that only the user who runs this program may access: they hold secrets, keys and the disks of
//! pods.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

/// The permission bits of group and others.
const OTHERS: u32 = 0o077;
/// A sticky directory (like `/tmp`) is shared on purpose.
const STICKY: u32 = 0o1000;

/// Creates a directory that only its owner may access, and its parents. An existing one is closed to others if it
/// belongs to this user and is not shared on purpose.
///
/// # Errors
/// Any error of the system calls.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    close(path)
}

/// Removes the permissions of group and others, if the file or directory belongs to this user.
///
/// # Errors
/// Any error of the system calls.
pub fn close(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    match closed(found.mode()).filter(|_| own) {
        Some(mode) => std::fs::set_permissions(path, Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// The mode to set, if it differs from the current one.
fn closed(mode: u32) -> Option<u32> {
    (mode & OTHERS != 0 && mode & STICKY == 0).then_some(mode & 0o7777 & !OTHERS)
}

/// Options that create a file for its owner alone.
pub fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Replaces a file, readable by its owner alone. Readers see the old content or the new one, even after a power cut.
///
/// # Errors
/// Any error of the system calls; the old content stays.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let partial = path.with_file_name(name);
    // Left by a killed process with the same id; it was never used.
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = file()
        .create_new(true)
        .open(&partial)
        .and_then(|mut file| {
            file.write_all(content)?;
            // The content must be on disk before the name is.
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&partial, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_stays() {
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path().join("file.json");
        write_whole(&path, b"one").expect("written");
        write_whole(&path, b"two").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        let mode = std::fs::metadata(&path).expect("there").mode() & 0o7777;
        assert_eq!(mode, 0o600);
        // If it cannot be moved into place, nothing of it is left.
        let taken = above.path().join("taken");
        std::fs::create_dir_all(taken.join("inside")).expect("made");
        write_whole(&taken, b"three").expect_err("a directory is there");
        let left = std::fs::read_dir(above.path()).expect("read").count();
        assert_eq!(left, 2);
    }

    #[test]
    fn what_is_kept_is_its_owners_alone() {
        for (mode, expected) in [
            (0o40755, Some(0o700)),
            (0o100644, Some(0o600)),
            (0o40750, Some(0o700)),
            (0o40700, None),
            (0o41777, None),
        ] {
            assert_eq!(closed(mode), expected, "{mode:o}");
        }
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path().join("a/b");
        let mode = |path: &Path| {
            let found = std::fs::metadata(path).expect("there");
            found.mode() & 0o7777
        };
        directory(&path).expect("made");
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&above.path().join("a")), 0o700);
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("opened");
        directory(&path).expect("closed");
        assert_eq!(mode(&path), 0o700);
    }
}
