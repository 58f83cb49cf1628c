//! Sessions: the streams of a process, over a connection of their own.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{ANSWER, Link};
use crate::zone::supervisor::{SessionEnd, What, kind, read_frame, write_frame};
use crate::zone::{Session, ZoneError};

impl Link {
    /// Requests a session and waits for its connection.
    ///
    /// # Errors
    /// The supervisor's error.
    pub async fn open(&self, operation: &'static str, what: What) -> Result<UnixStream, ZoneError> {
        let asked = self.asked();
        let (tell, told) = oneshot::channel();
        self.known.lock().sessions.insert(asked.number, tell);
        self.send(operation, &asked, what).await?;
        match tokio::time::timeout(ANSWER, told).await {
            Ok(Ok(Ok(stream))) => Ok(stream),
            Ok(Ok(Err(reason))) => Err(ZoneError::Start { reason }),
            _ => Err(ZoneError::failed(
                operation,
                format!("zone {}", self.name),
                "the connection broke",
            )),
        }
    }
}

/// Makes a session from a connection with frames.
pub fn session(stream: UnixStream, stdin: bool) -> Session {
    let (mut from, to) = stream.into_split();
    let to = Arc::new(tokio::sync::Mutex::new(to));
    let (input, mut fed) = tokio::io::duplex(64 * 1024);
    let (mut out, stdout) = tokio::io::duplex(64 * 1024);
    let (mut err, stderr) = tokio::io::duplex(64 * 1024);
    let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
    let (mut tell, ended) = oneshot::channel();
    let resizing = to.clone();
    let sizing = tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            let payload = [columns.to_be_bytes(), rows.to_be_bytes()].concat();
            if write_frame(&mut *resizing.lock().await, kind::RESIZE, &payload)
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let feeding = tokio::spawn(async move {
        if !stdin {
            return;
        }
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match fed.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let mut to = to.lock().await;
                    if write_frame(&mut *to, kind::STDIN, &buffer[..count])
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
        let _ = write_frame(&mut *to.lock().await, kind::STDIN_END, &[]).await;
    });
    tokio::spawn(async move {
        let result = loop {
            let frame = tokio::select! {
                // Not cancel-safe, which does not matter: when the other branch is taken, the connection is dropped.
                frame = read_frame(&mut from) => frame,
                () = tell.closed() => break Err("nobody listens".to_owned()),
            };
            match frame {
                Ok(Some((kind::STDOUT, bytes))) => {
                    let _ = out.write_all(&bytes).await;
                }
                Ok(Some((kind::STDERR, bytes))) => {
                    let _ = err.write_all(&bytes).await;
                }
                Ok(Some((kind::ENDED, payload))) => {
                    break serde_json::from_slice::<SessionEnd>(&payload)
                        .unwrap_or_else(|error| Err(error.to_string()));
                }
                Ok(Some(_)) => {}
                Ok(None) => break Err("the connection to the supervisor ended".to_owned()),
                Err(error) => break Err(error.to_string()),
            }
        };
        feeding.abort();
        sizing.abort();
        drop((out, err));
        let _ = tell.send(result.map_err(|cause| ZoneError::failed("follow", "a process", cause)));
    });
    Session {
        stdin: stdin.then(|| Box::new(input) as _),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize,
        ended,
    }
}
