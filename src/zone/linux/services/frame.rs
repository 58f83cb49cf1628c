//! What every table of services has: where packets come in, and the maps by which they are led on.

use std::fmt::Write as _;

use super::super::network::ALIAS;

/// The mark of connections that are to come back through this node, as kube-proxy's.
pub(super) const MASQUERADE: &str = "0x4000";
/// The maps of what is led and what is refused, by address and port.
pub(super) const BY_ADDRESS: (&str, &str) = ("services", "closed");
/// The maps of what is led and what is refused, by port of the node.
pub(super) const BY_NODE_PORT: (&str, &str) = ("nodeports", "closed_nodeports");
/// The set of endpoints, each with itself: one that comes back to itself is to be answered by this node.
pub(super) const SELVES: &str = "selves";

/// The set of cluster addresses: what comes to one of them and was not led on has no business there.
pub(super) const CLUSTER_ADDRESSES: &str = "cluster_ips";

/// All sets with the types of their elements.
pub(super) const SETS: [(&str, &str); 2] = [
    (SELVES, "ipv4_addr . ipv4_addr"),
    (CLUSTER_ADDRESSES, "ipv4_addr"),
];

/// All maps with the types of their keys.
pub(super) const MAPS: [(&str, &str); 4] = [
    (BY_ADDRESS.0, "ipv4_addr . inet_proto . inet_service"),
    (BY_NODE_PORT.0, "inet_proto . inet_service"),
    (BY_ADDRESS.1, "ipv4_addr . inet_proto . inet_service"),
    (BY_NODE_PORT.1, "inet_proto . inet_service"),
];

/// A chain that every table has.
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Where packets come into it, if it is not others that lead there.
    hook: Option<&'static str>,
    pub(super) rules: Vec<String>,
}

/// The chains that every table has.
pub(super) fn chains() -> Vec<Chain> {
    let chain = |name, hook, rules: &[String]| Chain {
        name,
        hook,
        rules: rules.to_vec(),
    };
    let service = |map| format!("ip daddr . meta l4proto . th dport vmap @{map}");
    // Ports of the node are not those of its loopback, as with kube-proxy.
    let port = |map| {
        format!("fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @{map}")
    };
    let dispatch = ["jump dispatch".to_owned()];
    let refuse = ["ct state new jump refuse".to_owned()];
    vec![
        chain(
            "dispatch",
            None,
            &[service(BY_ADDRESS.0), port(BY_NODE_PORT.0)],
        ),
        chain(
            "refuse",
            None,
            &[
                service(BY_ADDRESS.1),
                port(BY_NODE_PORT.1),
                format!("ip daddr @{CLUSTER_ADDRESSES} reject"),
            ],
        ),
        chain("rejecting", None, &["reject".to_owned()]),
        chain("dropping", None, &["drop".to_owned()]),
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
                format!("meta mark & {MASQUERADE} == {MASQUERADE} masquerade"),
                format!("ip saddr . ip daddr @{SELVES} masquerade"),
            ],
        ),
        chain(
            "filter_forward",
            Some("filter hook forward priority -1"),
            &refuse,
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

/// Whether a table as nft(8) shows it is one of these.
pub(super) fn is_ours(shown: &str) -> bool {
    let own = format!("comment \"{ALIAS}\"");
    shown.lines().any(|line| line.trim() == own)
}

/// What nft(8) is told for a table that has this and leads nowhere. A table that is `kept` keeps its sets, and its
/// chains, of which all are empty then; else there is none before.
pub(super) fn script(name: &str, kept: bool) -> String {
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
    let chains = chains();
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
