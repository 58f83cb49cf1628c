//! How many files a process may have open. Servers take all that they may: the limit that shells and service managers set
//! is for programs that wait by select(2), which cannot know more than 1024. What runs in zones has the limit that was set,
//! as what Go programs start has.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

/// The limit that this process was started with.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Takes as many as may be taken. That it cannot be done is no reason not to serve.
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
        Err(error) => tracing::debug!(%error, "no more files may be open than before"),
    }
}

/// The limit that what this process starts is to have, where this one took another.
pub fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// Has so many at most.
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
