//! The environment of a running tool.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disk::Disk;
use super::faults::{self, Action, Fault, When};
use super::getopt::Parsed;
use super::host::Host;
use super::machine::Machine;
use super::tools::Tool;
use super::{Reply, exit};

/// Why a command ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Killed.
    Killed,
    /// It ended with a status, after printing its messages.
    Ended(i32),
    /// An injected fault: a status and a text.
    Failed(i32, String),
    /// The directory of the fake host cannot be read or written.
    Broken(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Broken(error.to_string())
    }
}

/// The result of a step.
pub type Step<T = ()> = Result<T, Stop>;

/// The state under the host's lock.
struct Held {
    host: Host,
    /// The state as it was read, to detect changes.
    read: Host,
    /// Dropped last.
    _lock: File,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Takes the lock, reads the state, and completes the changes on disk of a killed command.
fn take(machine: &Machine) -> io::Result<Held> {
    let lock = machine.lock()?;
    let host = machine.state()?;
    let mut held = Held {
        read: host.clone(),
        host,
        _lock: lock,
    };
    if !held.host.pending.is_empty() {
        keep(machine, &mut held)?;
    }
    Ok(held)
}

/// Writes the state and applies its changes on disk.
fn keep(machine: &Machine, held: &mut Held) -> io::Result<()> {
    if held.host != held.read {
        machine.store(&held.host)?;
    }
    if !held.host.pending.is_empty() {
        for op in &held.host.pending {
            machine
                .disk()
                .apply(op)
                .map_err(|error| io::Error::new(error.kind(), format!("{op:?}: {error}")))?;
        }
        held.host.pending.clear();
        machine.store(&held.host)?;
    }
    held.read = held.host.clone();
    Ok(())
}

/// Changes the state of a host under its lock.
pub fn locked<T>(machine: &Machine, change: impl FnOnce(&mut Host, &Disk) -> T) -> io::Result<T> {
    let mut held = take(machine)?;
    let result = change(&mut held.host, machine.disk());
    keep(machine, &mut held)?;
    Ok(result)
}

/// A running command.
pub struct Run<'m> {
    /// The host that it runs on.
    pub machine: &'m Machine,
    /// The zone that it runs in; none is the global one.
    pub zone: Option<String>,
    tool: String,
    held: Option<Held>,
    fault: Option<Fault>,
    kill: Arc<AtomicBool>,
    caller: Option<SyncSender<Reply>>,
    /// Standard output so far.
    pub out: String,
    /// Standard error so far.
    pub err: String,
    /// Bytes for standard output after `out`, from a program in a zone.
    pub raw: Vec<u8>,
}

impl<'m> Run<'m> {
    pub(super) fn new(
        machine: &'m Machine,
        tool: &str,
        kill: Arc<AtomicBool>,
        caller: Option<SyncSender<Reply>>,
    ) -> Self {
        Run {
            machine,
            zone: None,
            tool: tool.to_owned(),
            held: None,
            fault: None,
            kill,
            caller,
            out: String::new(),
            err: String::new(),
            raw: Vec::new(),
        }
    }

    /// Runs the command from beginning to end.
    pub(super) fn all(mut self, tool: Tool, args: &[String], stdin: &[u8]) -> Reply {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let number = format!(
            "{}.{}",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        );
        self.machine
            .log(&serde_json::json!({"run": number, "tool": self.tool, "args": args}));
        let result = self.steps(tool, args, stdin);
        let (code, killed) = match result {
            Ok(code) => (code, false),
            Err(Stop::Ended(code)) => (code, false),
            Err(Stop::Killed) => (0, true),
            Err(Stop::Failed(code, text)) => {
                self.complain(&text);
                (code, false)
            }
            Err(Stop::Broken(text)) => {
                self.complain(&format!("fakehost: {text}"));
                (exit::NOT_PLAYED, false)
            }
        };
        let code = match self.let_go() {
            Ok(()) => code,
            Err(error) => {
                self.complain(&format!("fakehost: {error}"));
                exit::NOT_PLAYED
            }
        };
        let mut stdout = self.out.into_bytes();
        stdout.extend_from_slice(&self.raw);
        self.machine.log(&serde_json::json!({
            "run": number, "code": code, "killed": killed, "stderr": self.err,
        }));
        if killed && self.machine.has_processes() {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        Reply {
            code,
            stdout,
            stderr: self.err.into_bytes(),
            killed,
        }
    }

    fn steps(&mut self, tool: Tool, args: &[String], stdin: &[u8]) -> Step<i32> {
        let mut held = take(self.machine)?;
        if self.tool != "ctl" {
            let line = format!("{} {}", self.tool, args.join(" "));
            self.fault = faults::take(&mut held.host.faults, &self.tool, &line);
        }
        self.held = Some(held);
        self.hit(|when| *when == When::Before)?;
        let code = match tool(self, args, stdin) {
            Ok(code) | Err(Stop::Ended(code)) => code,
            Err(other) => return Err(other),
        };
        self.hit(|when| *when == When::After)?;
        Ok(code)
    }

    /// The host's state.
    pub fn host(&mut self) -> &mut Host {
        self.view().0
    }

    /// The host's state and its files.
    pub fn view(&mut self) -> (&mut Host, &Disk) {
        match &mut self.held {
            Some(held) => (&mut held.host, self.machine.disk()),
            None => unreachable!("a tool asks for the host's state while it waits for another"),
        }
    }

    /// A flag that is set when it is killed.
    pub(super) fn killed(&self) -> Arc<AtomicBool> {
        self.kill.clone()
    }

    /// The files of the host.
    pub fn disk(&self) -> &Disk {
        self.machine.disk()
    }

    /// Prints a line to standard output.
    pub fn say(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Prints a line to standard error.
    pub fn complain(&mut self, line: &str) {
        self.err.push_str(line);
        self.err.push('\n');
    }

    /// Ends the command with a status and a line on standard error.
    pub fn end<T>(&mut self, code: i32, line: &str) -> Step<T> {
        self.complain(line);
        Err(Stop::Ended(code))
    }

    /// Ends the command, because the fake host does not implement this feature of the real tool.
    pub fn not_played<T>(&mut self, what: &str) -> Step<T> {
        let line = format!("fakehost: {what} is not played by the fake host");
        self.end(exit::NOT_PLAYED, &line)
    }

    /// Ends the command if it has an option that the fake host does not implement.
    pub fn without(&mut self, parsed: &Parsed, what: &str, letters: &str) -> Step {
        match letters.chars().find(|letter| parsed.has(*letter)) {
            Some(letter) => self.not_played(&format!("{what} -{letter}")),
            None => Ok(()),
        }
    }

    fn let_go(&mut self) -> io::Result<()> {
        match self.held.take() {
            Some(mut held) => keep(self.machine, &mut held),
            None => Ok(()),
        }
    }

    /// Does something without the lock; earlier changes are saved.
    pub fn away<T>(&mut self, work: impl FnOnce(&Self) -> T) -> Step<T> {
        self.let_go()?;
        let result = work(self);
        self.held = Some(take(self.machine)?);
        Ok(result)
    }

    /// The end of a step: changes are saved, other commands may run, and this one may be killed.
    pub fn point(&mut self, name: &str) -> Step {
        self.let_go()?;
        self.held = Some(take(self.machine)?);
        if self.kill.load(Ordering::SeqCst) {
            return Err(Stop::Killed);
        }
        self.hit(
            |when| matches!(when, When::Halfway(at) if at.as_deref().is_none_or(|at| at == name)),
        )
    }

    /// Waits for a lock file of the host, as fcntl(2) with `F_SETLKW` does; dropping it releases the lock.
    pub fn lock_file(&mut self, name: &str) -> Step<File> {
        let path = self.disk().root().join("var/run/zones").join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let kill = self.kill.clone();
        self.away(|run| -> Step<File> {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            if run.machine.has_processes() {
                file.lock()?;
                return Ok(file);
            }
            while file.try_lock().is_err() {
                if kill.load(Ordering::SeqCst) {
                    return Err(Stop::Killed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(file)
        })?
    }

    fn hit(&mut self, now: impl Fn(&When) -> bool) -> Step {
        let Some(fault) = self.fault.take_if(|fault| now(&fault.when)) else {
            return Ok(());
        };
        match fault.action {
            Action::Fail { code, text } => Err(Stop::Failed(code, text)),
            Action::Crash => Err(Stop::Killed),
            Action::Orphan => {
                match &self.caller {
                    Some(caller) => {
                        let _ = caller.try_send(Reply {
                            killed: true,
                            ..Reply::default()
                        });
                    }
                    None => {
                        if let Some(parent) = rustix::process::getppid().filter(|p| !p.is_init()) {
                            let _ = rustix::process::kill_process(
                                parent,
                                rustix::process::Signal::KILL,
                            );
                        }
                    }
                }
                Ok(())
            }
            Action::Stall => {
                let mark = self.machine.own().join(format!("stall.{}", fault.id));
                std::fs::write(&mark, "")?;
                let kill = self.kill.clone();
                self.away(|_| {
                    while mark.exists() && !kill.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                })?;
                if self.kill.load(Ordering::SeqCst) {
                    // It no longer exists, so there is nothing to release.
                    let _ = std::fs::remove_file(&mark);
                    return Err(Stop::Killed);
                }
                Ok(())
            }
        }
    }
}
