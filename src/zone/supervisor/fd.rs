//! A pipe, terminal or other descriptor as an asynchronous stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The pause before a failed registration of a descriptor is retried.
const AGAIN: Duration = Duration::from_secs(1);

/// A descriptor. A terminal whose other side closed reads as end of file.
pub struct Fd(AsyncFd<OwnedFd>);

impl Fd {
    /// Takes a descriptor, which becomes non-blocking.
    ///
    /// # Errors
    /// Any error of the system calls; the descriptor is closed then.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::register(fd).map_err(|(_, error)| error)
    }

    /// Takes a descriptor that must not be closed: retries until it can be registered.
    pub async fn wait(mut fd: OwnedFd, what: &str) -> Self {
        let mut told = false;
        loop {
            match Self::register(fd) {
                Ok(own) => return own,
                Err((back, error)) => {
                    if !std::mem::replace(&mut told, true) {
                        eprintln!("reddwarf init: {what} cannot be read yet: {error}");
                    }
                    fd = back;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn register(fd: OwnedFd) -> Result<Self, (OwnedFd, io::Error)> {
        let non_blocking = rustix::fs::fcntl_getfl(&fd)
            .and_then(|flags| rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK));
        if let Err(error) = non_blocking {
            return Err((fd, error.into()));
        }
        // SAFETY: an `OwnedFd` is open for as long as it lives, and it is never replaced in here.
        let registered = unsafe { AsyncFd::register(fd) };
        registered.map(Fd).map_err(|refused| refused.into_parts())
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl AsyncRead for Fd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let done = ready.try_io(|fd| {
                match rustix::io::read(fd.get_ref(), buffer.initialize_unfilled()) {
                    Err(rustix::io::Errno::IO) => Ok(0),
                    other => other.map_err(io::Error::from),
                }
            });
            if let Ok(result) = done {
                return Poll::Ready(result.map(|count| buffer.advance(count)));
            }
        }
    }
}

impl AsyncWrite for Fd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            let done =
                ready.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(result) = done {
                return Poll::Ready(result);
            }
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
