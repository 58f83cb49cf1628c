//! A child of the supervisor: its streams, and how it is started.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::FdFlags;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::container::{self, Stage};
use super::control::Supervisor;
use super::fd::Fd;
use super::system::{self, Cell, Sight};
use super::{ProcessSpec, Refusal, Walls, kind, roots};

/// The input of a process that somebody may feed, and its terminal.
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
/// A child that was started: its streams are ours.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) cell: Cell,
    pub(super) ends: Ends,
    pub(super) ended: oneshot::Receiver<(i32, i32)>,
}

/// The descriptors of a child and of us.
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ends: Ends,
}

/// Our ends of a child's streams: its output, and whether that is its error stream, and its input.
pub(super) struct Ends {
    pub(super) outputs: Vec<(OwnedFd, bool)>,
    pub(super) input: Input,
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
    /// Starts a process of ours and hands it its stage. The text of an error comes from it.
    pub(super) async fn spawn(
        &self,
        stage: &Stage,
        stdin: bool,
        join: Option<i32>,
    ) -> Result<Child, Refusal> {
        let failed = |error: io::Error| Refusal::Failed(error.to_string());
        let streams = streams(stdin && !stage.tty).map_err(failed)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut command = container::command(&theirs).map_err(failed)?;
        command.stdin(match streams.stdin {
            Some(stdin) => stdin.into(),
            None => std::process::Stdio::null(),
        });
        command.stdout(streams.stdout).stderr(streams.stderr);
        let (spawned, cell) = system::spawn(command, self.sight(join)).map_err(failed)?;
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
            cell,
            ends: match terminal {
                Some(terminal) => Ends::of_terminal(terminal).map_err(failed)?,
                None => streams.ends,
            },
            ended,
        })
    }

    /// Whose processes a child sees that is started, beside another one if it is.
    #[cfg(target_os = "linux")]
    fn sight(&self, beside: Option<i32>) -> Sight {
        match beside {
            _ if !self.own_processes() => Sight::Zone,
            Some(pid) => Sight::Beside(pid),
            None => Sight::Own,
        }
    }
    #[cfg(not(target_os = "linux"))]
    fn sight(&self, _: Option<i32>) -> Sight {
        Sight::Zone
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
            own_processes: self.own_processes(),
            spec,
        }
    }
}
