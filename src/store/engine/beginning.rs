//! An engine before it serves: it takes what was stored.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use super::super::watching::Watching;
use super::super::{Entry, Event, Revision, World};
use super::history::{Logged, State, weight};
use super::{Engine, IN_FLIGHT, Row};

/// The initial content of an engine: every change after `compacted` and, of older ones, the live entries.
pub(in super::super) struct Beginning {
    pub(super) compacted: Revision,
    pub(super) world: World,
    pub(super) heads: HashMap<Arc<str>, Arc<Entry>>,
    pub(super) history: VecDeque<Logged>,
}

impl Beginning {
    /// Empty, with capacity for `rows` entries.
    pub(in super::super) fn new(compacted: Revision, rows: usize) -> Self {
        Beginning {
            compacted,
            world: World::default(),
            heads: HashMap::with_capacity(rows),
            history: VecDeque::new(),
        }
    }

    /// Adds the next row, in order of revision.
    pub(in super::super) fn take(&mut self, row: Row) {
        let Row {
            resource,
            rev,
            key,
            new,
        } = row;
        let old = match &new {
            Some(new) => self.heads.insert(key.clone(), new.clone()),
            None => self.heads.remove(&key),
        };
        self.world.rev = rev;
        let map = self.world.resources.entry(resource.clone()).or_default();
        match &new {
            Some(new) => drop(map.insert(key, new.clone())),
            None => drop(map.remove(&*key)),
        }
        if rev > self.compacted && (old.is_some() || new.is_some()) {
            self.history.push_back(Logged {
                resource,
                event: Event { rev, old, new },
            });
        }
    }

    /// The revision of the newest row; 0 if there is none.
    pub(in super::super) fn newest(&self) -> Revision {
        self.world.rev
    }

    /// The engine with this content at `rev`. A `durable` one writes nothing before [`Engine::write_to`].
    pub(in super::super) fn engine(mut self, rev: Revision, durable: bool) -> Arc<Engine> {
        self.world.rev = rev;
        let state = State {
            rev,
            heads: self.heads,
            pending: Vec::new(),
            history_bytes: self.history.iter().map(weight).sum(),
            history: self.history,
            watching: Watching::default(),
            compacted: self.compacted,
            forgotten: durable.then(Vec::new),
            closed: false,
            broken: None,
        };
        Arc::new(Engine {
            state: Mutex::new(state),
            work: Condvar::new(),
            durable,
            world: ArcSwap::from_pointee(self.world),
            places: Semaphore::new(IN_FLIGHT),
        })
    }
}
