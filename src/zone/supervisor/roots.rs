//! A container in a zone of illumos: a root of its own, and nothing else. The zone around it is the sandbox.
//!
//! Linux on illumos has no namespaces and no control groups, and mounts of its own rules (lx_mount.c): a directory shown
//! in another place is a lofs mount, which shows what is mounted below it by itself and takes its options at once; most
//! flags are refused; and where something is mounted, or somebody holds the place open, nothing more can be. Mounts are
//! the zone's, so they end with the container by hand. A program of Linux is executed only where its root has `/native`.
//!
//! Everything is mounted below a view of the container's root, one directory a generation in [`ROOTS`]: which process
//! belongs to which container is told by its root.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal};

use super::container::{Failure, Stage, at};
use crate::storage::beneath::{ensure, ensure_with, through};
use crate::zone::{Mount, ProcessId, Root};

/// Above the views of containers' roots.
pub const ROOTS: &str = "/rd/root";

/// What every root gets from the zone's own. Programs cannot be executed without the first (lx_elfexec), nor their
/// native part be linked without the second.
const SHOWN: [&str; 3] = ["/native", "/var/ld", "/dev"];

/// Where a container sees its root.
pub fn view(id: &ProcessId) -> PathBuf {
    Path::new(ROOTS).join(super::group_of(id))
}

/// Mounts of the system that a zone runs on.
pub(super) trait Mounts {
    /// Mounts a file system of a kind.
    fn mount(
        &self,
        source: &Path,
        target: &Path,
        kind: &str,
        flags: MountFlags,
        data: &str,
    ) -> Result<(), Errno>;
    /// Shows a directory or file in another place, with what is mounted below it.
    fn show(&self, source: &Path, target: &Path, options: MountFlags) -> Result<(), Errno>;
}

/// The kernel's.
pub(super) enum Kernel {
    /// Linux on illumos.
    Lx,
    /// Linux itself, as under a fake host.
    Linux,
}

impl Kernel {
    /// The one that we run on.
    pub(super) fn here() -> Self {
        let version = rustix::system::uname()
            .version()
            .to_string_lossy()
            .into_owned();
        match version.starts_with("BrandZ") {
            true => Kernel::Lx,
            false => Kernel::Linux,
        }
    }
}

impl Mounts for Kernel {
    fn mount(
        &self,
        source: &Path,
        target: &Path,
        kind: &str,
        flags: MountFlags,
        data: &str,
    ) -> Result<(), Errno> {
        let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount(source, target, kind, flags, data.as_c_str())
    }

    fn show(&self, source: &Path, target: &Path, options: MountFlags) -> Result<(), Errno> {
        match self {
            Kernel::Lx => self.mount(source, target, "lofs", MountFlags::BIND | options, ""),
            Kernel::Linux => {
                rustix::mount::mount_bind_recursive(source, target)?;
                match options.is_empty() {
                    true => Ok(()),
                    false => rustix::mount::mount_remount(target, MountFlags::BIND | options, ""),
                }
            }
        }
    }
}

/// The path of something that was found beneath a root. It is not held open: nothing is mounted where somebody is.
fn place(found: OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(through(&found))
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    at(
        path.display(),
        rustix::fs::openat(CWD, path, flags, Mode::empty()),
    )
}

fn is_directory(found: &OwnedFd) -> Result<bool, Errno> {
    let found = rustix::fs::fstat(found)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Builds the root of a container and makes it ours.
pub(super) fn build(stage: &Stage) -> Result<(), Failure> {
    clear(&stage.scratch)?;
    at(stage.scratch.display(), fs::create_dir_all(&stage.scratch))?;
    assemble(&Kernel::here(), stage)?;
    enter(&stage.scratch)
}

/// Joins a container that runs.
pub(super) fn enter(view: &Path) -> Result<(), Failure> {
    at("enter the root", rustix::process::chroot(view))?;
    at("enter the root", rustix::process::chdir("/"))
}

/// Mounts everything that a container sees below its view.
pub(super) fn assemble(mounts: &impl Mounts, stage: &Stage) -> Result<(), Failure> {
    let Root::Directory(own) = &stage.spec.root else {
        return Err("layers of overlayfs are not known here".into());
    };
    let rights = &stage.spec.rights;
    let mut options = MountFlags::empty();
    if rights.read_only_root {
        // What is mounted at must be there before.
        let root = open(own)?;
        for path in SHOWN.iter().chain(&["/proc", "/sys"]) {
            at(path, ensure(&root, Path::new(path), true))?;
        }
        for one in &stage.spec.mounts {
            let directory = at(one.source.display(), source(one).map(|(_, kind)| kind))?;
            at(one.target.display(), ensure(&root, &one.target, directory))?;
        }
        options |= MountFlags::RDONLY;
    }
    if rights.no_new_privileges {
        // There is no `no_new_privs`: programs of the root are not set-user-id instead.
        options |= MountFlags::NOSUID;
    }
    at("show the root", mounts.show(own, &stage.scratch, options))?;
    let root = open(&stage.scratch)?;
    let target = |path: &Path, directory: bool| {
        let found = at(path.display(), ensure(&root, path, directory))?;
        at(path.display(), place(found))
    };
    for path in SHOWN.map(Path::new) {
        let target = target(path, true)?;
        let options = match path.ends_with("dev") {
            true => MountFlags::empty(),
            false => MountFlags::RDONLY,
        };
        at(path.display(), mounts.show(path, &target, options))?;
    }
    let none = MountFlags::empty();
    let proc = target(Path::new("/proc"), true)?;
    let mounted = mounts.mount(Path::new("proc"), &proc, "proc", none, "");
    at("/proc", mounted)?;
    let sys = target(Path::new("/sys"), true)?;
    let read = MountFlags::RDONLY;
    let mounted = mounts.mount(Path::new("sysfs"), &sys, "sysfs", read, "");
    at("/sys", mounted)?;
    for one in &stage.spec.mounts {
        let (from, directory) = at(one.source.display(), source(one))?;
        let target = target(&one.target, directory)?;
        let options = match one.read_only {
            true => MountFlags::RDONLY,
            false => MountFlags::empty(),
        };
        at(one.target.display(), mounts.show(&from, &target, options))?;
    }
    Ok(())
}

/// What a mount shows, and whether it is a directory.
fn source(of: &Mount) -> io::Result<(PathBuf, bool)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut found = rustix::fs::openat(CWD, &of.source, flags, Mode::empty())?;
    if let Some(inside) = &of.inside {
        // A volume's content is its user's: a link in it must not lead out of it.
        let mode = rustix::fs::fstat(&found)?.st_mode & 0o7777;
        found = ensure_with(&found, inside, true, mode)?;
    }
    let directory = is_directory(&found)?;
    Ok((place(found)?, directory))
}

/// What is mounted at or below a path, the latest first.
fn mounted(below: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mounts")?;
    Ok(targets(&text, below))
}

fn targets(table: &[u8], below: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut all: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(1))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(plain(field))))
        .filter(|path| path.starts_with(below))
        .collect();
    all.reverse();
    all
}

/// A field of the table of mounts: blanks and the like stand as `\040`.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                text.push(byte);
                rest = &after[3..];
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
}

/// Takes a view away, with all that is mounted in it. Nothing of the container runs any more.
///
/// # Errors
/// Something in it is busy.
pub(super) fn clear(view: &Path) -> Result<(), Failure> {
    for path in at("/proc/self/mounts", mounted(view))? {
        at(
            path.display(),
            rustix::mount::unmount(&path, UnmountFlags::empty()),
        )?;
    }
    match fs::remove_dir(view) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", view.display()))
        }
        _ => Ok(()),
    }
}

/// Sends a signal to every process whose root is a view; tells whether there was one.
pub(super) fn signal(view: &Path, signal: Signal) -> bool {
    let mut any = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // One that ended and was not reaped yet has no root.
        if fs::read_link(entry.path().join("root")).is_ok_and(|root| root == view) {
            any |= rustix::process::kill_process(pid, signal).is_ok();
        }
    }
    any
}
