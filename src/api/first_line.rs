//! Percent-encodes bytes in the request line that Go's net/http accepts and hyper rejects, such as
//! `?labelSelector=n>5`. Only in the first request of a connection: where later ones begin only hyper knows.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first line is encoded.
pub(super) struct FirstLine<S> {
    stream: S,
    /// Encoded bytes that were not read yet.
    encoded: Vec<u8>,
    read: usize,
    /// The end of the line was reached.
    over: bool,
}

impl<S> FirstLine<S> {
    pub(super) fn new(stream: S) -> Self {
        FirstLine {
            stream,
            encoded: Vec::new(),
            read: 0,
            over: false,
        }
    }

    /// Encodes received bytes as far as they belong to the first line.
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let is_of_urls = !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | 0x80..);
            if self.over || is_of_urls {
                self.encoded.push(byte);
            } else {
                self.encoded
                    .extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            self.over |= byte == b'\n';
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read == self.encoded.len() {
            self.encoded = Vec::new();
            self.read = 0;
            if self.over {
                return Pin::new(&mut self.stream).poll_read(cx, buffer);
            }
            let mut space = [0; 1024];
            let mut some = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut some))?;
            self.take(some.filled());
        }
        let rest = &self.encoded[self.read..];
        let fits = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..fits]);
        self.read += fits;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_first_line_is_encoded() {
        let sent = "GET /?a<\"1\"&b=\u{e9}`# HTTP/1.1\r\nX: <\"\r\n\r\n<#>\n".as_bytes();
        let mut stream = FirstLine::new(sent);
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(
            got,
            "GET /?a%3C%221%22&b=%C3%A9%60%23 HTTP/1.1\r\nX: <\"\r\n\r\n<#>\n"
        );
    }

    #[tokio::test]
    async fn long_lines_are_read_in_parts() {
        let sent = "<".repeat(5000);
        let mut stream = FirstLine::new(sent.as_bytes());
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "%3C".repeat(5000));
    }
}
