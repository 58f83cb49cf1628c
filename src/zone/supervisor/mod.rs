//! `reddwarf init`: the process that outlives the agent in every zone. It starts containers as told, reaps them,
//! writes their logs, and does exec, attach, signals and port-forward.
//!
//! It dials the agent (`agent.sock` in the zone's control directory) and says hello with its boot id and the table of
//! processes; when the connection breaks it dials again, for ever. Exit statuses are kept until the agent forgets the
//! process. Each exec, attach or forwarded port is a connection of its own, dialled when the agent asks for it on the
//! control connection: so a slow reader of one never holds up another, and the kernel does the flow control.
//!
//! A frame is its length (4 bytes, big-endian, of what follows), a byte that says what it is, and its payload.

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

use super::{Ending, ExecSpec, Process, ProcessId, ProcessSpec, Signal, ZoneSpec};

#[cfg(any(target_os = "linux", target_os = "illumos"))]
pub use boot::init;
#[cfg(any(target_os = "linux", target_os = "illumos"))]
pub use container::run as run_stage;
#[cfg(target_os = "linux")]
pub use sandbox::run;

/// The socket in the control directory.
pub const SOCKET: &str = "agent.sock";
/// What the zone is, in the control directory.
pub const ZONE: &str = "zone.json";
/// The supervisor's process id and start time on the host, in the control directory, of a zone that has its network.
pub const PID: &str = "pid";
/// The same before it has: the supervisor leaves it, and the agent renames it to [`PID`].
pub const BORN: &str = "pid.new";

/// The largest frame, in bytes.
pub const FRAME: u32 = 4 << 20;

/// What a frame is.
pub mod kind {
    /// The first on a connection from the supervisor: [`super::Hello`].
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
    /// How it ended: `Result<Ending, String>`. The last one.
    pub const ENDED: u8 = 15;
}

/// The configuration that the agent leaves in the control directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Configuration {
    /// The zone.
    pub spec: ZoneSpec,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// Directories of the control groups that its processes belong to, one a hierarchy.
    pub groups: Vec<std::path::PathBuf>,
}

/// What keeps the containers of a zone apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Walls {
    /// Namespaces and control groups of Linux.
    #[cfg(target_os = "linux")]
    Namespaces,
    /// Their roots alone, in a zone of illumos, which is the sandbox.
    Roots,
}

impl Walls {
    /// Whether they are more than roots.
    pub fn are_namespaces(self) -> bool {
        self != Walls::Roots
    }
}

/// The directory below each of the zone's control groups, or views of roots, that belongs to a process.
pub fn group_of(id: &ProcessId) -> String {
    format!("{}-{}", id.name, id.generation)
}

/// What a connection is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Hello {
    /// Control.
    Control {
        /// The boot.
        boot: String,
        /// Everything that was started and not forgotten.
        processes: Vec<Process>,
    },
    /// The session that was asked for under this number, or why it cannot be.
    Session {
        /// The number.
        number: u64,
        /// Why not.
        refused: Option<String>,
    },
}

/// Something that the agent wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back with the reply.
    pub number: u64,
    /// What.
    pub what: What,
}

/// What the agent may want.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Start a process.
    Start(Box<ProcessSpec>),
    /// Send a signal.
    Signal(ProcessId, Signal),
    /// Forget a process that ended.
    Forget(ProcessId),
    /// Note labels of a running process, beside those it has.
    Label(ProcessId, BTreeMap<String, String>),
    /// Open a session that runs a program beside a process.
    Exec(ProcessId, ExecSpec),
    /// Open a session on a process's streams.
    Attach(ProcessId),
    /// Open a connection to a port on the loopback.
    Dial(u16),
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The ask's.
    pub number: u64,
    /// How it went.
    pub result: Result<(), Refusal>,
}

/// The part of an [`Ask`] or a [`Reply`] that another version of this program can read.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Numbered {
    /// The ask's.
    pub number: u64,
}

/// Why something was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such process.
    NotFound,
    /// It is running, or not.
    State(String),
    /// Its program cannot be started.
    Start(String),
    /// The system failed.
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

/// Reads a frame; nothing at the end of the stream.
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

/// How a session ended, as it travels.
pub type SessionEnd = Result<Ending, String>;
