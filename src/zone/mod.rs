//! Zones: the isolated environments of pods, and the processes in them.
//!
//! [`ZoneRuntime`] is the interface of the node agent to a platform. A zone is created, booted, halted and deleted as a
//! whole; the processes in it (containers) come and go individually, each a numbered generation of a name. Nothing here
//! knows Kubernetes: the caller's own data is kept in `labels`, which a runtime returns without interpreting them.
//!
//! ```text
//!   create        boot            halt          delete
//!  ------> Installed ----> Running ----> Installed ----> (gone)
//!             |  ^            |
//!             |  '--- the zone ends by itself: processes are gone, the boot id changes with the next boot
//!             '-> Incomplete (a step failed half-way: only delete is possible)
//! ```
//!
//! Every operation may be repeated: requesting a state that holds already succeeds and changes nothing. A runtime
//! reports what it observes, never what it was told, so a restarted agent learns everything from [`ZoneRuntime::list`].

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

/// The result of an operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ZoneError>>;

/// Why an operation on a zone failed. The text names the operation and the zone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZoneError {
    /// The zone or the process does not exist.
    #[error("cannot {operation}: {what} does not exist")]
    NotFound {
        /// The operation.
        operation: &'static str,
        /// The zone or process.
        what: String,
    },
    /// The zone or process is not in a state that allows it; the state may change by itself.
    #[error("cannot {operation} {what}: it is {state}")]
    State {
        /// The operation.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// Its actual state.
        state: String,
    },
    /// The platform does not support the request: retrying is useless.
    #[error("cannot {operation} {what}: {reason}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The program of a process cannot be started.
    #[error("{reason}")]
    Start {
        /// The message in the usual form of container runtimes, with the program's name.
        reason: String,
    },
    /// The platform failed at a step; retrying may succeed later.
    #[error("cannot {operation} {what}: {cause}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The zone or process.
        what: String,
        /// The platform's error.
        cause: String,
    },
}

impl ZoneError {
    /// Whether the zone or process does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ZoneError::NotFound { .. })
    }
    /// Whether retrying without another change is useless.
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

/// A bidirectional byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An interactive connection to a process: `exec` or `attach`. Dropping it closes its input and detaches.
pub struct Session {
    /// Its standard input, if requested. Dropping it closes the input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its standard output; with a terminal, everything.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// New sizes of its terminal, as (columns, rows).
    pub resize: mpsc::Sender<(u16, u16)>,
    /// How it ended; for attach, that the process or the connection ended. An error if that is unknown.
    pub ended: oneshot::Receiver<Result<Ending, ZoneError>>,
}

/// A platform that runs zones.
///
/// Implementations: `simulated` (no real processes), `linux` (namespaces), `illumos` (zones).
pub trait ZoneRuntime: Send + Sync + 'static {
    /// The default brand of zones: `simulated`, `linux`, `lx`, `reddwarf`.
    fn brand(&self) -> &'static str;

    /// All supported brands, the default one first.
    fn brands(&self) -> Vec<&'static str>;

    /// Whether recursively read-only mounts are supported.
    fn recursive_read_only(&self) -> bool {
        false
    }

    /// What this host lacks, each with its remedy; empty if nothing. Changes nothing.
    fn lacks(&self) -> Answer<'_, Vec<String>>;

    /// All zones that this agent created.
    fn list(&self) -> Answer<'_, Vec<Zone>>;

    /// The current state of a zone; None if it does not exist.
    fn get<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, Option<Zone>>;

    /// Configures and installs a zone; leaves it `Installed`, or `Incomplete` with an error.
    fn create<'a>(&'a self, spec: &'a ZoneSpec) -> Answer<'a, ()>;

    /// Boots an installed zone. Resolves when processes can be started in it.
    fn boot<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Halts a zone and kills everything in it. Succeeds if the zone does not exist.
    fn halt<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Removes a halted zone and everything that was created for it. Succeeds if the zone does not exist.
    fn delete<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ()>;

    /// Starts a process in a running zone. Repeating it for the same generation returns its existing result.
    fn start<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessSpec) -> Answer<'a, ()>;

    /// Sends a signal to a process, `KILL` also to all of its children. Succeeds if the process has ended.
    fn signal<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        signal: Signal,
    ) -> Answer<'a, ()>;

    /// Forgets an ended process and its exit status, after the caller has recorded it.
    fn forget<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, ()>;

    /// Changes limits of a running zone, or of a running process. From then on the changed values are reported.
    fn limit<'a>(&'a self, zone: &'a ZoneName, change: &'a Change) -> Answer<'a, ()>;

    /// Runs a program beside a process, in the same environment.
    fn exec<'a>(
        &'a self,
        zone: &'a ZoneName,
        process: &'a ProcessId,
        exec: &'a ExecSpec,
    ) -> Answer<'a, Session>;

    /// Attaches to the streams of a running process.
    fn attach<'a>(&'a self, zone: &'a ZoneName, process: &'a ProcessId) -> Answer<'a, Session>;

    /// Connects to a TCP port on the zone's own loopback.
    fn dial<'a>(&'a self, zone: &'a ZoneName, port: u16) -> Answer<'a, Box<dyn Duplex>>;

    /// The resource usage of a zone and its processes.
    fn usage<'a>(&'a self, zone: &'a ZoneName) -> Answer<'a, ZoneUsage>;

    /// The names of zones in which something changed. A lagging receiver must look at all zones: everything can be read
    /// with [`ZoneRuntime::get`].
    fn changes(&self) -> broadcast::Receiver<ZoneName>;
}
