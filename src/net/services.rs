//! Services as the node's network sees them: addresses, ports and endpoints. Independent of Kubernetes types.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// The protocol of an API object (`TCP`); `None` if unknown.
    pub fn of(name: &str) -> Option<Protocol> {
        match name {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Its name in the host's tools.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Which endpoints receive traffic: `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Those on all nodes.
    #[default]
    Cluster,
    /// Those of this node. If only other nodes have endpoints, traffic is dropped, so that clients try those.
    Local,
}

/// One port of a Service, with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its unique name: `default/web/tcp/http`.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The Service port.
    pub port: u16,
    /// Its cluster IPs.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Its external IPs.
    pub external_ips: Vec<Ipv4Addr>,
    /// Its load balancer IPs, for load balancers that keep the destination address.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// `loadBalancerSourceRanges`, as IPv4 prefixes; empty allows everyone.
    pub source_ranges: Vec<String>,
    /// Its node port.
    pub node_port: Option<u16>,
    /// The ready endpoints of all nodes that are used from here; empty if there are none.
    pub cluster: Vec<SocketAddrV4>,
    /// The ready endpoints of this node.
    pub local: Vec<SocketAddrV4>,
    /// The policy for traffic to cluster IPs.
    pub inside: Policy,
    /// The policy for external traffic.
    pub outside: Policy,
    /// Every serving endpoint, even if not used for new clients from here: existing affinities are kept.
    pub serving: Vec<SocketAddrV4>,
    /// How long a client keeps its endpoint; `None` without session affinity.
    pub affinity: Option<Duration>,
}

impl ServicePort {
    /// The endpoints that receive traffic under a policy.
    pub fn endpoints(&self, policy: Policy) -> &[SocketAddrV4] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// Whether it can be reached from outside, by an address or a node port.
    pub fn is_outside(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.balancer_ips.is_empty()
    }
}

/// Applies services to a node's network.
pub trait ServiceRouter: Send + Sync + 'static {
    /// From the next [`ServiceRouter::route`] on, node ports are served at these addresses of the node.
    fn serve_at(&self, addresses: Vec<Ipv4Addr>);

    /// Replaces all ports by `ports`, at once. Does not touch unchanged ones, nor connections. If nothing changed,
    /// checks that all rules still exist, and restores them. Returns when it must be called again at the latest, if
    /// some work cannot be done yet.
    ///
    /// # Errors
    /// Why it failed; the earlier state stays, or is restored by the next call.
    fn route(&self, ports: Arc<[ServicePort]>) -> BoxFuture<'_, Result<Option<Duration>, String>>;
}

/// Endpoints from text, for tests.
#[cfg(test)]
pub(crate) fn endpoints_of(texts: &[&str]) -> Vec<SocketAddrV4> {
    let texts = texts.iter();
    texts.map(|at| at.parse().expect("a place")).collect()
}

#[cfg(test)]
impl ServicePort {
    /// Port 80 of the service `default/web` with one cluster address, for tests.
    pub(crate) fn web(address: [u8; 4], endpoints: &[&str]) -> ServicePort {
        let endpoints = endpoints_of(endpoints);
        ServicePort {
            name: "default/web/tcp/-".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            cluster_ips: vec![address.into()],
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port: None,
            cluster: endpoints.clone(),
            local: endpoints,
            inside: Policy::Cluster,
            outside: Policy::Cluster,
            serving: Vec::new(),
            affinity: None,
        }
    }
}
