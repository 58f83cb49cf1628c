//! Sessions: exec, attach and forwarded ports, each with its own connection.

use std::rc::Rc;

use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::child::Input;
use super::control::{Seen, Supervisor};
use super::fd::Fd;
use super::processes::LAST_WORDS;
use super::streams::Chunk;
use super::{
    Hello, ProcessId, ProcessSpec, Refusal, SOCKET, SessionEnd, SignalNumber, kind, read_frame,
    write_frame, write_json,
};
use crate::zone::{Ending, ExecSpec};

/// The streams between a process and an attached client.
pub(super) struct Joined {
    output: mpsc::Receiver<Chunk>,
    input: Input,
    once: bool,
}

impl Supervisor {
    /// Dials the agent for a session.
    async fn session(&self, number: u64, refused: Option<String>) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(SOCKET).await.ok()?;
        let ends = refused.is_some();
        let hello = Hello::Session { number, refused };
        write_json(&mut stream, kind::HELLO, &hello).await.ok()?;
        (!ends).then_some(stream)
    }

    pub(super) async fn exec(
        self: Rc<Self>,
        number: u64,
        mut spec: ProcessSpec,
        pid: i32,
        exec: ExecSpec,
    ) {
        if exec.tty && !spec.environment.iter().any(|one| one.starts_with("TERM=")) {
            spec.environment.push("TERM=xterm".into());
        }
        let stage = self.stage(spec, exec.tty, Some((pid, exec.command.clone())));
        let child = match self.spawn(stage, exec.stdin, Some(pid)).await {
            Ok(child) => child,
            Err(refusal) => {
                let text = match refusal {
                    Refusal::Start(reason) => reason,
                    other => format!("{other:?}"),
                };
                self.session(number, Some(text)).await;
                return;
            }
        };
        let Some(stream) = self.session(number, None).await else {
            let _ = self.tell(child.pid, SignalNumber::KILL);
            return;
        };
        let (mut from, mut to) = stream.into_split();
        let (sender, mut queue) = mpsc::channel::<(u8, Vec<u8>)>(16);
        let mut pumps = Vec::new();
        for (fd, stderr) in child.ends.outputs {
            let sender = sender.clone();
            pumps.push(tokio::task::spawn_local(async move {
                let Ok(mut from) = Fd::new(fd) else {
                    return;
                };
                let kind = if stderr { kind::STDERR } else { kind::STDOUT };
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(count) = from.read(&mut buffer).await {
                    if count == 0 || sender.send((kind, buffer[..count].to_vec())).await.is_err() {
                        return;
                    }
                }
            }));
        }
        let writer = tokio::task::spawn_local(async move {
            while let Some((kind, payload)) = queue.recv().await {
                if write_frame(&mut to, kind, &payload).await.is_err() {
                    return;
                }
            }
        });
        let input = child.ends.input;
        let own = self.clone();
        let pid = child.pid;
        let reader = tokio::task::spawn_local(async move {
            while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
                input.frame(kind, &payload).await;
            }
            // Nobody listens any more: a program with a terminal gets a hangup, others see closed pipes.
            input.to.lock().await.take();
            let last = match input.terminal.is_some() && own.seen() != Seen::Around {
                _ if exec.ends_with_session => Some(SignalNumber::KILL),
                true => Some(SignalNumber::HANG_UP),
                false => None,
            };
            if let Some(last) = last {
                let _ = own.tell(pid, last);
            }
        });
        let (code, signal) = child.ended.await.unwrap_or((137, 9));
        for pump in pumps {
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        let end: SessionEnd = Ok(Ending {
            signal,
            ..Ending::exited(code, Timestamp::now())
        });
        if let Ok(payload) = serde_json::to_vec(&end) {
            let _ = sender.send((kind::ENDED, payload)).await;
        }
        drop(sender);
        let _ = writer.await;
        reader.abort();
    }

    /// Attaches to a running process.
    pub(super) fn join(&self, id: &ProcessId) -> Result<Joined, Refusal> {
        let state = self.state.lock();
        let entry = state.entries.get(id).ok_or(Refusal::NotFound)?;
        match entry.process.ended {
            None => Ok(Joined {
                output: entry.listeners.join(),
                input: entry.input.clone(),
                once: entry.spec.stdin_once,
            }),
            Some(_) => Err(Refusal::State("ended".into())),
        }
    }

    pub(super) async fn attach(self: Rc<Self>, number: u64, id: ProcessId, joined: Joined) {
        let Joined {
            mut output,
            input,
            once,
        } = joined;
        let Some(stream) = self.session(number, None).await else {
            return;
        };
        let (mut from, mut to) = stream.into_split();
        let feeding = input.clone();
        let mut reader = tokio::task::spawn_local(async move {
            let mut fed = false;
            while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
                fed |= kind == kind::STDIN;
                if kind == kind::STDIN_END && !once {
                    continue;
                }
                feeding.frame(kind, &payload).await;
            }
            fed
        });
        loop {
            tokio::select! {
                chunk = output.recv() => match chunk {
                    Some((kind, payload)) => {
                        if write_frame(&mut to, kind, &payload).await.is_err() {
                            break;
                        }
                    }
                    None => {
                        let ending = self
                            .state
                            .lock()
                            .entries
                            .get(&id)
                            .and_then(|entry| entry.process.ended.clone());
                        let end: SessionEnd = ending.ok_or_else(|| "it was forgotten".to_owned());
                        let _ = write_json(&mut to, kind::ENDED, &end).await;
                        break;
                    }
                },
                fed = &mut reader => {
                    if once && fed.unwrap_or(false) {
                        input.to.lock().await.take();
                    }
                    return;
                }
            }
        }
        reader.abort();
    }

    pub(super) async fn dial(self: Rc<Self>, number: u64, port: u16) {
        let target = match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(stream),
            Err(error) => TcpStream::connect(("::1", port)).await.map_err(|_| error),
        };
        match target {
            Ok(mut target) => {
                if let Some(mut stream) = self.session(number, None).await {
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
                }
            }
            Err(error) => {
                let text = format!("connect to localhost:{port} inside the pod: {error}");
                self.session(number, Some(text)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::control::Entry;
    use super::super::streams::Listeners;
    use super::super::{Configuration, Process, Walls};
    use super::*;
    use crate::zone::{ZoneName, ZoneNetwork, ZoneSpec};

    #[tokio::test]
    async fn who_attaches_is_answered_whatever_becomes_of_the_process() {
        let id = ProcessId {
            name: "c".into(),
            generation: 0,
        };
        let name = ZoneName::new("z").expect("legal");
        let configuration = Configuration {
            spec: ZoneSpec::new(name, ZoneNetwork::Host),
            created: Timestamp::now(),
            groups: Vec::new(),
        };
        let (directory, program) = (PathBuf::new(), PathBuf::new());
        let supervisor = Supervisor::new(Walls::Roots, directory, configuration, program);
        assert!(matches!(supervisor.join(&id), Err(Refusal::NotFound)));
        let entry = Entry {
            process: Process {
                id: id.clone(),
                labels: BTreeMap::new(),
                started: Timestamp::now(),
                ended: None,
                identity: None,
            },
            spec: crate::zone::tests::process("c", 0, ""),
            pid: 0,
            cell: None,
            listeners: Listeners::default(),
            input: Input::default(),
        };
        supervisor.state.lock().entries.insert(id.clone(), entry);
        let mut joined = supervisor.join(&id).unwrap_or_else(|_| panic!("it runs"));
        // Forgotten before the session exists: its output ends, and so does the session.
        supervisor.state.lock().entries.remove(&id);
        assert_eq!(joined.output.recv().await, None);
    }
}
