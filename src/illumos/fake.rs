//! The tools of a fake host, in this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Class, Command, Failure, Output, Tools};
use crate::fakehost::Machine;

/// A running command: a flag that kills it, and whether it is over.
type Begun = (Arc<AtomicBool>, watch::Receiver<bool>);

/// Tools of a [`Machine`].
pub struct FakeTools {
    machine: Machine,
    /// The zone that they run in; none is the global one.
    zone: Option<String>,
    /// Commands that may leave processes behind, by owner.
    owned: Mutex<HashMap<String, Vec<Begun>>>,
    /// A limit for commands while something on the host hangs. A slow command gets its own limit.
    patience: Option<Duration>,
    /// The number of commands run.
    pub count: AtomicU64,
    /// All running commands, by number, even those that nobody waits for.
    running: watch::Sender<BTreeMap<u64, Arc<AtomicBool>>>,
}

impl FakeTools {
    pub fn new(machine: Machine) -> Arc<Self> {
        Self::with(machine, None)
    }

    pub fn with(machine: Machine, patience: Option<Duration>) -> Arc<Self> {
        Self::of(machine, None, patience)
    }

    /// Tools as they are in a running zone.
    pub fn inside(machine: Machine, zone: &str) -> Arc<Self> {
        Self::of(machine, Some(zone.to_owned()), None)
    }

    fn of(machine: Machine, zone: Option<String>, patience: Option<Duration>) -> Arc<Self> {
        Arc::new(FakeTools {
            machine,
            zone,
            owned: Mutex::default(),
            patience,
            count: AtomicU64::new(0),
            running: watch::Sender::default(),
        })
    }

    /// Kills every running command, as when the host goes down, and waits until none is left.
    pub async fn end(&self) {
        let mut running = self.running.subscribe();
        for kill in running.borrow_and_update().values() {
            kill.store(true, Ordering::SeqCst);
        }
        let idle = running.wait_for(BTreeMap::is_empty).await;
        idle.expect("the sender is here");
    }
}

impl Tools for FakeTools {
    fn run<'a>(&'a self, command: &'a Command) -> BoxFuture<'a, Result<Output, Failure>> {
        async move {
            let number = self.count.fetch_add(1, Ordering::SeqCst);
            let kill = Arc::new(AtomicBool::new(false));
            let (over, is_over) = watch::channel(false);
            if let Some(owner) = &command.owner {
                let mut owned = self.owned.lock();
                owned
                    .entry(owner.clone())
                    .or_default()
                    .push((kill.clone(), is_over.clone()));
            }
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let (machine, killed) = (self.machine.clone(), kill.clone());
            let (mut tool, mut arguments) = (command.tool.name(), command.arguments.clone());
            if let Some(zone) = &self.zone {
                let words = ["in", zone.as_str(), tool].map(str::to_owned);
                arguments.splice(0..0, words);
                tool = "ctl";
            }
            let input = command.input.clone().unwrap_or_default().into_bytes();
            let running = self.running.clone();
            running.send_modify(|running| drop(running.insert(number, kill.clone())));
            std::thread::spawn(move || {
                let (caller, early) = sync_channel(2);
                let tell_early = tell.clone();
                // An orphan reports to its caller and continues.
                let relay = std::thread::spawn(move || {
                    if let Ok(reply) = early.recv() {
                        let _ = tell_early.send(reply);
                    }
                });
                let reply = machine.run_here(tool, &arguments, &input, killed, Some(caller));
                let _ = relay.join();
                let _ = tell.send(reply);
                over.send_replace(true);
                running.send_modify(|running| drop(running.remove(&number)));
            });
            let failed = |class, said: &str| Failure {
                class,
                command: command.to_string(),
                said: said.to_owned(),
            };
            let begun = std::time::Instant::now();
            let limit = self.patience.unwrap_or(command.limit);
            let answer = loop {
                // Cancel-safe: a result that is not taken stays.
                if let Ok(reply) = tokio::time::timeout(limit, told.recv()).await {
                    break Some(reply);
                }
                if begun.elapsed() >= command.limit || self.machine.is_held_up() {
                    break None;
                }
            };
            let Some(reply) = answer else {
                kill.store(true, Ordering::SeqCst);
                return Err(failed(
                    Class::TimedOut,
                    "it did not end in time and was killed",
                ));
            };
            let reply = reply.ok_or_else(|| failed(Class::Other, "the fake host broke"))?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (stdout, stderr) = (text(&reply.stdout), text(&reply.stderr));
            match (reply.killed, reply.code) {
                (true, _) => Err(failed(Class::Killed, "it was killed")),
                (false, 0) => Ok(Output { stdout, stderr }),
                (false, code) => Err(Failure::of(command, code, &stdout, &stderr)),
            }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let begun = self.owned.lock().remove(owner).unwrap_or_default();
            for (kill, mut over) in begun {
                kill.store(true, Ordering::SeqCst);
                let _ = over.wait_for(|over| *over).await;
            }
            // Hooks belong to the tool's group: they are waited for with it.
            let machine = self.machine.clone();
            let _ = tokio::task::spawn_blocking(move || machine.hooks_end()).await;
            Ok(())
        }
        .boxed()
    }
}
