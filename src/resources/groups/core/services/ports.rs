//! Node ports: one stored object records the allocated ones, and is changed in the commit that writes the service, so
//! that two servers cannot allocate the same. Follows k8s.io/kubernetes/pkg/registry/core/service/portallocator; the
//! object is upstream's RangeAllocation.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::meta::names;
use crate::resources::cluster::Cluster;
use crate::schema::{Value, json};
use crate::store::{Change, Entry, Expect, Record};
use crate::value;

/// The key of the stored object, under a prefix without watchers.
const PORTS_KEY: &str = "/registry/ranges/servicenodeports";
const PREFIX: &str = "/registry/ranges/";

const TAKEN: &str = "provided port is already allocated";
const FULL: &str = "range is full";

/// The node ports allocated and released by one write.
pub(super) struct Ports<'a> {
    cluster: &'a Cluster,
    dry_run: bool,
    stored: Option<Stored>,
    taken: Vec<i64>,
    given_back: Vec<i64>,
}

/// The stored state.
struct Stored {
    /// The entry; `None` if nothing is stored yet.
    entry: Option<Arc<Entry>>,
    used: BTreeSet<i64>,
    /// The stored range is another one, so the object has to be rewritten.
    stale: bool,
}

impl<'a> Ports<'a> {
    /// The allocator of a cluster; reads the store when needed.
    pub(super) fn new(cluster: &'a Cluster, dry_run: bool) -> Self {
        Ports {
            cluster,
            dry_run,
            stored: None,
            taken: Vec::new(),
            given_back: Vec::new(),
        }
    }

    fn range(&self) -> (i64, i64) {
        let (first, last) = self.cluster.settings.node_ports;
        (i64::from(first), i64::from(last))
    }

    fn used(&mut self) -> &BTreeSet<i64> {
        let cluster = self.cluster;
        &self.stored.get_or_insert_with(|| read(cluster)).used
    }

    fn is_free(&mut self, port: i64) -> bool {
        !self.taken.contains(&port) && !self.used().contains(&port)
    }

    /// Allocates a port.
    ///
    /// # Errors
    /// The port is outside of the range, or allocated.
    pub(super) fn take(&mut self, port: i64) -> Result<(), String> {
        let (first, last) = self.range();
        let inside = (first..=last).contains(&port);
        // As upstream, a dry run does not check the range.
        if !inside && !self.dry_run {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ));
        }
        if !self.is_free(port) {
            return Err(TAKEN.to_owned());
        }
        self.taken.push(port);
        Ok(())
    }

    /// Allocates any port, from the upper part of the range if possible, so that the ports that people choose stay
    /// free.
    ///
    /// # Errors
    /// The range is full.
    pub(super) fn take_any(&mut self) -> Result<i64, String> {
        let (first, last) = self.range();
        if self.dry_run {
            // Upstream returns a placeholder, too.
            let port = self.taken.iter().max().map_or(32_769, |port| port + 1);
            self.taken.push(port);
            return Ok(port);
        }
        let dynamic = first + reserved(last - first + 1);
        let port = self
            .free_in(dynamic, last)
            .or_else(|| self.free_in(first, dynamic - 1))
            .ok_or(FULL)?;
        self.taken.push(port);
        Ok(port)
    }

    fn free_in(&mut self, first: i64, last: i64) -> Option<i64> {
        let size = last - first + 1;
        if size <= 0 {
            return None;
        }
        let mut bytes = [0; 4];
        names::random(&mut bytes);
        let start = i64::from(u32::from_le_bytes(bytes)) % size;
        (0..size)
            .map(|i| first + (start + i) % size)
            .find(|port| self.is_free(*port))
    }

    /// Releases a port when the service is written.
    pub(super) fn give_back(&mut self, port: i64) {
        self.given_back.push(port);
    }

    /// The change to commit together with the service; `None` if nothing changed.
    pub(super) fn change(mut self) -> Option<Change> {
        if self.dry_run || self.taken.is_empty() && self.given_back.is_empty() {
            return None;
        }
        self.used();
        let mut stored = self.stored?;
        let before = stored.used.clone();
        stored.used.extend(&self.taken);
        for port in &self.given_back {
            stored.used.remove(port);
        }
        (stored.stale || stored.used != before).then(|| write(self.cluster, &stored))
    }
}

/// How many of the first ports are allocated dynamically only when there are no others.
fn reserved(size: i64) -> i64 {
    if size <= 16 {
        0
    } else {
        (size / 32).clamp(16, 128)
    }
}

fn range_text(cluster: &Cluster) -> String {
    let (first, last) = cluster.settings.node_ports;
    format!("{first}-{last}")
}

fn read(cluster: &Cluster) -> Stored {
    let entry = cluster.store.head(PORTS_KEY);
    let stored = entry
        .as_ref()
        .and_then(|entry| json::parse(&entry.record.body).ok())
        .map(|parsed| parsed.value)
        .filter(|stored| stored.str("range") == range_text(cluster));
    match stored {
        Some(stored) => Stored {
            used: ports_of(stored.str("data"), cluster.settings.node_ports.0),
            entry,
            stale: false,
        },
        // Nothing is stored, or for another range: use the ports of the services.
        None => Stored {
            used: used_by_services(cluster, &cluster.list("", "services", "")),
            entry,
            stale: true,
        },
    }
}

/// All node ports of services that are in the current range.
fn used_by_services(cluster: &Cluster, services: &[impl Borrow<Value>]) -> BTreeSet<i64> {
    let (first, last) = cluster.settings.node_ports;
    let range = i64::from(first)..=i64::from(last);
    services
        .iter()
        .flat_map(|service| {
            let spec = service.borrow().at("spec");
            let health = spec.int("healthCheckNodePort");
            super::node_ports(spec).chain((health != 0).then_some(health))
        })
        .filter(|port| range.contains(port))
        .collect()
}

fn ports_of(data: &str, first: u16) -> BTreeSet<i64> {
    let bytes = STANDARD.decode(data).unwrap_or_default();
    let bits = bytes.iter().enumerate().flat_map(|(i, byte)| {
        (0..8)
            .filter(move |bit| byte >> bit & 1 == 1)
            .map(move |bit| i * 8 + bit)
    });
    bits.filter_map(|bit| Some(i64::from(first) + i64::try_from(bit).ok()?))
        .collect()
}

fn write(cluster: &Cluster, stored: &Stored) -> Change {
    let (first, last) = cluster.settings.node_ports;
    let mut bytes = vec![0u8; usize::from(last - first) / 8 + 1];
    for port in &stored.used {
        let bit = usize::try_from(port - i64::from(first)).unwrap_or(usize::MAX);
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
    let body = value!({
        "kind": "RangeAllocation",
        "apiVersion": "v1",
        "metadata": {},
        "range": (range_text(cluster)),
        "data": (STANDARD.encode(bytes))
    });
    Change {
        resource: PREFIX.into(),
        key: PORTS_KEY.into(),
        expect: stored
            .entry
            .as_ref()
            .map_or(Expect::Absent, |entry| Expect::Revision(entry.rev)),
        put: Some(Record {
            body: Bytes::from(json::to_string(&body)),
            ..Record::default()
        }),
        ttl: None,
    }
}

/// The change that makes the stored ports agree with those of the services; `None` if they agree. Services and ports
/// are written in one commit, so only an error can cause a difference.
pub(super) fn repair(cluster: &Cluster) -> Option<Change> {
    let world = cluster.store.world();
    let entry = world.get(PREFIX, PORTS_KEY).cloned();
    let resource = cluster.resource("", "services")?;
    let services: Vec<Value> = world
        .range(&resource.prefix, &resource.prefix, "")
        .map(|entry| crate::resources::cluster::object(entry))
        .collect();
    let used = used_by_services(cluster, &services);
    let stored = read(cluster);
    let same =
        entry.as_ref().map(|entry| entry.rev) == stored.entry.as_ref().map(|entry| entry.rev);
    (same && (stored.stale || stored.used != used))
        .then(|| write(cluster, &Stored { used, ..stored }))
}

/// The allocated ports.
#[cfg(test)]
pub(super) fn taken(cluster: &Cluster) -> BTreeSet<i64> {
    read(cluster).used
}
