//! Kernel routes of this host to the pods of other nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::netlink::Routing;
use super::network::links::links;
use super::{Network, ServiceTable};
use crate::blocking::blocking;
use crate::meta::addresses::Network as Range;
use crate::net::routes::{Lack, Mark, NodeRouter, Peer, Route, Why, lack, plan};

/// The routing protocol number that identifies our routes (`rtm_protocol`; `proto 114` in ip(8)): nobody else uses it,
/// according to /etc/iproute2/rt_protos.
const MAKER: u8 = 114;
/// The upper bits of our routes' metrics. They are larger than the usual ones, so that somebody else's route to the
/// same range takes precedence.
const METRIC: u32 = 0x7264_0000;

/// Reaches the pods of other nodes by routes, and by rules that keep the source address of traffic to them.
pub struct HostRoutes {
    network: Network,
    services: ServiceTable,
}

impl HostRoutes {
    /// Routes for the pods of a network, and for its table of services.
    pub fn new(network: Network, services: ServiceTable) -> Self {
        HostRoutes { network, services }
    }
}

/// The mark of the routes of the agent with this bridge: each agent on a host has its own bridge.
fn mark(bridge: &str) -> Mark {
    // FNV-1a: the same in every version of this program.
    let hash = bridge.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Mark {
        maker: MAKER,
        metric: METRIC | (hash >> 16) ^ (hash & 0xffff),
    }
}

impl NodeRouter for HostRoutes {
    fn reach(
        &self,
        peers: Arc<[Peer]>,
        pods: Arc<[Range]>,
    ) -> BoxFuture<'_, Result<Vec<Lack>, String>> {
        let (network, services) = (self.network.clone(), self.services.clone());
        blocking(move || {
            // Before traffic to them could arrive with this host's address.
            network.admit(&pods)?;
            services.admit(&pods)?;
            lead(&peers, mark(&network.bridge))
        })
        .boxed()
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), String>> {
        let mark = mark(&self.network.bridge);
        blocking(move || lead(&[], mark).map(drop)).boxed()
    }
}

/// The routes of agents whose bridge is not among `links`: these agents are gone, and their pods with them.
fn stale<'r>(routes: &'r [Route], links: &'r BTreeSet<String>) -> impl Iterator<Item = &'r Route> {
    let is_ours = |route: &&Route| route.maker == MAKER && route.metric & !0xffff == METRIC;
    let is_used = |route: &&Route| links.iter().any(|link| mark(link).metric == route.metric);
    routes
        .iter()
        .filter(is_ours)
        .filter(move |route| !is_used(route))
}

/// Adds and removes routes until exactly those to the peers exist, and those of other agents that are still here.
fn lead(peers: &[Peer], mark: Mark) -> Result<Vec<Lack>, String> {
    let failed = |error| format!("the kernel's routes cannot be read: {error}");
    let kernel = Routing::open().map_err(failed)?;
    let routes = kernel.routes().map_err(failed)?;
    let plan = plan(peers, &routes, mark);
    let mut lacks = plan.lacks;
    let remove = |route: &Route| {
        kernel
            .remove(route)
            .map_err(|error| format!("the route to {} cannot be removed: {error}", route.range))
    };
    for route in &plan.remove {
        remove(route)?;
        tracing::info!(range = %route.range, "removed the route to a node that is gone");
    }
    // Where links cannot be read, nobody counts as gone.
    let links =
        links().map_err(|error| format!("the links of this host cannot be read: {error}"))?;
    for route in stale(&routes, &links).filter(|route| route.metric != mark.metric) {
        remove(route)?;
        tracing::info!(range = %route.range, "removed a route of an agent that is gone");
    }
    for (peer, route) in &plan.make {
        match kernel.make(route) {
            Ok(()) => {
                tracing::info!(node = peer.node, range = %peer.range, address = %peer.address, "added a route to the pods of a node");
            }
            Err(error) => lacks.push(lack(peer, Why::Refused(error.to_string()))),
        }
    }
    Ok(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::routes::Via;

    #[test]
    fn agents_of_one_host_know_their_own_routes() {
        let metrics = ["reddwarf0", "reddwarf1", "br0"].map(|bridge| mark(bridge).metric);
        assert_eq!(metrics[0], mark("reddwarf0").metric);
        assert_ne!(metrics[0], metrics[1]);
        assert_ne!(metrics[0], metrics[2]);
        assert!(metrics.iter().all(|metric| metric >> 16 == METRIC >> 16));
    }

    #[test]
    fn routes_of_agents_without_a_bridge_are_stale() {
        let of = |maker: u8, metric: u32| Route {
            range: Range {
                address: [10, 244, 1, 0].into(),
                prefix: 24,
            },
            via: Via::Router([192, 0, 2, 2].into(), 2),
            metric,
            maker,
        };
        let links = ["lo", "eth0", "reddwarf0"].map(str::to_owned).into();
        for (what, route, expected) in [
            ("this agent's", of(MAKER, mark("reddwarf0").metric), false),
            (
                "that of one that is gone",
                of(MAKER, mark("reddwarf1").metric),
                true,
            ),
            ("somebody else's", of(4, mark("reddwarf1").metric), false),
            ("one with a usual metric", of(MAKER, 100), false),
        ] {
            let routes = [route];
            assert_eq!(stale(&routes, &links).count() == 1, expected, "{what}");
        }
    }
}
