//! A container in a Linux sandbox: its namespaces, and the root that is built in them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::container::{Failure, Stage, at};
use super::mounts::{mount, overlay, read_only, show};
use crate::storage::beneath::{self, ensure, open_in, through};
use crate::zone::{Mount, Propagation, Root};

/// Switches from the inherited session keyring to an empty one: keyrings are not namespaced, and a process can read the
/// keys in its keyring.
///
/// # Errors
/// The kernel's error, except if it has no keyrings or denies their use: then it denies it to containers, too.
pub(super) fn leave_keyring() -> Result<(), Failure> {
    // SAFETY: the kernel gives this thread a new keyring; for a null name it reads nothing.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match joined {
        -1 => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
            error => Err(format!("leave the session keyring: {error}")),
        },
        _ => Ok(()),
    }
}

/// Joins the namespaces of a process, except the process namespace, which the parent has joined.
pub(super) fn join(pid: i32) -> Result<(), Failure> {
    let open = |name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        at(path.clone(), fs::File::open(&path))
    };
    let (groups, mounts) = (open("cgroup")?, open("mnt")?);
    let enter = |file: &fs::File, kind| {
        use std::os::fd::AsFd as _;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))
    };
    at(
        "join the control group namespace",
        enter(&groups, LinkNameSpaceType::ControlGroup),
    )?;
    at(
        "join the mount namespace",
        enter(&mounts, LinkNameSpaceType::Mount),
    )
}

/// Builds the root of a container and changes to it.
pub(super) fn build(stage: &Stage) -> Result<(), Failure> {
    let rights = &stage.spec.rights;
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP;
    // SAFETY: descriptors are not unshared (no FILES), and this process has one thread.
    let unshared = unsafe { rustix::thread::unshare_unsafe(flags) };
    at("a mount namespace of its own", unshared)?;
    at(
        "detach mounts",
        rustix::mount::mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        ),
    )?;
    let scratch = stage.scratch.as_path();
    match &stage.spec.root {
        Root::Directory(path) => {
            at(path.display(), rustix::mount::mount_bind(path, scratch))?;
        }
        Root::Overlay { lower, upper, work } => {
            let target = open(scratch)?;
            let writable = Some((upper.as_path(), work.as_path()));
            overlay(&target, lower, writable, MountFlags::empty())?;
        }
    }
    let root = open(scratch)?;
    system_mounts(stage, &root)?;
    // Before a volume can replace it.
    let null = at("/dev/null", open_in(&root, Path::new("/dev/null")))?;
    for one in &stage.spec.mounts {
        at(one.target.display(), bind(&root, one))?;
    }
    at("enter the root", rustix::process::fchdir(&root))?;
    at("pivot into the root", rustix::process::pivot_root(".", "."))?;
    at(
        "leave the old root",
        rustix::mount::unmount(".", UnmountFlags::DETACH),
    )?;
    at("enter the root", rustix::process::chdir("/"))?;
    if !rights.privileged && !rights.unmasked_proc {
        mask(&null)?;
    }
    if rights.read_only_root {
        let root = open(Path::new("/"))?;
        at("make the root read-only", read_only(&root, false))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
    at(path.display(), opened)
}

/// Mounts `/proc`, `/dev`, `/sys` and their contents.
fn system_mounts(stage: &Stage, root: &OwnedFd) -> Result<(), Failure> {
    let rights = &stage.spec.rights;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let directory = |path: &str| at(path, ensure(root, Path::new(path), true));
    let proc = directory("/proc")?;
    // A new mount for the current process namespace, even if it is the host's: never the host's own mount, which may
    // have submounts such as binfmt_misc.
    at("/proc", mount("proc", &proc, "proc", closed, ""))?;
    let dev = directory("/dev")?;
    let data = "mode=755,size=65536k";
    let mounted = mount("tmpfs", &dev, "tmpfs", MountFlags::NOSUID, data);
    at("/dev", mounted)?;
    // What was mounted there.
    let dev = directory("/dev")?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let mode = Mode::from_raw_mode(0o666);
        let number = rustix::fs::makedev(major, minor);
        at(
            name,
            rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, number),
        )?;
        // The umask removed bits.
        let _ = rustix::fs::chmodat(&dev, name, mode, AtFlags::empty());
    }
    for (to, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ] {
        at(name, rustix::fs::symlinkat(to, &dev, name))?;
    }
    if rights.privileged {
        // Not the host's own file system: what the container makes and removes there is its own.
        at(
            "the devices of the host",
            copy_devices(Path::new("/dev"), &dev),
        )?;
    }
    let pts = directory("/dev/pts")?;
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    at("/dev/pts", mount("devpts", &pts, "devpts", quiet, options))?;
    let shm = directory("/dev/shm")?;
    at(
        "/dev/shm",
        rustix::mount::mount_bind(&stage.shm, through(&shm).as_str()),
    )?;
    let queues = directory("/dev/mqueue")?;
    at(
        "/dev/mqueue",
        mount("mqueue", &queues, "mqueue", closed, ""),
    )?;
    let sys = directory("/sys")?;
    let writing = match rights.privileged {
        true => MountFlags::empty(),
        false => MountFlags::RDONLY,
    };
    at("/sys", mount("sysfs", &sys, "sysfs", closed | writing, ""))?;
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let groups = directory("/sys/fs/cgroup")?;
        at(
            "/sys/fs/cgroup",
            mount("cgroup2", &groups, "cgroup2", closed | writing, ""),
        )?;
    }
    Ok(())
}

/// What is not copied of the host's `/dev`: the container has its own.
const OWN: [&str; 5] = ["console", "fd", "mqueue", "pts", "shm"];

/// Copies the devices in a directory, with those in its directories, to `to`. What is there already stays. Follows
/// `HostDevices` of opencontainers/runc.
fn copy_devices(from: &Path, to: &OwnedFd) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let done = |result: rustix::io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(io::Error::from(error)),
    };
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let found = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let kind = match found.file_type() {
            _ if OWN.iter().any(|own| name == *own) => continue,
            kind if kind.is_char_device() => FileType::CharacterDevice,
            kind if kind.is_block_device() => FileType::BlockDevice,
            kind if kind.is_dir() => {
                done(rustix::fs::mkdirat(to, &name, Mode::from_raw_mode(0o755)))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                copy_devices(&path, &rustix::fs::openat(to, &name, flags, Mode::empty())?)?;
                // Without devices, it is not needed.
                let _ = rustix::fs::unlinkat(to, &name, AtFlags::REMOVEDIR);
                continue;
            }
            _ => continue,
        };
        let mode = Mode::from_raw_mode(found.mode() & 0o7777);
        if done(rustix::fs::mknodat(to, &name, kind, mode, found.rdev()))? {
            let (owner, group) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
            rustix::fs::chownat(
                to,
                &name,
                Some(owner),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            rustix::fs::chmodat(to, &name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Mounts directories of the host on top of one another in the root, or the path `inside` them; read-only.
fn stack(root: &OwnedFd, of: &Mount) -> Result<(), Failure> {
    let told = |error: rustix::io::Errno| error.to_string();
    let target = ensure(root, &of.target, true).map_err(told)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    let layers = std::iter::once(&of.source).chain(&of.below);
    overlay(&target, layers, None, flags)?;
    let Some(inside) = &of.inside else {
        return Ok(());
    };
    let whole = open_in(root, &of.target).map_err(told)?;
    let part = at(inside.display(), open_in(&whole, inside))?;
    let (from, to) = (through(&part), through(&whole));
    at(
        inside.display(),
        rustix::mount::mount_bind(from.as_str(), to.as_str()),
    )
}

/// Bind-mounts a directory or file of the host in the root.
fn bind(root: &OwnedFd, of: &Mount) -> Result<(), Failure> {
    if !of.below.is_empty() {
        return stack(root, of);
    }
    let part = beneath::part(&of.source, of.inside.as_deref());
    let (source, directory) = at(of.source.display(), part)?;
    let target = ensure(root, &of.target, directory).map_err(|error| error.to_string())?;
    let shown = show(&source, &target).map_err(|error| error.to_string())?;
    let target = match shown {
        Some(mount) => mount,
        None => open_in(root, &of.target).map_err(|error| error.to_string())?,
    };
    let path = through(&target);
    if of.read_only {
        let made = read_only(&target, of.recursive_read_only);
        at("make it read-only", made)?;
    }
    let flags = match of.propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::HostToProcess => MountPropagationFlags::DOWNSTREAM,
        Propagation::Bidirectional => MountPropagationFlags::SHARED,
    };
    at(
        "its propagation",
        rustix::mount::mount_change(path.as_str(), flags | MountPropagationFlags::REC),
    )
}

/// Paths in `/proc` and `/sys` that are hidden from containers, as in other runtimes.
const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths that are read-only for containers.
const ONLY_READ: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Hides these paths, files behind an empty one. Paths that this kernel does not have are skipped; everything else must
/// succeed.
fn mask(null: &OwnedFd) -> Result<(), Failure> {
    for path in HIDDEN {
        let hidden = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(found) if found.is_dir() => {
                let flags = MountFlags::RDONLY;
                let hidden = rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"mode=555");
                hidden.map_err(io::Error::from)
            }
            Ok(_) => {
                let hidden = rustix::mount::mount_bind(through(null).as_str(), path);
                hidden.map_err(io::Error::from)
            }
        };
        at(format!("hide {path}"), hidden)?;
    }
    for path in ONLY_READ {
        match rustix::mount::mount_bind_recursive(path, path) {
            Err(rustix::io::Errno::NOENT) => continue,
            other => at(format!("make {path} read-only"), other)?,
        }
        let made = read_only(&open(Path::new(path))?, false);
        at(format!("make {path} read-only"), made)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_copied_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        for path in ["from/snd", "from/pts", "from/hugepages", "to"] {
            fs::create_dir_all(directory.path().join(path)).expect("made");
        }
        // The one device that everybody may make.
        for name in ["null", "snd/timer", "pts/0"] {
            let mode = Mode::from_raw_mode(0o640);
            let kind = FileType::CharacterDevice;
            let made = rustix::fs::mknodat(CWD, from.join(name), kind, mode, 0);
            made.expect("made");
        }
        fs::write(from.join("log"), "").expect("written");
        std::os::unix::fs::symlink("null", from.join("link")).expect("made");
        let opened = fs::File::open(&to).expect("opened");
        for _ in 0..2 {
            copy_devices(&from, &opened.try_clone().expect("one").into()).expect("copied");
        }
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
        for (name, expected) in [
            ("null", true),
            ("snd/timer", true),
            ("pts", false),
            ("hugepages", false),
            ("log", false),
            ("link", false),
        ] {
            let found = fs::symlink_metadata(to.join(name)).ok();
            let is_there = found.is_some_and(|found| {
                found.file_type().is_char_device() && found.permissions().mode() & 0o777 == 0o640
            });
            assert_eq!(is_there, expected, "{name}");
            assert_eq!(to.join(name).exists(), expected, "{name}");
        }
    }

    #[test]
    fn the_session_keyring_is_another_one_then() {
        // The keyring of this thread, which belongs to the test.
        let session = || {
            // SAFETY: plain numbers; the kernel returns the number of a keyring, and creates none.
            unsafe {
                libc::syscall(
                    libc::SYS_keyctl,
                    libc::KEYCTL_GET_KEYRING_ID,
                    libc::KEY_SPEC_SESSION_KEYRING,
                    0,
                )
            }
        };
        let before = session();
        leave_keyring().expect("left");
        let after = session();
        // Without permission to use keyrings, there is none to leave.
        assert!(after != before || before == -1, "{before}");
    }
}
