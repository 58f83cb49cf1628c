//! Blocking work on files and processes, run outside the async runtime's threads.

use std::io;
use std::time::{Duration, Instant};

/// The work panicked: a bug in this program, reported to the caller as an error.
#[derive(Debug, thiserror::Error)]
#[error("work on files or processes panicked: {0}")]
pub struct Broke(tokio::task::JoinError);

impl From<Broke> for String {
    fn from(broke: Broke) -> String {
        broke.to_string()
    }
}

impl From<Broke> for io::Error {
    fn from(broke: Broke) -> io::Error {
        io::Error::other(broke)
    }
}

/// How long something is waited for that another process has.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries to take what only one process can have: a file, a port. One that was killed holds it for a moment longer than it
/// is seen, so that what `is_held` is tried again for five seconds. Holds up its thread meanwhile.
///
/// # Errors
/// Those of the last attempt.
pub fn patiently<T, E>(
    is_held: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_held(&error) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(PATIENCE / 50);
            }
            other => return other,
        }
    }
}

/// Work on files and processes, away from the threads that answer requests.
///
/// # Errors
/// The error of the work, or [`Broke`] if it panicked.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Broke> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Broke(error).into()),
    }
}
