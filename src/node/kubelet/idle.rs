//! Connections that end when nothing has passed for long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a connection may stay open without a byte in either direction, whether nobody sends or nobody reads: the
/// default of kubelet's `streamingConnectionIdleTimeout`.
pub const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// A connection on which waiting fails if [`IDLE`] has passed since the last byte in either direction.
pub struct Idle<S> {
    stream: S,
    last: Instant,
    reading: Timer,
    writing: Timer,
}

/// A direction has a timer of its own, because each may wait in another task.
type Timer = Pin<Box<Sleep>>;

impl<S> Idle<S> {
    /// Counts from now. Must be called within a runtime.
    pub fn new(stream: S) -> Self {
        let last = Instant::now();
        let timer = || Box::pin(tokio::time::sleep_until(last + IDLE));
        Idle {
            stream,
            last,
            reading: timer(),
            writing: timer(),
        }
    }
}

/// Ends waiting when it has lasted too long. Timers run late: they learn about later bytes when they fire.
fn wait<T>(timer: &mut Timer, last: Instant, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
    loop {
        ready!(timer.as_mut().poll(cx));
        let end = last + IDLE;
        if timer.deadline() >= end {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        timer.as_mut().reset(end);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending => wait(&mut this.reading, this.last, cx),
            done => {
                this.last = Instant::now();
                done
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Idle<S> {
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match write(Pin::new(&mut self.stream), cx) {
            Poll::Pending => wait(&mut self.writing, self.last, cx),
            done => {
                self.last = Instant::now();
                done
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // No progress by itself: it may have nothing to do.
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Pending => wait(&mut this.writing, this.last, cx),
            done => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_nothing_passed_for_long() {
        let (other, own) = tokio::io::duplex(4);
        let (mut from, mut to) = tokio::io::split(Idle::new(own));
        let begun = Instant::now();
        // Nobody reads: four bytes fit.
        let writing = async {
            to.write_all(b"four").await.expect("written");
            let error = to.write_all(b"more").await.expect_err("nobody reads");
            (error.kind(), begun.elapsed().as_secs())
        };
        let reading = async {
            let error = from.read_u8().await.expect_err("nobody sends");
            (error.kind(), begun.elapsed().as_secs())
        };
        let expected = (io::ErrorKind::TimedOut, IDLE.as_secs());
        assert_eq!(tokio::join!(writing, reading), (expected, expected));
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_in_either_direction_begins_the_time_anew() {
        let (mut other, own) = tokio::io::duplex(4);
        let (mut from, mut to) = tokio::io::split(Idle::new(own));
        let begun = Instant::now();
        let most = IDLE - Duration::from_secs(1);
        let reading = async {
            assert_eq!(from.read_u8().await.ok(), Some(7));
            let error = from.read_u8().await.expect_err("nothing else comes");
            (error.kind(), begun.elapsed().as_secs())
        };
        let writing = async {
            tokio::time::sleep(most).await;
            other.write_u8(7).await.expect("sent");
            tokio::time::sleep(most).await;
            to.write_u8(7).await.expect("written");
        };
        let (ended, ()) = tokio::join!(reading, writing);
        let expected = (most + most + IDLE).as_secs();
        assert_eq!(ended, (io::ErrorKind::TimedOut, expected));
    }
}
