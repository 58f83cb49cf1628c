//! Logs in the CRI format: `TIME STREAM F|P LINE`, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{LOG_FILES, LOG_SIZE};

/// How many rotated files are kept beside the current one.
const KEPT: usize = LOG_FILES - 1;
/// Longer lines are split, in bytes.
const LINE: usize = 16 * 1024;

/// How much unwritten output is kept, in bytes.
const LEFT: usize = 1 << 20;

/// The log of one process: both of its streams, in the order in which they were read.
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// Whole lines that could not be written yet.
    left: Vec<u8>,
    /// Whether a failure to rotate it was reported.
    stuck: bool,
}

impl Log {
    /// Opens a log for appending.
    ///
    /// # Errors
    /// Any error of the system calls.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Log {
            path: path.to_owned(),
            file,
            size,
            left: Vec::new(),
            stuck: false,
        })
    }

    /// Writes whole lines. On a full disk as many as possible are kept and written with later ones; the container
    /// continues.
    fn write(&mut self, text: &[u8]) {
        if self.size >= LOG_SIZE {
            let rotated = self.rotate();
            if let Err(error) = &rotated
                && !self.stuck
            {
                let path = self.path.display();
                eprintln!("reddwarf init: {path} cannot be rotated and grows: {error}");
            }
            self.stuck = rotated.is_err();
        }
        if !self.left.is_empty() {
            self.keep(text);
            self.flush();
        } else if !self.append(text) {
            self.keep(text);
        }
    }

    /// Retries to write kept lines.
    fn flush(&mut self) {
        let left = std::mem::take(&mut self.left);
        if !self.append(&left) {
            self.left = left;
        }
    }

    /// Appends the whole text, or nothing: part of a line would be merged with the next one.
    fn append(&mut self, text: &[u8]) -> bool {
        let written = self.file.write_all(text).is_ok();
        if written {
            self.size += text.len() as u64;
        } else {
            // Truncating needs no space.
            let _ = self.file.set_len(self.size);
        }
        written
    }

    /// Keeps lines for later, dropping the oldest if there are too many.
    fn keep(&mut self, text: &[u8]) {
        self.left.extend_from_slice(text);
        let more = self.left.len().saturating_sub(LEFT);
        if more > 0 {
            let line = self.left[more - 1..].iter().position(|byte| *byte == b'\n');
            self.left
                .drain(..line.map_or(self.left.len(), |at| more + at));
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S%6f").to_string();
        let name = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let rotated = self.path.with_file_name(format!("{name}.{stamp}"));
        match std::fs::rename(&self.path, &rotated) {
            // It was renamed before, but its successor could not be created, for example on a full disk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let mut options = OpenOptions::new();
        self.file = options.create(true).append(true).open(&self.path)?;
        self.size = 0;
        let Some(directory) = self.path.parent() else {
            return Ok(());
        };
        let prefix = format!("{name}.");
        let mut older = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                older.push(entry.path());
            }
        }
        older.sort();
        older
            .iter()
            .rev()
            .skip(KEPT)
            .try_for_each(std::fs::remove_file)
    }
}

/// Splits one stream of a process into log lines.
pub struct Lines {
    stream: &'static str,
    left: Vec<u8>,
}

impl Lines {
    /// Lines for `stdout` or `stderr`.
    pub fn new(stream: &'static str) -> Self {
        Lines {
            stream,
            left: Vec::new(),
        }
    }

    /// Processes what was read.
    pub fn take(&mut self, mut bytes: &[u8], log: &mut Log) {
        let mut text = Vec::with_capacity(bytes.len() + 64);
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
            .to_string();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.left.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.cut(&now, &mut text);
            self.line(&now, 'F', &mut text);
        }
        self.left.extend_from_slice(bytes);
        self.cut(&now, &mut text);
        if !text.is_empty() {
            log.write(&text);
        }
    }

    /// At the end of the stream, writes an unterminated line.
    pub fn end(&mut self, log: &mut Log) {
        if self.left.is_empty() {
            return log.flush();
        }
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
            .to_string();
        let mut text = Vec::new();
        self.line(&now, 'P', &mut text);
        log.write(&text);
    }

    fn cut(&mut self, now: &str, text: &mut Vec<u8>) {
        while self.left.len() > LINE {
            let rest = self.left.split_off(LINE);
            self.line(now, 'P', text);
            self.left = rest;
        }
    }

    fn line(&mut self, now: &str, tag: char, text: &mut Vec<u8>) {
        text.extend_from_slice(format!("{now} {} {tag} ", self.stream).as_bytes());
        text.append(&mut self.left);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_partial_and_rotated() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        let mut log = Log::open(&path).expect("a log");
        let mut lines = Lines::new("stdout");
        lines.take(b"one\ntw", &mut log);
        lines.take(b"o\n", &mut log);
        lines.take(&vec![b'x'; LINE + 1], &mut log);
        lines.end(&mut log);
        let text = std::fs::read_to_string(&path).expect("read");
        let told: Vec<(&str, &str, usize)> = text
            .lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                let stamp = parts.next().expect("a time");
                assert_eq!(stamp.len(), "2016-10-06T00:17:09.669794202Z".len());
                let stream = parts.next().expect("a stream");
                let tag = parts.next().expect("a tag");
                (stream, tag, parts.next().expect("a text").len())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("stdout", "F", 3),
                ("stdout", "F", 3),
                ("stdout", "P", LINE),
                ("stdout", "P", 1)
            ]
        );
        for _ in 0..6 {
            log.size = LOG_SIZE;
            lines.take(b"more\n", &mut log);
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("read").count(),
            1 + KEPT
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_delays_lines_and_loses_only_the_oldest() {
        let directory = tempfile::tempdir().expect("a directory");
        let (full, free) = (directory.path().join("full"), directory.path().join("free"));
        std::os::unix::fs::symlink("/dev/full", &full).expect("linked");
        let lines = |log: &Path| {
            let text = std::fs::read_to_string(log).expect("read");
            let lines = text.lines().map(|line| line.rsplit(' ').next());
            lines.flatten().map(str::to_owned).collect::<Vec<_>>()
        };
        let mut stdout = Lines::new("stdout");
        let mut log = Log::open(&full).expect("a log");
        stdout.take(b"one\ntwo\n", &mut log);
        stdout.take(b"three\n", &mut log);
        // There is space again.
        log.file = File::create(&free).expect("a file");
        stdout.take(b"four\n", &mut log);
        assert_eq!(lines(&free), ["one", "two", "three", "four"]);
        assert_eq!(log.size, std::fs::metadata(&free).expect("there").len());
        // More than can be kept, and no further output.
        log.file = OpenOptions::new().write(true).open(&full).expect("a file");
        let long = "x".repeat(1000);
        for number in 0..2000 {
            stdout.take(format!("{long}-{number}\n").as_bytes(), &mut log);
        }
        log.file = OpenOptions::new().append(true).open(&free).expect("a file");
        stdout.end(&mut log);
        let kept = lines(&free).split_off(4);
        let first = 2000 - kept.len();
        assert!(kept.len() > LEFT / 1100, "{}", kept.len());
        let expected: Vec<_> = (first..2000).map(|n| format!("{long}-{n}")).collect();
        assert!(kept == expected, "whole lines, the newest");
    }
}
