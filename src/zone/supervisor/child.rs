//! A child of the supervisor: its streams, and how it is started.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::FdFlags;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::container::{self, Executed, Stage, Task};
use super::control::{Ended, Supervisor};
use super::fd::Fd;
use super::system::{self, Cell, Sight};
use super::{ProcessSpec, Refusal, SignalNumber, Walls, kind, roots};
use crate::zone::Identity;

/// The input of a process, and its terminal.
#[derive(Clone, Default)]
pub(super) struct Input {
    pub(super) to: Arc<tokio::sync::Mutex<Option<Fd>>>,
    pub(super) terminal: Option<Arc<OwnedFd>>,
}

impl Input {
    pub(super) async fn frame(&self, kind: u8, payload: &[u8]) {
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
/// How long a child may take until its program runs. The agent's timeout is longer.
const START: Duration = Duration::from_secs(100);

/// A child that is executing its program.
struct Begun {
    pid: i32,
    cell: Cell,
    executed: Executed,
    ended: Ended,
}

/// A started child, with its streams.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) cell: Cell,
    pub(super) ends: Ends,
    pub(super) ended: Ended,
    /// The user that its program runs as.
    pub(super) identity: Option<Identity>,
}

/// The descriptors of a child's streams, on both sides.
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ends: Ends,
}

/// Our ends of a child's streams: its output, whether each is standard error, and its input.
pub(super) struct Ends {
    pub(super) outputs: Vec<(OwnedFd, bool)>,
    pub(super) input: Input,
}

impl Ends {
    /// The ends for a child whose streams are a terminal.
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
    /// Starts the program of a stage, in the environment of another process if `beside` is given. Errors have the text
    /// that the child reports.
    pub(super) async fn spawn(
        &self,
        stage: Stage,
        stdin: bool,
        beside: Option<i32>,
    ) -> Result<Child, Refusal> {
        let failed = |error: io::Error| Refusal::Failed(error.to_string());
        let streams = streams(stdin && !stage.tty).map_err(failed)?;
        let sight = self.sight(beside).await?;
        let connect = |command: &mut Command| {
            command.stdin(streams.stdin.map_or(Stdio::null(), Stdio::from));
            command.stdout(streams.stdout).stderr(streams.stderr);
        };
        let task = Task::Program(Box::new(stage));
        let begun = self.begin(&task, sight, connect).await?;
        Ok(Child {
            pid: begun.pid,
            cell: begun.cell,
            ends: match begun.executed.terminal {
                Some(terminal) => Ends::of_terminal(terminal).map_err(failed)?,
                None => streams.ends,
            },
            ended: begun.ended,
            identity: begun.executed.identity,
        })
    }

    /// Starts a process of our program and sends it its task.
    async fn begin(
        &self,
        task: &Task,
        sight: Sight,
        connect: impl FnOnce(&mut Command),
    ) -> Result<Begun, Refusal> {
        let failed = |error: io::Error| Refusal::Failed(error.to_string());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut command = container::command(&self.program, &theirs);
        connect(&mut command);
        let (spawned, cell) = system::spawn(command, sight).map_err(failed)?;
        drop(theirs);
        let pid = spawned as i32;
        let (tell, ended) = oneshot::channel();
        // This thread also reaps children, so it cannot end before it is registered.
        self.state.lock().waiting.insert(pid, tell);
        ours.set_nonblocking(true).map_err(failed)?;
        let mut socket = UnixStream::from_std(ours).map_err(failed)?;
        let text = serde_json::to_vec(task).map_err(|error| Refusal::Failed(error.to_string()))?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let _ = socket.write_all(&length).await;
        let _ = socket.write_all(&text).await;
        let Ok(outcome) = tokio::time::timeout(START, container::outcome(socket)).await else {
            self.tell(pid, SignalNumber::KILL)?;
            let text = format!("it did not begin within {} seconds", START.as_secs());
            return Err(Refusal::Failed(text));
        };
        Ok(Begun {
            pid,
            cell,
            executed: outcome.map_err(Refusal::Start)?,
            ended,
        })
    }

    /// Which processes a new child sees, if it starts beside another one.
    #[cfg(target_os = "linux")]
    async fn sight(&self, beside: Option<i32>) -> Result<Sight, Refusal> {
        use super::control::Seen;
        Ok(match (self.seen(), beside) {
            (Seen::Around, _) => Sight::Zone,
            (Seen::Pod, _) => Sight::Beside(self.pause().await?),
            (Seen::Own, Some(pid)) => Sight::Beside(pid),
            (Seen::Own, None) => Sight::Own,
        })
    }
    #[cfg(not(target_os = "linux"))]
    async fn sight(&self, _: Option<i32>) -> Result<Sight, Refusal> {
        Ok(Sight::Zone)
    }

    /// The first process of the namespace that containers share. It is created on demand, and again if it ended, which
    /// ends the whole namespace.
    #[cfg(target_os = "linux")]
    async fn pause(&self) -> Result<i32, Refusal> {
        let mut known = self.pause.lock().await;
        if let Some((pid, ended)) = known.as_mut()
            && ended.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        {
            return Ok(*pid);
        }
        let task = Task::Pause(self.directory.join("root"));
        let silent = |command: &mut Command| {
            command.stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
        };
        let begun = self.begin(&task, Sight::Own, silent).await?;
        *known = Some((begun.pid, begun.ended));
        Ok(begun.pid)
    }

    pub(super) fn stage(
        &self,
        spec: ProcessSpec,
        tty: bool,
        join: Option<(i32, Vec<String>)>,
    ) -> Stage {
        Stage {
            walls: self.walls,
            groups: self.groups(&spec.id),
            tty,
            join,
            scratch: match self.walls {
                #[cfg(target_os = "linux")]
                Walls::Namespaces => self.directory.join("root"),
                Walls::Roots => roots::view(&spec.id),
            },
            shm: self.directory.join("shm"),
            spec,
        }
    }
}
