//! A runtime without real processes that behaves like one with them: it keeps state, rejects what real ones reject,
//! takes time, and fails or stalls on request. Used by tests and by `reddwarf agent --simulated-nodes`.
//!
//! The label [`BEHAVIOUR`] of a process sets what it does: `exit CODE after MILLISECONDS`, or nothing to run until it
//! is ended. TERM ends a process with 143 unless its behaviour contains the word `stubborn`.

mod refusals;
mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use self::refusals::must_run;
use super::{Ending, Limits, ProcessId, Zone, ZoneError, ZoneName};

/// The label of a process that sets what it does.
pub const BEHAVIOUR: &str = "simulated/behaviour";

/// How long operations take.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    /// Creating a zone.
    pub create: Duration,
    /// Booting it.
    pub boot: Duration,
    /// Starting a process.
    pub start: Duration,
    /// Ending and removing a zone.
    pub remove: Duration,
}

/// An injected fault.
#[derive(Clone)]
enum Fault {
    /// The operation fails without having done anything.
    Before(String),
    /// The operation is done, but reported as failed.
    After(String),
    /// The operation waits until notified.
    Stall(Arc<Notify>),
}

struct Home {
    zone: Zone,
    limits: BTreeMap<ProcessId, Limits>,
    stubborn: BTreeMap<ProcessId, bool>,
}

#[derive(Default)]
struct State {
    zones: BTreeMap<ZoneName, Home>,
    faults: Vec<(&'static str, Fault)>,
    boots: u64,
    calls: BTreeMap<&'static str, u64>,
}

/// The simulated runtime. Clones share the same host.
#[derive(Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
    delays: Delays,
    changes: broadcast::Sender<ZoneName>,
}

impl Default for Simulated {
    fn default() -> Self {
        Simulated::new(Delays::default())
    }
}

impl Simulated {
    /// An empty host whose operations take `delays`.
    pub fn new(delays: Delays) -> Self {
        Simulated {
            state: Arc::default(),
            delays,
            // Its memory is taken at once, for each simulated node; whoever falls behind looks at all zones.
            changes: broadcast::channel(64).0,
        }
    }

    /// The next `operation` fails with `cause`, without having done anything.
    pub fn fail(&self, operation: &'static str, cause: &str) {
        self.fault(operation, Fault::Before(cause.to_owned()));
    }

    /// The next `operation` is done, but reported as failed with `cause`.
    pub fn fail_after(&self, operation: &'static str, cause: &str) {
        self.fault(operation, Fault::After(cause.to_owned()));
    }

    /// The next `operation` waits until the returned handle is notified.
    pub fn stall(&self, operation: &'static str) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.fault(operation, Fault::Stall(notify.clone()));
        notify
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: &str) -> u64 {
        self.state.lock().calls.get(operation).copied().unwrap_or(0)
    }

    /// Ends a process like a program that exits.
    pub fn exit(&self, zone: &ZoneName, process: &ProcessId, code: i32) {
        self.end(zone, process, |at| Ending::exited(code, at));
    }

    /// Reboots a zone spontaneously: all its processes are gone.
    pub fn reboot(&self, zone: &ZoneName) {
        {
            let mut state = self.state.lock();
            state.boots += 1;
            let boot = format!("boot-{}", state.boots);
            if let Some(home) = state.zones.get_mut(zone) {
                home.zone.processes.clear();
                home.zone.boot = Some(boot);
            }
        }
        let _ = self.changes.send(zone.clone());
    }

    fn fault(&self, operation: &'static str, fault: Fault) {
        self.state.lock().faults.push((operation, fault));
    }

    /// Counts a call, and lets it fail, stall and take its time. The result must be returned after the work is done.
    async fn step(
        &self,
        operation: &'static str,
        what: &ZoneName,
        delay: Duration,
    ) -> Result<Result<(), ZoneError>, ZoneError> {
        let fault = {
            let mut state = self.state.lock();
            *state.calls.entry(operation).or_default() += 1;
            let found = state.faults.iter().position(|(of, _)| *of == operation);
            found.map(|index| state.faults.remove(index).1)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let failed = |cause: String| ZoneError::failed(operation, format!("zone {what}"), cause);
        match fault {
            Some(Fault::Before(cause)) => Err(failed(cause)),
            Some(Fault::After(cause)) => Ok(Err(failed(cause))),
            Some(Fault::Stall(notify)) => {
                notify.notified().await;
                Ok(Ok(()))
            }
            None => Ok(Ok(())),
        }
    }

    fn with<T>(
        &self,
        operation: &'static str,
        zone: &ZoneName,
        work: impl FnOnce(&mut Home) -> Result<T, ZoneError>,
    ) -> Result<T, ZoneError> {
        let result = match self.state.lock().zones.get_mut(zone) {
            Some(home) => work(home),
            None => Err(ZoneError::NotFound {
                operation,
                what: format!("zone {zone}"),
            }),
        };
        let _ = self.changes.send(zone.clone());
        result
    }

    fn end(&self, zone: &ZoneName, id: &ProcessId, how: impl FnOnce(Timestamp) -> Ending) {
        let _ = self.with("end a process in", zone, |home| {
            if let Some(process) = home
                .zone
                .processes
                .iter_mut()
                .find(|process| process.id == *id && process.ended.is_none())
            {
                process.ended = Some(how(Timestamp::now()));
                home.limits.remove(id);
            }
            Ok(())
        });
    }

    fn running(&self, operation: &'static str, zone: &ZoneName) -> Result<(), ZoneError> {
        self.with(operation, zone, |home| must_run(operation, &home.zone))
    }
}

/// Parses a behaviour: exit code and delay, and whether TERM is ignored.
fn behaviour(text: &str) -> (Option<(i32, Duration)>, bool) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let stubborn = words.contains(&"stubborn");
    let number = |after: &str| {
        let index = words.iter().position(|word| *word == after)?;
        words.get(index + 1)?.parse::<i64>().ok()
    };
    let exit = number("exit").map(|code| {
        let after = Duration::from_millis(number("after").unwrap_or(0).max(0) as u64);
        (code as i32, after)
    });
    (exit, stubborn)
}
