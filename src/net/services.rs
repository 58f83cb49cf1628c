//! Services as the network of a node knows them: which address and port leads where. Knows no Kubernetes types.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// What runs over IP.
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
    /// The protocol that an object names (`TCP`); none for one that is not known.
    pub fn of(name: &str) -> Option<Protocol> {
        match name {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Its name as tools of a host spell it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Which endpoints take some traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of this node. Where others have some and this one has none, traffic is dropped: who asks is to try there.
    Local,
}

/// One port of a service, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What it is called, unique among all: `default/web/tcp/http`.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port of the service's addresses.
    pub port: u16,
    /// Its addresses in the cluster.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Addresses by which the world comes.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses of load balancers that send traffic on as it came.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// Who may come by the addresses of load balancers, as prefixes of IPv4; everybody where it is empty.
    pub source_ranges: Vec<String>,
    /// The port of every node that leads here.
    pub node_port: Option<u16>,
    /// The endpoints that take traffic from here, of all nodes; none where the cluster has none.
    pub cluster: Vec<SocketAddrV4>,
    /// The endpoints of this node that take traffic.
    pub local: Vec<SocketAddrV4>,
    /// Where traffic to the addresses in the cluster goes.
    pub inside: Policy,
    /// Where the world's traffic goes.
    pub outside: Policy,
    /// Every endpoint that serves, also those that take no new clients from here: who was led to one stays there.
    pub serving: Vec<SocketAddrV4>,
    /// For how long a client stays with its endpoint; none where each connection is a new choice.
    pub affinity: Option<Duration>,
}

impl ServicePort {
    /// The endpoints that take traffic under a policy.
    pub fn endpoints(&self, policy: Policy) -> &[SocketAddrV4] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// Whether the world comes to it, by an address or a port of the node.
    pub fn is_outside(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.balancer_ips.is_empty()
    }
}

/// Who makes a node's network lead traffic to the endpoints of services.
pub trait ServiceRouter: Send + Sync + 'static {
    /// Makes `ports` all that there is, at once. What is the same already is left alone, and so are connections. Where
    /// nothing is to change, it looks whether all is there yet, and makes it whole. Tells how soon it is to be called again
    /// at the latest, where something is left to be done that cannot be done yet.
    ///
    /// # Errors
    /// What stands in the way; what was there before stays, or is made whole by the next call.
    fn route(&self, ports: Arc<[ServicePort]>) -> BoxFuture<'_, Result<Option<Duration>, String>>;
}

/// Endpoints by their text, for tests.
#[cfg(test)]
pub(crate) fn endpoints_of(texts: &[&str]) -> Vec<SocketAddrV4> {
    let texts = texts.iter();
    texts.map(|at| at.parse().expect("a place")).collect()
}

#[cfg(test)]
impl ServicePort {
    /// Port 80 of the service `default/web` with one address in the cluster, for tests.
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
