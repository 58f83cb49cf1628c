//! What the table of services is to hold, as a value, and what nft(8) is told to bring it from one to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::frame::{BY_ADDRESS, BY_NODE_PORT, CLUSTER_ADDRESSES, MASQUERADE, SELVES};
use crate::net::services::{Backends, ServicePort};

/// How many clients a service remembers the endpoints of.
const CLIENTS: usize = 65_536;

/// What a table holds beside its frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rules {
    /// Who stays with which endpoint: the sets' definitions by name.
    pub(super) sets: BTreeMap<String, String>,
    /// The rules of chains by name.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// The elements of maps and sets, by name: keys, and what follows them.
    pub(super) elements: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Rules {
    /// What leads `ports` to their endpoints, on a node whose zones have addresses of `cidr`.
    pub(super) fn of(ports: &[ServicePort], cidr: &str) -> Rules {
        let mut rules = Rules::default();
        for port in ports {
            rules.add(port, cidr);
        }
        rules
    }

    fn add(&mut self, port: &ServicePort, cidr: &str) {
        let (number, protocol) = (port.port, port.protocol.name());
        let at = |address| format!("{address} . {protocol} . {number}");
        let inside = self.choice(port, &port.inside, "s");
        for address in &port.cluster_ips {
            let known = self.elements.entry(CLUSTER_ADDRESSES).or_default();
            known.insert(address.to_string(), String::new());
            self.lead(BY_ADDRESS, at(address), &inside, &port.inside);
        }
        let is_only_inside = port.external_ips.is_empty() && port.balancer_ips.is_empty();
        if is_only_inside && port.node_port.is_none() {
            return;
        }
        let entry = self.entry(port, &inside, cidr);
        if let Some(node_port) = port.node_port {
            let key = format!("{protocol} . {node_port}");
            self.lead(BY_NODE_PORT, key, &entry, &port.outside);
        }
        for address in &port.external_ips {
            self.lead(BY_ADDRESS, at(address), &entry, &port.outside);
        }
        let guarded = match entry {
            Some(entry) if !port.source_ranges.is_empty() => Some(
                self.chain(
                    "f",
                    port,
                    // A rule each: ranges of a set may not overlap.
                    (port.source_ranges.iter())
                        .map(|range| format!("ip saddr {range} goto {entry}"))
                        .chain(["drop".to_owned()])
                        .collect(),
                ),
            ),
            entry => entry,
        };
        for address in &port.balancer_ips {
            self.lead(BY_ADDRESS, at(address), &guarded, &port.outside);
        }
    }

    /// The chain of traffic that comes by an address of the world or a port of the node; none where it leads nowhere.
    fn entry(&mut self, port: &ServicePort, inside: &Option<String>, cidr: &str) -> Option<String> {
        let outside = match port.outside.endpoints == port.inside.endpoints {
            true => inside.clone(),
            false => self.choice(port, &port.outside, "l"),
        };
        let mut rules = Vec::new();
        match (port.outside.is_local, inside) {
            // Answers pass by this node, wherever the endpoint is.
            (false, _) => rules.push(format!("meta mark set meta mark | {MASQUERADE}")),
            // Who is of the cluster itself is not held to the endpoints of this node.
            (true, Some(inside)) => rules.extend([
                format!("ip saddr {cidr} goto {inside}"),
                format!(
                    "fib saddr type local meta mark set meta mark | {MASQUERADE} goto {inside}"
                ),
            ]),
            (true, None) => {}
        }
        if outside.is_none() && (inside.is_none() || !port.outside.is_local) {
            return None;
        }
        rules.extend(outside.map(|outside| format!("goto {outside}")));
        Some(self.chain("x", port, rules))
    }

    /// Takes in a chain of a port; gives its name.
    fn chain(&mut self, kind: &str, port: &ServicePort, rules: Vec<String>) -> String {
        let name = format!("{kind}/{}", port.name);
        self.chains.insert(name.clone(), rules);
        name
    }

    /// Leads a key to a chain, and says how what no endpoint takes is refused.
    fn lead(
        &mut self,
        (open, closed): (&'static str, &'static str),
        key: String,
        chain: &Option<String>,
        backends: &Backends,
    ) {
        let mut put = |map, verdict: &str| {
            let elements = self.elements.entry(map).or_default();
            // Of two services with one external address and port, the first by name has it.
            let verdict = format!(" : goto {verdict}");
            elements.entry(key.clone()).or_insert(verdict);
        };
        if let Some(chain) = chain {
            put(open, chain.as_str());
        }
        if backends.endpoints.is_empty() {
            // Where another node has endpoints, who asks is to try that one.
            let silent = backends.is_local && backends.has_others;
            put(closed, if silent { "dropping" } else { "rejecting" });
        }
    }

    /// A chain that chooses one of some endpoints; none where there are none.
    fn choice(&mut self, port: &ServicePort, backends: &Backends, kind: &str) -> Option<String> {
        let protocol = port.protocol.name();
        let count = backends.endpoints.len();
        if count == 0 {
            return None;
        }
        for at in &backends.endpoints {
            let itself = format!("{0} . {0}", at.ip());
            let selves = self.elements.entry(SELVES).or_default();
            selves.insert(itself, String::new());
        }
        let rules = match port.affinity {
            None => {
                let places = backends.endpoints.iter().enumerate();
                let places = places.map(|(i, at)| format!("{i} : {} . {}", at.ip(), at.port()));
                let places = places.collect::<Vec<_>>().join(", ");
                vec![format!(
                    "meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {places} }}"
                )]
            }
            Some(stays) => {
                let endpoints = backends.endpoints.iter();
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

    /// The chain of an endpoint that remembers its clients, and the set of them.
    fn end(&mut self, port: &ServicePort, at: SocketAddrV4, stays: Duration) -> (String, String) {
        let seconds = stays.as_secs().max(1);
        // A set keeps the time-out that it was made with.
        let place = format!("{}/{}/{}/{seconds}", port.name, at.ip(), at.port());
        let (end, set) = (format!("e/{place}"), format!("a/{place}"));
        self.sets.insert(
            set.clone(),
            format!("type ipv4_addr; size {CLIENTS}; flags dynamic,timeout; timeout {seconds}s;"),
        );
        self.chains.insert(
            end.clone(),
            // Two rules: where the set is full, the first is not carried out to its end.
            vec![
                format!("update @{set} {{ ip saddr }}"),
                format!("meta l4proto {} dnat ip to {at}", port.protocol.name()),
            ],
        );
        (end, set)
    }

    /// What nft(8) is told for a table that holds `before` to hold this, but for what is only to go.
    pub(super) fn since(&self, before: &Rules, name: &str) -> String {
        let mut script = String::new();
        for (set, definition) in &self.sets {
            if !before.sets.contains_key(set) {
                let _ = writeln!(script, "add set ip {name} {set} {{ {definition} }}");
            }
        }
        let changed = |chain: &&String| before.chains.get(*chain) != self.chains.get(*chain);
        // All first: they name one another.
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
        script
    }

    /// What nft(8) is told to remove what this has and `now` has not, once nothing leads there.
    pub(super) fn gone_in(&self, now: &Rules, name: &str) -> String {
        let mut script = String::new();
        let chains = self
            .chains
            .keys()
            .filter(|chain| !now.chains.contains_key(*chain));
        let chains: Vec<_> = chains.collect();
        for verb in ["flush", "delete"] {
            for chain in &chains {
                let _ = writeln!(script, "{verb} chain ip {name} {chain}");
            }
        }
        for set in self.sets.keys().filter(|set| !now.sets.contains_key(*set)) {
            let _ = writeln!(script, "delete set ip {name} {set}");
        }
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(endpoints: &[&str]) -> ServicePort {
        ServicePort::web([10, 96, 0, 5], endpoints)
    }

    fn rules(port: &ServicePort) -> Rules {
        Rules::of(std::slice::from_ref(port), "10.244.0.0/24")
    }

    #[test]
    fn only_what_changed_is_told() {
        let (one, two) = (
            web(&["10.0.0.1:8080"]),
            web(&["10.0.0.1:8080", "10.0.0.2:8080"]),
        );
        let (none, other) = (
            web(&[]),
            ServicePort {
                port: 81,
                ..one.clone()
            },
        );
        let nothing = Rules::default();
        let chain = "add chain ip t s/default/web/tcp/-\nflush chain ip t s/default/web/tcp/-\n";
        let choose = |count, places| {
            format!(
                "add rule ip t s/default/web/tcp/- meta l4proto tcp dnat ip to numgen random mod {count} map {{ {places} }}\n"
            )
        };
        let (all, first) = (
            "0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080",
            "0 : 10.0.0.1 . 8080",
        );
        let selves = |verb: &str, of: &str| format!("{verb} element ip t selves {{ {of} }}\n");
        let address = |verb: &str| format!("{verb} element ip t cluster_ips {{ 10.96.0.5 }}\n");
        let (own, second) = ("10.0.0.1 . 10.0.0.1", "10.0.0.2 . 10.0.0.2");
        let open = "element ip t services { 10.96.0.5 . tcp . 80 : goto s/default/web/tcp/- }\n";
        let closed = "element ip t closed { 10.96.0.5 . tcp . 80 : goto rejecting }\n";
        let gone = "flush chain ip t s/default/web/tcp/-\ndelete chain ip t s/default/web/tcp/-\n";
        for (before, after, expected, after_that) in [
            (
                nothing.clone(),
                rules(&one),
                format!(
                    "{chain}{}{}{}add {open}",
                    choose(1, first),
                    address("add"),
                    selves("add", own)
                ),
                "",
            ),
            (rules(&one), rules(&one), String::new(), ""),
            (
                rules(&one),
                rules(&two),
                format!("{chain}{}{}", choose(2, all), selves("add", second)),
                "",
            ),
            (
                rules(&one),
                rules(&none),
                format!("add {closed}{}delete {open}", selves("delete", own)),
                gone,
            ),
            (
                rules(&none),
                rules(&one),
                format!(
                    "{chain}{}delete {closed}{}add {open}",
                    choose(1, first),
                    selves("add", own)
                ),
                "",
            ),
            (
                rules(&one),
                rules(&other),
                format!("delete {open}add {}", open.replace(". 80", ". 81")),
                "",
            ),
            (
                rules(&one),
                nothing,
                format!(
                    "{}{}delete {open}",
                    address("delete"),
                    selves("delete", own)
                ),
                gone,
            ),
        ] {
            assert_eq!(after.since(&before, "t"), expected);
            assert_eq!(before.gone_in(&after, "t"), after_that);
        }
    }

    #[test]
    fn traffic_of_the_world_is_judged_first() {
        let lists = |rules: &Rules, map: &str| {
            let elements = rules.elements.get(map).into_iter().flatten();
            elements
                .map(|(key, verdict)| format!("{key}{verdict}"))
                .collect::<Vec<_>>()
        };
        let mut port = ServicePort {
            node_port: Some(30080),
            external_ips: vec![[192, 0, 2, 6].into()],
            balancer_ips: vec![[192, 0, 2, 7].into()],
            source_ranges: vec!["198.51.100.0/24".to_owned()],
            ..web(&["10.0.0.1:8080"])
        };
        let open = rules(&port);
        assert_eq!(
            open.chains["x/default/web/tcp/-"],
            [
                "meta mark set meta mark | 0x4000",
                "goto s/default/web/tcp/-"
            ]
        );
        assert_eq!(
            open.chains["f/default/web/tcp/-"],
            ["ip saddr 198.51.100.0/24 goto x/default/web/tcp/-", "drop"]
        );
        assert_eq!(
            lists(&open, "nodeports"),
            ["tcp . 30080 : goto x/default/web/tcp/-"]
        );
        assert_eq!(
            lists(&open, "services"),
            [
                "10.96.0.5 . tcp . 80 : goto s/default/web/tcp/-",
                "192.0.2.6 . tcp . 80 : goto x/default/web/tcp/-",
                "192.0.2.7 . tcp . 80 : goto f/default/web/tcp/-"
            ]
        );
        // Endpoints are on another node only: pods reach them, the world is to ask there.
        port.outside = Backends {
            is_local: true,
            has_others: true,
            ..Backends::default()
        };
        let elsewhere = rules(&port);
        assert_eq!(
            elsewhere.chains["x/default/web/tcp/-"],
            [
                "ip saddr 10.244.0.0/24 goto s/default/web/tcp/-",
                "fib saddr type local meta mark set meta mark | 0x4000 goto s/default/web/tcp/-"
            ]
        );
        assert_eq!(
            lists(&elsewhere, "closed_nodeports"),
            ["tcp . 30080 : goto dropping"]
        );
        port.inside = Backends::default();
        port.outside = Backends::default();
        let nowhere = rules(&port);
        assert_eq!(nowhere.chains, BTreeMap::new());
        assert_eq!(
            lists(&nowhere, "closed_nodeports"),
            ["tcp . 30080 : goto rejecting"]
        );
    }

    #[test]
    fn clients_stay_with_their_endpoints() {
        let port = ServicePort {
            affinity: Some(Duration::from_secs(60)),
            ..web(&["10.0.0.1:8080", "10.0.0.2:8080"])
        };
        let rules = rules(&port);
        let place = "default/web/tcp/-/10.0.0.1/8080/60";
        assert_eq!(
            rules.sets[&format!("a/{place}")],
            "type ipv4_addr; size 65536; flags dynamic,timeout; timeout 60s;"
        );
        assert_eq!(
            rules.chains[&format!("e/{place}")],
            [
                format!("update @a/{place} {{ ip saddr }}"),
                "meta l4proto tcp dnat ip to 10.0.0.1:8080".to_owned()
            ]
        );
        let choice = &rules.chains["s/default/web/tcp/-"];
        assert_eq!(choice.len(), 3);
        assert_eq!(choice[0], format!("ip saddr @a/{place} goto e/{place}"));
        assert!(
            choice[2].starts_with("numgen random mod 2 vmap { 0 : goto e/"),
            "{}",
            choice[2]
        );
    }
}
