//! Linux, and lx, which lacks much of it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::thread::{CapabilitySet, Gid, LinkNameSpaceType, Uid, UnshareFlags};

use super::super::container::{Failure, Stage, at};
use super::super::roots::{Mounts, Options};
use super::super::{Configuration, Walls};
use super::Sight;
use crate::storage::beneath;
use crate::zone::illumos::native::{LX, Surroundings};
use crate::zone::{CAPABILITIES, Identity, Rights};

pub(in super::super) use super::super::seccomp::confine;

/// What every root in a zone gets from the zone.
pub(in super::super) const AROUND: &Surroundings = &LX;
/// The mount table, and its column separator.
pub(in super::super) const TABLE: (&str, u8) = ("/proc/self/mounts", b' ');

/// Nothing is known of a child besides its process.
#[derive(Default)]
pub(in super::super) struct Cell;

impl Cell {
    /// Does nothing: namespaces or roots end descendants here.
    pub(in super::super) fn kill(&self) {}
}

/// Starts a child.
pub(in super::super) fn spawn(mut command: Command, sight: Sight) -> io::Result<(u32, Cell)> {
    // A child starts in the namespace that its thread created or joined; the thread ends with that.
    let spawned = std::thread::spawn(move || -> io::Result<u32> {
        match sight {
            Sight::Beside(pid) => {
                let file = std::fs::File::open(format!("/proc/{pid}/ns/pid"))?;
                let kind = LinkNameSpaceType::ProcessID;
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))?;
            }
            // SAFETY: descriptors are not unshared (no FILES).
            Sight::Own => unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID)? },
            Sight::Zone => {}
        }
        Ok(command.spawn()?.id())
    });
    let pid = spawned
        .join()
        .map_err(|_| io::Error::other("a thread broke"))??;
    Ok((pid, Cell))
}

/// The program of this process.
pub(in super::super) fn program() -> io::Result<PathBuf> {
    Ok("/proc/self/exe".into())
}

/// The path of an open descriptor.
pub(in super::super) fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(beneath::through(fd))
}

/// The root of a process.
pub(in super::super) fn root_of(pid: Pid) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{}/root", pid.as_raw_nonzero()))
}

/// Switches to a user and gives up every privilege that it does not have.
pub(in super::super) fn assume(
    rights: &Rights,
    Identity { uid, gid, groups }: &Identity,
) -> Result<(), Failure> {
    if !rights.privileged {
        for (number, name) in CAPABILITIES.iter().enumerate() {
            if !rights.capabilities.iter().any(|wanted| wanted == name) {
                let one = CapabilitySet::from_bits_retain(1 << number);
                match rustix::thread::remove_capability_from_bounding_set(one) {
                    // A capability unknown to this kernel cannot be held either.
                    Err(Errno::INVAL) => {}
                    other => at(format!("give up {name}"), other)?,
                }
            }
        }
    }
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    at(
        "take the groups",
        rustix::thread::set_thread_groups(&groups),
    )?;
    let gid = Gid::from_raw(*gid);
    at(
        "take the group",
        rustix::thread::set_thread_res_gid(gid, gid, gid),
    )?;
    let uid = Uid::from_raw(*uid);
    at(
        "take the user",
        rustix::thread::set_thread_res_uid(uid, uid, uid),
    )
}

/// Sets `no_new_privs`.
pub(in super::super) fn gain_no_more() -> Result<(), Failure> {
    let given_up = rustix::thread::set_no_new_privs(true);
    at("give up gaining rights", given_up)
}

/// A terminal: its master and its slave. A container's terminal is also its `/dev/console`, if it has its own `/dev`.
pub(in super::super) fn terminal(stage: &Stage) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let multiplexer = match stage.walls {
        Walls::Namespaces => "/dev/pts/ptmx",
        Walls::Roots => "/dev/ptmx",
    };
    let master = rustix::fs::open(multiplexer, flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = match stage.walls {
        Walls::Namespaces => {
            let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            rustix::pty::ioctl_tiocgptpeer(&master, peer)?
        }
        Walls::Roots => rustix::fs::open(name.as_c_str(), flags, Mode::empty())?,
    };
    if stage.walls == Walls::Namespaces && stage.join.is_none() {
        // A read-only root has none, which does no harm. Through descriptors, because a volume may contain links.
        let _ = beneath::root(Path::new("/"))
            .and_then(|root| beneath::ensure(root, Path::new("/dev/console"), false))
            .and_then(|console| {
                let (from, to) = (beneath::through(&slave), beneath::through(&console));
                rustix::mount::mount_bind(from.as_str(), to.as_str())
            });
    }
    Ok((master, slave))
}

/// The mount operations of this system.
pub(in super::super) enum Kernel {
    /// Linux on illumos.
    Lx,
    /// Linux itself, as under a fake host.
    Linux,
}

impl Kernel {
    /// Those of the running system.
    pub(in super::super) fn here() -> Self {
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

fn flags(options: Options) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, options.no_set_user_id);
    flags
}

impl Mounts for Kernel {
    fn mount(
        &self,
        source: &Path,
        target: &Path,
        kind: &str,
        options: Options,
    ) -> Result<(), Errno> {
        rustix::mount::mount(source, target, kind, flags(options), c"")
    }

    fn show(&self, source: &Path, target: &Path, options: Options) -> Result<(), Errno> {
        let options = flags(options);
        match self {
            Kernel::Lx => {
                let flags = MountFlags::BIND | options;
                rustix::mount::mount(source, target, "lofs", flags, c"")
            }
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

/// Unmounts what is mounted at a path.
pub(in super::super) fn unmount(path: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(path, UnmountFlags::empty())
}

/// Mounts a tmpfs that everybody can write to, with this size limit in bytes.
pub(in super::super) fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map_or(String::new(), |size| format!(",size={size}"));
    std::fs::create_dir_all(path)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = |more: &str| -> io::Result<()> {
        let data = std::ffi::CString::new(format!("mode=1777{size}{more}"))?;
        Ok(rustix::mount::mount(
            "tmpfs",
            path,
            "tmpfs",
            flags,
            data.as_c_str(),
        )?)
    };
    // What is in memory stays there, if the kernel (since 6.4) can keep it out of the swap space.
    match mounted(",noswap") {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => mounted(""),
        other => other,
    }
}

/// Sets the zone's host name.
pub(in super::super) fn name_host(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// The first process of the zone, for another one that zoneadm(8) starts as its init, for `shutdown`.
pub(in super::super) fn supervisor(_: &[String]) -> Option<Pid> {
    (std::process::id() != 1).then_some(Pid::INIT)
}

/// Shuts the zone down whose init this process is: if it just ended, the zone would boot again.
pub(in super::super) fn end_zone() -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::system::reboot(
        rustix::system::RebootCommand::PowerOff,
    )?)
}

/// What has to be done before supervising a zone. lxinit has brought the network up.
pub(in super::super) fn bring_up(_: &Configuration) -> io::Result<()> {
    let shm = Path::new("/dev/shm");
    if let Err(error) = tmpfs(shm, Some(super::super::boot::SHARED_MEMORY)) {
        // Few programs need it.
        eprintln!("reddwarf init: {}: {error}", shm.display());
    }
    Ok(())
}

/// Called for an init that cannot continue: it does not end, because the zone would be booted again.
pub(in super::super) fn give_up() -> ExitCode {
    loop {
        std::thread::park();
    }
}

/// Messages go to the stream that init was started with, if any.
pub(in super::super) fn open_console() {}
