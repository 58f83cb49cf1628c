//! Ownership of volumes by a pod's group (`fsGroup`): before the pod starts, all content is given to that group.
//! Follows pkg/volume/volume_linux.go.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::beneath;

/// The owner of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The group.
    pub group: u32,
    /// Skip the volume if its top directory is right already (`OnRootMismatch`).
    pub by_root: bool,
}

/// The mode of a file, or of a directory, whose new files shall belong to the group.
fn wanted(mode: u32, directory: bool) -> u32 {
    mode & 0o7777 | if directory { 0o2770 } else { 0o660 }
}

impl Ownership {
    /// Whether a file already has the group and mode.
    fn holds(self, found: &Stat, directory: bool) -> bool {
        found.st_gid == self.group && wanted(found.st_mode, directory) == found.st_mode & 0o7777
    }

    /// Gives everything in a volume to the group. Others may use it at the same time: nothing outside is touched,
    /// whatever links they create. Like upstream, skips what cannot be changed.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn give(self, volume: &Path) -> io::Result<()> {
        let root = beneath::root(volume)?;
        let top = rustix::fs::fstat(&root)?;
        if self.by_root && self.holds(&top, true) {
            return Ok(());
        }
        let mut failed = None;
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = match beneath::open_as(&root, &path, flags) {
                // It was removed or replaced in the meantime.
                Err(Errno::NOENT | Errno::NOTDIR) if !path.as_os_str().is_empty() => continue,
                other => other?,
            };
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                match self.give_one(&directory, name) {
                    Ok(true) => left.push(path.join(name)),
                    Ok(false) | Err(Errno::NOENT) => {}
                    Err(error) => failed = Some((path.join(name), error)),
                }
            }
        }
        // The top comes last: an agent that is killed before starts over.
        let opened = beneath::open_as(&root, Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.change(&File::from(opened), &top, true)?;
        if let Some((path, error)) = failed {
            let (volume, path) = (volume.display(), path.display());
            tracing::warn!(%volume, %path, %error, "cannot give a part of a volume to its pod's group");
        }
        Ok(())
    }

    /// Changes one entry; returns whether it is a directory.
    fn give_one(self, above: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
        let found = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let directory = kind == FileType::Directory;
        if kind == FileType::Symlink || !(directory || kind == FileType::RegularFile) {
            // Opening a device or pipe may have side effects, and links have no modes.
            let group = Some(Gid::from_raw(self.group));
            if found.st_gid != self.group {
                rustix::fs::chownat(above, name, None, group, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            return Ok(false);
        }
        if !self.holds(&found, directory) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = File::from(rustix::fs::openat(above, name, flags, Mode::empty())?);
            let found = rustix::fs::fstat(&opened)?;
            let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
            self.change(&opened, &found, directory)?;
        }
        Ok(directory)
    }

    fn change(self, of: &File, found: &Stat, directory: bool) -> rustix::io::Result<()> {
        // A change of the group clears setuid and setgid bits, so the mode is set afterwards.
        rustix::fs::fchown(of, None, Some(Gid::from_raw(self.group)))?;
        let mode = wanted(found.st_mode, directory);
        rustix::fs::fchmod(of, Mode::from_raw_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_group_may_read_and_write_and_gets_what_is_made_later() {
        for (mode, directory, expected) in [
            (0o100644, false, 0o664),
            (0o100400, false, 0o660),
            (0o104755, false, 0o4775),
            (0o40755, true, 0o2775),
            (0o42770, true, 0o2770),
            (0o41700, true, 0o3770),
        ] {
            assert_eq!(wanted(mode, directory), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_volume_is_given_whole_and_nothing_beside_it() {
        let above = tempfile::tempdir().expect("a directory");
        let (volume, outside) = (above.path().join("v"), above.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).expect("made");
        std::fs::write(volume.join("a/b/f"), "x").expect("written");
        std::fs::write(&outside, "x").expect("written");
        let set = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("set");
        };
        set(&outside, 0o600);
        symlink(&outside, volume.join("a/link")).expect("made");
        symlink(above.path(), volume.join("up")).expect("made");
        // Without root, only the own group can be used.
        let group = rustix::process::getegid().as_raw();
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o7777;
        let always = Ownership {
            group,
            by_root: false,
        };
        always.give(&volume).expect("given");
        for (path, expected) in [
            ("", 0o2770),
            ("a", 0o2770),
            ("a/b", 0o2770),
            ("a/b/f", 0o660),
        ] {
            let path = volume.join(path);
            assert_eq!(mode(&path) & expected, expected, "{}", path.display());
        }
        assert_eq!(mode(&outside), 0o600);
        // The top is already right: `OnRootMismatch` does not check what is below.
        set(&volume.join("a/b/f"), 0o600);
        let by_root = Ownership {
            by_root: true,
            ..always
        };
        by_root.give(&volume).expect("given");
        assert_eq!(mode(&volume.join("a/b/f")), 0o600);
        set(&volume, 0o700);
        by_root.give(&volume).expect("given");
        assert_eq!(mode(&volume.join("a/b/f")), 0o660);
    }
}
