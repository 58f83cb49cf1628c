//! Logs of containers, read from the files that supervisors write.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{Body, Kubelet, Query, Refusal, text, zone_name};
use crate::storage::beneath::open_plain;
use crate::zone::{ProcessId, ZoneState};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    limit: Option<u64>,
    /// `stdout` or `stderr` alone.
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
        let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
            (Some(seconds), _) => {
                // Longer ago than there are times is all of it.
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
            tail: number("tailLines")?.and_then(|lines| usize::try_from(lines).ok()),
            limit: number("limitBytes")?.and_then(|bytes| u64::try_from(bytes).ok()),
            stream: match query.get("stream") {
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                _ => None,
            },
        })
    }

    /// What of a line of the file is shown.
    fn show(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (stamp, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let content = parts.next()?;
        if self
            .stream
            .is_some_and(|wanted| wanted.as_bytes() != stream)
        {
            return None;
        }
        if let Some(since) = self.since {
            let at: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
            if at < since {
                return None;
            }
        }
        let mut shown = Vec::with_capacity(line.len());
        if self.timestamps {
            shown.extend_from_slice(stamp);
            shown.push(b' ');
        }
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        shown.extend_from_slice(content);
        // A part of a line goes on with the next one.
        if tag == b"F" || self.timestamps {
            shown.push(b'\n');
        }
        Some(shown)
    }
}

/// Reads a log by whole lines.
struct Reader {
    above: PathBuf,
    below: PathBuf,
    file: BufReader<File>,
    inode: u64,
    partial: Vec<u8>,
}

impl Reader {
    /// The log `below` a directory that nobody in the pod can change.
    fn open(above: &Path, below: &Path) -> io::Result<Self> {
        let file = open_plain(above, below)?;
        Ok(Reader {
            above: above.to_owned(),
            below: below.to_owned(),
            inode: file.metadata()?.ino(),
            file: BufReader::new(file),
            partial: Vec::new(),
        })
    }

    /// The next whole line; nothing if there is none yet.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.file.read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            // The end, unless the log was rotated away under us.
            match open_plain(&self.above, &self.below).and_then(|file| file.metadata()) {
                Ok(found) if found.ino() != self.inode => {
                    // What came into the old file before it was renamed: it is written to no more.
                    self.file.read_until(b'\n', &mut self.partial)?;
                    if self.partial.ends_with(b"\n") {
                        return Ok(Some(std::mem::take(&mut self.partial)));
                    }
                    let next = Reader::open(&self.above, &self.below)?;
                    *self = next;
                }
                _ => return Ok(None),
            }
        }
    }

    /// Skips to where the last `lines` lines begin.
    fn skip_to_tail(&mut self, wanted: &Wanted, lines: usize) -> io::Result<()> {
        let mut starts = VecDeque::with_capacity(lines.min(1 << 16) + 1);
        let mut at = 0u64;
        let mut line = Vec::new();
        let mut whole = true;
        loop {
            line.clear();
            let count = self.file.read_until(b'\n', &mut line)?;
            if count == 0 {
                break;
            }
            if wanted.show(&line).is_some() {
                if whole {
                    starts.push_back(at);
                    if starts.len() > lines {
                        starts.pop_front();
                    }
                }
                whole = !line.windows(3).take(60).any(|three| three == b" P ");
            }
            at += count as u64;
        }
        let start = match lines {
            0 => at,
            _ => starts.front().copied().unwrap_or(at),
        };
        self.file.seek(SeekFrom::Start(start))?;
        Ok(())
    }
}

impl Kubelet {
    /// Answers a request for a log.
    pub(super) fn container_log(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = Wanted::of(query)?;
        let (pod, status) = self
            .pods
            .find(namespace, name)
            .ok_or_else(|| (404, format!("pod {name:?} does not exist")))?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let status = status.or_else(|| pod.status.clone()).unwrap_or_default();
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
            // While it waits to be started again, the count is still that of the one that ended.
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
        let Some(reader) = path.and_then(|(above, below)| Reader::open(&above, &below).ok()) else {
            return Ok(text(200, ""));
        };
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
        if let Some(lines) = wanted.tail {
            reader.skip_to_tail(&wanted, lines)?;
        }
        let mut left = wanted.limit.unwrap_or(u64::MAX);
        let mut over = !wanted.follow;
        loop {
            let mut chunk = Vec::new();
            while chunk.len() < 64 * 1024 {
                match reader.line()? {
                    Some(line) => chunk.extend(wanted.show(&line).unwrap_or_default()),
                    None => break,
                }
            }
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
                    // As long as it was not heard of, it may.
                    None => zone.state == ZoneState::Unreachable,
                }
            });
            // Once more after its end: what it said last may have been written since.
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
