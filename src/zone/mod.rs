//! Zones: the isolated homes of pods, and the processes in them.
//!
//! [`ZoneRuntime`] is what the node agent asks of a platform. A zone is made, booted, halted and deleted as a whole;
//! the processes in it (containers) come and go one by one, each a numbered generation of a name. Nothing here knows
//! Kubernetes: a caller's own knowledge travels in `labels`, which a runtime keeps and hands back unread.
//!
//! ```text
//!   create        boot            halt          delete
//!  ------> Installed ----> Running ----> Installed ----> (gone)
//!             |  ^            |
//!             |  '--- the zone ends by itself: processes are gone, the boot id changes with the next boot
//!             '-> Incomplete (a step failed half-way: only delete leads on)
//! ```
//!
//! Every operation may be repeated: asking for what already holds succeeds and changes nothing. A runtime reports what
//! it sees, never what it was told, so an agent that starts again learns everything from [`ZoneRuntime::list`].

pub mod illumos;
mod link;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod simulated;
mod supervised;
pub mod supervisor;
mod types;

#[cfg(test)]
mod tests;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use types::*;

/// What an operation resolves to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ZoneError>>;

/// Why an operation on a zone failed. The text says what was attempted on which zone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZoneError {
    /// There is no such zone, or no such process in it.
    #[error("cannot {operation}: {what} does not exist")]
    NotFound {
        /// What was attempted.
        operation: &'static str,
        /// The zone or process.
        what: String,
    },
    /// The zone or process is not in a state that allows it; the state may change by itself.
    #[error("cannot {operation} {what}: it is {state}")]
    State {
        /// What was attempted.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// What it is instead.
        state: String,
    },
    /// The platform does not offer what was asked for: asking again is useless.
    #[error("cannot {operation} {what}: {reason}")]
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The program of a process cannot be started.
    #[error("{reason}")]
    Start {
        /// As runtimes word it, with the program's name.
        reason: String,
    },
    /// The platform failed at a step; the same may succeed later.
    #[error("cannot {operation} {what}: {cause}")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// What the platform says.
        cause: String,
    },
}

impl ZoneError {
    /// Whether the thing asked about is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ZoneError::NotFound { .. })
    }
    /// Whether asking again without another change is useless.
    pub fn is_final(&self) -> bool {
        matches!(self, ZoneError::Refused { .. })
    }
    /// A failure of the platform.
    pub fn failed(
        operation: &'static str,
        what: impl Into<String>,
        cause: impl std::fmt::Display,
    ) -> Self {
        ZoneError::Failed {
            operation,
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

/// A byte stream of both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A process that somebody talks with: `exec` or `attach`. Dropping it closes its input and detaches.
pub struct Session {
    /// Where its standard input goes, if it was asked for. Dropping it closes the input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output; with a terminal, everything.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// New sizes of its terminal, as (columns, rows).
    pub resize: mpsc::Sender<(u16, u16)>,
    /// How it ended; for attach, that the process or the connection ended. An error if that cannot be known.
    pub ended: oneshot::Receiver<Result<Ending, ZoneError>>,
}

/// A platform that runs zones.
///
/// Implementations: `simulated` (no real processes), `linux` (namespaces), `illumos` (zones).
pub trait ZoneRuntime: Send + Sync + 'static {
    /// The brand of zones that ask for none: `simulated`, `linux`, `lx`, `reddwarf`.
    fn brand(&self) -> &'static str;

    /// Every brand that zones can ask for, the one of those that ask for none first.
    fn brands(&self) -> Vec<&'static str>;

    /// Whether mounts can be made read-only with all that is mounted below them.
    fn recursive_read_only(&self) -> bool {
        false
    }

    /// What this host cannot do, each with its remedy; empty if all is well. Does not change anything.
    fn lacks(&self) -> Answer<'_, Vec<String>>;

    /// Every zone that this agent made.
    fn list(&self) -> Answer<'_, Vec<Zone>>;

    /// One zone as it is now, or nothing if there is none.
    fn get<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, Option<Zone>>;

    /// Configures and installs a zone; leaves it `Installed`, or `Incomplete` with an error.
    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()>;

    /// Boots an installed zone and resolves when processes can be started in it.
    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Ends a zone and everything in it at once. A zone that does not exist is halted.
    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Removes a halted zone and everything that was made for it. A zone that does not exist is removed.
    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Starts a process in a running zone. The same generation again is answered from what is there.
    fn start<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessSpec) -> Answer<'a, ()>;

    /// Sends a signal to a process, `KILL` to all of its children too. One that has ended is signalled.
    fn signal<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        signal: Signal,
    ) -> Answer<'a, ()>;

    /// Forgets a process that has ended, with its exit status: it was noted elsewhere.
    fn forget<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, ()>;

    /// Changes limits of a running zone, or of a process that runs in it. What was changed is told of them from then on.
    fn limit<'a>(&'a self, zone: &'a ZoneName, change: &'a Change) -> Answer<'a, ()>;

    /// Runs a program beside a process, in its surroundings.
    fn exec<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        exec: &'a ExecSpec,
    ) -> Answer<'a, Session>;

    /// Joins the streams of a running process.
    fn attach<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, Session>;

    /// Connects to a TCP port on the zone's own loopback.
    fn dial<'a>(&'a self, zone: &'a ZoneName, port: u16) -> Answer<'a, Box<dyn Duplex>>;

    /// What a zone and its processes use.
    fn usage<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ZoneUsage>;

    /// Names of zones in which something changed. Who lags looks at all zones: nothing is told here that
    /// [`ZoneRuntime::get`] does not tell.
    fn changes(&self) -> broadcast::Receiver<ZoneName>;
}
