//! Work that waits for the host.

use std::io;

/// The work panicked: a mistake of this program, which whoever asked is told as a failure.
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

/// Work on files and processes, away from the threads that answer requests.
///
/// # Errors
/// Those of the work, and [`Broke`].
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
