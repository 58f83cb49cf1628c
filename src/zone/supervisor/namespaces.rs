//! A container of a Linux sandbox: namespaces, and a root that is built in them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::container::{Failure, Stage, at};
use crate::storage::beneath::{ensure, ensure_with, open_in, through};
use crate::zone::{Mount, Propagation, Root};

/// Joins the namespaces of a process; its process namespace was joined by who started us.
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

fn mount(
    source: &str,
    target: &OwnedFd,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> rustix::io::Result<()> {
    let data = std::ffi::CString::new(data).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount(
        source,
        through(target).as_str(),
        kind,
        flags,
        data.as_c_str(),
    )
}

/// Builds the root of a container and makes it ours.
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
            let lower = lower.iter().map(std::path::PathBuf::as_path);
            let data = layers(lower, Some((upper, work)));
            let data = at("the root's layers", std::ffi::CString::new(data))?;
            at(
                "mount the root",
                rustix::mount::mount(
                    "overlay",
                    scratch,
                    "overlay",
                    MountFlags::empty(),
                    data.as_c_str(),
                ),
            )?;
        }
    }
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = at(
        scratch.display(),
        rustix::fs::openat(CWD, scratch, open, Mode::empty()),
    )?;
    system_mounts(stage, &root)?;
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
        mask();
    }
    if rights.read_only_root {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        at(
            "make the root read-only",
            rustix::mount::mount_remount("/", flags, ""),
        )?;
    }
    Ok(())
}

/// `/proc`, `/dev`, `/sys` and what is in them.
fn system_mounts(stage: &Stage, root: &OwnedFd) -> Result<(), Failure> {
    let rights = &stage.spec.rights;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let directory = |path: &str| at(path, ensure(root, Path::new(path), true));
    let proc = directory("/proc")?;
    if stage.own_processes {
        at("/proc", mount("proc", &proc, "proc", closed, ""))?;
    } else {
        at(
            "/proc",
            rustix::mount::mount_bind_recursive("/proc", through(&proc).as_str()),
        )?;
    }
    let dev = directory("/dev")?;
    if rights.privileged {
        at(
            "/dev",
            mount("devtmpfs", &dev, "devtmpfs", MountFlags::NOSUID, ""),
        )?;
    } else {
        at(
            "/dev",
            mount(
                "tmpfs",
                &dev,
                "tmpfs",
                MountFlags::NOSUID,
                "mode=755,size=65536k",
            ),
        )?;
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
            // The umask took bits away.
            let _ = rustix::fs::chmodat(&dev, name, mode, rustix::fs::AtFlags::empty());
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

/// Options of an overlay: its layers, uppermost first, and where it is written, if it can be.
fn layers<'p>(
    lower: impl IntoIterator<Item = &'p Path>,
    writable: Option<(&Path, &Path)>,
) -> String {
    let list: Vec<String> = lower
        .into_iter()
        .map(|path| path.display().to_string())
        .collect();
    let list = format!("lowerdir={}", list.join(":"));
    match writable {
        None => list,
        Some((upper, work)) => {
            let (upper, work) = (upper.display(), work.display());
            format!("{list},upperdir={upper},workdir={work}")
        }
    }
}

/// Shows directories of the host on top of one another in the root, or what is `inside` them; they are only read.
fn stack(root: &OwnedFd, of: &Mount) -> Result<(), Failure> {
    let told = |error: rustix::io::Errno| error.to_string();
    let below = of.below.iter().map(std::path::PathBuf::as_path);
    let list = layers(std::iter::once(of.source.as_path()).chain(below), None);
    let target = ensure(root, &of.target, true).map_err(told)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    at(
        "its layers",
        mount("overlay", &target, "overlay", flags, &list),
    )?;
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

/// Shows a directory or file of the host in the root.
fn bind(root: &OwnedFd, of: &Mount) -> Result<(), Failure> {
    if !of.below.is_empty() {
        return stack(root, of);
    }
    let source = at(
        of.source.display(),
        rustix::fs::openat(
            CWD,
            &of.source,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        ),
    )?;
    let source = match &of.inside {
        None => source,
        // A volume's content is its user's: a link in it must not lead out of it.
        Some(inside) => {
            let volume = at(of.source.display(), rustix::fs::fstat(&source))?;
            let mode = volume.st_mode & 0o7777;
            at(inside.display(), ensure_with(&source, inside, true, mode))?
        }
    };
    let found = at(of.source.display(), rustix::fs::fstat(&source))?;
    let directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let target = ensure(root, &of.target, directory).map_err(|error| error.to_string())?;
    rustix::mount::mount_bind_recursive(through(&source).as_str(), through(&target).as_str())
        .map_err(|error| error.to_string())?;
    let target = open_in(root, &of.target).map_err(|error| error.to_string())?;
    let path = through(&target);
    if of.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        at(
            "make it read-only",
            rustix::mount::mount_remount(path.as_str(), flags, ""),
        )?;
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

/// Hides what a container has no business with, as other runtimes do.
fn mask() {
    for path in [
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
    ] {
        // What this kernel does not have needs no hiding.
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let data = c"mode=555";
                let flags = MountFlags::RDONLY;
                let _ = rustix::mount::mount("tmpfs", path, "tmpfs", flags, data);
            }
            Ok(_) => {
                let _ = rustix::mount::mount_bind("/dev/null", path);
            }
            Err(_) => {}
        }
    }
    for path in [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ] {
        if rustix::mount::mount_bind_recursive(path, path).is_ok() {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            let _ = rustix::mount::mount_remount(path, flags, "");
        }
    }
}
