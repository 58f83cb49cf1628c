//! One zone: its directory, its supervisor's process, and what is known of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::link::Link;
use super::super::supervised;
use super::super::supervisor::{Configuration, PID};
use super::super::{Limits, Zone, ZoneSpec, ZoneState};

/// The start time of a process, in the kernel's ticks since boot: together with its id it identifies the process for
/// good.
pub fn start_time(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; fields are counted after it.
    let rest = text.rsplit_once(')')?.1;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// One zone of ours.
pub(in super::super) struct Home {
    pub(super) directory: PathBuf,
    pub(super) configuration: Configuration,
    /// The zone's current limits, which may differ from its configuration.
    pub(super) limits: Mutex<Limits>,
    pub(super) link: Arc<Link>,
    /// Ensures that only one step runs at a time.
    pub(super) steps: tokio::sync::Mutex<()>,
}

impl Home {
    /// The supervisor's process, if it is alive and its zone is complete.
    pub(super) fn pid(&self) -> Option<u32> {
        self.noted(PID)
    }

    /// The process recorded in a file, if it is alive.
    pub(super) fn noted(&self, file: &str) -> Option<u32> {
        let text = fs::read_to_string(self.directory.join(file)).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid).as_deref() == Some(started)).then_some(pid)
    }
}

impl supervised::Home for Home {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn steps(&self) -> &tokio::sync::Mutex<()> {
        &self.steps
    }

    fn zone(&self) -> Zone {
        let boot = self.link.boot();
        let state = match (&boot, self.pid()) {
            (_, None) => ZoneState::Installed,
            (Some(_), _) => ZoneState::Running,
            (None, Some(_)) => ZoneState::Unreachable,
        };
        Zone {
            spec: ZoneSpec {
                limits: self.limits.lock().clone(),
                ..self.configuration.spec.clone()
            },
            state,
            processes: match state {
                ZoneState::Running | ZoneState::Unreachable => self.link.processes(),
                _ => Vec::new(),
            },
            boot: boot.filter(|_| state == ZoneState::Running),
            created: self.configuration.created,
        }
    }
}
