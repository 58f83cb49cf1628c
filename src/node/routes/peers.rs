//! Which nodes get routes: a pure function of the node objects. They are not trusted blindly: a node that claims the
//! pod addresses of others would receive their traffic.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kube::ResourceExt as _;

use super::Here;
use crate::meta::addresses::Network;
use crate::net::routes::{Lack, Peer, Why, apart, is_within, overlaps};
use crate::node::ranges::Ranged;

/// The cluster from the view of a node's network.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// The nodes that get routes.
    pub(super) peers: Vec<Peer>,
    /// The ranges of all pods, without those contained in another.
    pub(super) pods: Vec<Network>,
    /// The nodes whose claims are rejected.
    pub(super) lacks: Vec<Lack>,
    /// The nodes that came after this one.
    pub(super) later: Vec<String>,
    /// This node's own uid, once it is registered.
    pub(super) uid: Option<String>,
}

/// Computes the cluster from its nodes, for the node `here`. If two nodes have the same addresses, the older one keeps
/// them; this node's own addresses belong to nobody else.
pub(super) fn cluster(nodes: &[Arc<Ranged>], here: &Here) -> Cluster {
    let mut nodes: Vec<&Arc<Ranged>> = nodes.iter().collect();
    nodes.sort_by_cached_key(|node| (node.creation_timestamp(), node.name_any()));
    let own = nodes.iter().position(|node| node.name_any() == here.node);
    // The addresses of all nodes older than the current one.
    let mut hosts: Vec<Ipv4Addr> = here.addresses.clone();
    let mut found = Cluster {
        uid: own.and_then(|own| nodes[own].uid()),
        ..Cluster::default()
    };
    let mut taken: Vec<(String, Network)> = vec![(here.node.clone(), here.range)];
    for (position, node) in nodes.iter().enumerate() {
        let name = node.name_any();
        if name == here.node {
            continue;
        }
        hosts.extend(addresses(node));
        if own.is_some_and(|own| position > own) {
            found.later.push(name.clone());
        }
        for range in node.ranges() {
            match judge(node, range, &taken, &hosts, here.cluster) {
                Ok(address) => {
                    taken.push((name.clone(), range));
                    found.peers.extend(address.map(|address| Peer {
                        node: name.clone(),
                        address,
                        range,
                    }));
                }
                Err(why) => found.lacks.push(Lack {
                    node: name.clone(),
                    range: range.to_string(),
                    why,
                }),
            }
        }
    }
    found.pods = apart(
        taken
            .into_iter()
            .map(|(_, range)| range)
            .chain(here.cluster),
    );
    if !here.makes_routes {
        found.peers.clear();
        found.lacks.clear();
    }
    found
}

/// A node's IPv4 addresses.
fn addresses(node: &Ranged) -> impl Iterator<Item = Ipv4Addr> {
    node.internal().filter_map(|text| text.parse().ok())
}

/// The address of the node with a range; None if it has not published one yet.
fn judge(
    node: &Ranged,
    range: Network,
    taken: &[(String, Network)],
    hosts: &[Ipv4Addr],
    cluster: Option<Network>,
) -> Result<Option<Ipv4Addr>, Why> {
    if let Some(cluster) = cluster.filter(|cluster| !is_within(&range, cluster)) {
        return Err(Why::Outside(cluster));
    }
    if let Some((other, _)) = taken.iter().find(|(_, theirs)| overlaps(theirs, &range)) {
        return Err(Why::Overlaps(other.clone()));
    }
    let inside = |host: &&Ipv4Addr| range.contains(IpAddr::V4(**host));
    if let Some(host) = hosts.iter().find(inside) {
        return Err(Why::HasNode(*host));
    }
    let Some(first) = node.internal().next() else {
        return Ok(None);
    };
    let leads = |address: &Ipv4Addr| !address.is_loopback() && !address.is_unspecified();
    let address = addresses(node).find(leads);
    address
        .map(Some)
        .ok_or_else(|| Why::NoAddress(first.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::meta::addresses::parse_cidr;

    fn range(text: &str) -> Network {
        parse_cidr(text).expect("a range").1
    }

    /// A node created in this second of a minute.
    fn node(name: &str, second: u32, pods: &str, addresses: &[&str]) -> Arc<Ranged> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .chain([json!({"type": "Hostname", "address": name})])
            .collect();
        let spec = match pods {
            "" => json!({}),
            pods => json!({"podCIDR": pods, "podCIDRs": [pods, "fd00::/64"]}),
        };
        let metadata = json!({"name": name, "uid": format!("u-{name}"), "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        let node = json!({"metadata": metadata, "spec": spec, "status": {"addresses": addresses}});
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    fn here() -> Here {
        Here {
            node: "a".to_owned(),
            addresses: vec![[192, 0, 2, 1].into()],
            range: range("10.244.0.0/24"),
            cluster: None,
            makes_routes: true,
        }
    }

    fn a(second: u32) -> Arc<Ranged> {
        node("a", second, "10.244.0.0/24", &["192.0.2.1"])
    }

    #[test]
    fn nodes_are_believed_what_takes_nothing_from_others() {
        let b = |pods: &str, address: &str| node("b", 2, pods, &[address]);
        let fine = |pods: &str| Ok(Some(("192.0.2.2".to_owned(), pods.to_owned())));
        type Case = (
            &'static str,
            Vec<Arc<Ranged>>,
            Option<&'static str>,
            Result<Option<(String, String)>, Why>,
        );
        let cases: Vec<Case> = vec![
            (
                "one beside",
                vec![b("10.244.1.0/24", "192.0.2.2")],
                None,
                fine("10.244.1.0/24"),
            ),
            ("one without pods", vec![b("", "192.0.2.2")], None, Ok(None)),
            (
                "one that has not told where it is",
                vec![node("b", 2, "10.244.1.0/24", &[])],
                None,
                Ok(None),
            ),
            (
                "by its first address of version 4",
                vec![node(
                    "b",
                    2,
                    "10.244.1.0/24",
                    &["fd00::2", "192.0.2.2", "192.0.2.3"],
                )],
                None,
                fine("10.244.1.0/24"),
            ),
            (
                "one on its loopback",
                vec![b("10.244.1.0/24", "127.0.0.1")],
                None,
                Err(Why::NoAddress("127.0.0.1".into())),
            ),
            (
                "one with addresses of version 6 alone",
                vec![b("10.244.1.0/24", "fd00::2")],
                None,
                Err(Why::NoAddress("fd00::2".into())),
            ),
            (
                "one with this node's range",
                vec![b("10.244.0.0/25", "192.0.2.2")],
                None,
                Err(Why::Overlaps("a".into())),
            ),
            (
                "one with this node's address",
                vec![b("192.0.2.0/28", "192.0.2.2")],
                None,
                Err(Why::HasNode([192, 0, 2, 1].into())),
            ),
            (
                "one with everything",
                vec![b("0.0.0.0/0", "192.0.2.2")],
                None,
                Err(Why::Overlaps("a".into())),
            ),
            (
                "within the cluster's range",
                vec![b("10.244.1.0/24", "192.0.2.2")],
                Some("10.244.0.0/16"),
                fine("10.244.1.0/24"),
            ),
            (
                "outside of it",
                vec![b("10.245.1.0/24", "192.0.2.2")],
                Some("10.244.0.0/16"),
                Err(Why::Outside(range("10.244.0.0/16"))),
            ),
        ];
        for (what, mut nodes, whole, expected) in cases {
            nodes.push(a(1));
            let here = Here {
                cluster: whole.map(range),
                ..here()
            };
            let found = cluster(&nodes, &here);
            let told = match &found.lacks[..] {
                [lack] => Err(lack.why.clone()),
                _ => Ok(found
                    .peers
                    .first()
                    .map(|peer| (peer.address.to_string(), peer.range.to_string()))),
            };
            assert_eq!(told, expected, "{what}");
            assert_eq!(found.uid.as_deref(), Some("u-a"), "{what}");
        }
    }

    #[test]
    fn who_was_here_first_has_his_range() {
        let b = node("b", 5, "10.244.1.0/24", &["192.0.2.2"]);
        let c = node("c", 3, "10.244.1.0/25", &["192.0.2.3"]);
        let found = cluster(&[b, c, a(4)], &here());
        let peers: Vec<&str> = found.peers.iter().map(|peer| peer.node.as_str()).collect();
        assert_eq!(peers, ["c"]);
        assert_eq!(found.lacks[0].why, Why::Overlaps("c".into()));
        assert_eq!(found.later, ["b"]);
        let pods: Vec<String> = found.pods.iter().map(Network::to_string).collect();
        assert_eq!(pods, ["10.244.0.0/24", "10.244.1.0/25"]);
    }

    #[test]
    fn who_comes_later_takes_no_range_by_having_an_address_of_it() {
        let b = node("b", 2, "10.244.1.0/24", &["192.0.2.2"]);
        let c = node("c", 3, "10.244.2.0/24", &["10.244.1.7"]);
        let found = cluster(&[a(1), b, c], &here());
        let peers: Vec<&str> = found.peers.iter().map(|peer| peer.node.as_str()).collect();
        assert_eq!(peers, ["b", "c"]);
        let within = node("d", 4, "10.244.3.0/24", &["10.244.3.1"]);
        let found = cluster(&[a(1), within], &here());
        assert_eq!(found.lacks[0].why, Why::HasNode([10, 244, 3, 1].into()));
    }

    #[test]
    fn ranges_are_known_also_where_others_make_the_routes() {
        let b = node("b", 2, "10.244.1.0/24", &["127.0.0.1"]);
        let c = node("c", 3, "10.244.2.0/24", &["192.0.2.3"]);
        let here = Here {
            makes_routes: false,
            cluster: Some(range("10.244.0.0/17")),
            ..here()
        };
        let found = cluster(&[a(1), b, c], &here);
        assert_eq!(found.peers, []);
        assert_eq!(found.lacks, []);
        assert_eq!(found.pods, [range("10.244.0.0/17")]);
    }
}
