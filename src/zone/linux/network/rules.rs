//! The rules of the pods' network as nft(8) commands, and how our tables are recognized.

use std::net::IpAddr;

use super::ports::PROTOCOLS;
use super::{ALIAS, Network};
use crate::zone::{ZoneNetwork, ZoneSpec};

/// The set of zones' addresses, each paired with itself: a zone that reaches itself through another address must get
/// answers from there.
const SELVES: &str = "selves";

/// The set of allowed senders on the bridge: links of zones, each with the addresses of its zone.
pub(super) const SPEAKERS: &str = "speakers";

/// The set of the ranges of all pods in the cluster; pods' packets to them are not masqueraded.
pub(super) const PODS: &str = "pods";

/// The set of the links of zones.
pub(super) const LINKS: &str = "links";

/// Whether a table, as shown by nft(8), is ours: it has our maps, or nothing yet.
pub(super) fn is_our_table(shown: &str) -> bool {
    let mut lines = shown.lines().map(str::trim);
    let inside = |line: &str| !line.is_empty() && line != "}" && !line.starts_with("table ");
    let own = format!("map {}_ports {{", PROTOCOLS[0]);
    lines.clone().any(|line| line == own) || !lines.any(inside)
}

impl Network {
    /// The chain of the table in family `bridge`: from links in its set it lets pass only what their zones may send.
    pub(super) fn spoken(&self) -> (&'static str, &'static str, Vec<String>) {
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
    pub(super) fn speaker(&self, verb: &str, spec: &ZoneSpec) -> String {
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
    pub(super) fn chains(&self) -> [(&'static str, &'static str, Vec<String>); 5] {
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
    pub(super) fn script(&self) -> String {
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

    /// The element by which a zone may reach itself through another address.
    pub(super) fn itself(&self, zone: IpAddr) -> String {
        format!("element ip {} {SELVES} {{ {zone} . {zone} }}", self.bridge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_are_not_ours_are_told_apart() {
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
