//! The last step before a program runs: a fresh single-threaded process of ours builds the container's surroundings
//! around itself and becomes the program.
//!
//! A process of our own binary, not a forked one: nothing of the supervisor is left in it, and none of this needs
//! care about what may be called between fork and exec. It gets what to do over a socket, tells an error on the same
//! socket, and success is that the socket closes when the program is executed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::storage::beneath::{ensure, ensure_with, open_in, through};
use crate::zone::{Mount, ProcessSpec, Propagation, Rights, Root};

/// What such a process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stage {
    /// The container.
    pub spec: ProcessSpec,
    /// Control groups to join.
    pub groups: Vec<PathBuf>,
    /// It gets a terminal of its own, whose other end it hands over.
    pub tty: bool,
    /// Join the surroundings of this process instead of building them, and run this command in them.
    pub join: Option<(i32, Vec<String>)>,
    /// An empty directory to build the root on.
    pub scratch: PathBuf,
    /// The directory that is the zone's shared memory.
    pub shm: PathBuf,
    /// The process has a process namespace of its own.
    pub own_processes: bool,
}

/// What went wrong: at what, and why.
type Failure = String;

fn at<T, E: std::fmt::Display>(
    what: impl std::fmt::Display,
    result: Result<T, E>,
) -> Result<T, Failure> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Runs the stage whose socket is descriptor `fd`; only returns if it failed.
pub fn run(fd: i32) -> std::process::ExitCode {
    // Nothing else in this fresh process knows the descriptor: it was made for it and handed over by number.
    // SAFETY: the supervisor passes a descriptor that is open and owned by nobody else in this process.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut socket = UnixStream::from(socket);
    if rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).is_err() {
        return 128.into();
    }
    let error = match stage(&mut socket) {
        Ok(stage) => match become_program(&stage, &socket) {
            Err(error) => error,
            Ok(never) => match never {},
        },
        Err(error) => format!("cannot read what to run: {error}"),
    };
    let _ = socket.write_all(error.as_bytes());
    128.into()
}

fn stage(socket: &mut UnixStream) -> io::Result<Stage> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

enum Never {}

fn become_program(stage: &Stage, socket: &UnixStream) -> Result<Never, Failure> {
    for group in &stage.groups {
        let path = group.join("cgroup.procs");
        at(path.display(), fs::write(&path, "0"))?;
    }
    let _ = rustix::process::setsid();
    if let Some(score) = stage.spec.limits.oom_score {
        // The score of pid 1 of a namespace may not be lowered below what it was without a capability.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    let command = match &stage.join {
        Some((pid, command)) => {
            join(*pid)?;
            command
        }
        None => {
            build(stage)?;
            &stage.spec.command
        }
    };
    let account = Account::find(&stage.spec.rights)?;
    if stage.tty {
        at(
            "make a terminal",
            terminal(socket, account.uid, stage.join.is_none()),
        )?;
    }
    let directory = &stage.spec.directory;
    if stage.join.is_none() && !directory.exists() {
        at(directory.display(), fs::create_dir_all(directory))?;
        let _ = rustix::fs::chown(
            directory,
            Some(rustix::fs::Uid::from_raw(account.uid)),
            Some(rustix::fs::Gid::from_raw(account.gid)),
        );
    }
    at(
        format!(
            "chdir to cwd ({:?}) set in config.json failed",
            directory.display().to_string()
        ),
        rustix::process::chdir(directory),
    )?;
    account.assume(&stage.spec.rights)?;
    execute(command, &stage.spec.environment, &account.home)
}

/// Makes a terminal of the container's own, puts it on the standard streams of this process, and hands its other end
/// over. That of a container (`console`) is its `/dev/console` too.
fn terminal(socket: &UnixStream, uid: u32, console: bool) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use rustix::pty::OpenptFlags;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer)?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None)?;
    if console {
        // A root that cannot be written has none, which hurts nobody.
        let _ = fs::write("/dev/console", "")
            .and_then(|()| Ok(rustix::mount::mount_bind(&name, c"/dev/console")?));
    }
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let handed = [std::os::fd::AsFd::as_fd(&master)];
    message.push(SendAncillaryMessage::ScmRights(&handed));
    let content = [io::IoSlice::new(&[TERMINAL])];
    rustix::net::sendmsg(socket, &content, &mut message, SendFlags::empty())?;
    Ok(())
}

/// The byte that comes with a terminal: no text of an error begins with it.
const TERMINAL: u8 = 0;

/// Takes what such a process tells: the other end of its terminal if it has one. Resolves when it executed its program.
///
/// # Errors
/// Why it could not, in its words.
pub async fn outcome(socket: tokio::net::UnixStream) -> Result<Option<OwnedFd>, String> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut terminal = None;
    let mut error = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let received = socket.async_io(tokio::io::Interest::READABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut message = RecvAncillaryBuffer::new(&mut space);
            let mut content = [io::IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(&socket, &mut content, &mut message, flags)?;
            let handed = message.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut handed) => handed.next(),
                _ => None,
            });
            Ok((received.bytes, handed))
        });
        match received.await {
            Ok((0, _)) | Err(_) => break,
            Ok((count, handed)) => {
                let told = &bytes[..count];
                error.extend(match handed.is_some() {
                    true => told.strip_prefix(&[TERMINAL]).unwrap_or(told),
                    false => told,
                });
                terminal = handed.or(terminal);
            }
        }
    }
    match error.is_empty() {
        true => Ok(terminal),
        false => Err(String::from_utf8_lossy(&error).into_owned()),
    }
}

/// Executes the program; its environment decides where it is looked for.
fn execute(command: &[String], environment: &[String], home: &str) -> Result<Never, Failure> {
    let (program, arguments) = command.split_first().ok_or("no command specified")?;
    let mut variables: Vec<(&str, &str)> = environment
        .iter()
        .filter_map(|variable| variable.split_once('='))
        .collect();
    if !variables.iter().any(|(name, _)| *name == "HOME") {
        variables.push(("HOME", home));
    }
    let search = variables
        .iter()
        .rev()
        .find(|(name, _)| *name == "PATH")
        .map_or(
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            |(_, path)| *path,
        );
    let path = find(program, search)?;
    let error = std::process::Command::new(&path)
        .arg0(program)
        .args(arguments)
        .env_clear()
        .envs(variables)
        .exec();
    let reason = match error.raw_os_error() {
        Some(8) => "exec format error".to_owned(),
        Some(13) => "permission denied".to_owned(),
        Some(2) => "no such file or directory".to_owned(),
        _ => error.to_string(),
    };
    Err(format!("exec {program}: {reason}"))
}

fn find(program: &str, search: &str) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return match Path::new(program).metadata() {
            Ok(_) => Ok(program.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
                "exec: {program:?}: stat {program}: no such file or directory"
            )),
            Err(error) => Err(format!("exec: {program:?}: {error}")),
        };
    }
    search
        .split(':')
        .map(|directory| {
            Path::new(if directory.is_empty() { "." } else { directory }).join(program)
        })
        .find(|path| executable(path))
        .ok_or_else(|| format!("exec: {program:?}: executable file not found in $PATH"))
}

/// Joins the namespaces of a process; its process namespace was joined by who started us.
fn join(pid: i32) -> Result<(), Failure> {
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
fn build(stage: &Stage) -> Result<(), Failure> {
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
            let list: Vec<String> = lower
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            let data = format!(
                "lowerdir={},upperdir={},workdir={}",
                list.join(":"),
                upper.display(),
                work.display()
            );
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

/// Shows a directory or file of the host in the root.
fn bind(root: &OwnedFd, of: &Mount) -> Result<(), Failure> {
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

/// Who a program runs as.
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: String,
}

impl Account {
    /// Looks users and groups up in the root that we are in.
    fn find(rights: &Rights) -> Result<Self, Failure> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::among(rights, &passwd, &group)
    }

    fn among(rights: &Rights, passwd: &str, group: &str) -> Result<Self, Failure> {
        let (user, named_group) = match rights.user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (rights.user.as_str(), None),
        };
        let entry = |matches: &dyn Fn(&[&str]) -> bool| {
            passwd
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|parts| parts.len() >= 6 && matches(parts))
                .map(|parts| {
                    parts
                        .iter()
                        .map(|part| (*part).to_owned())
                        .collect::<Vec<_>>()
                })
        };
        let (uid, known) = match (rights.uid, user) {
            (Some(uid), _) => (uid, entry(&|parts| parts[2].parse() == Ok(uid))),
            (None, "") => (0, entry(&|parts| parts[2] == "0")),
            (None, user) => match (user.parse::<u32>(), entry(&|parts| parts[0] == user)) {
                (_, Some(known)) => {
                    let uid = known[2]
                        .parse()
                        .map_err(|_| format!("bad uid of user {user}"))?;
                    (uid, Some(known))
                }
                (Ok(uid), None) => (uid, entry(&|parts| parts[2].parse() == Ok(uid))),
                (Err(_), None) => {
                    return Err(format!(
                        "unable to find user {user}: no matching entries in passwd file"
                    ));
                }
            },
        };
        let by_name = |wanted: &str| {
            group
                .lines()
                .map(|line| line.split(':').collect::<Vec<_>>())
                .find(|parts| parts.len() >= 3 && parts[0] == wanted)
                .and_then(|parts| parts[2].parse::<u32>().ok())
        };
        let gid = match (rights.gid, named_group.filter(|_| rights.uid.is_none())) {
            (Some(gid), _) => gid,
            (None, Some(name)) => by_name(name).or_else(|| name.parse().ok()).ok_or_else(|| {
                format!("unable to find group {name}: no matching entries in group file")
            })?,
            (None, None) => known
                .as_ref()
                .and_then(|known| known[3].parse().ok())
                .unwrap_or(0),
        };
        let mut groups = rights.groups.clone();
        if let Some(known) = known.as_ref().filter(|_| !rights.strict_groups) {
            for line in group.lines() {
                let parts: Vec<&str> = line.split(':').collect();
                if parts.len() >= 4
                    && parts[3].split(',').any(|member| member == known[0])
                    && let Ok(gid) = parts[2].parse()
                {
                    groups.push(gid);
                }
            }
        }
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let home = known.map_or("/".to_owned(), |known| known[5].clone());
        Ok(Account {
            uid,
            gid,
            groups,
            home,
        })
    }

    /// Takes the identity and gives up every right that it does not have.
    fn assume(&self, rights: &Rights) -> Result<(), Failure> {
        use rustix::thread::{Gid, Uid};
        if !rights.privileged {
            for number in 0..=40u32 {
                let wanted = rights
                    .capabilities
                    .iter()
                    .any(|name| CAPABILITIES.get(number as usize) == Some(&name.as_str()));
                if !wanted {
                    let one = CapabilitySet::from_bits_retain(1 << number);
                    // A capability that this kernel does not know cannot be had either.
                    let _ = rustix::thread::remove_capability_from_bounding_set(one);
                }
            }
        }
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        at(
            "take the groups",
            rustix::thread::set_thread_groups(&groups),
        )?;
        let gid = Gid::from_raw(self.gid);
        at(
            "take the group",
            rustix::thread::set_thread_res_gid(gid, gid, gid),
        )?;
        let uid = Uid::from_raw(self.uid);
        at(
            "take the user",
            rustix::thread::set_thread_res_uid(uid, uid, uid),
        )?;
        if rights.no_new_privileges {
            at(
                "give up gaining rights",
                rustix::thread::set_no_new_privs(true),
            )?;
        }
        Ok(())
    }
}

/// Capabilities by their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The command that starts such a process, with its end of the socket.
pub fn command(fd: &OwnedFd) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    let number = OsString::from(fd.as_raw_fd().to_string());
    command.arg("init").arg("--stage").arg(number).env_clear();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_as_images_and_pods_name_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/var/www:/bin/sh\n";
        let group = "root:x:0:\nstaff:x:50:web,x\nwww:x:44:\n";
        let find = |uid: Option<u32>, gid: Option<u32>, user: &str| {
            let rights = Rights {
                uid,
                gid,
                user: user.into(),
                groups: vec![7],
                ..Rights::default()
            };
            Account::among(&rights, passwd, group)
                .map(|found| (found.uid, found.gid, found.groups, found.home))
        };
        assert_eq!(find(None, None, ""), Ok((0, 0, vec![0, 7], "/root".into())));
        assert_eq!(
            find(None, None, "web"),
            Ok((33, 44, vec![7, 44, 50], "/var/www".into()))
        );
        assert_eq!(
            find(None, None, "web:staff"),
            Ok((33, 50, vec![7, 50], "/var/www".into()))
        );
        assert_eq!(
            find(None, None, "1000:1001"),
            Ok((1000, 1001, vec![7, 1001], "/".into()))
        );
        assert_eq!(
            find(Some(33), None, "root"),
            Ok((33, 44, vec![7, 44, 50], "/var/www".into()))
        );
        assert_eq!(
            find(Some(9), Some(8), "web:www"),
            Ok((9, 8, vec![7, 8], "/".into()))
        );
        assert!(find(None, None, "nobody").is_err());
    }
}
