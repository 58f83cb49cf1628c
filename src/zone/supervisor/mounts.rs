//! Mounts in the root of a Linux container, through descriptors, regardless of path lengths and contents.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::container::{Failure, at};
use crate::storage::beneath::through;

/// The most that the kernel reads of a mount's options, in bytes.
const OPTIONS: usize = 4096;

/// Mounts a file system at an open descriptor.
pub(super) fn mount(
    source: &str,
    target: &OwnedFd,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> rustix::io::Result<()> {
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    let target = through(target);
    rustix::mount::mount(source, target.as_str(), kind, flags, data.as_c_str())
}

fn directory(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
    at(path.display(), opened)
}

/// The options of an overlay: its layers by descriptor, uppermost first, and its writable layer, if any. These names
/// are short, so that many fit, and need no escaping.
fn options(lower: &[OwnedFd], writable: Option<(&OwnedFd, &OwnedFd)>) -> Result<String, Failure> {
    let list: Vec<String> = lower.iter().map(through).collect();
    let list = format!("lowerdir={}", list.join(":"));
    let all = match writable {
        None => list,
        Some((upper, work)) => {
            let (upper, work) = (through(upper), through(work));
            format!("{list},upperdir={upper},workdir={work}")
        }
    };
    match all.len() < OPTIONS {
        true => Ok(all),
        false => Err(format!(
            "{} layers are more than can be mounted",
            lower.len()
        )),
    }
}

/// Mounts directories on top of one another, uppermost first, at an open descriptor.
pub(super) fn overlay<'p>(
    target: &OwnedFd,
    lower: impl IntoIterator<Item = &'p PathBuf>,
    writable: Option<(&Path, &Path)>,
    flags: MountFlags,
) -> Result<(), Failure> {
    let lower = lower.into_iter().map(|path| directory(path));
    let lower = lower.collect::<Result<Vec<_>, _>>()?;
    let writable = match writable {
        None => None,
        Some((upper, work)) => Some((directory(upper)?, directory(work)?)),
    };
    let writable = writable.as_ref().map(|(upper, work)| (upper, work));
    let options = options(&lower, writable)?;
    at(
        "mount its layers",
        mount("overlay", target, "overlay", flags, &options),
    )
}

/// Bind-mounts what is at one descriptor, including submounts, at another. Returns the new mount, because others who
/// share a parent directory may change its path; None if the kernel has no such descriptors (before 5.2).
pub(super) fn show(source: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    use rustix::mount::{MoveMountFlags as Move, OpenTreeFlags as Open};
    let whole = Open::OPEN_TREE_CLONE | Open::OPEN_TREE_CLOEXEC;
    let whole = whole | Open::AT_EMPTY_PATH | Open::AT_RECURSIVE;
    match rustix::mount::open_tree(source, "", whole) {
        Err(Errno::NOSYS) => {
            let (from, to) = (through(source), through(target));
            rustix::mount::mount_bind_recursive(from.as_str(), to.as_str())?;
            Ok(None)
        }
        opened => {
            let mount = opened?;
            let both = Move::MOVE_MOUNT_F_EMPTY_PATH | Move::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(&mount, "", target, "", both)?;
            Ok(Some(mount))
        }
    }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

const READ_ONLY: u64 = 1;

/// Makes the mount at a descriptor read-only, with mount_setattr(2).
fn set_read_only(at: libc::c_int, recursive: bool) -> rustix::io::Result<()> {
    let attributes = Attributes {
        set: READ_ONLY,
        clear: 0,
        propagation: 0,
        namespace: 0,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string that ends with a zero; the kernel reads the given number of bytes of
    // `attributes`, which has the kernel's layout, and writes nothing.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Whether this kernel supports recursively read-only mounts (Linux 5.12).
pub(crate) fn is_recursive() -> bool {
    // The descriptor is invalid on purpose.
    set_read_only(-1, true) != Err(Errno::NOSYS)
}

/// Makes a mount read-only, with submounts if `recursive`. Other restrictions of the mount are kept.
pub(super) fn read_only(target: &OwnedFd, recursive: bool) -> rustix::io::Result<()> {
    match set_read_only(target.as_fd().as_raw_fd(), recursive) {
        Err(Errno::NOSYS) if !recursive => {
            use rustix::fs::StatVfsMountFlags as Had;
            let had = rustix::fs::fstatvfs(target)?.f_flag;
            let kept = [
                (Had::NOSUID, MountFlags::NOSUID),
                (Had::NODEV, MountFlags::NODEV),
                (Had::NOEXEC, MountFlags::NOEXEC),
                (Had::NOATIME, MountFlags::NOATIME),
                (Had::NODIRATIME, MountFlags::NODIRATIME),
                (Had::RELATIME, MountFlags::RELATIME),
            ];
            let kept = kept.into_iter().filter(|(flag, _)| had.contains(*flag));
            let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, |all, (_, flag)| {
                all | flag
            });
            rustix::mount::mount_remount(through(target).as_str(), flags, "")
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_any_path_are_named_shortly() {
        let above = tempfile::tempdir().expect("a directory");
        let made = |name: String| {
            let path = above.path().join(name);
            std::fs::create_dir_all(&path).expect("made");
            directory(&path).expect("opened")
        };
        let layers: Vec<_> = (0..150)
            .map(|i| made(format!("{}:,{i}", "long/".repeat(20))))
            .collect();
        let (upper, work) = (made("u".into()), made("w".into()));
        let all = options(&layers, Some((&upper, &work))).expect("they fit");
        let ends = format!(",upperdir={},workdir={}", through(&upper), through(&work));
        assert!(all.ends_with(&ends), "{all}");
        let lower = all.strip_suffix(&ends).expect("it does");
        let lower = lower.strip_prefix("lowerdir=").expect("it does");
        assert_eq!(lower.split(':').count(), 150);
        let many: Vec<_> = (0..300).map(|_| made("one".into())).collect();
        let error = options(&many, None).expect_err("too many");
        assert_eq!(error, "300 layers are more than can be mounted");
    }
}
