//! The processes of the zone, from start to end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::child::Input;
use super::control::{Entry, Supervisor};
use super::logs::Log;
use super::streams::{Listeners, pump};
use super::{Process, ProcessId, ProcessSpec, Refusal, Walls, roots};
use crate::zone::Ending;

/// How long to wait for output after the end of a process that left children behind.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often to try to end what a process left behind, with a pause in between.
const TRIES: u32 = 200;
const AGAIN: Duration = Duration::from_millis(5);

impl Supervisor {
    /// Starts a process, once: repeated requests during the start wait for its result.
    pub(super) async fn start(self: Rc<Self>, spec: ProcessSpec) -> Result<(), Refusal> {
        let id = spec.id.clone();
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.entries.contains_key(&id) {
                    return Ok(());
                }
                if state.starting.insert(id.clone()) {
                    break;
                }
            }
            settled.await;
        }
        let started = self.clone().start_once(spec).await;
        self.state.lock().starting.remove(&id);
        self.settled.notify_waiters();
        started
    }

    async fn start_once(self: Rc<Self>, spec: ProcessSpec) -> Result<(), Refusal> {
        let id = spec.id.clone();
        let beside = match &spec.beside {
            None => None,
            Some(name) => Some(self.newest(name).ok_or_else(|| {
                Refusal::State(format!(
                    "to see the processes of {name}, which does not run"
                ))
            })?),
        };
        let log = Log::open(&spec.log)
            .map_err(|error| Refusal::Failed(format!("{}: {error}", spec.log.display())))?;
        let log = Arc::new(Mutex::new(log));
        let stage = self.stage(spec.clone(), spec.tty, None);
        let begun = Timestamp::now();
        let mut process = Process {
            id: id.clone(),
            labels: spec.labels.clone(),
            started: begun,
            ended: None,
            identity: None,
        };
        match self.spawn(stage, spec.stdin, beside).await {
            Ok(child) => {
                process.identity = child.identity;
                let listeners = Listeners::default();
                self.state.lock().entries.insert(
                    id.clone(),
                    Entry {
                        process: process.clone(),
                        spec,
                        pid: child.pid,
                        cell: Some(child.cell),
                        listeners: listeners.clone(),
                        input: child.ends.input,
                    },
                );
                let pumps: Vec<_> = child
                    .ends
                    .outputs
                    .into_iter()
                    .map(|(fd, stderr)| {
                        tokio::task::spawn_local(pump(fd, stderr, log.clone(), listeners.clone()))
                    })
                    .collect();
                self.changed(process).await;
                let own = self.clone();
                tokio::task::spawn_local(async move {
                    let (code, signal) = child.ended.await.unwrap_or((137, 9));
                    own.ended(&id, code, signal, pumps).await;
                });
                Ok(())
            }
            Err(Refusal::Start(reason)) => {
                self.clear(&id).await;
                // It counts as a generation that ended at once, as in other runtimes.
                process.ended = Some(Ending {
                    error: Some(format!("failed to start container process: {reason}")),
                    ..Ending::exited(128, Timestamp::now())
                });
                self.state.lock().entries.insert(
                    id,
                    Entry {
                        process: process.clone(),
                        spec,
                        pid: 0,
                        cell: None,
                        listeners: Listeners::default(),
                        input: Input::default(),
                    },
                );
                self.changed(process).await;
                Err(Refusal::Start(format!(
                    "failed to start container process: {reason}"
                )))
            }
            Err(other) => Err(other),
        }
    }

    async fn ended(
        &self,
        id: &ProcessId,
        code: i32,
        signal: i32,
        pumps: Vec<tokio::task::JoinHandle<()>>,
    ) {
        let at = Timestamp::now();
        self.clear(id).await;
        for pump in pumps {
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        // If a child was killed for lack of memory, its parent may end with an ordinary status.
        let out_of_memory = code != 0 && self.killed_for_memory(id);
        let process = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(id) else {
                return;
            };
            entry.process.ended = Some(Ending {
                signal,
                out_of_memory,
                ..Ending::exited(code, at)
            });
            entry.listeners.close();
            entry.process.clone()
        };
        self.settled.notify_waiters();
        self.changed(process).await;
    }

    /// Ends what is left of a process that has no namespace: its children and its mounts.
    async fn clear(&self, id: &ProcessId) {
        if !self.outlive() {
            return;
        }
        for _ in 0..TRIES {
            if !self.kill(id) {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        if self.walls != Walls::Roots {
            return;
        }
        let view = roots::view(id);
        for left in (0..TRIES).rev() {
            match roots::clear(&view) {
                Ok(()) => {
                    // Nothing is left that needs it.
                    if let Some(entry) = self.state.lock().entries.get_mut(id) {
                        entry.cell = None;
                    }
                    return;
                }
                // It is removed with the zone.
                Err(error) if left == 0 => eprintln!("reddwarf init: {id}: {error}"),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn killed_for_memory(&self, id: &ProcessId) -> bool {
        self.groups(id).iter().any(|group| {
            ["memory.events", "memory.oom_control"].iter().any(|name| {
                std::fs::read_to_string(group.join(name)).is_ok_and(|text| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("oom_kill "))
                        .any(|count| count.trim() != "0")
                })
            })
        })
    }
}
