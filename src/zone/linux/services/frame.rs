//! What every table of services has: where packets come in, and the maps by which they are led on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::super::network::ALIAS;

/// The mark of connections that are to come back through this node, as kube-proxy's.
pub(super) const MASQUERADE: &str = "0x4000";
/// The maps of what is led and what is refused, by address and port.
pub(super) const BY_ADDRESS: (&str, &str) = ("services", "closed");
/// The maps of what is led and what is refused, by port of the node.
pub(super) const BY_NODE_PORT: (&str, &str) = ("nodeports", "closed_nodeports");
/// The map of addresses that only some may ask.
pub(super) const GUARDED: &str = "guarded";
/// The set of endpoints of this node, each with itself: one that comes back to itself is to be answered by this node.
pub(super) const SELVES: &str = "selves";

/// The set of cluster addresses: what comes to one of them and was not led on has no business there.
pub(super) const CLUSTER_ADDRESSES: &str = "cluster_ips";

/// The set of the ranges of all of the cluster's pods: who is not of them comes from the world.
pub(super) const PODS: &str = "pods";

/// All sets, with what nft(8) is told of their elements.
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

/// What the frame knows of its node.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host's address on the network of its pods, where it answers for names.
    pub gateway: Ipv4Addr,
    /// The addresses of the node at which its ports are asked, besides that one.
    pub addresses: Vec<Ipv4Addr>,
    /// The range of services' addresses, if it is known: what goes to one that no service has stays here.
    pub services: Option<String>,
}

/// A chain that every table has.
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Where packets come into it, if it is not others that lead there.
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
    // Ports of the node are not those of its loopback, as with kube-proxy.
    let addresses = addresses.iter().filter(|address| !address.is_loopback());
    let addresses: BTreeSet<_> = addresses.chain([gateway]).collect();
    let addresses = addresses.iter().map(ToString::to_string);
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    let by_port = |map| format!("ip daddr {{ {addresses} }} meta l4proto . th dport vmap @{map}");
    // No service becomes the name server of all pods.
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
    // Else it would go out by the default route, to whoever is there.
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
                // Who has a route to services by this node hears the answers of all endpoints by it.
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
        // Before addresses are translated: also what leads nowhere is for some only.
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
                // A mark that stayed would count again where the packet goes on in a tunnel.
                format!(
                    "meta mark & {MASQUERADE} == {MASQUERADE} meta mark set meta mark ^ {MASQUERADE} masquerade fully-random"
                ),
                // Only what was led: an endpoint's own traffic to itself is its own business.
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

/// What nft(8) is told for a table that has this and leads nowhere. A table that is `kept` keeps its sets, and its
/// chains, of which all are empty then; else there is none before.
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
