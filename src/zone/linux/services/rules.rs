//! The desired content of the table of services, as a value, and the nft(8) commands that change one into another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::frame::{
    BY_ADDRESS, BY_NODE_PORT, CLUSTER_ADDRESSES, GUARDED, MASQUERADE, PODS, SELVES,
};
use crate::meta::addresses::Network;
use crate::net::services::{Policy, ServicePort};

/// For how many clients a service remembers the endpoint.
const CLIENTS: usize = 65_536;

/// The content of a table besides its fixed part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules {
    /// Session affinity: the definitions of sets by name.
    pub(super) sets: BTreeMap<String, String>,
    /// The rules of chains by name.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// The elements of maps and sets, by name: keys, and the text after them.
    pub(super) elements: BTreeMap<&'static str, BTreeMap<String, String>>,
}

/// The chains that choose an endpoint of a port, if they are used and there is an endpoint.
struct Chains {
    cluster: Option<String>,
    local: Option<String>,
}

impl Chains {
    fn of(&self, policy: Policy) -> Option<&str> {
        match policy {
            Policy::Cluster => self.cluster.as_deref(),
            Policy::Local => self.local.as_deref(),
        }
    }
}

/// The key for a port at an address.
fn key(address: Ipv4Addr, port: &ServicePort) -> String {
    format!("{address} . {} . {}", port.protocol.name(), port.port)
}

impl Rules {
    /// The content for `ports`, in a cluster with pod addresses in `pods`.
    pub(super) fn of(ports: &[ServicePort], pods: &[Network]) -> Rules {
        let mut rules = Rules::default();
        rules.admit(pods);
        let chains: Vec<_> = ports.iter().map(|port| rules.inside(port)).collect();
        // In a second pass, so that an external address cannot take over a cluster address.
        for (port, chains) in ports.iter().zip(&chains) {
            rules.outside(port, chains);
        }
        rules
    }

    /// Sets the ranges of all pods in the cluster, none of which contains another.
    pub(super) fn admit(&mut self, pods: &[Network]) {
        let ranges = pods.iter().map(|range| (range.to_string(), String::new()));
        self.elements.insert(PODS, ranges.collect());
    }

    /// Adds a port at its cluster addresses.
    fn inside(&mut self, port: &ServicePort) -> Chains {
        let uses = |policy| {
            let outside = port.is_outside() && port.outside == policy;
            port.inside == policy || outside
        };
        // Clients within the cluster that use external addresses are not subject to the policy.
        let cluster = (uses(Policy::Cluster) || port.is_outside())
            .then(|| self.choice(port, &port.cluster, "s"))
            .flatten();
        let local = match uses(Policy::Local) {
            true if port.local == port.cluster && cluster.is_some() => cluster.clone(),
            true => self.choice(port, &port.local, "l"),
            false => None,
        };
        let chains = Chains { cluster, local };
        for address in &port.cluster_ips {
            self.put(CLUSTER_ADDRESSES, address.to_string(), "");
            let inside = chains.of(port.inside);
            self.lead(BY_ADDRESS, key(*address, port), inside, port, port.inside);
        }
        // On the loopback it would match all traffic between programs of the host.
        for at in port.local.iter().filter(|at| !at.ip().is_loopback()) {
            let (ip, protocol) = (at.ip(), port.protocol.name());
            let itself = format!("{ip} . {ip} . {protocol} . {}", at.port());
            self.put(SELVES, itself, "");
        }
        chains
    }

    /// Adds a port for external clients.
    fn outside(&mut self, port: &ServicePort, chains: &Chains) {
        let entry = match &chains.cluster {
            Some(cluster) if port.is_outside() => {
                let mark = format!("meta mark set meta mark | {MASQUERADE}");
                let mut rules = match port.outside {
                    // Replies pass this node, wherever the endpoint is.
                    Policy::Cluster => vec![mark],
                    // Clients within the cluster are not restricted to the endpoints of this node.
                    Policy::Local => vec![
                        format!("ip saddr @{PODS} goto {cluster}"),
                        format!("fib saddr type local {mark} goto {cluster}"),
                    ],
                };
                let outside = chains.of(port.outside);
                rules.extend(outside.map(|outside| format!("goto {outside}")));
                Some(self.chain("x", port, rules))
            }
            _ => None,
        };
        let entry = entry.as_deref();
        for address in port.external_ips.iter().chain(&port.balancer_ips) {
            self.lead(BY_ADDRESS, key(*address, port), entry, port, port.outside);
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{} . {node_port}", port.protocol.name());
            self.lead(BY_NODE_PORT, key, entry, port, port.outside);
        }
        if port.source_ranges.is_empty() || port.balancer_ips.is_empty() {
            return;
        }
        // A rule for each, because ranges in a set may not overlap.
        let ranges = port.source_ranges.iter();
        let allow = ranges.map(|range| format!("ip saddr {range} return"));
        let guard = self.chain("f", port, allow.chain(["drop".to_owned()]).collect());
        for address in &port.balancer_ips {
            let verdict = format!(" : goto {guard}");
            self.put(GUARDED, key(*address, port), &verdict);
        }
    }

    /// Adds a chain for a port; returns its name.
    fn chain(&mut self, kind: &str, port: &ServicePort, rules: Vec<String>) -> String {
        let name = format!("{kind}/{}", port.name);
        self.chains.insert(name.clone(), rules);
        name
    }

    /// Adds an element; the first one for a key stays.
    fn put(&mut self, map: &'static str, key: String, verdict: &str) {
        let elements = self.elements.entry(map).or_default();
        elements.entry(key).or_insert_with(|| verdict.to_owned());
    }

    /// Leads a key to a chain, or sets how it is rejected without endpoints.
    fn lead(
        &mut self,
        (open, closed): (&'static str, &'static str),
        key: String,
        chain: Option<&str>,
        port: &ServicePort,
        policy: Policy,
    ) {
        let is_in = |map| {
            let elements = self.elements.get(map);
            elements.is_some_and(|elements| elements.contains_key(&key))
        };
        // If two services have the same external address and port, the first by name gets it.
        if is_in(open) || is_in(closed) {
            return;
        }
        if port.endpoints(policy).is_empty() {
            // If another node has endpoints, the client should try that one.
            let verdict = match port.cluster.is_empty() {
                true => " : goto rejecting",
                false => " : goto dropping",
            };
            self.put(closed, key.clone(), verdict);
        }
        if let Some(chain) = chain {
            self.put(open, key, &format!(" : goto {chain}"));
        }
    }

    /// A chain that chooses among some endpoints; None if there are none.
    fn choice(
        &mut self,
        port: &ServicePort,
        endpoints: &[SocketAddrV4],
        kind: &str,
    ) -> Option<String> {
        let protocol = port.protocol.name();
        let count = endpoints.len();
        if count == 0 {
            return None;
        }
        let rules = match port.affinity {
            None => {
                let places = endpoints.iter().enumerate();
                let places = places.map(|(i, at)| format!("{i} : {} . {}", at.ip(), at.port()));
                let places = places.collect::<Vec<_>>().join(", ");
                vec![format!(
                    "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {places} }}"
                )]
            }
            Some(stays) => {
                let endpoints = endpoints.iter();
                let ends: Vec<_> = endpoints.map(|at| self.end(port, *at, stays)).collect();
                let choices = ends.iter().enumerate();
                let choices = choices.map(|(i, (end, _))| format!("{i} : goto {end}"));
                let choices = choices.collect::<Vec<_>>().join(", ");
                let known = ends.iter();
                let known = known.map(|(end, set)| format!("ip saddr @{set} goto {end}"));
                let choose = format!("numgen random mod {count} vmap {{ {choices} }}");
                known.chain([choose]).collect()
            }
        };
        Some(self.chain(kind, port, rules))
    }

    /// The chain of an endpoint that remembers its clients, and their set.
    fn end(&mut self, port: &ServicePort, at: SocketAddrV4, stays: Duration) -> (String, String) {
        let seconds = stays.as_secs().max(1);
        // The timeout of a set cannot be changed, so it is part of its name.
        let place = format!("{}/{}/{}/{seconds}", port.name, at.ip(), at.port());
        let (end, set) = (format!("e/{place}"), format!("a/{place}"));
        self.sets.insert(
            set.clone(),
            format!("type ipv4_addr; size {CLIENTS}; flags dynamic,timeout; timeout {seconds}s;"),
        );
        self.chains.insert(
            end.clone(),
            // Two rules: if the set is full, the first one is aborted.
            vec![
                format!("update @{set} {{ ip saddr }}"),
                format!("meta l4proto {} dnat ip to {at}", port.protocol.name()),
            ],
        );
        (end, set)
    }

    /// The nft(8) commands that change a table from `before` to this. Obsolete chains are kept without rules: a kernel
    /// may consider them in use.
    pub(super) fn since(&self, before: &Rules, name: &str) -> String {
        let mut script = String::new();
        for (set, definition) in &self.sets {
            if !before.sets.contains_key(set) {
                let _ = writeln!(script, "add set ip {name} {set} {{ {definition} }}");
            }
        }
        let changed = |chain: &&String| before.chains.get(*chain) != self.chains.get(*chain);
        // All chains first, because they refer to one another.
        for chain in self.chains.keys().filter(changed) {
            let _ = writeln!(
                script,
                "add chain ip {name} {chain}\nflush chain ip {name} {chain}"
            );
        }
        for chain in self.chains.keys().filter(changed) {
            for rule in self.chains.get(chain).into_iter().flatten() {
                let _ = writeln!(script, "add rule ip {name} {chain} {rule}");
            }
        }
        let maps = self.elements.keys().chain(before.elements.keys());
        let maps: BTreeSet<&str> = maps.copied().collect();
        let none = BTreeMap::new();
        for map in maps {
            let now = self.elements.get(map).unwrap_or(&none);
            let old = before.elements.get(map).unwrap_or(&none);
            let elements = |of: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
                let differs =
                    |(key, verdict): &(&String, &String)| other.get(*key) != Some(*verdict);
                let elements = of.iter().filter(differs);
                let elements = elements.map(|(key, verdict)| format!("{key}{verdict}"));
                elements.collect::<Vec<_>>().join(", ")
            };
            for (verb, elements) in [("delete", elements(old, now)), ("add", elements(now, old))] {
                if !elements.is_empty() {
                    let _ = writeln!(script, "{verb} element ip {name} {map} {{ {elements} }}");
                }
            }
        }
        // Nothing refers to them any more. The remaining chains are harmless.
        for (kind, gone) in before.gone_in(self).filter(|(kind, _)| *kind == "chain") {
            let _ = writeln!(script, "flush {kind} ip {name} {gone}");
        }
        script
    }

    /// The names of chains and sets that this has and `now` has not.
    pub(super) fn gone_in<'a>(
        &'a self,
        now: &'a Rules,
    ) -> impl Iterator<Item = (&'static str, &'a str)> {
        let chains = self.chains.keys();
        let chains = chains.filter(|chain| !now.chains.contains_key(*chain));
        let sets = self.sets.keys();
        let sets = sets.filter(|set| !now.sets.contains_key(*set));
        // Chains first: their rules use the sets.
        chains
            .map(|chain| ("chain", chain.as_str()))
            .chain(sets.map(|set| ("set", set.as_str())))
    }
}

#[cfg(test)]
mod tests;
