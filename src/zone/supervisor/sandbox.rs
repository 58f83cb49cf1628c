//! A Linux zone, as its supervisor sets it up around itself: namespaces, and what all processes in them share.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::Walls;
use super::boot::{SHARED_MEMORY, configuration, memory, supervise};
use super::mounts::read_only;
use super::system::tmpfs;
use crate::zone::ZoneNetwork;

/// Runs the supervisor of the zone in `directory`. The first process creates the namespaces, starts the second one
/// (`inside`) in them, records its id and ends.
pub fn run(directory: &Path, inside: bool) -> ExitCode {
    let result = match inside {
        false => outside(directory),
        true => in_the_zone(directory),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reddwarf init: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn outside(directory: &Path) -> io::Result<()> {
    let configuration = configuration(directory)?;
    for group in &configuration.groups {
        std::fs::write(group.join("init").join("cgroup.procs"), "0")?;
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    let _ = rustix::process::setsid();
    let spec = &configuration.spec;
    let mut flags = UnshareFlags::NEWNS;
    let own_network = matches!(spec.network, ZoneNetwork::Own { .. });
    for (wanted, flag) in [
        (own_network, UnshareFlags::NEWNET | UnshareFlags::NEWUTS),
        (!spec.host_ipc, UnshareFlags::NEWIPC),
        (!spec.host_processes, UnshareFlags::NEWPID),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    // SAFETY: descriptors are not unshared (no FILES), and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    let child = std::process::Command::new("/proc/self/exe")
        .arg("init")
        .arg("--zone")
        .arg(directory)
        .arg("--inside")
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .spawn()?;
    let pid = child.id();
    let started = crate::zone::linux::start_time(pid).unwrap_or_default();
    std::fs::write(directory.join(super::BORN), format!("{pid} {started}"))
}

fn in_the_zone(directory: &Path) -> io::Result<()> {
    let configuration = configuration(directory)?;
    let spec = &configuration.spec;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if !spec.host_processes {
        rustix::mount::mount("proc", "/proc", "proc", closed, c"")?;
    }
    let program = program(directory)?;
    let shm = directory.join("shm");
    match spec.host_ipc {
        true => {
            std::fs::create_dir_all(&shm)?;
            rustix::mount::mount_bind("/dev/shm", &shm)?;
        }
        false => tmpfs(&shm, Some(SHARED_MEMORY))?,
    }
    std::fs::create_dir_all(directory.join("root"))?;
    memory(spec)?;
    if matches!(spec.network, ZoneNetwork::Own { .. }) {
        rustix::system::sethostname(spec.hostname.as_bytes())?;
    }
    for (name, value) in &spec.sysctls {
        // A dot inside a part is written as a slash: `net.ipv4.conf.eth0/1.rp_filter`.
        let part = |part: &str| part.replace('/', ".");
        let parts: Vec<String> = name.split('.').map(part).collect();
        let path = format!("/proc/sys/{}", parts.join("/"));
        std::fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    supervise(
        Walls::Namespaces,
        directory.to_owned(),
        configuration,
        program,
    )
}

/// The path of our program for the processes that become containers. Such a process is already inside the container
/// before it executes another program: whoever opens its executable there (`/proc/PID/exe`) must not be able to write
/// to it.
fn program(directory: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let path = directory.join("program");
    let own = Path::new("/proc/self/exe");
    let which = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    // The link refers to the host's mounts; its path leads to the same file in those of the zone.
    let named = std::fs::read_link(own)?;
    if which(&named).ok() == Some(which(own)?) {
        std::fs::File::create(&path)?;
        rustix::mount::mount_bind(&named, &path)?;
    } else {
        // Another version was installed since the agent was started.
        std::fs::copy(own, &path)?;
        rustix::mount::mount_bind(&path, &path)?;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let bound = rustix::fs::openat(CWD, &path, flags, Mode::empty())?;
    read_only(&bound, false)?;
    Ok(path)
}
