//! Which nodes share the value of a label: a number for each value, so that decisions count in arrays.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use compact_str::CompactString;

use super::snapshot::{Quick, Slot};
use super::terms::Labels;

/// A node without the label.
pub const NOWHERE: u32 = u32::MAX;

/// The values of one label.
#[derive(Default)]
pub struct Topology {
    /// The number of each node's value, by slot.
    domains: Vec<u32>,
    numbers: HashMap<CompactString, u32, Quick>,
    /// How many nodes have each value.
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
    /// Numbers the values that nodes have of a label.
    pub fn over<'a>(key: &str, nodes: impl Iterator<Item = (Slot, &'a Labels)>) -> Topology {
        let mut topology = Topology::default();
        for (slot, labels) in nodes {
            topology.set(key, slot, Some(labels));
        }
        topology
    }

    /// The number of a node's value; [`NOWHERE`] where it has none.
    pub fn of(&self, slot: Slot) -> u32 {
        self.domains.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    /// One more than the highest number.
    pub fn width(&self) -> usize {
        self.numbers.len()
    }

    /// How many nodes have each value, by its number.
    pub fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// How many nodes have the label.
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

/// The labels that pods ask about.
#[derive(Default)]
pub struct Topologies(HashMap<CompactString, Topology, Quick>);

impl Topologies {
    /// What is known of a label; none where nobody asked for it to be kept.
    pub fn get(&self, key: &str) -> Option<&Topology> {
        let found = self.0.get(key)?;
        found.used.store(true, Ordering::Relaxed);
        Some(found)
    }

    /// The number of a node's value of a label that is kept; looking it up does not count as asking for the label.
    pub fn of(&self, key: &str, slot: Slot) -> u32 {
        self.0
            .get(key)
            .map_or(NOWHERE, |topology| topology.of(slot))
    }

    /// Whether a label is kept.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keeps a label from now on.
    pub fn keep(&mut self, key: &str, topology: Topology) {
        topology.used.store(true, Ordering::Relaxed);
        self.0.insert(key.into(), topology);
    }

    /// Takes in the labels of a node; none for one that is gone.
    pub fn set(&mut self, slot: Slot, labels: Option<&Labels>) {
        for (key, topology) in &mut self.0 {
            topology.set(key, slot, labels);
        }
    }

    /// Drops what nobody has asked for since the last time, and what holds mostly values that are gone.
    pub fn tidy(&mut self, nodes: usize) {
        self.0.retain(|_, topology| {
            topology.used.swap(false, Ordering::Relaxed) && topology.width() <= 2 * nodes + 64
        });
    }
}
