//! Where the layers of a pull are written.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::io::AsyncWriteExt as _;

use super::super::unpack;
use super::SILENCE;

/// How the names of these directories begin.
pub(in super::super) const SCRATCH: &str = ".pull-";
/// The file in one whose lock its pull holds.
const USED: &str = "used";

/// A temporary directory for one pull. It is removed with it, also when the pull is cancelled: it may hold gigabytes.
pub(in super::super) struct Scratch {
    /// The directory.
    pub(in super::super) path: PathBuf,
    _used: File,
}

/// Whether the pull of such a directory is running, in this process or another one.
pub(in super::super) fn is_in_use(path: &Path) -> bool {
    let opened = File::options().write(true).open(path.join(USED));
    opened.is_ok_and(|used| matches!(used.try_lock(), Err(TryLockError::WouldBlock)))
}

impl Scratch {
    /// Creates one below `records`.
    pub(in super::super) fn new(records: &Path) -> std::io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = records.join(format!("{SCRATCH}{}-{number}", std::process::id()));
        crate::storage::remove_tree(&path)?;
        std::fs::create_dir_all(&path)?;
        let used = File::create(path.join(USED))?;
        used.lock()?;
        Ok(Scratch { path, _used: used })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = crate::storage::remove_tree(&path) {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot remove the temporary files of a pull; they stay until the agent restarts");
            }
        };
        // Deleting many or large files takes long: not on a thread of the runtime.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Checks whether layers of these sizes may be fetched onto a disk with this much free space.
pub(super) fn fits(sizes: impl Iterator<Item = u64>, room: u64) -> Result<(), String> {
    match sizes.fold(0, u64::saturating_add) {
        whole if whole > room => Err(format!(
            "its layers have {} MiB, and there is room for {} MiB",
            whole >> 20,
            room >> 20
        )),
        _ => Ok(()),
    }
}

/// Writes a layer to a file; returns its size in bytes. Reads no more than the expected size, if known, and no more
/// than there is space for.
pub(super) async fn save<B>(
    answer: Response<B>,
    path: &Path,
    expected: u64,
    room: u64,
) -> Result<u64, String>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let unexpected = |size: u64| {
        format!("unexpected commit size {size}, expected {expected}: failed precondition")
    };
    let mut file = tokio::fs::File::create(path).await.map_err(text)?;
    let mut body = answer.into_body();
    let mut size = 0;
    while let Some(frame) = tokio::time::timeout(SILENCE, body.frame())
        .await
        .map_err(|_| "i/o timeout".to_owned())?
    {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(bytes) = frame.into_data() {
            size += bytes.len() as u64;
            if expected > 0 && size > expected {
                return Err(unexpected(size));
            }
            if size > room {
                return Err(unpack::too_large(room).to_string());
            }
            file.write_all(&bytes).await.map_err(text)?;
        }
    }
    file.flush().await.map_err(text)?;
    match expected {
        0 => Ok(size),
        expected if expected == size => Ok(size),
        _ => Err(unexpected(size)),
    }
}
