//! The fixed part of the table of services: base chains, and the maps that lead packets on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::super::network::ALIAS;

/// The mark of connections that must be masqueraded, as in kube-proxy.
pub(super) const MASQUERADE: &str = "0x4000";
/// The maps of addresses and ports that lead to endpoints, and that are closed.
pub(super) const BY_ADDRESS: (&str, &str) = ("services", "closed");
/// The same for node ports.
pub(super) const BY_NODE_PORT: (&str, &str) = ("nodeports", "closed_nodeports");
/// The map of addresses with source ranges.
pub(super) const GUARDED: &str = "guarded";
/// The set of endpoints on this node, each paired with itself: traffic of an endpoint to itself must be masqueraded.
pub(super) const SELVES: &str = "selves";

/// The set of cluster addresses: packets to them that matched no port are rejected.
pub(super) const CLUSTER_ADDRESSES: &str = "cluster_ips";

/// The set of the ranges of all pods in the cluster: everything else is external.
pub(super) const PODS: &str = "pods";

/// All sets, with their types.
pub(super) const SETS: [(&str, &str); 3] = [
    (PODS, "ipv4_addr; flags interval"),
    (SELVES, "ipv4_addr . ipv4_addr . inet_proto . inet_service"),
    (CLUSTER_ADDRESSES, "ipv4_addr"),
];

/// All maps with the types of their keys.
pub(super) const MAPS: [(&str, &str); 5] = [
    (GUARDED, "ipv4_addr . inet_proto . inet_service"),
    (BY_ADDRESS.0, "ipv4_addr . inet_proto . inet_service"),
    (BY_NODE_PORT.0, "inet_proto . inet_service"),
    (BY_ADDRESS.1, "ipv4_addr . inet_proto . inet_service"),
    (BY_NODE_PORT.1, "inet_proto . inet_service"),
];

/// What the fixed part depends on.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host's address on the pods' network, where the name server listens.
    pub gateway: Ipv4Addr,
    /// The other addresses of the node at which its node ports are served.
    pub addresses: Vec<Ipv4Addr>,
    /// The range of service addresses, if known: packets to unused addresses in it are dropped.
    pub services: Option<String>,
}

/// A chain that every table has.
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Its hook, if it is a base chain.
    hook: Option<&'static str>,
    pub(super) rules: Vec<String>,
}

/// The chains that every table has.
pub(super) fn chains(site: &Site) -> Vec<Chain> {
    let chain = |name, hook, rules: &[String]| Chain {
        name,
        hook,
        rules: rules.to_vec(),
    };
    let Site {
        gateway,
        addresses,
        services,
    } = site;
    let by_address = |map| format!("ip daddr . meta l4proto . th dport vmap @{map}");
    // Like kube-proxy's, node ports are not served on the loopback.
    let addresses = addresses.iter().filter(|address| !address.is_loopback());
    let addresses: BTreeSet<_> = addresses.chain([gateway]).collect();
    let addresses = addresses.iter().map(ToString::to_string);
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    let by_port = |map| format!("ip daddr {{ {addresses} }} meta l4proto . th dport vmap @{map}");
    // A service must not become the name server of all pods.
    let names = format!("ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 return");
    let refused = [
        names.clone(),
        by_address(BY_ADDRESS.1),
        by_port(BY_NODE_PORT.1),
        format!("ip daddr @{CLUSTER_ADDRESSES} reject"),
    ];
    let dispatch = ["jump dispatch".to_owned()];
    let refuse = ["ct state new jump refuse".to_owned()];
    let mut passing = refuse.to_vec();
    // Otherwise it would leave by the default route, to any host that has the address.
    passing.extend(
        services
            .as_ref()
            .map(|range| format!("ct state new ip daddr {range} ip daddr != @{PODS} drop")),
    );
    let guard = [format!("ct state new {}", by_address(GUARDED))];
    vec![
        chain(
            "dispatch",
            None,
            &[
                names,
                // Clients that route to services through this node must get replies through it, whichever the endpoint.
                format!(
                    "ip daddr @{CLUSTER_ADDRESSES} ip saddr != @{PODS} meta mark set meta mark | {MASQUERADE}"
                ),
                by_address(BY_ADDRESS.0),
                by_port(BY_NODE_PORT.0),
            ],
        ),
        chain("refuse", None, &refused),
        chain("rejecting", None, &["reject".to_owned()]),
        chain("dropping", None, &["drop".to_owned()]),
        // Before address translation: source ranges also apply to closed ports.
        chain(
            "guard_prerouting",
            Some("filter hook prerouting priority -110"),
            &guard,
        ),
        chain(
            "guard_output",
            Some("filter hook output priority -110"),
            &guard,
        ),
        chain(
            "prerouting",
            Some("nat hook prerouting priority -99"),
            &dispatch,
        ),
        chain("output", Some("nat hook output priority -99"), &dispatch),
        chain(
            "postrouting",
            Some("nat hook postrouting priority 99"),
            &[
                // A remaining mark would apply again if the packet continues in a tunnel.
                format!(
                    "meta mark & {MASQUERADE} == {MASQUERADE} meta mark set meta mark ^ {MASQUERADE} masquerade fully-random"
                ),
                // Only translated traffic: an endpoint's direct traffic to itself is not affected.
                format!(
                    "ct status dnat ip saddr . ip daddr . meta l4proto . th dport @{SELVES} masquerade fully-random"
                ),
            ],
        ),
        chain(
            "filter_forward",
            Some("filter hook forward priority -1"),
            &passing,
        ),
        chain(
            "filter_input",
            Some("filter hook input priority -1"),
            &refuse,
        ),
        chain(
            "filter_output",
            Some("filter hook output priority -1"),
            &refuse,
        ),
    ]
}

/// The nft(8) commands for a table with this fixed part that leads nowhere. A table that is `kept` keeps its sets and
/// its chains, which become empty; otherwise it is created anew.
pub(super) fn script(name: &str, kept: bool, site: &Site) -> String {
    let mut script = match kept {
        true => format!("flush table ip {name}\n"),
        false => format!(
            "add table ip {name}\ndelete table ip {name}\nadd table ip {name} {{ comment \"{ALIAS}\"; }}\n"
        ),
    };
    for (map, key) in MAPS {
        let _ = writeln!(
            script,
            "add map ip {name} {map} {{ type {key} : verdict; }}\nflush map ip {name} {map}"
        );
    }
    for (set, element) in SETS {
        let _ = writeln!(
            script,
            "add set ip {name} {set} {{ type {element}; }}\nflush set ip {name} {set}"
        );
    }
    let chains = chains(site);
    for Chain {
        name: chain, hook, ..
    } in &chains
    {
        let hook = hook.map_or(String::new(), |hook| format!(" {{ type {hook}; }}"));
        let _ = writeln!(script, "add chain ip {name} {chain}{hook}");
    }
    for Chain {
        name: chain, rules, ..
    } in &chains
    {
        for rule in rules {
            let _ = writeln!(script, "add rule ip {name} {chain} {rule}");
        }
    }
    script
}
