//! Kernel routes of this host to the pods of other nodes.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::netlink::Routing;
use super::{Network, ServiceTable};
use crate::blocking::blocking;
use crate::meta::addresses::Network as Range;
use crate::net::routes::{Lack, Mark, NodeRouter, Peer, Why, lack, plan};

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
}

/// Adds and removes routes until exactly those to the peers exist.
fn lead(peers: &[Peer], mark: Mark) -> Result<Vec<Lack>, String> {
    let failed = |error| format!("the kernel's routes cannot be read: {error}");
    let kernel = Routing::open().map_err(failed)?;
    let plan = plan(peers, &kernel.routes().map_err(failed)?, mark);
    let mut lacks = plan.lacks;
    for route in &plan.remove {
        kernel
            .remove(route)
            .map_err(|error| format!("the route to {} cannot be removed: {error}", route.range))?;
        tracing::info!(range = %route.range, "removed the route to a node that is gone");
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

    #[test]
    fn agents_of_one_host_know_their_own_routes() {
        let metrics = ["reddwarf0", "reddwarf1", "br0"].map(|bridge| mark(bridge).metric);
        assert_eq!(metrics[0], mark("reddwarf0").metric);
        assert_ne!(metrics[0], metrics[1]);
        assert_ne!(metrics[0], metrics[2]);
        assert!(metrics.iter().all(|metric| metric >> 16 == METRIC >> 16));
    }
}
