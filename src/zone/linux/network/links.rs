//! Links of a network namespace: whether they exist, whose they are, and which addresses are local.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::ALIAS;

/// The names of the links of this network namespace. `/sys` may belong to another one.
pub(in super::super) fn links() -> std::io::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    // Two lines of headings have no colon.
    let names = text.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Whether this network namespace has a link.
pub(super) fn exists(link: &str) -> bool {
    links().is_ok_and(|links| links.contains(link))
}

/// Turns IPv6 off on a link of this network namespace: zones have no IPv6 addresses, and a zone that speaks it could
/// announce itself as a router. On a kernel without IPv6 there is nothing to do.
pub(super) fn no_ipv6(link: &str) -> Result<(), String> {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{path}: {error}"))
        }
        _ => Ok(()),
    }
}

/// The addresses of this network namespace.
pub(super) fn local_addresses() -> BTreeSet<Ipv4Addr> {
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
pub(super) fn is_our_link(shown: &str) -> bool {
    let mut words = shown.split_whitespace();
    words.any(|word| word == "alias") && words.next() == Some(ALIAS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_read_from_the_routing_trie() {
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
    fn links_that_are_not_ours_are_told_apart() {
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
    }
}
