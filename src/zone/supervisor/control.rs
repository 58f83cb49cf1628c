//! The supervisor itself: what it keeps, and what it does when the agent asks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitOptions};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::child::Input;
use super::streams::Listeners;
use super::system::Cell;
use super::{
    Ask, Configuration, Hello, Process, ProcessId, ProcessSpec, Refusal, Reply, SOCKET, Walls,
    What, kind, read_frame, roots, write_frame, write_json,
};

/// The wait before the agent is dialled again.
const REDIAL: Duration = Duration::from_millis(300);
/// The time that processes have to end when the zone is shut down.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Entry {
    pub(super) process: Process,
    pub(super) spec: ProcessSpec,
    pub(super) pid: i32,
    /// What it is in, with all that it started; nothing if it was not started.
    pub(super) cell: Option<Cell>,
    pub(super) listeners: Listeners,
    pub(super) input: Input,
}
#[derive(Default)]
pub(super) struct State {
    pub(super) entries: BTreeMap<ProcessId, Entry>,
    /// Who waits for the end of a child.
    pub(super) waiting: HashMap<i32, oneshot::Sender<(i32, i32)>>,
    /// Children that ended before anybody waited.
    pub(super) early: HashMap<i32, (i32, i32)>,
    agent: Option<mpsc::Sender<(u8, Vec<u8>)>>,
}

pub(super) struct Supervisor {
    pub(super) walls: Walls,
    pub(super) directory: PathBuf,
    pub(super) boot: String,
    pub(super) configuration: Configuration,
    pub(super) state: Mutex<State>,
}
impl Supervisor {
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

    /// Asks all processes to end, and ends them when they do not.
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
            let _ = self.signal(id, *pid, 15);
        }
        tokio::time::sleep(GRACE).await;
        for (id, pid) in running().iter().filter(|one| asked.contains(one)) {
            let _ = self.signal(id, *pid, 9);
        }
    }

    /// The process of a name that runs.
    pub(super) fn newest(&self, name: &str) -> Option<i32> {
        let state = self.state.lock();
        let mut entries = state.entries.values().rev();
        entries
            .find(|entry| entry.process.id.name == name && entry.process.ended.is_none())
            .map(|entry| entry.pid)
    }

    /// Whether processes have namespaces of their own.
    pub(super) fn own_processes(&self) -> bool {
        let spec = &self.configuration.spec;
        self.walls.are_namespaces() && !spec.host_processes && !spec.shared_processes
    }

    pub(super) fn groups(&self, id: &ProcessId) -> Vec<PathBuf> {
        let name = super::group_of(id);
        self.configuration
            .groups
            .iter()
            .map(|group| group.join(&name))
            .collect()
    }

    /// Ends every process of a container that only has a root of its own; tells whether there was one with that root.
    pub(super) fn kill(&self, id: &ProcessId) -> bool {
        if let Some(entry) = self.state.lock().entries.get(id)
            && let Some(cell) = &entry.cell
        {
            cell.kill();
        }
        roots::signal(&roots::view(id), rustix::process::Signal::KILL)
    }

    pub(super) fn signal(&self, id: &ProcessId, pid: i32, signal: i32) -> Result<(), Refusal> {
        let failed = |error: rustix::io::Errno| Refusal::Failed(error.to_string());
        if signal == 9 && self.walls == Walls::Roots {
            self.kill(id);
        }
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
}
