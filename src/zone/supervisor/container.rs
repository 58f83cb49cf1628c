//! The last step before a program runs: a new single-threaded process of ours sets up the container's environment
//! around itself and executes the program.
//!
//! It is executed from our binary, not just forked: nothing of the supervisor is left in it, and the restrictions
//! between fork and exec do not apply. It receives its task over a socket and reports an error on it; the socket closes
//! on success, when the program is executed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::{Walls, roots, system};
#[cfg(target_os = "linux")]
use super::{namespaces, pause};
use crate::zone::{Identity, ProcessSpec};

/// The task of such a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Execute a program of a container.
    Program(Box<Stage>),
    /// Become the first process of a namespace that containers share; its root is built in this empty directory.
    #[cfg(target_os = "linux")]
    Pause(PathBuf),
}

/// What to set up before a program of a container runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stage {
    /// How containers are isolated.
    pub walls: Walls,
    /// The container.
    pub spec: ProcessSpec,
    /// Control groups to join.
    pub groups: Vec<PathBuf>,
    /// Create a terminal and send its other end over the socket.
    pub tty: bool,
    /// Instead of setting up an environment, join that of this process and run this command in it.
    pub join: Option<(i32, Vec<String>)>,
    /// Where the root is built: an empty or missing directory.
    pub scratch: PathBuf,
    /// The directory of the zone's shared memory.
    pub shm: PathBuf,
}

/// An error message: the operation and the reason.
pub(super) type Failure = String;

pub(super) fn at<T, E: std::fmt::Display>(
    what: impl std::fmt::Display,
    result: Result<T, E>,
) -> Result<T, Failure> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Runs the stage with the socket `fd`; only returns after a failure.
pub fn run(fd: i32) -> std::process::ExitCode {
    // The descriptor was created for this process and passed by number.
    // SAFETY: the supervisor passes a descriptor that is open and owned by nobody else in this process.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut socket = UnixStream::from(socket);
    if rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).is_err() {
        return 128.into();
    }
    let error = match task(&mut socket) {
        Ok(Task::Program(stage)) => match become_program(&stage, &socket) {
            Err(error) => error,
            Ok(never) => match never {},
        },
        #[cfg(target_os = "linux")]
        Ok(Task::Pause(scratch)) => match pause::confine(&scratch) {
            Err(error) => error,
            Ok(()) => {
                drop(socket);
                pause::stay()
            }
        },
        Err(error) => format!("cannot read what to run: {error}"),
    };
    let _ = socket.write_all(error.as_bytes());
    128.into()
}

fn task(socket: &mut UnixStream) -> io::Result<Task> {
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
        let mut joined = fs::write(&path, "0");
        // A group that hands controllers to groups of the container's own takes no process itself. A program that
        // starts beside those of the container goes where its first one went.
        if let Some((first, _)) = &stage.join
            && joined
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
            && let Some(inner) = group_with(group, *first)
        {
            joined = fs::write(inner.join("cgroup.procs"), "0");
        }
        at(path.display(), joined)?;
    }
    let _ = rustix::process::setsid();
    if let Some(score) = stage.spec.limits.oom_score {
        // Process 1 of a namespace may not lower its score below the initial one without a capability.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    surround(stage)?;
    let command = match &stage.join {
        Some((_, command)) => command,
        None => &stage.spec.command,
    };
    let account = Account::find(&stage.spec.rights)?;
    if stage.tty {
        at(
            "make a terminal",
            terminal(socket, account.identity.uid, stage),
        )?;
    }
    let directory = &stage.spec.directory;
    if stage.join.is_none() && !directory.exists() {
        at(directory.display(), fs::create_dir_all(directory))?;
        let _ = rustix::fs::chown(
            directory,
            Some(rustix::fs::Uid::from_raw(account.identity.uid)),
            Some(rustix::fs::Gid::from_raw(account.identity.gid)),
        );
    }
    at(
        format!(
            "chdir to cwd ({:?}) set in config.json failed",
            directory.display().to_string()
        ),
        rustix::process::chdir(directory),
    )?;
    let rights = &stage.spec.rights;
    if rights.seccomp && !rights.privileged && stage.walls.are_namespaces() {
        // Before privileges are given up, because this needs one.
        at("filter system calls", system::confine(rights))?;
    }
    account.assume(rights)?;
    if stage.spec.rights.no_new_privileges && stage.walls.are_namespaces() {
        system::gain_no_more()?;
    }
    at("tell who it is", tell_identity(socket, &account.identity))?;
    execute(command, &stage.spec.environment, &account.home)
}

/// The group that a process is in, `group` or one below it.
fn group_with(group: &Path, pid: i32) -> Option<PathBuf> {
    let mut left = vec![group.to_owned()];
    while let Some(group) = left.pop() {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if text.lines().any(|line| line.parse() == Ok(pid)) {
            return Some(group);
        }
        let entries = fs::read_dir(&group).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(inner.map(|entry| entry.path()));
    }
    None
}

/// Sets up the container's environment around this process, or joins it.
fn surround(stage: &Stage) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    if stage.walls.are_namespaces() {
        namespaces::leave_keyring()?;
        return match &stage.join {
            Some((pid, _)) => namespaces::join(*pid),
            None => namespaces::build(stage),
        };
    }
    match &stage.join {
        Some(_) => roots::enter(&stage.scratch),
        None => roots::build(stage),
    }
}

/// Creates a terminal for the container, connects the standard streams of this process to it, and sends its other end
/// over the socket.
fn terminal(socket: &UnixStream, uid: u32, stage: &Stage) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let (master, slave) = system::terminal(stage)?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None)?;
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

/// The byte that accompanies a terminal: no error message begins with it.
const TERMINAL: u8 = 0;
/// The byte before an [`Identity`], which is sent right before the program is executed: no error message begins with
/// it.
const IDENTITY: u8 = 1;

/// Sends the identity of the program: the length and the JSON.
fn tell_identity(mut socket: &UnixStream, identity: &Identity) -> io::Result<()> {
    let text = serde_json::to_vec(identity)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    socket.write_all(&[&[IDENTITY][..], &length.to_be_bytes(), &text].concat())
}

/// Splits what was received: the identity, if it was sent, and the error message, if any.
fn heard(told: &[u8]) -> (Option<Identity>, &[u8]) {
    let identity = told.strip_prefix(&[IDENTITY]).and_then(|rest| {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        Some((serde_json::from_slice(text).ok()?, rest))
    });
    match identity {
        Some((identity, rest)) => (Some(identity), rest),
        None => (None, told),
    }
}

/// A running program.
pub struct Executed {
    /// The other end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// The user that it runs as.
    pub identity: Option<Identity>,
}

/// Receives the result of such a process. Resolves when its program is executed.
///
/// # Errors
/// Its error message.
pub async fn outcome(socket: tokio::net::UnixStream) -> Result<Executed, String> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut terminal = None;
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let received = socket.async_io(tokio::io::Interest::READABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut message = RecvAncillaryBuffer::new(&mut space);
            let mut content = [io::IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::empty();
            let received = rustix::net::recvmsg(&socket, &mut content, &mut message, flags)?;
            let handed = message.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut handed) => handed.next(),
                _ => None,
            });
            if let Some(handed) = &handed {
                // No child is started meanwhile, because this thread does that.
                rustix::io::fcntl_setfd(handed, rustix::io::FdFlags::CLOEXEC)?;
            }
            Ok((received.bytes, handed))
        });
        match received.await {
            Ok((0, _)) | Err(_) => break,
            Ok((count, handed)) => {
                let told = &bytes[..count];
                all.extend(match handed.is_some() {
                    true => told.strip_prefix(&[TERMINAL]).unwrap_or(told),
                    false => told,
                });
                terminal = handed.or(terminal);
            }
        }
    }
    let (identity, error) = heard(&all);
    match error.is_empty() {
        true => Ok(Executed { terminal, identity }),
        false => Err(String::from_utf8_lossy(error).into_owned()),
    }
}

/// The highest signal number.
const LAST_SIGNAL: libc::c_int = 64;

/// Resets all ignored signals. Programs inherit ignored signals, and the agent may have been started with some: a shell
/// ignores `INT` and `QUIT` for background processes.
fn heed_signals() {
    for number in 1..=LAST_SIGNAL {
        // SAFETY: this only restores default actions; invalid numbers are rejected. Existing handlers are those of this
        // program, which ends here.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Executes the program, which is searched in the PATH of its environment.
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
    heed_signals();
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

/// The command that starts such a process of our `program`, with its end of the socket.
pub fn command(program: &Path, fd: &OwnedFd) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    let number = OsString::from(fd.as_raw_fd().to_string());
    command.arg("init").arg("--stage").arg(number).env_clear();
    command
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_process_is_found_in_the_groups_of_its_container() {
        let directory = tempfile::tempdir().expect("a directory");
        let group = directory.path();
        for (path, processes) in [("", ""), ("init", "7\n17\n"), ("docker/id", "8\n")] {
            let path = group.join(path);
            fs::create_dir_all(&path).expect("made");
            fs::write(path.join("cgroup.procs"), processes).expect("written");
        }
        for (pid, expected) in [(17, Some("init")), (8, Some("docker/id")), (1, None)] {
            assert_eq!(
                group_with(group, pid),
                expected.map(|path| group.join(path)),
                "{pid}"
            );
        }
    }

    #[test]
    fn who_a_program_is_is_told_before_why_it_does_not_run() {
        let identity = Identity {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
        };
        for (told, error) in [
            (true, ""),
            (true, "exec x: no"),
            (false, "no root"),
            (false, ""),
        ] {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            if told {
                tell_identity(&ours, &identity).expect("told");
            }
            (&ours).write_all(error.as_bytes()).expect("told");
            drop(ours);
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).expect("heard");
            let expected = (told.then(|| identity.clone()), error.as_bytes());
            assert_eq!(heard(&all), expected, "{told} {error}");
        }
        // A truncated identity is ignored.
        assert_eq!(heard(&[IDENTITY, 0, 0]), (None, &[IDENTITY, 0, 0][..]));
    }
}
