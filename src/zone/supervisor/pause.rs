//! The first process of a process namespace that the containers of a zone share. It keeps the namespace alive, has no
//! privileges, and an empty root: containers that inspect it find nothing of the host.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::container::{Failure, at};
use super::system;
use crate::zone::{Identity, Rights};

/// The user of such a process, as upstream's.
const NOBODY: u32 = 65_535;

/// Leaves the host: changes to an empty root, built at `scratch`, and drops all privileges.
pub(super) fn confine(scratch: &Path) -> Result<(), Failure> {
    // SAFETY: descriptors are not unshared (no FILES), and this process has one thread.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    at("a mount namespace of its own", unshared)?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    at("detach mounts", rustix::mount::mount_change("/", flags))?;
    let closed = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let made = rustix::mount::mount("tmpfs", scratch, "tmpfs", closed, c"size=4k,mode=555");
    at("an empty root", made)?;
    at("enter the root", rustix::process::chdir(scratch))?;
    at("pivot into the root", rustix::process::pivot_root(".", "."))?;
    let left = rustix::mount::unmount(".", UnmountFlags::DETACH);
    at("leave the old root", left)?;
    at("enter the root", rustix::process::chdir("/"))?;
    system::gain_no_more()?;
    let nobody = Identity {
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
    };
    system::assume(&Rights::default(), &nobody)
}

/// Waits until the zone ends. Orphans of containers become its children, and are reaped automatically.
pub(super) fn stay() -> ! {
    // SAFETY: this installs no handler, and nobody waits for children of this process: they leave no zombies.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        std::thread::park();
    }
}
