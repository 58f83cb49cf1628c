//! The network of pods: a bridge, a veth pair for each pod, and address translation for external traffic.
//!
//! Links are created with ip(8) and rules with nft(8), a batch per step: both are on every host that runs containers,
//! and their input can be logged and typed by hand.

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

/// The alias that marks a bridge as ours.
pub(super) const ALIAS: &str = "reddwarf";

/// The protocols of host ports, as rules spell them.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The set of zones' addresses, each paired with itself: a zone that reaches itself through another address must get
/// answers from there.
const SELVES: &str = "selves";

/// The set of allowed senders on the bridge: links of zones, each with the addresses of its zone.
const SPEAKERS: &str = "speakers";

/// The set of the ranges of all pods in the cluster; pods' packets to them are not masqueraded.
const PODS: &str = "pods";

/// The set of the links of zones.
const LINKS: &str = "links";

/// The pods' network of an agent.
///
/// Zones reach one another only through the host, even on the same bridge: a direct answer would come from the wrong
/// address if an address of the host or of a service was asked. Therefore their addresses have no neighbours, and the
/// host sends no redirects. If the kernel translates addresses on bridges (`bridge-nf-call-iptables`), a zone's packets
/// to itself leave on the port they came from.
///
/// Zones cannot spoof: frames of a zone's link pass the bridge only with its own MAC address and its own IP address,
/// and only IPv4 and ARP pass. So no zone can receive what is sent to others or to the host, answer for them, or
/// announce itself as a router.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge; the rules are in a table of the same name.
    pub bridge: String,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
    /// The range of this node's pods.
    pub cidr: String,
    /// The known ranges of pods, without those of other nodes.
    known: Arc<[Range]>,
    /// The ranges of all pods in the cluster, once known.
    told: Arc<Mutex<Option<Arc<[Range]>>>>,
    ruleset: Arc<Ruleset>,
    /// The count of foreign rule changes when our rules were last complete.
    whole: Arc<Mutex<Option<u64>>>,
}

/// Runs a tool with this input; returns its output, or its error messages.
pub(super) fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program}: {error}"),
    };
    let mut child = Command::new(program)
        .args(arguments)
        // Some of its messages are parsed.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let stdin = child.stdin.take();
    let done = std::thread::scope(|scope| {
        // Concurrently with reading its output, so that neither has to fit into a pipe.
        scope.spawn(move || {
            // A tool that ends early reports why on standard error.
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

/// Whether nft(8) only complains that an element does not exist.
fn is_gone(complaint: &str) -> bool {
    complaint.contains("No such file or directory")
}

/// The names of the links of this network namespace. `/sys` may belong to another one.
pub(super) fn links() -> std::io::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    // Two lines of headings have no colon.
    let names = text.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Whether this network namespace has a link.
fn exists(link: &str) -> bool {
    links().is_ok_and(|links| links.contains(link))
}

/// Turns IPv6 off on a link of this network namespace: zones have no IPv6 addresses, and a zone that speaks it could
/// announce itself as a router. On a kernel without IPv6 there is nothing to do.
fn no_ipv6(link: &str) -> Result<(), String> {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{path}: {error}"))
        }
        _ => Ok(()),
    }
}

/// The addresses of this network namespace.
fn local_addresses() -> BTreeSet<Ipv4Addr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default();
    local_in(&text)
}

/// The local addresses in a routing trie, each on the line before the one that marks it as local.
fn local_in(trie: &str) -> BTreeSet<Ipv4Addr> {
    let lines = trie.lines().zip(trie.lines().skip(1));
    let own = lines.filter(|(_, what)| what.trim() == "/32 host LOCAL");
    own.filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .collect()
}

/// Whether a link, as shown by ip(8), is ours.
fn is_our_link(shown: &str) -> bool {
    let mut words = shown.split_whitespace();
    words.any(|word| word == "alias") && words.next() == Some(ALIAS)
}

/// Whether a table, as shown by nft(8), is ours: it has our maps, or nothing yet.
fn is_our_table(shown: &str) -> bool {
    let mut lines = shown.lines().map(str::trim);
    let inside = |line: &str| !line.is_empty() && line != "}" && !line.starts_with("table ");
    let own = format!("map {}_ports {{", PROTOCOLS[0]);
    lines.clone().any(|line| line == own) || !lines.any(inside)
}

impl Network {
    /// The network of a bridge on which the host has the address `gateway` with this prefix length, for zones with
    /// addresses in `cidr`. Their traffic to the ranges in `pods`, none of which contains another, keeps its source
    /// address, until [`Network::admit`] sets more ranges.
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

    /// Creates bridge and rules, or keeps existing ones.
    ///
    /// # Errors
    /// There is a foreign bridge or table with this name, which is left alone; or a tool or permission is missing.
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
        // A host port on the loopback leads through the bridge into a pod; traffic from the bridge may not use such
        // addresses.
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

    /// The chain of the table in family `bridge`: from links in its set it lets pass only what their zones may send.
    fn spoken(&self) -> (&'static str, &'static str, Vec<String>) {
        let rules = [
            format!("iifname != @{LINKS} accept"),
            format!("iifname . ether saddr . ip saddr @{SPEAKERS} accept"),
            // ARP requests and replies contain both addresses once more.
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

    /// The nft(8) commands to `add` or `delete` a zone's link as an allowed sender.
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

    /// The chains of the table: their names, hooks and rules.
    fn chains(&self) -> [(&'static str, &'static str, Vec<String>); 5] {
        let (bridge, cidr, gateway) = (&self.bridge, &self.cidr, self.gateway);
        let led = || {
            // A pod with host port 53 must not become the name server of all others.
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

    /// The nft(8) commands that create the tables. Elements (of running pods) survive; chains are created anew.
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

    /// The nft(8) commands that set the pod ranges. As long as none are set, those of an earlier agent stay, because it
    /// may have known more.
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

    /// Sets the ranges of all pods in the cluster, none of which contains another.
    ///
    /// # Errors
    /// The error of nft(8), for example if the table does not exist.
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

    /// Whether the tables have all their rules, and all elements of these zones. An earlier positive result stays valid
    /// as long as nobody else changed rules.
    ///
    /// # Errors
    /// The error of the tool.
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
        // There may be more elements: zones come and go meanwhile.
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

    /// The table that implements services for zones on this network, on a host with node ports at `addresses`. All
    /// service addresses are in `range`, if that is known.
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
    /// The error of a tool.
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
            // Left by an interrupted boot.
            tool("ip", &["link", "del", link], "")?;
        }
        let bridge = &self.bridge;
        // Before it can send anything.
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
        // The tool starts in the namespace that its thread joined; the thread ends with it.
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

    /// Allows a connected zone to send, and adds its host ports; existing elements are kept.
    ///
    /// # Errors
    /// The error of the tool.
    pub fn lead(&self, spec: &ZoneSpec) -> Result<(), String> {
        self.lead_after(self.speaker("add", spec), spec)
    }

    /// Adds the host ports of a zone, in one transaction with a script.
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
            tracing::debug!(%error, "cannot delete flows to a host port; they may go to the wrong pod for a while");
        }
        Ok(())
    }

    /// The element by which a zone may reach itself through another address.
    fn itself(&self, zone: IpAddr) -> String {
        format!("element ip {} {SELVES} {{ {zone} . {zone} }}", self.bridge)
    }

    /// Undoes [`Network::connect`]; the zone's processes are gone.
    ///
    /// # Errors
    /// The error of a tool.
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
        // Invalid ones were never added.
        let made = ports.iter().filter_map(|port| element(port, *address).ok());
        for Element {
            map,
            key,
            key_kept,
            value_kept,
            ..
        } in made.flatten()
        {
            // Only elements that lead to this zone: the port may belong to another pod. Nobody else replaces our
            // elements.
            let kept = Netfilter::open().and_then(|kernel| kernel.element(bridge, &map, &key_kept));
            let kept = kept.map_err(|error| format!("cannot read the map {map}: {error}"))?;
            if kept == Some(value_kept) {
                self.ruleset
                    .change(&format!("delete element ip {bridge} {map} {{ {key} }}\n"))?;
            }
        }
        if exists(link) {
            // It is also removed with its peer in the zone, in which case this fails.
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

/// A map element that leads from a host port to a port of a zone.
#[derive(Debug, PartialEq)]
struct Element {
    map: String,
    key: String,
    value: String,
    /// Key and value in the kernel's format.
    key_kept: Vec<u8>,
    value_kept: Vec<u8>,
    /// For UDP, the zone's address and the host port, to find its flows.
    flow: Option<(SocketAddrV4, HostPort)>,
}

impl Element {
    /// The UDP addresses of this host that it covers, each with the zone's address.
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

/// The element for a host port of the zone with this address; None if the host address is not IPv4.
fn element(port: &HostPort, zone: IpAddr) -> Result<Option<Element>, String> {
    // Zones have no IPv6 addresses.
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
    // Parts of concatenated keys are padded to four bytes.
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

/// The elements for all host ports of a zone.
fn elements_of(spec: &ZoneSpec) -> Result<Vec<Element>, String> {
    let ZoneNetwork::Own { address, ports, .. } = &spec.network else {
        return Ok(Vec::new());
    };
    let elements = ports.iter().map(|port| element(port, *address));
    elements.filter_map(Result::transpose).collect()
}

/// The keys of the elements of some zones, by map.
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
