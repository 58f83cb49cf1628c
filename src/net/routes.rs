//! Routes of this host to the pods of other nodes, one per pod range via the node's address, like flannel's `host-gw`
//! backend. A pure function, [`plan`], decides which to add and remove; a [`NodeRouter`] applies that. Independent of
//! Kubernetes types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::meta::addresses::Network;

/// Another node, the next hop to its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its address on the nodes' network.
    pub address: Ipv4Addr,
    /// The range of its pods.
    pub range: Network,
}

/// The destination of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To this host itself.
    Here,
    /// A directly connected link, by its index.
    Link(u32),
    /// A router on a link.
    Router(Ipv4Addr, u32),
    /// Routers in another form: several, or one with an IPv6 address.
    Routers,
    /// Nowhere: packets are rejected or dropped.
    Nowhere,
}

/// A route of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination range.
    pub range: Network,
    /// The next hop.
    pub via: Via,
    /// Of several routes to one range the one with the lowest metric is used.
    pub metric: u32,
    /// The program that added it: the kernel's `rtm_protocol`.
    pub maker: u8,
}

/// How an agent recognizes its own routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The `rtm_protocol` of this program.
    pub maker: u8,
    /// The metric used by this agent alone on this host.
    pub metric: u32,
}

/// Why the pods of a node cannot be reached, at least some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The node.
    pub node: String,
    /// The range of its pods.
    pub range: String,
    /// The reason.
    pub why: Why,
}

/// A reason why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The node's address is behind a router, which may not know the range.
    NotOnLink(Ipv4Addr),
    /// The node's address cannot be reached from other hosts.
    NoAddress(String),
    /// A foreign route covers the range or a part of it.
    Taken(Network),
    /// The range overlaps the pods of another node, which was known first.
    Overlaps(String),
    /// The range contains the address of a node.
    HasNode(Ipv4Addr),
    /// The range is not within the range of all pods.
    Outside(Network),
    /// The kernel rejected the route.
    Refused(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lack { node, range, why } = self;
        write!(f, "no route to the pods of node {node} ({range}): ")?;
        match why {
            Why::NotOnLink(address) => write!(
                f,
                "its address {address} is not on a network of this host; give it another with --node-ip, or lead the range there by a route or router of your own"
            ),
            Why::NoAddress(address) => write!(
                f,
                "its address {address} leads to no other host; start its agent with --node-ip"
            ),
            Why::Taken(taken) => write!(
                f,
                "this host leads {taken} elsewhere; remove that route, or give the node another --pod-cidr"
            ),
            Why::Overlaps(other) => write!(
                f,
                "pods of node {other} have addresses of it; start its agent with another --pod-cidr"
            ),
            Why::HasNode(address) => write!(
                f,
                "a node has the address {address} of it; start its agent with another --pod-cidr"
            ),
            Why::Outside(cluster) => {
                write!(f, "it is not within --cluster-cidr {cluster} of this node")
            }
            Why::Refused(error) => write!(f, "{error}"),
        }
    }
}

/// The changes needed to the routes of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Own routes that are no longer needed.
    pub remove: Vec<Route>,
    /// Routes to add, each for a node; they replace own routes to the same range.
    pub make: Vec<(Peer, Route)>,
    /// Nodes without a route.
    pub lacks: Vec<Lack>,
}

/// Whether a range is within another, or equal.
pub fn is_within(range: &Network, other: &Network) -> bool {
    other.prefix <= range.prefix && other.contains(range.address)
}

/// Whether two ranges share an address: then one contains the other.
pub fn overlaps(one: &Network, other: &Network) -> bool {
    is_within(one, other) || is_within(other, one)
}

/// The same addresses as disjoint ranges, in order.
pub fn apart(ranges: impl IntoIterator<Item = Network>) -> Vec<Network> {
    let mut all: Vec<Network> = ranges.into_iter().collect();
    all.sort_by_key(|range| (range.address, range.prefix));
    let mut apart: Vec<Network> = Vec::new();
    for range in all {
        // A range that contains this one has the same start, or an earlier one.
        if apart.last().is_none_or(|last| !is_within(&range, last)) {
            apart.push(range);
        }
    }
    apart
}

/// The changes that a host with these routes needs to reach the pods of other nodes.
///
/// Foreign routes that already lead a range to its node are kept. No route is added if a foreign one leads the range
/// elsewhere, or if the node is not on a network of this host.
pub fn plan(peers: &[Peer], routes: &[Route], mark: Mark) -> Plan {
    let is_ours = |route: &&Route| route.maker == mark.maker && route.metric == mark.metric;
    // Routes of other agents of this host do not affect those of this one.
    let foreign: Vec<&Route> = routes
        .iter()
        .filter(|route| route.maker != mark.maker)
        .collect();
    let mut plan = Plan::default();
    let mut wanted: Vec<(&Peer, Route)> = Vec::new();
    for peer in peers {
        match way(peer, &foreign) {
            Ok(None) => {}
            Ok(Some(link)) => wanted.push((
                peer,
                Route {
                    range: peer.range,
                    via: Via::Router(peer.address, link),
                    metric: mark.metric,
                    maker: mark.maker,
                },
            )),
            Err(why) => plan.lacks.push(lack(peer, why)),
        }
        // It only covers some of the node's pods: add a route anyway.
        let inside =
            |route: &&&Route| route.range != peer.range && is_within(&route.range, &peer.range);
        if let Some(taken) = foreign.iter().find(inside)
            && wanted.last().is_some_and(|(last, _)| *last == peer)
        {
            plan.lacks.push(lack(peer, Why::Taken(taken.range)));
        }
    }
    let ours: Vec<&Route> = routes.iter().filter(is_ours).collect();
    let is_wanted = |range: &Network| wanted.iter().any(|(_, route)| route.range == *range);
    plan.remove = ours
        .iter()
        .filter(|route| !is_wanted(&route.range))
        .map(|route| **route)
        .collect();
    plan.make = wanted
        .into_iter()
        .filter(|(_, route)| !ours.contains(&route))
        .map(|(peer, route)| (peer.clone(), route))
        .collect();
    plan
}

/// The error for a node whose pods are not reachable.
pub fn lack(peer: &Peer, why: Why) -> Lack {
    Lack {
        node: peer.node.clone(),
        range: peer.range.to_string(),
        why,
    }
}

/// The link for a route to a node's pods; `None` if no route is needed.
fn way(peer: &Peer, foreign: &[&Route]) -> Result<Option<u32>, Why> {
    // Of several routes to one range the kernel uses the one with the lowest metric.
    let best = |routes: &mut dyn Iterator<Item = &&Route>| -> Option<Via> {
        let best = routes.min_by_key(|route| (u8::MAX - route.range.prefix, route.metric));
        best.map(|route| route.via)
    };
    let address = IpAddr::from(peer.address);
    let to_node = best(&mut foreign.iter().filter(|route| route.range.contains(address)));
    let to_pods = best(&mut foreign.iter().filter(|route| route.range == peer.range));
    match (to_node, to_pods) {
        // Another agent of this host, whose bridge has that range.
        (Some(Via::Here), _) => Ok(None),
        (_, Some(Via::Router(..) | Via::Routers)) => Ok(None),
        (_, Some(_)) => Err(Why::Taken(peer.range)),
        (Some(Via::Link(link)), None) => Ok(Some(link)),
        (_, None) => {
            // A route for the ranges of many nodes, but not a default route.
            let wider = foreign
                .iter()
                .filter(|route| route.range.prefix > 0 && is_within(&peer.range, &route.range));
            match best(&mut { wider }) {
                Some(Via::Router(..) | Via::Routers) => Ok(None),
                _ => Err(Why::NotOnLink(peer.address)),
            }
        }
    }
}

/// Applies routes to the pods of other nodes on a host.
pub trait NodeRouter: Send + Sync + 'static {
    /// Replaces the set of reachable nodes by `peers`; `pods` are the ranges of all pods of the cluster, to which
    /// packets of pods are sent without NAT. Returns the nodes that cannot be reached. Does not touch routes that are
    /// right already.
    ///
    /// # Errors
    /// Why no change is possible; the earlier routes stay.
    fn reach(
        &self,
        peers: Arc<[Peer]>,
        pods: Arc<[Network]>,
    ) -> BoxFuture<'_, Result<Vec<Lack>, String>>;

    /// Removes all routes of this agent.
    ///
    /// # Errors
    /// Why some may be left.
    fn leave(&self) -> BoxFuture<'_, Result<(), String>>;
}

#[cfg(test)]
mod tests;
