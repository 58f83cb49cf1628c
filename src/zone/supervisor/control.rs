//! The supervisor itself: its state, and how it handles the agent's requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitOptions};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};

use super::child::Input;
use super::streams::Listeners;
use super::system::Cell;
use super::{
    Ask, Configuration, Hello, Numbered, Process, ProcessId, ProcessSpec, Refusal, Reply, SOCKET,
    SignalNumber, Walls, What, kind, read_frame, roots, write_frame, write_json,
};

/// The pause before the agent is dialled again.
const REDIAL: Duration = Duration::from_millis(300);
/// The grace period of processes when the zone is shut down.
const GRACE: Duration = Duration::from_secs(10);

/// Receives the exit code and signal with which a child ended.
pub(super) type Ended = oneshot::Receiver<(i32, i32)>;

pub(super) struct Entry {
    pub(super) process: Process,
    pub(super) spec: ProcessSpec,
    pub(super) pid: i32,
    /// Its descendants (on illumos a contract); None if it was not started.
    pub(super) cell: Option<Cell>,
    pub(super) listeners: Listeners,
    pub(super) input: Input,
}
#[derive(Default)]
pub(super) struct State {
    pub(super) entries: BTreeMap<ProcessId, Entry>,
    /// Who waits for the end of a child.
    pub(super) waiting: HashMap<i32, oneshot::Sender<(i32, i32)>>,
    /// Processes that are being started.
    pub(super) starting: BTreeSet<ProcessId>,
    agent: Option<mpsc::Sender<(u8, Vec<u8>)>>,
}

pub(super) struct Supervisor {
    pub(super) walls: Walls,
    pub(super) directory: PathBuf,
    pub(super) boot: String,
    pub(super) configuration: Configuration,
    /// The program that children run first.
    pub(super) program: PathBuf,
    pub(super) state: Mutex<State>,
    /// Notified when a start was completed, or a process ended.
    pub(super) settled: Notify,
    /// The first process of the namespace that containers share, and its end.
    #[cfg(target_os = "linux")]
    pub(super) pause: tokio::sync::Mutex<Option<(i32, Ended)>>,
}

/// Which processes a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its own, which end with its first process.
    #[cfg(target_os = "linux")]
    Own,
    /// Those of all containers in its pod.
    #[cfg(target_os = "linux")]
    Pod,
    /// All that its supervisor sees.
    Around,
}

impl Supervisor {
    pub(super) fn new(
        walls: Walls,
        directory: PathBuf,
        configuration: Configuration,
        program: PathBuf,
    ) -> Self {
        Supervisor {
            walls,
            directory,
            boot: format!(
                "{:x}-{}",
                jiff::Timestamp::now().as_nanosecond(),
                std::process::id()
            ),
            configuration,
            program,
            state: Mutex::default(),
            settled: Notify::new(),
            #[cfg(target_os = "linux")]
            pause: tokio::sync::Mutex::default(),
        }
    }

    pub(super) async fn serve(self: Rc<Self>) -> io::Result<()> {
        let mut children = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        let reaper = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                reaper.reap();
                children.recv().await;
            }
        });
        if self.walls == Walls::Roots {
            let mut asked =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let own = self.clone();
            tokio::task::spawn_local(async move {
                while asked.recv().await.is_some() {
                    own.stop().await;
                    // The caller waits for the zone to be halted (`zone_wait_shutdown`).
                    if let Err(error) = super::system::end_zone() {
                        eprintln!("reddwarf init: the zone cannot be ended: {error}");
                    }
                }
            });
        }
        loop {
            if let Ok(stream) = UnixStream::connect(SOCKET).await {
                self.clone().talk(stream).await;
                self.state.lock().agent = None;
            }
            tokio::time::sleep(REDIAL).await;
        }
    }

    /// Reaps children, ours and inherited ones.
    fn reap(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let signal = status.terminating_signal().unwrap_or(0);
            let code = status.exit_status().unwrap_or(128 + signal);
            let pid = pid.as_raw_nonzero().get();
            // Others are orphans, which nobody waits for.
            if let Some(waiting) = self.state.lock().waiting.remove(&pid) {
                let _ = waiting.send((code, signal));
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
            // A request without a number cannot be answered.
            let Ok(Numbered { number }) = serde_json::from_slice(&payload) else {
                eprintln!("reddwarf init: a request of the agent has no number");
                continue;
            };
            let ask = serde_json::from_slice::<Ask>(&payload);
            let (own, sender) = (self.clone(), sender.clone());
            tokio::task::spawn_local(async move {
                let result = match ask {
                    Ok(ask) => own.answer(ask).await,
                    Err(error) => Err(Refusal::Failed(format!(
                        "this supervisor, which may be of an older version, does not understand it: {error}"
                    ))),
                };
                if let Ok(reply) = serde_json::to_vec(&Reply { number, result }) {
                    let _ = sender.send((kind::REPLY, reply)).await;
                }
            });
        }
        writer.abort();
    }

    pub(super) async fn changed(&self, process: Process) {
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
                self.signal(&id, pid, signal)
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
            What::Label(id, labels) => {
                let mut state = self.state.lock();
                let entry = state.entries.get_mut(&id).ok_or(Refusal::NotFound)?;
                match entry.process.ended {
                    None => {
                        entry.process.labels.extend(labels);
                        Ok(())
                    }
                    Some(_) => Err(Refusal::State("ended".into())),
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
                let joined = self.join(&id)?;
                tokio::task::spawn_local(self.clone().attach(number, id, joined));
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

    /// Asks all processes to end, and kills them after the grace period.
    async fn stop(&self) {
        let running = || -> Vec<(ProcessId, i32)> {
            let state = self.state.lock();
            let entries = state.entries.iter();
            entries
                .filter(|(_, entry)| entry.process.ended.is_none())
                .map(|(id, entry)| (id.clone(), entry.pid))
                .collect()
        };
        let asked = running();
        for (id, pid) in &asked {
            let _ = self.signal(id, *pid, SignalNumber::TERM);
        }
        let left = || -> Vec<_> {
            let running = running().into_iter();
            running.filter(|one| asked.contains(one)).collect()
        };
        let gone = async {
            loop {
                let mut settled = std::pin::pin!(self.settled.notified());
                settled.as_mut().enable();
                if left().is_empty() {
                    return;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(GRACE, gone).await;
        for (id, pid) in left() {
            let _ = self.signal(&id, pid, SignalNumber::KILL);
        }
    }

    /// The running process with a name.
    pub(super) fn newest(&self, name: &str) -> Option<i32> {
        let state = self.state.lock();
        let mut entries = state.entries.values().rev();
        entries
            .find(|entry| entry.process.id.name == name && entry.process.ended.is_none())
            .map(|entry| entry.pid)
    }

    /// Which processes containers see.
    pub(super) fn seen(&self) -> Seen {
        #[cfg(target_os = "linux")]
        if self.walls == Walls::Namespaces && !self.configuration.spec.host_processes {
            return match self.configuration.spec.shared_processes {
                true => Seen::Pod,
                false => Seen::Own,
            };
        }
        Seen::Around
    }

    /// Whether the processes of a container survive the end of its first one.
    pub(super) fn outlive(&self) -> bool {
        matches!(self.seen(), Seen::Around) || self.configuration.spec.shared_processes
    }

    pub(super) fn groups(&self, id: &ProcessId) -> Vec<PathBuf> {
        let name = super::group_of(id);
        self.configuration
            .groups
            .iter()
            .map(|group| group.join(&name))
            .collect()
    }

    /// Kills every process of a container that no namespace ends; returns whether there was one.
    pub(super) fn kill(&self, id: &ProcessId) -> bool {
        if self.walls == Walls::Roots {
            if let Some(entry) = self.state.lock().entries.get(id)
                && let Some(cell) = &entry.cell
            {
                cell.kill();
            }
            return roots::signal(&roots::view(id), rustix::process::Signal::KILL);
        }
        let mut any = false;
        for group in self.groups(id) {
            let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = text.lines().filter_map(|line| line.parse().ok());
            for pid in pids.filter_map(Pid::from_raw) {
                any |= rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
            }
        }
        any
    }

    /// Sends a signal to the first process of a container, `KILL` to all.
    pub(super) fn signal(
        &self,
        id: &ProcessId,
        pid: i32,
        signal: SignalNumber,
    ) -> Result<(), Refusal> {
        if signal == SignalNumber::KILL && self.outlive() {
            self.kill(id);
        }
        self.tell(pid, signal)
    }

    /// Sends a signal to a child that was not reaped, because its id may be reused afterwards.
    pub(super) fn tell(&self, pid: i32, signal: SignalNumber) -> Result<(), Refusal> {
        let named = rustix::process::Signal::from_named_raw(signal.0);
        let (Some(child), Some(named)) = (Pid::from_raw(pid), named) else {
            return Err(Refusal::Failed(format!("no such signal: {}", signal.0)));
        };
        let state = self.state.lock();
        if !state.waiting.contains_key(&pid) {
            return Ok(());
        }
        match rustix::process::kill_process(child, named) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }
}
