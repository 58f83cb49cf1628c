//! The streams of a process: copied to its log and to attached clients.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::fd::Fd;
use super::kind;
use super::logs::{Lines, Log};

/// How many chunks of output may wait for an attached client.
const WAITING: usize = 64;

/// The receivers of a process's output, besides its log.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<Vec<mpsc::Sender<Chunk>>>>);

/// The kind of a frame, and the data.
pub(super) type Chunk = (u8, Vec<u8>);

impl Listeners {
    /// Subscribes to output from now on, as (frame kind, bytes).
    pub fn join(&self) -> mpsc::Receiver<Chunk> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.0.lock().push(sender);
        receiver
    }
    /// Tells all subscribers that the process ended.
    pub fn close(&self) {
        self.0.lock().clear();
    }
    async fn tell(&self, kind: u8, bytes: &[u8]) {
        let all = self.0.lock().clone();
        if all.is_empty() {
            return;
        }
        for one in &all {
            // An attached client that does not read blocks the process, as a terminal does.
            let _ = one.send((kind, bytes.to_vec())).await;
        }
        self.0.lock().retain(|one| !one.is_closed());
    }
}

/// Reads a stream until it ends.
pub async fn pump(from: OwnedFd, stderr: bool, log: Arc<Mutex<Log>>, listeners: Listeners) {
    let (name, kind) = match stderr {
        true => ("stderr", kind::STDERR),
        false => ("stdout", kind::STDOUT),
    };
    // If it were closed, the process would be killed at its next write.
    let mut from = Fd::wait(from, name).await;
    let mut lines = Lines::new(name);
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        lines.take(&buffer[..count], &mut log.lock());
        listeners.tell(kind, &buffer[..count]).await;
    }
    lines.end(&mut log.lock());
}
