//! Path lookups below a directory that cannot escape from it, whatever symbolic links are on the way.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Flags for opening a directory to look up names in it.
#[cfg(target_os = "linux")]
pub const LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub const LOOK: OFlags = OFlags::NONBLOCK;

/// More links than any well-meant path contains.
const LINKS: usize = 40;

/// How often a lookup that raced with a change is repeated.
#[cfg(target_os = "linux")]
const RACES: usize = 128;

/// Opens a directory for lookups.
pub fn root(path: &Path) -> Result<OwnedFd> {
    let flags = LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Finds a path below `root` like a process with that root directory would.
pub fn open_in<F: AsFd>(root: F, path: &Path) -> Result<OwnedFd> {
    open_as(root, path, LOOK)
}

/// Resolves a path below `root` and opens it with `flags`.
pub fn open_as<F: AsFd>(root: F, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = || {
            let flags = flags | OFlags::CLOEXEC;
            rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve)
        };
        let mut opened = open();
        // While anything is being renamed, even elsewhere, the kernel cannot resolve `..` safely. Someone who shares
        // the directory can provoke that, but not every time.
        for _ in 0..RACES {
            if !matches!(opened, Err(Errno::AGAIN)) {
                break;
            }
            opened = open();
        }
        // The Linux emulation of illumos does not have this system call.
        if !matches!(opened, Err(Errno::NOSYS)) {
            return opened;
        }
    }
    walk(root, path, flags)
}

/// Like [`open_as`], component by component.
fn walk<F: AsFd>(root: F, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let look = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &std::ffi::OsStr, flags| {
        rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let top = rustix::fs::openat(root.as_fd(), ".", look, Mode::empty())?;
    let mut above = vec![top];
    let mut left: Vec<std::ffi::OsString> = Vec::new();
    let push = |left: &mut Vec<std::ffi::OsString>, path: &Path| {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        left.extend(parts);
    };
    push(&mut left, path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        let here = above.last().ok_or(Errno::NOENT)?;
        if name == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let found = rustix::fs::statat(here, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP);
            }
            use std::os::unix::ffi::OsStrExt as _;
            let target = rustix::fs::readlinkat(here, &name, Vec::new())?;
            let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
            if target.is_absolute() {
                above.truncate(1);
            }
            push(&mut left, target);
            continue;
        }
        if left.is_empty() && FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return open(here, &name, flags | OFlags::NOFOLLOW);
        }
        let next = open(here, &name, look)?;
        above.push(next);
    }
    let last = above.last().ok_or(Errno::NOENT)?;
    open(last, ".".as_ref(), flags)
}

/// Opens a regular file below a directory for reading: nothing else, and never blocks.
///
/// # Errors
/// The file does not exist, or is something else.
pub fn open_plain(above: &Path, below: &Path) -> io::Result<File> {
    let file = open_as(root(above)?, below, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Creates a directory with its parents below another, and sets its mode.
///
/// # Errors
/// The system's error, or the path exists and is something else.
pub fn make_directory(above: &Path, below: &Path, mode: u32) -> io::Result<OwnedFd> {
    let root = root(above)?;
    ensure(&root, below, true)?;
    let made = open_as(&root, below, OFlags::RDONLY | OFlags::DIRECTORY)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    Ok(made)
}

/// Creates or truncates a file below a directory, and sets its mode.
///
/// # Errors
/// The system's error, or the path exists and is something else.
pub fn make_file(above: &Path, below: &Path, mode: u32) -> io::Result<()> {
    let root = root(above)?;
    ensure(&root, below, false)?;
    let file = File::from(open_as(&root, below, OFlags::WRONLY | OFlags::NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    file.set_len(0)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Finds a path below `root`; creates missing parts, the last as a directory or an empty file.
pub fn ensure<F: AsFd>(root: F, path: &Path, directory: bool) -> Result<OwnedFd> {
    ensure_with(root, path, directory, 0o755)
}

/// Like [`ensure`]; created directories get `mode`, whatever the umask.
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
            rustix::fs::mkdirat(&parent, name, mode).and_then(|()| set_mode(&parent, name, mode))
        } else {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(&parent, name, FileType::RegularFile, mode, 0)
        };
        match made {
            // Somebody else created it, or the name is a dangling link: the lookup shows which.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    open_in(root, path)
}

/// Sets the mode of a directory that was just created. Someone with write access to the parent may have replaced it
/// by a link: the mode is changed through the open descriptor, and links are not followed.
fn set_mode<P: rustix::path::Arg>(parent: &OwnedFd, name: P, mode: Mode) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fchmod(&made, mode)
}

/// The part of a volume to mount: all of it, or the path `inside`, which is created if missing; and whether it is a
/// directory. The content belongs to the volume's user, so links in it must not lead outside.
pub fn part(volume: &Path, inside: Option<&Path>) -> Result<(OwnedFd, bool)> {
    let mut found = rustix::fs::openat(CWD, volume, LOOK | OFlags::CLOEXEC, Mode::empty())?;
    if let Some(inside) = inside {
        let mode = rustix::fs::fstat(&found)?.st_mode & 0o7777;
        found = ensure_with(&found, inside, true, mode)?;
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    Ok((found, kind == FileType::Directory))
}

/// A path that refers to an open descriptor of this process.
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
            for flags in [LOOK, OFlags::RDONLY] {
                let walked = walk(&root, Path::new(path), flags).map(drop);
                let opened = open_as(&root, Path::new(path), flags).map(drop);
                assert_eq!(walked, opened, "{path}");
            }
        }
        std::os::unix::fs::symlink("loop", inside.join("loop")).expect("made");
        assert_eq!(
            walk(&root, Path::new("loop"), LOOK).map(drop),
            Err(Errno::LOOP)
        );
        assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
        assert!(inside.join("z").is_file(), "`..` at the top is the top");
        assert!(!directory.path().join("w").exists());
    }

    #[test]
    fn a_link_in_place_of_what_was_made_changes_nothing_of_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o7777;
        std::fs::create_dir(at("volume")).expect("made");
        std::fs::create_dir(at("private")).expect("made");
        std::fs::write(at("shadow"), "").expect("written");
        for victim in ["private", "shadow"] {
            let narrow = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(at(victim), narrow).expect("set");
            // What someone who shares the volume does between the two steps.
            std::os::unix::fs::symlink(at(victim), at("volume").join(victim)).expect("made");
            let volume = root(&at("volume")).expect("opened");
            let set = set_mode(&volume, victim, Mode::from_raw_mode(0o777));
            assert!(matches!(set, Err(Errno::LOOP | Errno::NOTDIR)), "{set:?}");
            assert_eq!(mode(&at(victim)), 0o700, "{victim}");
        }
        let (_, is_directory) = part(&at("volume"), Some(Path::new("a/b"))).expect("made");
        assert!(is_directory);
        assert_eq!(mode(&at("volume/a/b")), mode(&at("volume")));
    }
}
