//! The supervisor itself: what it keeps, and what it does when the agent asks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::container::{self, Stage};
use super::fd::Fd;
use super::logs::Log;
use super::streams::{Listeners, pump};
use super::{
    Ask, Configuration, Hello, Process, ProcessId, ProcessSpec, Refusal, Reply, SOCKET, SessionEnd,
    What, ZONE, kind, read_frame, write_frame, write_json,
};
use crate::zone::{Ending, ExecSpec, ZoneNetwork};

/// How long output may lag behind the end of a process that left children behind.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The wait before the agent is dialled again.
const REDIAL: Duration = Duration::from_millis(300);

/// The directory below each of the zone's control groups that belongs to a process.
pub fn group_of(id: &ProcessId) -> String {
    format!("{}-{}", id.name, id.generation)
}

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
    std::fs::write(directory.join("pid.new"), format!("{pid} {started}"))?;
    std::fs::rename(directory.join("pid.new"), directory.join(super::PID))
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
    let tmpfs = |path: &Path, size: Option<u64>| -> io::Result<()> {
        let size = size.map_or(String::new(), |size| format!(",size={size}"));
        let data = std::ffi::CString::new(format!("mode=1777{size}"))?;
        std::fs::create_dir_all(path)?;
        Ok(rustix::mount::mount(
            "tmpfs",
            path,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            data.as_c_str(),
        )?)
    };
    let shm = directory.join("shm");
    match spec.host_ipc {
        true => {
            std::fs::create_dir_all(&shm)?;
            rustix::mount::mount_bind("/dev/shm", &shm)?;
        }
        false => tmpfs(&shm, Some(64 << 20))?,
    }
    std::fs::create_dir_all(directory.join("root"))?;
    for (path, size) in &spec.memory_directories {
        use std::os::unix::fs::PermissionsExt as _;
        tmpfs(path, *size)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    if matches!(spec.network, ZoneNetwork::Own { .. }) {
        rustix::system::sethostname(spec.hostname.as_bytes())?;
    }
    for (name, value) in &spec.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let supervisor = Rc::new(Supervisor {
        directory: directory.to_owned(),
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

struct Entry {
    process: Process,
    spec: ProcessSpec,
    pid: i32,
    listeners: Listeners,
    input: Input,
}

/// The input of a process that somebody may feed, and its terminal.
#[derive(Clone, Default)]
struct Input {
    to: Arc<tokio::sync::Mutex<Option<Fd>>>,
    terminal: Option<Arc<OwnedFd>>,
}

impl Input {
    async fn frame(&self, kind: u8, payload: &[u8]) {
        match kind {
            kind::STDIN => {
                if let Some(to) = self.to.lock().await.as_mut() {
                    // A program that closed its input does not end the session.
                    let _ = to.write_all(payload).await;
                }
            }
            kind::STDIN_END if self.terminal.is_none() => {
                self.to.lock().await.take();
            }
            kind::RESIZE => {
                if let (Some(terminal), [a, b, c, d]) = (&self.terminal, payload) {
                    let size = rustix::termios::Winsize {
                        ws_col: u16::from_be_bytes([*a, *b]),
                        ws_row: u16::from_be_bytes([*c, *d]),
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    let _ = rustix::termios::tcsetwinsize(terminal.as_ref(), size);
                }
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct State {
    entries: BTreeMap<ProcessId, Entry>,
    /// Who waits for the end of a child.
    waiting: HashMap<i32, oneshot::Sender<(i32, i32)>>,
    /// Children that ended before anybody waited.
    early: HashMap<i32, (i32, i32)>,
    agent: Option<mpsc::Sender<(u8, Vec<u8>)>>,
}

struct Supervisor {
    directory: PathBuf,
    boot: String,
    configuration: Configuration,
    state: Mutex<State>,
}

/// A child that was started: its streams are ours.
struct Child {
    pid: i32,
    ends: Ends,
    ended: oneshot::Receiver<(i32, i32)>,
}

/// The descriptors of a child and of us.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    ends: Ends,
}

/// Our ends of a child's streams: its output, and whether that is its error stream, and its input.
struct Ends {
    outputs: Vec<(OwnedFd, bool)>,
    input: Input,
}

impl Ends {
    /// Those of a child whose streams are a terminal.
    fn of_terminal(terminal: OwnedFd) -> io::Result<Self> {
        Ok(Ends {
            input: Input {
                to: Arc::new(tokio::sync::Mutex::new(Some(Fd::new(
                    terminal.try_clone()?,
                )?))),
                terminal: Some(Arc::new(terminal.try_clone()?)),
            },
            outputs: vec![(terminal, false)],
        })
    }
}

fn streams(stdin: bool) -> io::Result<Streams> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (out, stdout) = pipe()?;
    let (err, stderr) = pipe()?;
    let (theirs, ours) = match stdin {
        true => {
            let (theirs, ours) = pipe()?;
            (Some(theirs), Some(Fd::new(ours)?))
        }
        false => (None, None),
    };
    Ok(Streams {
        stdin: theirs,
        stdout,
        stderr,
        ends: Ends {
            outputs: vec![(out, false), (err, true)],
            input: Input {
                to: Arc::new(tokio::sync::Mutex::new(ours)),
                terminal: None,
            },
        },
    })
}

impl Supervisor {
    async fn serve(self: Rc<Self>) -> io::Result<()> {
        let mut children = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        let reaper = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                reaper.reap();
                children.recv().await;
            }
        });
        loop {
            if let Ok(stream) = UnixStream::connect(SOCKET).await {
                self.clone().talk(stream).await;
                self.state.lock().agent = None;
            }
            tokio::time::sleep(REDIAL).await;
        }
    }

    /// Takes the exit statuses of children, ours and those that we inherited.
    fn reap(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let signal = status.terminating_signal().unwrap_or(0);
            let code = status.exit_status().unwrap_or(128 + signal);
            let pid = pid.as_raw_nonzero().get();
            let mut state = self.state.lock();
            match state.waiting.remove(&pid) {
                Some(waiting) => drop(waiting.send((code, signal))),
                None => {
                    // A child that is not registered yet, or an orphan: the latter is never asked for.
                    if state.early.len() > 1000 {
                        state.early.clear();
                    }
                    state.early.insert(pid, (code, signal));
                }
            }
        }
    }

    /// Serves the control connection until it breaks.
    async fn talk(self: Rc<Self>, stream: UnixStream) {
        let (mut from, mut to) = stream.into_split();
        let (sender, mut queue) = mpsc::channel::<(u8, Vec<u8>)>(256);
        let hello = {
            let mut state = self.state.lock();
            state.agent = Some(sender.clone());
            Hello::Control {
                boot: self.boot.clone(),
                processes: state
                    .entries
                    .values()
                    .map(|entry| entry.process.clone())
                    .collect(),
            }
        };
        if write_json(&mut to, kind::HELLO, &hello).await.is_err() {
            return;
        }
        let writer = tokio::task::spawn_local(async move {
            while let Some((kind, payload)) = queue.recv().await {
                if write_frame(&mut to, kind, &payload).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
            if kind != kind::ASK {
                continue;
            }
            let Ok(ask) = serde_json::from_slice::<Ask>(&payload) else {
                continue;
            };
            let (own, sender) = (self.clone(), sender.clone());
            tokio::task::spawn_local(async move {
                let number = ask.number;
                let result = own.answer(ask).await;
                if let Ok(reply) = serde_json::to_vec(&Reply { number, result }) {
                    let _ = sender.send((kind::REPLY, reply)).await;
                }
            });
        }
        writer.abort();
    }

    async fn changed(&self, process: Process) {
        let agent = self.state.lock().agent.clone();
        if let (Some(agent), Ok(payload)) = (agent, serde_json::to_vec(&process)) {
            let _ = agent.send((kind::CHANGED, payload)).await;
        }
    }

    async fn answer(self: Rc<Self>, ask: Ask) -> Result<(), Refusal> {
        match ask.what {
            What::Start(spec) => self.start(*spec).await,
            What::Signal(id, signal) => {
                let pid = {
                    let state = self.state.lock();
                    let entry = state.entries.get(&id).ok_or(Refusal::NotFound)?;
                    if entry.process.ended.is_some() {
                        return Ok(());
                    }
                    entry.pid
                };
                self.signal(&id, pid, signal.0)
            }
            What::Forget(id) => {
                let mut state = self.state.lock();
                match state.entries.get(&id) {
                    Some(entry) if entry.process.ended.is_none() => {
                        Err(Refusal::State("running".into()))
                    }
                    _ => {
                        state.entries.remove(&id);
                        Ok(())
                    }
                }
            }
            What::Exec(id, exec) => {
                let number = ask.number;
                let (spec, pid) = self.running(&id)?;
                tokio::task::spawn_local(self.clone().exec(number, spec, pid, exec));
                Ok(())
            }
            What::Attach(id) => {
                let number = ask.number;
                self.running(&id)?;
                tokio::task::spawn_local(self.clone().attach(number, id));
                Ok(())
            }
            What::Dial(port) => {
                tokio::task::spawn_local(self.clone().dial(ask.number, port));
                Ok(())
            }
        }
    }

    fn running(&self, id: &ProcessId) -> Result<(ProcessSpec, i32), Refusal> {
        let state = self.state.lock();
        let entry = state.entries.get(id).ok_or(Refusal::NotFound)?;
        match entry.process.ended {
            None => Ok((entry.spec.clone(), entry.pid)),
            Some(_) => Err(Refusal::State("ended".into())),
        }
    }

    /// The process of a name that runs.
    fn newest(&self, name: &str) -> Option<i32> {
        let state = self.state.lock();
        let mut entries = state.entries.values().rev();
        entries
            .find(|entry| entry.process.id.name == name && entry.process.ended.is_none())
            .map(|entry| entry.pid)
    }

    /// Whether processes have namespaces of their own.
    fn own_processes(&self) -> bool {
        !self.configuration.spec.host_processes && !self.configuration.spec.shared_processes
    }

    fn groups(&self, id: &ProcessId) -> Vec<PathBuf> {
        let name = group_of(id);
        self.configuration
            .groups
            .iter()
            .map(|group| group.join(&name))
            .collect()
    }

    fn signal(&self, id: &ProcessId, pid: i32, signal: i32) -> Result<(), Refusal> {
        let failed = |error: rustix::io::Errno| Refusal::Failed(error.to_string());
        let mut pids = vec![pid];
        if signal == 9 && !self.own_processes() {
            // Without a namespace of its own its children would go on.
            for group in self.groups(id) {
                let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
        for pid in pids {
            let (Some(pid), Some(signal)) = (
                Pid::from_raw(pid),
                rustix::process::Signal::from_named_raw(signal),
            ) else {
                return Err(Refusal::Failed(format!("no such signal: {signal}")));
            };
            match rustix::process::kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Starts a process of ours and hands it its stage. The text of an error comes from it.
    async fn spawn(&self, stage: &Stage, stdin: bool, join: Option<i32>) -> Result<Child, Refusal> {
        let failed = |error: io::Error| Refusal::Failed(error.to_string());
        let streams = streams(stdin && !stage.tty).map_err(failed)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut command = container::command(&theirs);
        command.stdin(match streams.stdin {
            Some(stdin) => stdin.into(),
            None => std::process::Stdio::null(),
        });
        command.stdout(streams.stdout).stderr(streams.stderr);
        let own = self.own_processes();
        // A namespace that a thread made or joined is where its children are born; the thread ends with that.
        let spawned = std::thread::spawn(move || -> io::Result<u32> {
            match join {
                Some(pid) if own => {
                    use std::os::fd::AsFd as _;
                    let file = std::fs::File::open(format!("/proc/{pid}/ns/pid"))?;
                    let kind = LinkNameSpaceType::ProcessID;
                    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))?;
                }
                // SAFETY: descriptors are not unshared (no FILES).
                None if own => unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID)? },
                _ => {}
            }
            Ok(command.spawn()?.id())
        })
        .join()
        .map_err(|_| Refusal::Failed("a thread broke".into()))?
        .map_err(failed)?;
        drop(theirs);
        let pid = spawned as i32;
        let (tell, ended) = oneshot::channel();
        {
            let mut state = self.state.lock();
            match state.early.remove(&pid) {
                Some(status) => drop(tell.send(status)),
                None => drop(state.waiting.insert(pid, tell)),
            }
        }
        ours.set_nonblocking(true).map_err(failed)?;
        let mut socket = UnixStream::from_std(ours).map_err(failed)?;
        let text = serde_json::to_vec(stage).map_err(|error| Refusal::Failed(error.to_string()))?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let _ = socket.write_all(&length).await;
        let _ = socket.write_all(&text).await;
        let terminal = container::outcome(socket).await.map_err(Refusal::Start)?;
        Ok(Child {
            pid,
            ends: match terminal {
                Some(terminal) => Ends::of_terminal(terminal).map_err(failed)?,
                None => streams.ends,
            },
            ended,
        })
    }

    fn stage(&self, spec: ProcessSpec, tty: bool, join: Option<(i32, Vec<String>)>) -> Stage {
        Stage {
            groups: self.groups(&spec.id),
            tty,
            join,
            scratch: self.directory.join("root"),
            shm: self.directory.join("shm"),
            own_processes: self.own_processes(),
            spec,
        }
    }

    async fn start(self: Rc<Self>, spec: ProcessSpec) -> Result<(), Refusal> {
        let id = spec.id.clone();
        if self.state.lock().entries.contains_key(&id) {
            return Ok(());
        }
        let beside = match &spec.beside {
            None => None,
            Some(name) => Some(self.newest(name).ok_or_else(|| {
                Refusal::State(format!(
                    "to see the processes of {name}, which does not run"
                ))
            })?),
        };
        let log = Log::open(&spec.log)
            .map_err(|error| Refusal::Failed(format!("{}: {error}", spec.log.display())))?;
        let log = Arc::new(Mutex::new(log));
        let stage = self.stage(spec.clone(), spec.tty, None);
        let begun = Timestamp::now();
        let mut process = Process {
            id: id.clone(),
            labels: spec.labels.clone(),
            started: begun,
            ended: None,
        };
        match self.spawn(&stage, spec.stdin, beside).await {
            Ok(child) => {
                let listeners = Listeners::default();
                self.state.lock().entries.insert(
                    id.clone(),
                    Entry {
                        process: process.clone(),
                        spec,
                        pid: child.pid,
                        listeners: listeners.clone(),
                        input: child.ends.input,
                    },
                );
                let pumps: Vec<_> = child
                    .ends
                    .outputs
                    .into_iter()
                    .map(|(fd, stderr)| {
                        tokio::task::spawn_local(pump(fd, stderr, log.clone(), listeners.clone()))
                    })
                    .collect();
                self.changed(process).await;
                let own = self.clone();
                tokio::task::spawn_local(async move {
                    let (code, signal) = child.ended.await.unwrap_or((137, 9));
                    own.ended(&id, code, signal, pumps).await;
                });
                Ok(())
            }
            Err(Refusal::Start(reason)) => {
                // It is a generation that ended at once, as of other runtimes.
                process.ended = Some(Ending {
                    error: Some(format!("failed to start container process: {reason}")),
                    ..Ending::exited(128, Timestamp::now())
                });
                self.state.lock().entries.insert(
                    id,
                    Entry {
                        process: process.clone(),
                        spec,
                        pid: 0,
                        listeners: Listeners::default(),
                        input: Input::default(),
                    },
                );
                self.changed(process).await;
                Err(Refusal::Start(format!(
                    "failed to start container process: {reason}"
                )))
            }
            Err(other) => Err(other),
        }
    }

    async fn ended(
        &self,
        id: &ProcessId,
        code: i32,
        signal: i32,
        pumps: Vec<tokio::task::JoinHandle<()>>,
    ) {
        let at = Timestamp::now();
        for pump in pumps {
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        // A child that was ended for it ends its parent with an ordinary status.
        let out_of_memory = code != 0 && self.killed_for_memory(id);
        let process = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(id) else {
                return;
            };
            entry.process.ended = Some(Ending {
                signal,
                out_of_memory,
                ..Ending::exited(code, at)
            });
            entry.listeners.close();
            entry.process.clone()
        };
        self.changed(process).await;
    }

    fn killed_for_memory(&self, id: &ProcessId) -> bool {
        self.groups(id).iter().any(|group| {
            ["memory.events", "memory.oom_control"].iter().any(|name| {
                std::fs::read_to_string(group.join(name)).is_ok_and(|text| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("oom_kill "))
                        .any(|count| count.trim() != "0")
                })
            })
        })
    }

    /// Dials the agent for a session.
    async fn session(&self, number: u64, refused: Option<String>) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(SOCKET).await.ok()?;
        let ends = refused.is_some();
        let hello = Hello::Session { number, refused };
        write_json(&mut stream, kind::HELLO, &hello).await.ok()?;
        (!ends).then_some(stream)
    }

    async fn exec(self: Rc<Self>, number: u64, mut spec: ProcessSpec, pid: i32, exec: ExecSpec) {
        if exec.tty && !spec.environment.iter().any(|one| one.starts_with("TERM=")) {
            spec.environment.push("TERM=xterm".into());
        }
        let stage = self.stage(spec, exec.tty, Some((pid, exec.command.clone())));
        let child = match self.spawn(&stage, exec.stdin, Some(pid)).await {
            Ok(child) => child,
            Err(refusal) => {
                let text = match refusal {
                    Refusal::Start(reason) => reason,
                    other => format!("{other:?}"),
                };
                self.session(number, Some(text)).await;
                return;
            }
        };
        let Some(stream) = self.session(number, None).await else {
            let _ = self.signal(&stage.spec.id, child.pid, 9);
            return;
        };
        let (mut from, mut to) = stream.into_split();
        let (sender, mut queue) = mpsc::channel::<(u8, Vec<u8>)>(16);
        let mut pumps = Vec::new();
        for (fd, stderr) in child.ends.outputs {
            let sender = sender.clone();
            pumps.push(tokio::task::spawn_local(async move {
                let Ok(mut from) = Fd::new(fd) else {
                    return;
                };
                let kind = if stderr { kind::STDERR } else { kind::STDOUT };
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(count) = from.read(&mut buffer).await {
                    if count == 0 || sender.send((kind, buffer[..count].to_vec())).await.is_err() {
                        return;
                    }
                }
            }));
        }
        let writer = tokio::task::spawn_local(async move {
            while let Some((kind, payload)) = queue.recv().await {
                if write_frame(&mut to, kind, &payload).await.is_err() {
                    return;
                }
            }
        });
        let input = child.ends.input;
        let own = self.clone();
        let (id, exec_pid) = (stage.spec.id.clone(), child.pid);
        let own_processes = self.own_processes();
        let reader = tokio::task::spawn_local(async move {
            while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
                input.frame(kind, &payload).await;
            }
            // Nobody listens any more: a program with a terminal is hung up, others see closed pipes.
            input.to.lock().await.take();
            if input.terminal.is_some() && own_processes {
                let _ = own.signal(&id, exec_pid, 1);
            }
        });
        let (code, signal) = child.ended.await.unwrap_or((137, 9));
        for pump in pumps {
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        let end: SessionEnd = Ok(Ending {
            signal,
            ..Ending::exited(code, Timestamp::now())
        });
        if let Ok(payload) = serde_json::to_vec(&end) {
            let _ = sender.send((kind::ENDED, payload)).await;
        }
        drop(sender);
        let _ = writer.await;
        reader.abort();
    }

    async fn attach(self: Rc<Self>, number: u64, id: ProcessId) {
        let (mut output, input, once) = {
            let state = self.state.lock();
            let Some(entry) = state.entries.get(&id) else {
                return;
            };
            let once = entry.spec.stdin_once;
            (entry.listeners.join(), entry.input.clone(), once)
        };
        let Some(stream) = self.session(number, None).await else {
            return;
        };
        let (mut from, mut to) = stream.into_split();
        let feeding = input.clone();
        let mut reader = tokio::task::spawn_local(async move {
            let mut fed = false;
            while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
                fed |= kind == kind::STDIN;
                if kind == kind::STDIN_END && !once {
                    continue;
                }
                feeding.frame(kind, &payload).await;
            }
            fed
        });
        loop {
            tokio::select! {
                chunk = output.recv() => match chunk {
                    Some((kind, payload)) => {
                        if write_frame(&mut to, kind, &payload).await.is_err() {
                            break;
                        }
                    }
                    None => {
                        let ending = self
                            .state
                            .lock()
                            .entries
                            .get(&id)
                            .and_then(|entry| entry.process.ended.clone());
                        let end: SessionEnd = ending.ok_or_else(|| "it was forgotten".to_owned());
                        let _ = write_json(&mut to, kind::ENDED, &end).await;
                        break;
                    }
                },
                fed = &mut reader => {
                    if once && fed.unwrap_or(false) {
                        input.to.lock().await.take();
                    }
                    return;
                }
            }
        }
        reader.abort();
    }

    async fn dial(self: Rc<Self>, number: u64, port: u16) {
        let target = match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(stream),
            Err(error) => TcpStream::connect(("::1", port)).await.map_err(|_| error),
        };
        match target {
            Ok(mut target) => {
                if let Some(mut stream) = self.session(number, None).await {
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
                }
            }
            Err(error) => {
                let text = format!("connect to localhost:{port} inside the pod: {error}");
                self.session(number, Some(text)).await;
            }
        }
    }
}
