//! One zone: its record, and what was last observed of it.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::super::link::Link;
use super::super::supervised;
use super::super::{Limits, Zone, ZoneSpec, ZoneState};
use super::Layout;
use crate::illumos::parse::{HostState, ZoneRow};

/// The record of a zone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Record {
    pub(super) spec: ZoneSpec,
    pub(super) created: Timestamp,
    /// The actual brand of a zone that asked for none: the flags may change the default later.
    #[serde(default)]
    pub(super) brand: Option<String>,
    /// Its limits, if they differ from its configuration.
    #[serde(default)]
    pub(super) resized: Option<Limits>,
}

/// One zone of ours.
pub(in super::super) struct Home {
    pub(super) record: Record,
    pub(super) layout: Layout,
    pub(super) link: Arc<Link>,
    /// Ensures that only one step runs at a time.
    pub(super) steps: tokio::sync::Mutex<()>,
    pub(super) known: Mutex<Known>,
}

/// The last observation of a zone.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) row: Option<ZoneRow>,
    /// The boot whose link is protected and that has its limits.
    pub(super) settled: Option<String>,
    /// Since when it has been in a state in which it must not stay.
    pub(super) still: Option<std::time::Instant>,
    /// Its limits, if they differ from its configuration.
    pub(super) resized: Option<Limits>,
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
        let known = self.known.lock();
        let state = match known.row.as_ref().map(|row| row.state) {
            Some(HostState::Running) if boot.is_some() => ZoneState::Running,
            Some(HostState::Running | HostState::ShuttingDown | HostState::Down) => {
                ZoneState::Unreachable
            }
            Some(HostState::Installed | HostState::Ready | HostState::Mounted) => {
                ZoneState::Installed
            }
            Some(HostState::Configured | HostState::Incomplete | HostState::Unknown) | None => {
                ZoneState::Incomplete
            }
        };
        Zone {
            spec: ZoneSpec {
                limits: known
                    .resized
                    .as_ref()
                    .unwrap_or(&self.record.spec.limits)
                    .clone(),
                ..self.record.spec.clone()
            },
            state,
            processes: match state {
                ZoneState::Running | ZoneState::Unreachable => self.link.processes(),
                _ => Vec::new(),
            },
            boot: boot.filter(|_| state == ZoneState::Running),
            created: self.record.created,
        }
    }
}

impl Home {
    /// The current limits of the zone.
    pub(super) fn limits(&self) -> Limits {
        let resized = self.known.lock().resized.clone();
        resized.unwrap_or_else(|| self.record.spec.limits.clone())
    }

    /// Whether it was last seen running.
    pub(super) fn runs(&self) -> bool {
        let known = self.known.lock();
        known
            .row
            .as_ref()
            .is_some_and(|row| row.state == HostState::Running)
    }

    /// Records an observation; returns whether it is new.
    pub(super) fn see(&self, row: Option<ZoneRow>) -> bool {
        let mut known = self.known.lock();
        let changed = known.row != row;
        if changed {
            known.still = None;
        }
        known.row = row;
        changed
    }
}
