//! How a supervisor comes to run: on Linux it makes the zone around itself, on illumos it is the zone's init.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::control::Supervisor;
use super::{Configuration, Walls, ZONE};
use crate::zone::ZoneNetwork;
use crate::zone::illumos::{CONTROL, READABLE};

/// The size of a zone's shared memory, in bytes, as of other runtimes.
const SHARED_MEMORY: u64 = 64 << 20;

/// Runs the supervisor of the zone in `directory`. The first process makes the namespaces, starts the second
/// (`inside`) in them, notes its id and ends.
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

fn configuration(directory: &Path) -> io::Result<Configuration> {
    Ok(serde_json::from_slice(&std::fs::read(
        directory.join(ZONE),
    )?)?)
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
    let started = super::super::linux::start_time(pid).unwrap_or_default();
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
    let shm = directory.join("shm");
    match spec.host_ipc {
        true => {
            std::fs::create_dir_all(&shm)?;
            rustix::mount::mount_bind("/dev/shm", &shm)?;
        }
        false => tmpfs(&shm, Some(SHARED_MEMORY))?,
    }
    std::fs::create_dir_all(directory.join("root"))?;
    memory(&spec.memory_directories)?;
    if matches!(spec.network, ZoneNetwork::Own { .. }) {
        rustix::system::sethostname(spec.hostname.as_bytes())?;
    }
    for (name, value) in &spec.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    supervise(Walls::Namespaces, directory.to_owned(), configuration)
}

/// Supervises until the end of the process.
fn supervise(walls: Walls, directory: PathBuf, configuration: Configuration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Rc::new(Supervisor {
        walls,
        directory,
        boot: format!(
            "{:x}-{}",
            Timestamp::now().as_nanosecond(),
            std::process::id()
        ),
        configuration,
        state: Mutex::default(),
    });
    tokio::task::LocalSet::new().block_on(&runtime, supervisor.serve())
}

fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map_or(String::new(), |size| format!(",size={size}"));
    let data = std::ffi::CString::new(format!("mode=1777{size}"))?;
    std::fs::create_dir_all(path)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(
        "tmpfs",
        path,
        "tmpfs",
        flags,
        data.as_c_str(),
    )?)
}

fn memory(directories: &BTreeMap<PathBuf, Option<u64>>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, size) in directories {
        tmpfs(path, *size)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// The init of a zone of illumos (`/sbin/init`, `reddwarf init` with no more words). The first process of the zone
/// supervises it and never ends, for the zone would be booted again; another one, which zoneadm(8) starts for
/// `shutdown`, asks the first to end the containers.
pub fn init() -> ExitCode {
    if std::process::id() != 1 {
        let asked = rustix::process::kill_process(Pid::INIT, rustix::process::Signal::TERM);
        return match asked {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("reddwarf init: the zone's supervisor cannot be asked: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(error) = in_a_zone() {
        eprintln!("reddwarf init: {error}");
    }
    loop {
        std::thread::park();
    }
}

fn in_a_zone() -> io::Result<()> {
    let (readable, control) = (Path::new(READABLE), PathBuf::from(CONTROL));
    let at = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let configuration = configuration(readable).map_err(|error| at(&readable.join(ZONE), error))?;
    let spec = &configuration.spec;
    if let Err(error) = rustix::system::sethostname(spec.hostname.as_bytes()) {
        eprintln!("reddwarf init: the host name {}: {error}", spec.hostname);
    }
    let shm = Path::new("/dev/shm");
    if let Err(error) = tmpfs(shm, Some(SHARED_MEMORY)) {
        // Few programs want it.
        eprintln!("reddwarf init: {}: {error}", shm.display());
    }
    memory(&spec.memory_directories)?;
    // The agent is dialled by a short name.
    std::env::set_current_dir(&control).map_err(|error| at(&control, error))?;
    supervise(Walls::Roots, control, configuration)
}
