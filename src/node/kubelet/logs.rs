//! Serves logs of containers from the files that supervisors write.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{Body, Kubelet, Query, Refusal, text, zone_name};
use crate::blocking::blocking;
use crate::meta::errors::quoted;
use crate::storage::beneath::open_plain;
use crate::zone::{ProcessId, ZoneState};

/// How often a followed log is checked.
const LOOK: Duration = Duration::from_millis(100);

/// How much of a log is read or sent at once, in bytes.
const CHUNK: usize = 64 << 10;
/// The longest line, in bytes: supervisors write parts of 16 KiB. A log that a zone writes itself may contain anything.
const LINE: u64 = 64 << 10;

/// The options of a log request.
#[derive(Debug, Clone, Default)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    limit: Option<u64>,
    /// Only `stdout` or `stderr`, if set.
    stream: Option<&'static str>,
}

impl Wanted {
    fn of(query: &Query) -> Result<Self, Refusal> {
        let number = |key: &str| -> Result<Option<i64>, Refusal> {
            query
                .get(key)
                .map(|text| {
                    text.parse().map_err(|_| {
                        (
                            400,
                            format!("unable to decode the request's {key}: {text:?}"),
                        )
                    })
                })
                .transpose()
        };
        // Follows `ValidatePodLogOptions` of pkg/apis/core/validation.
        let at_least = |least: i64, key: &str| match number(key)? {
            Some(number) if number < least => {
                Err((422, r#"{"message": "Invalid request."}"#.to_owned()))
            }
            number => Ok(number),
        };
        let since = match (at_least(1, "sinceSeconds")?, query.get("sinceTime")) {
            (Some(seconds), _) => {
                // A duration beyond the earliest timestamp selects everything.
                let whole = SignedDuration::from_secs(seconds);
                let since = Timestamp::now().checked_sub(whole);
                Some(since.unwrap_or(Timestamp::MIN))
            }
            (None, Some(text)) => Some(text.parse().map_err(|_| {
                (
                    400,
                    format!("unable to decode the request's sinceTime: {text:?}"),
                )
            })?),
            (None, None) => None,
        };
        Ok(Wanted {
            follow: query.on(&["follow"]),
            timestamps: query.on(&["timestamps"]),
            since,
            tail: at_least(0, "tailLines")?.and_then(|lines| usize::try_from(lines).ok()),
            limit: at_least(1, "limitBytes")?.and_then(|bytes| u64::try_from(bytes).ok()),
            stream: match query.get("stream") {
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                _ => None,
            },
        })
    }

    /// The part of a line of a CRI log that is sent, and whether the next one starts a new line of output. Only a part that
    /// `begins` a line of output is sent with its time.
    fn show(&self, line: &[u8], begins: bool) -> Option<(Vec<u8>, bool)> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (stamp, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let content = parts.next()?;
        // A partial line continues in the next one.
        let ends = tag == b"F";
        let hidden = Some((Vec::new(), ends));
        if self
            .stream
            .is_some_and(|wanted| wanted.as_bytes() != stream)
        {
            return hidden;
        }
        if let Some(since) = self.since {
            let at: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
            if at < since {
                return hidden;
            }
        }
        let mut shown = Vec::with_capacity(line.len());
        if self.timestamps && begins {
            shown.extend_from_slice(stamp);
            shown.push(b' ');
        }
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        shown.extend_from_slice(content);
        if ends {
            shown.push(b'\n');
        }
        Some((shown, ends))
    }
}

/// Reads a log line by line.
struct Reader {
    above: PathBuf,
    below: PathBuf,
    file: BufReader<File>,
    inode: u64,
    partial: Vec<u8>,
    /// Whether the next line is not the rest of a partial line.
    begins: bool,
}

impl Reader {
    /// Opens the log `below` a directory that no process in the pod can change.
    fn open(above: &Path, below: &Path) -> io::Result<Self> {
        let file = open_plain(above, below)?;
        Ok(Reader {
            above: above.to_owned(),
            below: below.to_owned(),
            inode: file.metadata()?.ino(),
            file: BufReader::new(file),
            partial: Vec::new(),
            begins: true,
        })
    }

    /// Reads to the end of a line, or to the limit. Returns whether the line is complete.
    fn read_line(&mut self) -> io::Result<bool> {
        let room = LINE.saturating_sub(self.partial.len() as u64);
        let mut some = (&mut self.file).take(room);
        some.read_until(b'\n', &mut self.partial)?;
        Ok(self.partial.ends_with(b"\n") || self.partial.len() as u64 >= LINE)
    }

    /// The next complete line; None if there is none yet.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.read_line()? {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            // The end, unless the log was rotated.
            match open_plain(&self.above, &self.below).and_then(|file| file.metadata()) {
                Ok(found) if found.ino() != self.inode => {
                    // Lines added to the old file before it was renamed: nothing writes to it any more.
                    if self.read_line()? {
                        return Ok(Some(std::mem::take(&mut self.partial)));
                    }
                    let next = Reader::open(&self.above, &self.below)?;
                    let begins = self.begins;
                    *self = Reader { begins, ..next };
                }
                _ => return Ok(None),
            }
        }
    }

    /// The next output, as much as is sent at once; empty if that is all for now.
    fn chunk(&mut self, wanted: &Wanted) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(line) = self.line()? else { break };
            if let Some((shown, ends)) = wanted.show(&line, self.begins) {
                chunk.extend(shown);
                self.begins = ends;
            }
        }
        Ok(chunk)
    }

    /// Skips to the last `lines` lines of the file; each part of a partial line counts, as upstream.
    fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut file = self.file.get_ref();
        let end = file.metadata()?.len();
        let (mut start, mut left) = (end, lines);
        let mut block = vec![0; CHUNK];
        let most = (lines as u64).saturating_add(1).saturating_mul(LINE);
        'search: while start > 0 && end - start < most {
            let size = start.min(CHUNK as u64);
            file.seek(SeekFrom::Start(start - size))?;
            let block = &mut block[..size as usize];
            file.read_exact(block)?;
            for at in (0..block.len()).rev().filter(|at| block[*at] == b'\n') {
                if left == 0 {
                    start = start - size + at as u64 + 1;
                    break 'search;
                }
                left -= 1;
            }
            start -= size;
        }
        self.file.seek(SeekFrom::Start(start))?;
        Ok(())
    }
}

/// The error if a log cannot be opened, in the words of ReadLogs in k8s.io/cri-client/pkg/logs; the kubelet returns 400
/// for each.
fn unopened(path: &Path, error: &io::Error) -> Refusal {
    let path = path.display().to_string();
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!(
            "failed to try resolving symlinks in path {}: lstat {path}: no such file or directory",
            quoted(&path)
        ),
        _ => format!("failed to open log file {}: {error}", quoted(&path)),
    };
    (400, message)
}

impl Kubelet {
    /// Handles a request for a log.
    pub(super) async fn container_log(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = Wanted::of(query)?;
        let (pod, status) = self
            .pods
            .find(namespace, name, None)
            .ok_or_else(|| (404, format!("pod {name:?} does not exist")))?;
        let spec = pod.spec.iter();
        let mut containers = spec.flat_map(crate::node::machine::containers);
        if !containers.any(|(_, one)| one.name == container) {
            let message = format!("container {container:?} not found in pod {name:?}");
            return Err((404, message));
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let status = status.as_deref().or(pod.status.as_ref()).cloned();
        let status = status.unwrap_or_default();
        let found = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .flatten()
            .find(|status| status.name == container);
        let waiting = |why: &str| {
            (
                400,
                format!("container {container:?} in pod {name:?} is {why}"),
            )
        };
        let found = found.ok_or_else(|| {
            (
                400,
                format!("container {container:?} in pod {name:?} is not available"),
            )
        })?;
        let state = found.state.clone().unwrap_or_default();
        let last = found.last_state.clone().unwrap_or_default();
        let mut generation = found.restart_count as u32;
        if query.on(&["previous"]) {
            if last.terminated.is_none() {
                return Err((
                    400,
                    format!(
                        "previous terminated container {container:?} in pod {name:?} not found"
                    ),
                ));
            }
            // While it waits for a restart, the count is still that of the ended process.
            if state.waiting.is_none() {
                generation = generation.saturating_sub(1);
            }
        } else if let Some(reason) = &state.waiting
            && last.terminated.is_none()
        {
            let reason = reason.reason.clone().unwrap_or_default();
            return Err(match reason.as_str() {
                "ErrImagePull" => waiting("waiting to start: image can't be pulled"),
                "ImagePullBackOff" => waiting("waiting to start: trying and failing to pull image"),
                other => waiting(&format!("waiting to start: {other}")),
            });
        }
        let id = ProcessId {
            name: container.to_owned(),
            generation,
        };
        let path = self
            .logs
            .as_ref()
            .map(|logs| logs.path(namespace, name, &uid, &id));
        let Some((above, below)) = path else {
            return Ok(text(200, ""));
        };
        let tail = wanted.tail;
        let path = above.join(&below);
        let opened = blocking(move || {
            let mut reader = Reader::open(&above, &below)?;
            if let Some(lines) = tail {
                reader.skip_to_tail(lines)?;
            }
            Ok(reader)
        });
        let reader = opened.await.map_err(|error: io::Error| {
            tracing::warn!(path = %path.display(), %error, "a log cannot be opened");
            unopened(&path, &error)
        })?;
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        let kubelet = self.clone();
        tokio::spawn(async move {
            let _ = kubelet
                .send(reader, wanted, zone_name(&uid), id, sender)
                .await;
        });
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((
                Ok::<_, std::convert::Infallible>(Frame::data(bytes)),
                receiver,
            ))
        });
        let mut response = text(200, "");
        *response.body_mut() = StreamBody::new(frames).boxed_unsync();
        Ok(response)
    }

    async fn send(
        &self,
        mut reader: Reader,
        wanted: Wanted,
        zone: crate::zone::ZoneName,
        id: ProcessId,
        to: mpsc::Sender<Bytes>,
    ) -> io::Result<()> {
        let wanted = Arc::new(wanted);
        let mut left = wanted.limit.unwrap_or(u64::MAX);
        let mut over = !wanted.follow;
        loop {
            let own = wanted.clone();
            let (after, mut chunk) = blocking(move || {
                let chunk = reader.chunk(&own)?;
                Ok::<_, io::Error>((reader, chunk))
            })
            .await?;
            reader = after;
            if !chunk.is_empty() {
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
                left -= chunk.len() as u64;
                if to.send(chunk.into()).await.is_err() || left == 0 {
                    return Ok(());
                }
                continue;
            }
            if over {
                return Ok(());
            }
            let zone = self.runtime.get(&zone).await.ok().flatten();
            let runs = zone.is_some_and(|zone| {
                let mut processes = zone.processes.iter();
                let known = processes.find(|process| process.id == id);
                match known {
                    Some(process) => process.ended.is_none(),
                    // As long as its zone is unreachable, it may be running.
                    None => zone.state == ZoneState::Unreachable,
                }
            });
            // Read once more after its end: it may have written last lines since.
            over = !runs;
            if runs {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = to.closed() => return Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
