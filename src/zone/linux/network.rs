//! The network of pods: a bridge, a pair of links a pod, address translation towards the world.
//!
//! Links are made by ip(8) and rules by nft(8), a batch a step: both are on every host that runs containers, and what
//! they are told can be read in a log and typed by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::thread::LinkNameSpaceType;

use super::netlink::Netfilter;
use super::services::conntrack::{self, Fronts};
use super::services::{ServiceTable, Site};
use super::tables::{self, Ruleset, Shown};
use crate::meta::addresses::Network as Range;
use crate::zone::{HostPort, ZoneNetwork, ZoneSpec};

/// What marks a bridge as ours.
pub(super) const ALIAS: &str = "reddwarf";

/// Whose ports of the host can lead into zones, as rules spell them.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The set of zones' addresses, each with itself: a zone that reaches itself by another address is to be answered there.
const SELVES: &str = "selves";

/// The set of who speaks on the bridge: links of zones, each with the addresses that its zone has.
const SPEAKERS: &str = "speakers";

/// The set of the ranges of all of the cluster's pods, to which packets of pods go as they are.
const PODS: &str = "pods";

/// The set of the links of zones.
const LINKS: &str = "links";

/// The pods' network of an agent.
///
/// Zones reach one another by the host alone, also where they are on the same bridge: an answer that went straight
/// would come from an address that nobody asked, where one of the host's or of a service was asked. So they have
/// addresses without neighbours, and the host tells them of no shorter way. Where the kernel translates addresses on
/// bridges already (`bridge-nf-call-iptables`), what a zone sends to itself turns back on its own port.
///
/// A zone is who it says it is: frames of its link pass the bridge only from its own hardware address and its own
/// address, and nothing but IPv4 and ARP does. So none takes what is sent to another or to the host, answers for either, or
/// tells them of routers.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge; rules are in a table of the same name.
    pub bridge: String,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// Bits of its prefix.
    pub prefix: u8,
    /// The range of this node's pods.
    pub cidr: String,
    /// The ranges of pods as far as they are known without the cluster.
    known: Arc<[Range]>,
    /// The ranges of all of the cluster's pods, once somebody told them.
    told: Arc<Mutex<Option<Arc<[Range]>>>>,
    ruleset: Arc<Ruleset>,
    /// How often somebody else had changed rules when ours were whole.
    whole: Arc<Mutex<Option<u64>>>,
}

/// Runs a tool with input; its complaints are the error.
pub(super) fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program}: {error}"),
    };
    let mut child = Command::new(program)
        .args(arguments)
        // Some of what they say is understood.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let stdin = child.stdin.take();
    let done = std::thread::scope(|scope| {
        // While its output is read: neither has to fit into a pipe.
        scope.spawn(move || {
            // A tool that ends early says why on its error stream.
            stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
        });
        child.wait_with_output().map_err(missing)
    })?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&done.stderr)
                .trim()
                .replace('\n', "; ")
        )),
    }
}

/// Whether nft(8) complains of nothing but that an element is not there.
fn is_gone(complaint: &str) -> bool {
    complaint.contains("No such file or directory")
}

/// Whether this network namespace has a link. `/sys` may be another one's.
fn exists(link: &str) -> bool {
    std::fs::read_to_string("/proc/thread-self/net/dev").is_ok_and(|text| {
        text.lines()
            .any(|line| line.trim_start().starts_with(&format!("{link}:")))
    })
}

/// Turns IPv6 off at a link of this network namespace: zones have no addresses of it, and whoever speaks it there makes
/// itself a router of all others. A kernel without IPv6 has none to turn off.
fn no_ipv6(link: &str) -> Result<(), String> {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{path}: {error}"))
        }
        _ => Ok(()),
    }
}

/// The addresses of this network namespace's own.
fn local_addresses() -> BTreeSet<Ipv4Addr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
    local_in(&text)
}

/// The addresses that a trie of routes shows to be the host's own, each on the line before the one that says so.
fn local_in(trie: &str) -> BTreeSet<Ipv4Addr> {
    let lines = trie.lines().zip(trie.lines().skip(1));
    let own = lines.filter(|(_, what)| what.trim() == "/32 host LOCAL");
    own.filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .collect()
}

/// Whether a link as ip(8) shows it is ours.
fn is_our_link(shown: &str) -> bool {
    let mut words = shown.split_whitespace();
    words.any(|word| word == "alias") && words.next() == Some(ALIAS)
}

/// Whether a table as nft(8) shows it is ours: it has our maps, or nothing yet.
fn is_our_table(shown: &str) -> bool {
    let mut lines = shown.lines().map(str::trim);
    let inside = |line: &str| !line.is_empty() && line != "}" && !line.starts_with("table ");
    let own = format!("map {}_ports {{", PROTOCOLS[0]);
    lines.clone().any(|line| line == own) || !lines.any(inside)
}

impl Network {
    /// The network of a bridge, on which the host has the address `gateway` with a prefix of so many bits, for zones with
    /// addresses of `cidr`. What they send to those of `pods`, of which no range lies in another, goes with their own
    /// address, until [`Network::admit`] tells more of them.
    pub fn new(
        bridge: &str,
        (gateway, prefix): (Ipv4Addr, u8),
        cidr: &str,
        pods: Arc<[Range]>,
    ) -> Self {
        Network {
            bridge: bridge.to_owned(),
            gateway,
            prefix,
            cidr: cidr.to_owned(),
            known: pods,
            told: Arc::default(),
            ruleset: Arc::default(),
            whole: Arc::default(),
        }
    }

    /// Makes bridge and rules, or finds them as they were.
    ///
    /// # Errors
    /// A bridge or table of this name that is not ours, which is left alone; a missing tool or right.
    pub fn prepare(&self) -> Result<(), String> {
        let bridge = &self.bridge;
        for (family, is_ours) in [
            ("ip", is_our_table as fn(&str) -> bool),
            ("bridge", tables::is_ours),
        ] {
            if let Some(shown) = tables::show(family, bridge)?
                && !is_ours(&shown)
            {
                return Err(format!(
                    "there is a table {family} {bridge} of nft(8) that reddwarf did not make; choose another --etherstub-name"
                ));
            }
        }
        let shown = match exists(bridge) {
            true => Some(tool("ip", &["-o", "link", "show", "dev", bridge], "")?),
            false => None,
        };
        match shown {
            Some(shown) if is_our_link(&shown) => {}
            Some(_) => {
                return Err(format!(
                    "there is a link {bridge} that reddwarf did not make; choose another --etherstub-name"
                ));
            }
            None => {
                tool(
                    "ip",
                    &["-batch", "-"],
                    &format!("link add {bridge} type bridge\nlink set {bridge} alias {ALIAS}\n"),
                )?;
            }
        }
        tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "addr replace {}/{} dev {bridge}\nlink set {bridge} up\n",
                self.gateway, self.prefix
            ),
        )?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| format!("cannot turn on forwarding of packets: {error}"))?;
        no_ipv6(bridge)?;
        // A port on the loopback leads into a pod by the bridge; what comes from there may not use such addresses.
        let local = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
        std::fs::write(&local, "1").map_err(|error| format!("{local}: {error}"))?;
        let script = self.script() + &self.ranges();
        self.ruleset.change(&script).map_err(|error| {
            match error.contains("Operation not supported") {
                true => {
                    format!("{error}; use a kernel with CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_NAT")
                }
                false => error,
            }
        })
    }

    /// The chain of the table of the family `bridge`: of the links in its set, only what their zones may send.
    fn spoken(&self) -> (&'static str, &'static str, Vec<String>) {
        let rules = [
            format!("iifname != @{LINKS} accept"),
            format!("iifname . ether saddr . ip saddr @{SPEAKERS} accept"),
            // Who asks, or answers, tells both addresses once more.
            format!(
                "arp htype 1 arp ptype ip iifname . ether saddr . arp saddr ip @{SPEAKERS} iifname . arp saddr ether . arp saddr ip @{SPEAKERS} accept"
            ),
            "drop".to_owned(),
        ];
        (
            "prerouting",
            "filter hook prerouting priority -200",
            rules.into(),
        )
    }

    /// What nft(8) is told of who speaks by a zone's link: to `add` it, or to `delete` it.
    fn speaker(&self, verb: &str, spec: &ZoneSpec) -> String {
        let ZoneNetwork::Own {
            address, mac, link, ..
        } = &spec.network
        else {
            return String::new();
        };
        let bridge = &self.bridge;
        format!(
            "{verb} element bridge {bridge} {SPEAKERS} {{ \"{link}\" . {mac} . {address} }}\n{verb} element bridge {bridge} {LINKS} {{ \"{link}\" }}\n"
        )
    }

    /// The chains of the table: their names, where packets come into them, and their rules.
    fn chains(&self) -> [(&'static str, &'static str, Vec<String>); 5] {
        let (bridge, cidr, gateway) = (&self.bridge, &self.cidr, self.gateway);
        let led = || {
            // A pod that takes port 53 of the host does not become the name server of all others.
            let names =
                format!("ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 return");
            let ports = PROTOCOLS.iter().flat_map(|protocol| {
                let to = "fib daddr type local dnat ip to";
                [
                    format!("{to} ip daddr . {protocol} dport map @{protocol}_addressed"),
                    format!("{to} {protocol} dport map @{protocol}_ports"),
                ]
            });
            std::iter::once(names).chain(ports).collect()
        };
        [
            (
                "guard",
                "filter hook prerouting priority -300",
                vec![
                    format!("iifname {bridge} ip daddr 127.0.0.0/8 drop"),
                    format!("iifname {bridge} ip saddr != {cidr} drop"),
                ],
            ),
            (
                "straight",
                "filter hook output priority 0",
                vec![format!("oifname {bridge} icmp type redirect drop")],
            ),
            ("prerouting", "nat hook prerouting priority -100", led()),
            ("output", "nat hook output priority -100", led()),
            (
                "postrouting",
                "nat hook postrouting priority 100",
                vec![
                    format!("ip saddr {cidr} ip daddr != @{PODS} masquerade fully-random"),
                    format!("ct status dnat ip saddr . ip daddr @{SELVES} masquerade fully-random"),
                    format!("ip saddr 127.0.0.0/8 oifname {bridge} masquerade fully-random"),
                ],
            ),
        ]
    }

    /// What nft(8) is told to make the tables. Elements (of running pods) survive; chains are made anew.
    fn script(&self) -> String {
        let table = format!("ip {}", self.bridge);
        let mut script = format!(
            "add table {table}\nadd set {table} {SELVES} {{ type ipv4_addr . ipv4_addr; }}\nadd set {table} {PODS} {{ type ipv4_addr; flags interval; }}\n"
        );
        for protocol in PROTOCOLS {
            script += &format!(
                "add map {table} {protocol}_ports {{ type inet_service : ipv4_addr . inet_service; }}
add map {table} {protocol}_addressed {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
"
            );
        }
        let bridge = format!("bridge {}", self.bridge);
        script += &format!(
            "add table {bridge} {{ comment \"{ALIAS}\"; }}
add set {bridge} {SPEAKERS} {{ type ifname . ether_addr . ipv4_addr; }}
add set {bridge} {LINKS} {{ type ifname; }}
"
        );
        let chains = self.chains().into_iter().map(|chain| (&table, chain));
        for (table, (chain, hook, rules)) in chains.chain([(&bridge, self.spoken())]) {
            script += &format!(
                "add chain {table} {chain} {{ type {hook}; }}\nflush chain {table} {chain}\n"
            );
            for rule in rules {
                script += &format!("add rule {table} {chain} {rule}\n");
            }
        }
        script
    }

    /// What nft(8) is told for the set of pods' ranges to have those that were told. As long as none were, what an earlier
    /// agent left there stays: it may have been told more.
    fn ranges(&self) -> String {
        let told = self.told.lock().clone();
        let bridge = &self.bridge;
        if told.is_none() {
            let gateway = format!("{{ {} }}", self.gateway);
            let has = ["get", "element", "ip", bridge, PODS, &gateway];
            if tool("nft", &has, "").is_ok() {
                return String::new();
            }
        }
        let ranges = told.unwrap_or_else(|| self.known.clone());
        let ranges: Vec<String> = ranges.iter().map(Range::to_string).collect();
        let ranges = ranges.join(", ");
        format!("flush set ip {bridge} {PODS}\nadd element ip {bridge} {PODS} {{ {ranges} }}\n")
    }

    /// Makes these, of which none lies in another, all ranges of the cluster's pods.
    ///
    /// # Errors
    /// What nft(8) says: the table is not there, say.
    pub(super) fn admit(&self, pods: &Arc<[Range]>) -> Result<(), String> {
        let before = self.told.lock().replace(pods.clone());
        if before.as_ref() == Some(pods) {
            return Ok(());
        }
        let admitted = self.ruleset.change(&self.ranges());
        if admitted.is_err() {
            *self.told.lock() = before;
        }
        admitted
    }

    /// Whether the tables have all their rules, and what belongs to each of some zones. What was so before is so still where
    /// nobody else changed rules.
    ///
    /// # Errors
    /// What the tool says.
    pub fn is_whole<'z>(&self, zones: impl Iterator<Item = &'z ZoneSpec>) -> Result<bool, String> {
        let foreign = self.ruleset.foreign();
        if *self.whole.lock() == Some(foreign) {
            return Ok(true);
        }
        let is_whole = self.has_all(zones)?;
        *self.whole.lock() = is_whole.then_some(foreign);
        Ok(is_whole)
    }

    fn has_all<'z>(&self, zones: impl Iterator<Item = &'z ZoneSpec>) -> Result<bool, String> {
        let bridge = self.bridge.as_str();
        for (family, chains) in [
            ("ip", self.chains().to_vec()),
            ("bridge", vec![self.spoken()]),
        ] {
            let Some(text) = tables::show(family, bridge)? else {
                return Ok(false);
            };
            let found = Shown::read(&text).chains;
            let mut expected = chains.iter().map(|(chain, _, rules)| (chain, rules.len()));
            if !expected.all(|(chain, rules)| found.get(*chain) == Some(&rules)) {
                return Ok(false);
            }
        }
        // There may be more of each: zones come and go meanwhile.
        let zones: Vec<_> = zones.collect();
        let mut links = 0;
        for zone in &zones {
            links += usize::from(matches!(zone.network, ZoneNetwork::Own { .. }));
        }
        let ranges = self.told.lock().as_ref().map_or(1, |told| told.len());
        for (family, set, least) in [
            ("bridge", SPEAKERS, links),
            ("bridge", LINKS, links),
            ("ip", PODS, ranges),
        ] {
            if tables::count([family, bridge], "set", set)? < least {
                return Ok(false);
            }
        }
        for (map, keys) in keys(zones.into_iter())? {
            if tables::count(["ip", bridge], "map", &map)? < keys.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What leads services to zones of this network, on a host whose ports are asked at `addresses`. All services have
    /// addresses of `range`, if that is known.
    pub fn services(&self, addresses: Vec<Ipv4Addr>, range: Option<String>) -> ServiceTable {
        let site = Site {
            gateway: self.gateway,
            addresses,
            services: range,
        };
        ServiceTable::new(&self.bridge, site, self.known.clone(), self.ruleset.clone())
    }

    /// Connects the network namespace of process `pid`.
    ///
    /// # Errors
    /// What the tools say.
    pub fn connect(&self, spec: &ZoneSpec, pid: u32) -> Result<(), String> {
        let ZoneNetwork::Own {
            address,
            gateway,
            mac,
            link,
            ..
        } = &spec.network
        else {
            return Ok(());
        };
        if exists(link) {
            // Left by a boot that did not come to its end.
            tool("ip", &["link", "del", link], "")?;
        }
        let bridge = &self.bridge;
        // Before it can say anything.
        self.ruleset.change(&self.speaker("add", spec))?;
        tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add name {link} type veth peer name eth0 address {mac} netns {pid}\nlink set {link} master {bridge} up\nlink set {link} type bridge_slave hairpin on\n"
            ),
        )?;
        no_ipv6(link)?;
        let inside = format!(
            "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\nroute add {gateway} dev eth0 scope link\nroute add default via {gateway}\n"
        );
        // The tool is born in the namespace that its thread joined; the thread ends with that.
        std::thread::spawn(move || {
            use std::os::fd::AsFd as _;
            let path = format!("/proc/{pid}/ns/net");
            let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
            rustix::thread::move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )
            .map_err(|error| format!("{path}: {error}"))?;
            no_ipv6("eth0")?;
            tool("ip", &["-batch", "-"], &inside).map(drop)
        })
        .join()
        .map_err(|_| "a thread broke".to_owned())??;
        self.lead_after(String::new(), spec)
    }

    /// Lets a zone that is connected speak, and leads ports of the host to it; what is so already is left alone.
    ///
    /// # Errors
    /// What the tool says.
    pub fn lead(&self, spec: &ZoneSpec) -> Result<(), String> {
        self.lead_after(self.speaker("add", spec), spec)
    }

    /// Leads ports of the host to a zone, in one transaction with what a script says.
    fn lead_after(&self, mut script: String, spec: &ZoneSpec) -> Result<(), String> {
        let bridge = &self.bridge;
        let ZoneNetwork::Own { address, .. } = &spec.network else {
            return Ok(());
        };
        let elements = elements_of(spec)?;
        for Element {
            map, key, value, ..
        } in &elements
        {
            script += &format!("add element ip {bridge} {map} {{ {key} : {value} }}\n");
        }
        if !elements.is_empty() {
            script += &format!("add {}\n", self.itself(*address));
        }
        if script.is_empty() {
            return Ok(());
        }
        self.ruleset.change(&script)?;
        let flows = Fronts::of_host(elements.iter().flat_map(Element::flows));
        if let Err(error) = conntrack::forget_stale(&flows) {
            tracing::debug!(%error, "flows to a port of the host may go elsewhere for a while");
        }
        Ok(())
    }

    /// The element of a zone's address that may come back to it.
    fn itself(&self, zone: IpAddr) -> String {
        format!("element ip {} {SELVES} {{ {zone} . {zone} }}", self.bridge)
    }

    /// Undoes what [`Network::connect`] did; the zone's processes are gone.
    ///
    /// # Errors
    /// What the tools say.
    pub fn disconnect(&self, spec: &ZoneSpec) -> Result<(), String> {
        let ZoneNetwork::Own {
            address,
            link,
            ports,
            ..
        } = &spec.network
        else {
            return Ok(());
        };
        let bridge = &self.bridge;
        // What cannot be was never made.
        let made = ports.iter().filter_map(|port| element(port, *address).ok());
        for Element {
            map,
            key,
            key_kept,
            value_kept,
            ..
        } in made.flatten()
        {
            // Only what leads here: the port may be another pod's already, or still. What is ours nobody else replaces.
            let kept = Netfilter::open().and_then(|kernel| kernel.element(bridge, &map, &key_kept));
            let kept = kept.map_err(|error| format!("cannot read the map {map}: {error}"))?;
            if kept == Some(value_kept) {
                self.ruleset
                    .change(&format!("delete element ip {bridge} {map} {{ {key} }}\n"))?;
            }
        }
        if exists(link) {
            // It goes with its other end; whoever is first, it is gone.
            let _ = tool("ip", &["link", "del", link], "");
        }
        let itself = format!("delete {}\n", self.itself(*address));
        let itself = (!ports.is_empty()).then_some(itself);
        for script in itself.into_iter().chain([self.speaker("delete", spec)]) {
            match self.ruleset.change(&script) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What leads from a port of the host to one of a zone.
#[derive(Debug, PartialEq)]
struct Element {
    map: String,
    key: String,
    value: String,
    /// Both as the kernel keeps them.
    key_kept: Vec<u8>,
    value_kept: Vec<u8>,
    /// The zone's own port, and the host's, if it is one of UDP: its flows know where they go.
    flow: Option<(SocketAddrV4, HostPort)>,
}

impl Element {
    /// The places of this host that it leads from over UDP, each with the one that it leads to.
    fn flows(&self) -> Vec<(SocketAddrV4, SocketAddrV4)> {
        let Some((to, port)) = &self.flow else {
            return Vec::new();
        };
        let at = |address| (SocketAddrV4::new(address, port.host), *to);
        match port.host_address {
            Some(IpAddr::V4(address)) if !address.is_unspecified() => vec![at(address)],
            _ => local_addresses().into_iter().map(at).collect(),
        }
    }
}

/// What leads to a port of the zone with this address; nothing where the host's address is none that leads to a zone.
fn element(port: &HostPort, zone: IpAddr) -> Result<Option<Element>, String> {
    // Zones have no addresses of version 6.
    let IpAddr::V4(zone) = zone else {
        return Ok(None);
    };
    let protocol = port.protocol.to_lowercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!(
            "host ports of protocol {} are not offered",
            port.protocol
        ));
    }
    // Parts of what has several are filled up to four bytes.
    let pair = |address: Ipv4Addr, port: u16| {
        [&address.octets()[..], &port.to_be_bytes(), &[0, 0]].concat()
    };
    let (map, key, key_kept) = match port.host_address {
        Some(IpAddr::V6(address)) if !address.is_unspecified() => return Ok(None),
        Some(IpAddr::V4(address)) if !address.is_unspecified() => (
            "addressed",
            format!("{address} . {}", port.host),
            pair(address, port.host),
        ),
        _ => (
            "ports",
            port.host.to_string(),
            port.host.to_be_bytes().to_vec(),
        ),
    };
    let flow = (protocol == "udp").then(|| (SocketAddrV4::new(zone, port.zone), port.clone()));
    Ok(Some(Element {
        map: format!("{protocol}_{map}"),
        key,
        value: format!("{zone} . {}", port.zone),
        key_kept,
        value_kept: pair(zone, port.zone),
        flow,
    }))
}

/// What leads from ports of the host to those of a zone.
fn elements_of(spec: &ZoneSpec) -> Result<Vec<Element>, String> {
    let ZoneNetwork::Own { address, ports, .. } = &spec.network else {
        return Ok(Vec::new());
    };
    let elements = ports.iter().map(|port| element(port, *address));
    elements.filter_map(Result::transpose).collect()
}

/// The keys of what leads to some zones, by map.
fn keys<'z>(
    zones: impl Iterator<Item = &'z ZoneSpec>,
) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for zone in zones {
        for Element { map, key, .. } in elements_of(zone)? {
            keys.entry(map).or_default().insert(key);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>) -> HostPort {
        HostPort {
            protocol: "TCP".into(),
            host_address: address.map(|text| text.parse().expect("an address")),
            host: 80,
            zone: 8080,
        }
    }

    #[test]
    fn ports_of_an_address_are_its_own() {
        let addressed = [127, 0, 0, 1, 0, 80, 0, 0];
        for (address, expected) in [
            (None, Some(("tcp_ports", "80", &[0, 80][..]))),
            (Some("0.0.0.0"), Some(("tcp_ports", "80", &[0, 80]))),
            (Some("::"), Some(("tcp_ports", "80", &[0, 80]))),
            (
                Some("127.0.0.1"),
                Some(("tcp_addressed", "127.0.0.1 . 80", &addressed)),
            ),
            (Some("::1"), None),
        ] {
            let found = element(&port(address), [10, 0, 0, 5].into()).expect("offered");
            let expected = expected.map(|(map, key, kept)| Element {
                map: map.to_owned(),
                key: key.to_owned(),
                value: "10.0.0.5 . 8080".to_owned(),
                key_kept: kept.to_vec(),
                value_kept: vec![10, 0, 0, 5, 0x1f, 0x90, 0, 0],
                flow: None,
            });
            assert_eq!(found, expected, "{address:?}");
        }
        let of = |protocol: &str| {
            let port = HostPort {
                protocol: protocol.into(),
                ..port(None)
            };
            let element = element(&port, [10, 0, 0, 5].into());
            element.map(|element| element.expect("one").map)
        };
        assert_eq!(of("UDP"), Ok("udp_ports".to_owned()));
        assert_eq!(of("SCTP"), Ok("sctp_ports".to_owned()));
        assert!(of("DCCP").is_err());
    }

    #[test]
    fn flows_over_udp_are_known_by_the_hosts_addresses() {
        let port = |protocol: &str, address| HostPort {
            protocol: protocol.into(),
            ..port(address)
        };
        let flows = |port: &HostPort| {
            let found = element(port, [10, 0, 0, 5].into()).expect("offered");
            found.expect("one").flows()
        };
        let at = |text: &str| -> SocketAddrV4 { text.parse().expect("a place") };
        assert_eq!(flows(&port("TCP", None)), []);
        let own = flows(&port("UDP", Some("192.0.2.1")));
        assert_eq!(own, [(at("192.0.2.1:80"), at("10.0.0.5:8080"))]);
        let trie = "Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 192.0.2.1
        /32 host LOCAL
     |-- 192.0.2.7
        /32 universe UNICAST
";
        let own = ["127.0.0.1", "192.0.2.1"].map(|text| text.parse().expect("an address"));
        assert_eq!(local_in(trie), own.into());
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let link = |alias: &str| {
            format!("7: b: <BROADCAST> mtu 1500 state UP \\    link/ether 02:00 brd ff:ff{alias}")
        };
        for (shown, own) in [
            (link("\\    alias reddwarf"), true),
            (link("\\    alias reddwarfs"), false),
            (link("\\    alias my reddwarf"), false),
            (link(""), false),
        ] {
            assert_eq!(is_our_link(&shown), own, "{shown}");
        }
        for (shown, own) in [
            (
                "table ip b {\n\tmap tcp_ports {\n\t\ttype inet_service : ipv4_addr\n\t}\n}\n",
                true,
            ),
            ("table ip b {\n}\n", true),
            ("table ip b {\n\tchain prerouting {\n\t}\n}\n", false),
            ("table ip b {\n\tmap my_tcp_ports {\n\t}\n}\n", false),
        ] {
            assert_eq!(is_our_table(shown), own, "{shown}");
        }
    }
}
