//! The network of pods: a bridge, a pair of links a pod, address translation towards the world.
//!
//! Links are made by ip(8) and rules by nft(8), a batch a step: both are on every host that runs containers, and what
//! they are told can be read in a log and typed by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use rustix::thread::LinkNameSpaceType;

use super::services::ServiceTable;
use super::tables::{self, Shown};
use crate::zone::{HostPort, ZoneNetwork, ZoneSpec};

/// What marks a bridge as ours.
pub(super) const ALIAS: &str = "reddwarf";

/// Whose ports of the host can lead into zones, as rules spell them.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The set of zones' addresses, each with itself: a zone that reaches itself by another address is to be answered there.
const SELVES: &str = "selves";

/// The pods' network of an agent.
///
/// Zones reach one another by the host alone, also where they are on the same bridge: an answer that went straight
/// would come from an address that nobody asked, where one of the host's or of a service was asked. So they have
/// addresses without neighbours, and the host tells them of no shorter way. Where the kernel translates addresses on
/// bridges already (`bridge-nf-call-iptables`), what a zone sends to itself turns back on its own port.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge; rules are in a table of the same name.
    pub bridge: String,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// Bits of its prefix.
    pub prefix: u8,
    /// The range of pods.
    pub cidr: String,
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
    /// Makes bridge and rules, or finds them as they were.
    ///
    /// # Errors
    /// A bridge or table of this name that is not ours, which is left alone; a missing tool or right.
    pub fn prepare(&self) -> Result<(), String> {
        let bridge = &self.bridge;
        if let Some(shown) = tables::show(bridge)?
            && !is_our_table(&shown)
        {
            return Err(format!(
                "there is a table ip {bridge} of nft(8) that reddwarf did not make; choose another --etherstub-name"
            ));
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
        // A port on the loopback leads into a pod by the bridge; what comes from there may not use such addresses.
        let local = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
        std::fs::write(&local, "1").map_err(|error| format!("{local}: {error}"))?;
        tool("nft", &["-f", "-"], &self.script()).map(drop)
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
                vec![format!("iifname {bridge} ip daddr 127.0.0.0/8 drop")],
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
                    format!("ip saddr {cidr} ip daddr != {cidr} masquerade"),
                    format!("ip saddr . ip daddr @{SELVES} masquerade"),
                    format!("ip saddr 127.0.0.0/8 oifname {bridge} masquerade"),
                ],
            ),
        ]
    }

    /// What nft(8) is told to make the table. Elements (of running pods) survive; chains are made anew.
    fn script(&self) -> String {
        let table = format!("ip {}", self.bridge);
        let mut script = format!(
            "add table {table}\nadd set {table} {SELVES} {{ type ipv4_addr . ipv4_addr; }}\n"
        );
        for protocol in PROTOCOLS {
            script += &format!(
                "add map {table} {protocol}_ports {{ type inet_service : ipv4_addr . inet_service; }}
add map {table} {protocol}_addressed {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
"
            );
        }
        for (chain, hook, rules) in self.chains() {
            script += &format!(
                "add chain {table} {chain} {{ type {hook}; }}\nflush chain {table} {chain}\n"
            );
            for rule in rules {
                script += &format!("add rule {table} {chain} {rule}\n");
            }
        }
        script
    }

    /// Whether the table has all its rules, and what leads to each of some zones.
    ///
    /// # Errors
    /// What the tool says.
    pub fn is_whole<'z>(&self, zones: impl Iterator<Item = &'z ZoneSpec>) -> Result<bool, String> {
        let Some(text) = tables::show(&self.bridge)? else {
            return Ok(false);
        };
        let found = Shown::read(&text).chains;
        let all = self.chains();
        let mut expected = all.iter().map(|(chain, _, rules)| (chain, rules.len()));
        if !expected.all(|(chain, rules)| found.get(*chain) == Some(&rules)) {
            return Ok(false);
        }
        for (map, keys) in keys(zones)? {
            // There may be more: zones come and go meanwhile.
            if tables::count(&self.bridge, "map", &map)? < keys.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What leads services to zones of this network.
    pub fn services(&self) -> ServiceTable {
        ServiceTable::new(&self.bridge, &self.cidr)
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
        tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add name {link} type veth peer name eth0 address {mac} netns {pid}\nlink set {link} master {bridge} up\nlink set {link} type bridge_slave hairpin on\n"
            ),
        )?;
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
            tool("ip", &["-batch", "-"], &inside).map(drop)
        })
        .join()
        .map_err(|_| "a thread broke".to_owned())??;
        self.lead(spec)
    }

    /// Leads ports of the host to a zone; what leads there already is left alone.
    ///
    /// # Errors
    /// What the tool says.
    pub fn lead(&self, spec: &ZoneSpec) -> Result<(), String> {
        let bridge = &self.bridge;
        let ZoneNetwork::Own { address, .. } = &spec.network else {
            return Ok(());
        };
        let mut elements = String::new();
        for Element { map, key, value } in elements_of(spec)? {
            elements += &format!("add element ip {bridge} {map} {{ {key} : {value} }}\n");
        }
        if elements.is_empty() {
            return Ok(());
        }
        elements += &format!("add {}\n", self.itself(*address));
        tool("nft", &["-f", "-"], &elements).map(drop)
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
        for element in made.flatten() {
            let Element { map, key, .. } = &element;
            let own = format!("element ip {bridge} {map} {{ {key} }}\n");
            // Only what leads here: the port may be another pod's already, or still. What is ours nobody else replaces.
            match tool("nft", &["-f", "-"], &format!("get {own}")) {
                Ok(shown) if element.is_in(&shown) => {
                    tool("nft", &["-f", "-"], &format!("delete {own}"))?;
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if !ports.is_empty() {
            match tool(
                "nft",
                &["-f", "-"],
                &format!("delete {}\n", self.itself(*address)),
            ) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        if exists(link) {
            // It goes with its other end; whoever is first, it is gone.
            let _ = tool("ip", &["link", "del", link], "");
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
}

impl Element {
    /// Whether it is what nft(8) shows, and not another one of its key.
    fn is_in(&self, shown: &str) -> bool {
        let own = format!("{} : {}", self.key, self.value);
        let words: Vec<&str> = shown.split_whitespace().collect();
        let own: Vec<&str> = own.split(' ').collect();
        words.windows(own.len()).any(|some| some == own)
    }
}

/// What leads to a port of the zone with this address; nothing where the host's address is none that leads to a zone.
fn element(port: &HostPort, zone: IpAddr) -> Result<Option<Element>, String> {
    let protocol = port.protocol.to_lowercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!(
            "host ports of protocol {} are not offered",
            port.protocol
        ));
    }
    let (map, key) = match port.host_address {
        // Zones have no addresses of version 6.
        Some(IpAddr::V6(address)) if !address.is_unspecified() => return Ok(None),
        Some(IpAddr::V4(address)) if !address.is_unspecified() => {
            ("addressed", format!("{address} . {}", port.host))
        }
        _ => ("ports", port.host.to_string()),
    };
    Ok(Some(Element {
        map: format!("{protocol}_{map}"),
        key,
        value: format!("{zone} . {}", port.zone),
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
        for (address, expected) in [
            (None, Some(("tcp_ports", "80"))),
            (Some("0.0.0.0"), Some(("tcp_ports", "80"))),
            (Some("::"), Some(("tcp_ports", "80"))),
            (Some("127.0.0.1"), Some(("tcp_addressed", "127.0.0.1 . 80"))),
            (Some("::1"), None),
        ] {
            let found = element(&port(address), [10, 0, 0, 5].into()).expect("offered");
            let expected = expected.map(|(map, key)| Element {
                map: map.to_owned(),
                key: key.to_owned(),
                value: "10.0.0.5 . 8080".to_owned(),
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

    #[test]
    fn only_what_leads_to_a_zone_is_its_own() {
        let shown = |element: &str| {
            format!(
                "table ip b {{\n\tmap m {{\n\t\ttype inet_service : ipv4_addr . inet_service\n\t\telements = {{ {element} }}\n\t}}\n}}\n"
            )
        };
        for (address, of, own) in [
            (None, "80 : 10.0.0.5 . 8080", true),
            (None, "80 : 10.0.0.55 . 8080", false),
            (None, "80 : 10.0.0.6 . 8080", false),
            (None, "80 : 10.0.0.5 . 808", false),
            (Some("127.0.0.1"), "127.0.0.1 . 80 : 10.0.0.5 . 8080", true),
            (Some("127.0.0.1"), "127.0.0.1 . 80 : 10.0.0.6 . 8080", false),
        ] {
            let element = element(&port(address), [10, 0, 0, 5].into()).expect("offered");
            let found = element.expect("one").is_in(&shown(of));
            assert_eq!(found, own, "{address:?} {of}");
        }
    }
}
