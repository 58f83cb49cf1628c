//! The tools of this host, run as processes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::notes::{self, Note};
use super::{Class, Command, Failure, Output, Tools};
use crate::blocking::blocking;

/// How much output of a tool is kept, in bytes; the rest is read and discarded.
const MOST: usize = 8 << 20;
/// How long to wait for output after a tool's end, if a process that it left behind holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a killed process may take to be gone: one in the kernel ends when its system call returns.
const GONE: Duration = Duration::from_secs(60);
/// How often to check whether it is gone, because only its parent is notified.
const LOOK: Duration = Duration::from_millis(50);

/// Tools as processes: each in its own process group, in `/`, with no environment except the search path and the C
/// locale.
pub struct HostTools {
    /// The directory of the tools, if not their usual paths.
    directory: Option<PathBuf>,
    /// The directory of notes about commands that may leave processes behind, one file per owner.
    notes: PathBuf,
}

impl HostTools {
    /// The tools of this host, or those in `directory`, which also get this process's environment. `notes` is a
    /// directory that does not survive a reboot of the host; it is created.
    ///
    /// # Errors
    /// `notes` cannot be created.
    pub fn new(directory: Option<&Path>, notes: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(notes)?;
        Ok(HostTools {
            directory: directory.map(Path::to_owned),
            notes: notes.to_owned(),
        })
    }

    fn path(&self, command: &Command) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.join(command.tool.name()),
            None => command.tool.path().into(),
        }
    }

    fn note(&self, owner: &str) -> PathBuf {
        self.notes.join(owner)
    }

    fn process(&self, command: &Command) -> tokio::process::Command {
        let path = self.path(command);
        let mut process = match &command.owner {
            None => tokio::process::Command::new(path),
            Some(owner) => {
                let mut shell = tokio::process::Command::new("/bin/sh");
                shell
                    .args(["-c", notes::SCRIPT, "sh"])
                    .arg(self.note(owner))
                    .arg(notes::session())
                    .arg(path);
                shell
            }
        };
        process
            .args(&command.arguments)
            .current_dir("/")
            .process_group(0)
            .stdin(match command.input {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.directory.is_none() {
            process.env_clear();
            process.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        }
        process.env("LC_ALL", "C");
        process
    }

    async fn carry_out(&self, command: &Command) -> Result<Output, Failure> {
        let failed = |class, said: String| Failure {
            class,
            command: command.to_string(),
            said,
        };
        let broken = |error: io::Error| failed(Class::Other, error.to_string());
        let path = self.path(command);
        let sought = path.clone();
        let there = blocking(move || sought.try_exists()).await;
        if !there.map_err(broken)? {
            let said = format!("{} is not there", path.display());
            return Err(failed(Class::NoTool, said));
        }
        let mut child = self.process(command).spawn().map_err(broken)?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        if let (Some(input), Some(mut stdin)) = (&command.input, child.stdin.take()) {
            let input = input.clone().into_bytes();
            tokio::spawn(async move {
                // A tool that does not read its input reports that by its exit status.
                let _ = stdin.write_all(&input).await;
            });
        }
        let stdout = gather(child.stdout.take());
        let stderr = gather(child.stderr.take());
        let status = match tokio::time::timeout(command.limit, child.wait()).await {
            Ok(status) => status.map_err(broken)?,
            Err(_) => {
                if let Some(group) = group {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
                let _ = tokio::time::timeout(GONE, child.wait()).await;
                let limit = command.limit.as_secs();
                let said = format!("it did not end within {limit} s and was killed");
                return Err(failed(Class::TimedOut, said));
            }
        };
        let (stdout, stderr) = (stdout.words().await, stderr.words().await);
        if let Some(owner) = &command.owner {
            forget(self.note(owner)).await;
        }
        match status.code() {
            Some(0) => Ok(Output { stdout, stderr }),
            Some(code) => Err(Failure::of(command, code, &stdout, &stderr)),
            None => Err(failed(Class::Killed, "it was killed".into())),
        }
    }
}

/// Removes a note. If that fails, the note names a group that has ended.
async fn forget(note: PathBuf) {
    let _ = blocking(move || std::fs::remove_file(note)).await;
}

/// The output of a tool so far, and the task that continues reading.
struct Gathered {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

fn gather<R: AsyncRead + Send + Unpin + 'static>(from: Option<R>) -> Gathered {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = kept.clone();
    let reading = tokio::spawn(async move {
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let mut kept = keep.lock();
            let room = MOST.saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&buffer[..room]);
        }
    });
    Gathered { kept, reading }
}

impl Gathered {
    async fn words(mut self) -> String {
        if tokio::time::timeout(LAST_WORDS, &mut self.reading)
            .await
            .is_err()
        {
            // A zoneadmd(8) that was started meanwhile may hold the pipe open: the output is complete.
            self.reading.abort();
        }
        String::from_utf8_lossy(&self.kept.lock()).into_owned()
    }
}

impl Tools for HostTools {
    fn run<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<Output, Failure>> {
        self.carry_out(command).boxed()
    }

    fn settle<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let failed = |class, command: String, said| Failure {
                class,
                command,
                said,
            };
            let broken = |error: io::Error| {
                failed(
                    Class::Other,
                    format!("look for commands of {owner}"),
                    error.to_string(),
                )
            };
            let file = self.note(owner);
            let noted = file.clone();
            let note = blocking(move || io::Result::Ok(Note::read(&noted))).await;
            let Some(note) = note.map_err(broken)? else {
                return Ok(());
            };
            let begun = std::time::Instant::now();
            while blocking(move || io::Result::Ok(note.is_alive()))
                .await
                .map_err(broken)?
            {
                note.kill();
                if begun.elapsed() > GONE {
                    let command = format!("kill -9 -{}", note.group.as_raw_nonzero());
                    let said =
                        format!("a command of {owner} that an earlier agent began does not end");
                    return Err(failed(Class::TimedOut, command, said));
                }
                tokio::time::sleep(LOOK).await;
            }
            forget(file).await;
            Ok(())
        }
        .boxed()
    }
}
