//! Services as the network of a node knows them: which address and port leads where. Knows no Kubernetes types.

use std::net::{Ipv4Addr, SocketAddrV4};
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

/// Where the traffic to a service goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// The endpoints to choose from.
    pub endpoints: Vec<SocketAddrV4>,
    /// Only endpoints of this node are among them. Without any, traffic is dropped where others have some.
    pub is_local: bool,
    /// There are endpoints on other nodes, which `is_local` leaves out.
    pub has_others: bool,
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
    /// Where traffic from within the cluster goes.
    pub inside: Backends,
    /// Where traffic from the world goes.
    pub outside: Backends,
    /// Every endpoint that serves, also those that take no new clients from here: who was led to one stays there.
    pub serving: Vec<SocketAddrV4>,
    /// For how long a client stays with its endpoint; none where each connection is a new choice.
    pub affinity: Option<Duration>,
}

/// Who makes a node's network lead traffic to the endpoints of services.
pub trait ServiceRouter: Send + Sync + 'static {
    /// Makes `ports` all that there is, at once. What is the same already is left alone, and so are connections. Where
    /// nothing is to change, it looks whether all is there yet, and makes it whole.
    ///
    /// # Errors
    /// What stands in the way; what was there before stays, or is made whole by the next call.
    fn route<'a>(&'a self, ports: &'a [ServicePort]) -> BoxFuture<'a, Result<(), String>>;
}

#[cfg(test)]
impl Backends {
    /// Endpoints by their text, for tests.
    pub(crate) fn at(endpoints: &[&str]) -> Backends {
        let endpoints = endpoints.iter();
        Backends {
            endpoints: endpoints.map(|at| at.parse().expect("a place")).collect(),
            ..Backends::default()
        }
    }
}

#[cfg(test)]
impl ServicePort {
    /// Port 80 of the service `default/web` with one address in the cluster, for tests.
    pub(crate) fn web(address: [u8; 4], endpoints: &[&str]) -> ServicePort {
        ServicePort {
            name: "default/web/tcp/-".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            cluster_ips: vec![address.into()],
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port: None,
            inside: Backends::at(endpoints),
            outside: Backends::at(endpoints),
            serving: Vec::new(),
            affinity: None,
        }
    }
}
