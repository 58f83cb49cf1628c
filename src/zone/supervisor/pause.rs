//! The first process of a process namespace that the containers of a zone share. It is there for the others, may do
//! nothing, and its root is empty: whoever looks at it from a container finds nothing of the host.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::container::{Failure, at};
use super::system;
use crate::zone::{Identity, Rights};

/// Whom such a process belongs to, as upstream's.
const NOBODY: u32 = 65_535;

/// Leaves the host: for an empty root, which is built at `scratch`, and without any right.
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

/// Stays until the zone ends. What containers leave behind becomes its child, and is forgotten when it ends.
pub(super) fn stay() -> ! {
    // SAFETY: no handler is installed and nobody waits for children of this process: those that end leave no zombies.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        std::thread::park();
    }
}
