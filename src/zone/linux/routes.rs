//! Routes of this host to the pods of other nodes, by the kernel.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::netlink::Routing;
use super::{Network, ServiceTable};
use crate::blocking::blocking;
use crate::meta::addresses::Network as Range;
use crate::net::routes::{Lack, Mark, NodeRouter, Peer, Why, lack, plan};

/// The number by which the kernel knows who made a route (`rtm_protocol`; `proto 114` to ip(8)): one that nobody else has,
/// as /etc/iproute2/rt_protos tells.
const MAKER: u8 = 114;
/// What the metrics of our routes begin with. They are larger than those that others use: where somebody else leads the
/// same range, his route counts.
const METRIC: u32 = 0x7264_0000;

/// How a host reaches the pods of other nodes: routes, and rules that let what goes to them keep its address.
pub struct HostRoutes {
    network: Network,
    services: ServiceTable,
}

impl HostRoutes {
    /// For the pods of a network, and what leads services to them.
    pub fn new(network: Network, services: ServiceTable) -> Self {
        HostRoutes { network, services }
    }
}

/// By what the routes of the agent with a bridge are known: agents of one host have bridges of their own.
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
            // Before what is sent there arrives with the address of this host.
            network.admit(&pods)?;
            services.admit(&pods)?;
            lead(&peers, mark(&network.bridge))
        })
        .boxed()
    }
}

/// Makes and removes routes until those to the peers are there.
fn lead(peers: &[Peer], mark: Mark) -> Result<Vec<Lack>, String> {
    let failed = |error| format!("the kernel's routes cannot be read: {error}");
    let kernel = Routing::open().map_err(failed)?;
    let plan = plan(peers, &kernel.routes().map_err(failed)?, mark);
    let mut lacks = plan.lacks;
    for route in &plan.remove {
        kernel
            .remove(route)
            .map_err(|error| format!("the route to {} cannot be removed: {error}", route.range))?;
        tracing::info!(range = %route.range, "the route to a node that is gone was removed");
    }
    for (peer, route) in &plan.make {
        match kernel.make(route) {
            Ok(()) => {
                tracing::info!(node = peer.node, range = %peer.range, address = %peer.address, "pods of a node are reached by a route");
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
