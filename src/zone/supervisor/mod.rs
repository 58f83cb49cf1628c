//! `reddwarf init`: the process in every zone that outlives the agent. It starts containers on request, reaps them,
//! writes their logs, and implements exec, attach, signals and port-forward.
//!
//! It dials the agent (`agent.sock` in the zone's control directory) and sends its boot id and the table of processes;
//! when the connection breaks it dials again, forever. Exit statuses are kept until the agent forgets the process. Each
//! exec, attach or forwarded port has its own connection, dialled when the agent requests it on the control connection:
//! so a slow reader never delays another, and the kernel does the flow control.
//!
//! A frame is its length (4 bytes, big-endian, of what follows), a byte with its kind, and its payload.

#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod account;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod boot;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod child;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod container;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod control;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod fd;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod logs;
#[cfg(target_os = "linux")]
pub(super) mod mounts;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod pause;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod processes;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod roots;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod sessions;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod streams;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod system;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Ending, ExecSpec, Process, ProcessId, ProcessSpec, SignalNumber, ZoneSpec};

#[cfg(any(target_os = "linux", target_os = "illumos"))]
pub use boot::init;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
pub use container::run as run_stage;
#[cfg(target_os = "linux")]
pub use sandbox::run;

/// The size at which a log file is rotated, in bytes: kubelet's containerLogMaxSize.
pub const LOG_SIZE: u64 = 10 << 20;
/// How many files of a log there are at most: kubelet's containerLogMaxFiles.
pub const LOG_FILES: usize = 5;
/// The socket in the control directory.
pub const SOCKET: &str = "agent.sock";
/// The specification of the zone, in the control directory.
pub const ZONE: &str = "zone.json";
/// The supervisor's process id and start time on the host, in the control directory, of a zone that has its network.
pub const PID: &str = "pid";
/// The same before it has its network: the supervisor writes it, and the agent renames it to [`PID`].
pub const BORN: &str = "pid.new";

/// The largest frame, in bytes.
pub const FRAME: u32 = 4 << 20;

/// The kinds of frames.
pub mod kind {
    /// The first frame on a connection from the supervisor: [`super::Hello`].
    pub const HELLO: u8 = 0;
    /// From the agent: [`super::Ask`].
    pub const ASK: u8 = 1;
    /// From the supervisor: [`super::Reply`].
    pub const REPLY: u8 = 2;
    /// From the supervisor: a [`super::Process`] that changed.
    pub const CHANGED: u8 = 3;
    /// Input for a process.
    pub const STDIN: u8 = 10;
    /// Its output.
    pub const STDOUT: u8 = 11;
    /// Its errors.
    pub const STDERR: u8 = 12;
    /// A new size of its terminal: columns and rows, two bytes each.
    pub const RESIZE: u8 = 13;
    /// The input ended.
    pub const STDIN_END: u8 = 14;
    /// How it ended: `Result<Ending, String>`. The last frame.
    pub const ENDED: u8 = 15;
}

/// The configuration that the agent writes to the control directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Configuration {
    /// The zone.
    pub spec: ZoneSpec,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// The directories of its processes' control groups, one for each hierarchy.
    pub groups: Vec<std::path::PathBuf>,
}

/// How the containers of a zone are isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Walls {
    /// By namespaces and control groups on Linux.
    #[cfg(target_os = "linux")]
    Namespaces,
    /// Only by their roots, in an illumos zone, which is the sandbox.
    Roots,
}

impl Walls {
    /// Whether there is more than roots.
    pub fn are_namespaces(self) -> bool {
        self != Walls::Roots
    }
}

/// The name of a process's directory in each of the zone's control groups, or among the views of roots.
pub fn group_of(id: &ProcessId) -> String {
    format!("{}-{}", id.name, id.generation)
}

/// The purpose of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Hello {
    /// The control connection.
    Control {
        /// The boot id.
        boot: String,
        /// All processes that were started and not forgotten.
        processes: Vec<Process>,
    },
    /// The session with this number, or why it is rejected.
    Session {
        /// The number.
        number: u64,
        /// The reason.
        refused: Option<String>,
    },
}

/// A request of the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Returned in the reply.
    pub number: u64,
    /// The request.
    pub what: What,
}

/// The kinds of requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Start a process.
    Start(Box<ProcessSpec>),
    /// Send a signal.
    Signal(ProcessId, SignalNumber),
    /// Forget an ended process.
    Forget(ProcessId),
    /// Add labels to a running process.
    Label(ProcessId, BTreeMap<String, String>),
    /// Open a session that runs a program beside a process.
    Exec(ProcessId, ExecSpec),
    /// Open a session attached to a process's streams.
    Attach(ProcessId),
    /// Open a connection to a port on the loopback.
    Dial(u16),
}

/// The reply to an [`Ask`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The number of the request.
    pub number: u64,
    /// The result.
    pub result: Result<(), Refusal>,
}

/// The part of an [`Ask`] or a [`Reply`] that other versions of this program can read.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Numbered {
    /// The number of the request.
    pub number: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such process.
    NotFound,
    /// It is running, or not running.
    State(String),
    /// Its program cannot be started.
    Start(String),
    /// A system error.
    Failed(String),
}

/// Writes a frame.
pub async fn write_frame<W: AsyncWrite + Unpin + ?Sized>(
    to: &mut W,
    kind: u8,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u32::try_from(payload.len() + 1)
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    to.write_all(&head).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Writes a frame of JSON.
pub async fn write_json<W: AsyncWrite + Unpin + ?Sized, T: Serialize>(
    to: &mut W,
    kind: u8,
    value: &T,
) -> std::io::Result<()> {
    write_frame(to, kind, &serde_json::to_vec(value)?).await
}

/// Reads a frame; None at the end of the stream.
pub async fn read_frame<R: AsyncRead + Unpin + ?Sized>(
    from: &mut R,
) -> std::io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(head);
    if length == 0 || length > FRAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let kind = from.read_u8().await?;
    let mut payload = vec![0; length as usize - 1];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

/// The end of a session, in the form in which it is sent.
pub type SessionEnd = Result<Ending, String>;
