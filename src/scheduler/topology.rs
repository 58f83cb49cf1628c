//! Topology domains: numbers the values of a label, so that decisions count in arrays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use compact_str::CompactString;

use super::snapshot::{Quick, Slot};
use super::terms::Labels;

/// The domain of a node without the label.
pub const NOWHERE: u32 = u32::MAX;

/// The domains of one label.
#[derive(Default)]
pub struct Topology {
    /// The domain of each node, by slot.
    domains: Vec<u32>,
    numbers: HashMap<CompactString, u32, Quick>,
    /// The number of nodes in each domain.
    sizes: Vec<u32>,
    used: AtomicBool,
}

impl Clone for Topology {
    fn clone(&self) -> Self {
        Topology {
            domains: self.domains.clone(),
            numbers: self.numbers.clone(),
            sizes: self.sizes.clone(),
            used: AtomicBool::new(true),
        }
    }
}

impl Topology {
    /// Numbers the values of a label on these nodes.
    pub fn over<'a>(key: &str, nodes: impl Iterator<Item = (Slot, &'a Labels)>) -> Topology {
        let mut topology = Topology::default();
        for (slot, labels) in nodes {
            topology.set(key, slot, Some(labels));
        }
        topology
    }

    /// The domain of a node; [`NOWHERE`] if it does not have the label.
    pub fn of(&self, slot: Slot) -> u32 {
        self.domains.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    /// One more than the highest domain number.
    pub fn width(&self) -> usize {
        self.numbers.len()
    }

    /// The number of nodes in each domain.
    pub fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// The number of nodes with the label.
    pub fn nodes(&self) -> usize {
        self.sizes.iter().sum::<u32>() as usize
    }

    fn set(&mut self, key: &str, slot: Slot, labels: Option<&Labels>) {
        let place = slot as usize;
        if self.domains.len() <= place {
            self.domains.resize(place + 1, NOWHERE);
        }
        if let Some(size) = self.sizes.get_mut(self.domains[place] as usize) {
            *size -= 1;
        }
        let value = labels.and_then(|labels| labels.get(key));
        self.domains[place] = match value {
            None => NOWHERE,
            Some(value) => match self.numbers.get(value) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len() as u32;
                    self.numbers.insert(value.into(), number);
                    self.sizes.push(0);
                    number
                }
            },
        };
        if let Some(size) = self.sizes.get_mut(self.domains[place] as usize) {
            *size += 1;
        }
    }
}

/// The labels used by pods.
#[derive(Default)]
pub struct Topologies(HashMap<CompactString, Topology, Quick>);

impl Topologies {
    /// The domains of a label; `None` if they are not kept.
    pub fn get(&self, key: &str) -> Option<&Topology> {
        let found = self.0.get(key)?;
        found.used.store(true, Ordering::Relaxed);
        Some(found)
    }

    /// The domain of a node for a kept label; this does not count as a use of the label.
    pub fn of(&self, key: &str, slot: Slot) -> u32 {
        self.0
            .get(key)
            .map_or(NOWHERE, |topology| topology.of(slot))
    }

    /// Whether the domains of a label are kept.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keeps the domains of a label from now on.
    pub fn keep(&mut self, key: &str, topology: Topology) {
        topology.used.store(true, Ordering::Relaxed);
        self.0.insert(key.into(), topology);
    }

    /// Updates a node's labels; `None` if it was deleted.
    pub fn set(&mut self, slot: Slot, labels: Option<&Labels>) {
        for (key, topology) in &mut self.0 {
            topology.set(key, slot, labels);
        }
    }

    /// Drops labels not used since the last call, and those whose values are mostly gone.
    pub fn tidy(&mut self, nodes: usize) {
        self.0.retain(|_, topology| {
            topology.used.swap(false, Ordering::Relaxed) && topology.width() <= 2 * nodes + 64
        });
    }
}
