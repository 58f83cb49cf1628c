//! Paths that are looked up below a directory and never lead out of it, whatever links are in the way.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// Opens a directory to look things up in.
pub fn root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Finds a path below `root`, as a process whose root that is would.
pub fn open_in<F: AsFd>(root: F, path: &Path) -> Result<OwnedFd> {
    open_as(root, path, OFlags::PATH)
}

/// Finds a path below `root` and opens it with `flags`.
pub fn open_as<F: AsFd>(root: F, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Finds a path below `root`; what is missing of it is made, as a directory or an empty file.
pub fn ensure<F: AsFd>(root: F, path: &Path, directory: bool) -> Result<OwnedFd> {
    ensure_with(root, path, directory, 0o755)
}

/// As [`ensure`]; directories that are made get `mode`, whatever the umask is.
pub fn ensure_with<F: AsFd>(root: F, path: &Path, directory: bool, mode: u32) -> Result<OwnedFd> {
    let root = root.as_fd();
    match open_in(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let parts: Vec<_> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .collect();
    let mut so_far = PathBuf::from("/");
    for (index, part) in parts.iter().enumerate() {
        let parent = open_in(root, &so_far)?;
        so_far.push(part);
        if open_in(root, &so_far).is_ok() {
            continue;
        }
        let name = part.as_os_str();
        let made = if index + 1 < parts.len() || directory {
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::mkdirat(&parent, name, mode)
                .and_then(|()| rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()))
        } else {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(&parent, name, FileType::RegularFile, mode, 0)
        };
        match made {
            // Another made it, or a link that leads nowhere has the name: looking it up tells.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    open_in(root, path)
}

/// A path that leads to an open descriptor of this process.
pub fn through<F: AsRawFd>(fd: &F) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_never_lead_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir_all(inside.join("a")).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::os::unix::fs::symlink(&outside, inside.join("absolute")).expect("made");
        std::os::unix::fs::symlink("../../out", inside.join("a/relative")).expect("made");
        let root = root(&inside).expect("opened");
        for path in ["absolute/x", "a/relative/y", "../z", "b/../../w"] {
            ensure(&root, Path::new(path), false).ok();
        }
        assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
        assert!(inside.join("z").is_file(), "`..` at the top is the top");
        assert!(!directory.path().join("w").exists());
    }
}
