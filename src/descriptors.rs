//! The limit of open files. Servers raise it as far as they may, because the soft limit set by shells and service
//! managers is meant for programs that use select(2), which handles at most 1024. Containers get the limit from before,
//! like programs started by Go ones.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The limit with which this process was started.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the soft limit to the hard one. A failure is only logged: the server works with what it has.
pub fn raise() {
    let before = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            BEFORE.get_or_init(|| before.current);
        }
        Err(error) => tracing::debug!(%error, "cannot raise the limit of open files"),
    }
}

/// The soft limit before [`raise`], for child processes; `None` if it was not raised.
#[cfg(target_os = "linux")] // On illumos zoneadmd starts the processes in zones.
pub fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// Sets the soft limit of this process.
#[cfg(target_os = "linux")]
pub fn keep(most: u64) {
    let now = getrlimit(Resource::Nofile);
    let kept = rustix::process::Rlimit {
        current: Some(most),
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, kept) {
        eprintln!("reddwarf init: as many files as before may be open: {error}");
    }
}
