//! UDP flows in the kernel's connection tracking. Rules only apply to the first packet of a flow: a client that keeps
//! using one source port would reach a removed endpoint forever. Follows k8s.io/kubernetes/pkg/proxy/conntrack; the
//! messages are those of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::netlink::{NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, Netfilter, attribute, put};
use crate::net::services::{Protocol, ServicePort};

/// Messages of connection tracking: `NFNL_SUBSYS_CTNETLINK << 8`.
const CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_NEW: u16 = CTNETLINK;
const IPCTNL_MSG_CT_GET: u16 = CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;

type Places = BTreeSet<SocketAddrV4>;

/// The addresses of UDP services, and the endpoints that serve them, including those that get no new clients.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) struct Fronts {
    by_address: BTreeMap<SocketAddrV4, Places>,
    by_node_port: BTreeMap<u16, Places>,
}

/// A UDP flow.
#[derive(Debug, PartialEq)]
struct Flow {
    /// The destination of the client.
    to: SocketAddrV4,
    /// The source of the replies.
    from: SocketAddrV4,
    /// The attributes by which the kernel identifies it.
    handle: Vec<u8>,
}

impl Fronts {
    pub(super) fn of(ports: &[ServicePort]) -> Fronts {
        let mut fronts = Fronts::default();
        for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            let serving: Places = port.serving.iter().copied().collect();
            let addresses = port.cluster_ips.iter();
            let addresses = addresses
                .chain(&port.external_ips)
                .chain(&port.balancer_ips);
            for address in addresses {
                let at = SocketAddrV4::new(*address, port.port);
                // If two services have the same address and port, the first one gets it.
                fronts.by_address.entry(at).or_insert(serving.clone());
            }
            // The node port number may be in use on any other host: without endpoints no flow is judged by it.
            if let Some(node_port) = port.node_port.filter(|_| !serving.is_empty()) {
                fronts.by_node_port.entry(node_port).or_insert(serving);
            }
        }
        fronts
    }

    /// UDP host ports at the host's addresses, with the zone that serves each.
    pub(in super::super) fn of_host(
        ports: impl Iterator<Item = (SocketAddrV4, SocketAddrV4)>,
    ) -> Fronts {
        Fronts {
            by_address: ports.map(|(at, zone)| (at, Places::from([zone]))).collect(),
            ..Fronts::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.by_address.is_empty() && self.by_node_port.is_empty()
    }

    /// Whether the replies of a service's flow come from an address that does not serve it.
    fn is_stale(&self, flow: &Flow) -> bool {
        let by_address = self.by_address.get(&flow.to);
        let serving = by_address.or_else(|| self.by_node_port.get(&flow.to.port()));
        serving.is_some_and(|serving| !serving.contains(&flow.from))
    }
}

/// Deletes flows of services to addresses that do not serve them; returns their number.
///
/// # Errors
/// The kernel rejects a request.
pub(in super::super) fn forget_stale(fronts: &Fronts) -> io::Result<usize> {
    if fronts.is_empty() {
        return Ok(0);
    }
    let kernel = Netfilter::open()?;
    let mut flows = Vec::new();
    kernel.ask(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[], |kind, told| {
        if kind == IPCTNL_MSG_CT_NEW {
            flows.extend(flow(told).filter(|flow| fronts.is_stale(flow)));
        }
    })?;
    let mut ended = 0;
    for flow in &flows {
        match kernel.ask(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, &flow.handle, |_, _| {}) {
            Ok(()) => ended += 1,
            // It ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// The address and port of one direction of a UDP flow.
fn place(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    if attribute(protocol, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let address: [u8; 4] = attribute(attribute(tuple, CTA_TUPLE_IP)?, address)?
        .try_into()
        .ok()?;
    let port: [u8; 2] = attribute(protocol, port)?.try_into().ok()?;
    Some(SocketAddrV4::new(
        Ipv4Addr::from(address),
        u16::from_be_bytes(port),
    ))
}

/// Parses a flow; None if it is not UDP.
fn flow(attributes: &[u8]) -> Option<Flow> {
    let asked = attribute(attributes, CTA_TUPLE_ORIG)?;
    let answered = attribute(attributes, CTA_TUPLE_REPLY)?;
    let mut handle = Vec::new();
    put(&mut handle, CTA_TUPLE_ORIG | NLA_F_NESTED, asked);
    // Includes the id, so that a newer flow is not matched.
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(content) = attribute(attributes, kind) {
            put(&mut handle, kind, content);
        }
    }
    Some(Flow {
        to: place(asked, CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
        from: place(answered, CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
        handle,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::services::Policy;

    fn nested(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (kind, content) in parts {
            put(&mut all, *kind, content);
        }
        all
    }

    fn tuple(protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let addresses = nested(&[(CTA_IP_V4_SRC, &from.0), (CTA_IP_V4_DST, &to.0)]);
        let ports = nested(&[
            (CTA_PROTO_NUM, &[protocol]),
            (CTA_PROTO_SRC_PORT, &from.1.to_be_bytes()),
            (CTA_PROTO_DST_PORT, &to.1.to_be_bytes()),
        ]);
        nested(&[
            (CTA_TUPLE_IP | NLA_F_NESTED, &addresses),
            (CTA_TUPLE_PROTO | NLA_F_NESTED, &ports),
        ])
    }

    const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 9], 5000);

    /// A flow as the kernel sends it.
    fn told(protocol: u8, to: ([u8; 4], u16), from: ([u8; 4], u16)) -> Vec<u8> {
        nested(&[
            (CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple(protocol, CLIENT, to)),
            (
                CTA_TUPLE_REPLY | NLA_F_NESTED,
                &tuple(protocol, from, CLIENT),
            ),
            (CTA_ID, &[1, 2, 3, 4]),
        ])
    }

    fn port(protocol: Protocol, serving: &[&str], node_port: Option<u16>) -> ServicePort {
        ServicePort {
            name: "default/dns/udp/-".to_owned(),
            protocol,
            port: 53,
            cluster_ips: vec![[10, 96, 0, 5].into()],
            external_ips: vec![[192, 0, 2, 5].into()],
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port,
            cluster: Vec::new(),
            local: Vec::new(),
            inside: Policy::Cluster,
            outside: Policy::Cluster,
            serving: serving
                .iter()
                .map(|at| at.parse().expect("a place"))
                .collect(),
            affinity: None,
        }
    }

    #[test]
    fn flows_to_whoever_serves_stay() {
        let service = ([10, 96, 0, 5], 53);
        let (one, gone) = (([10, 0, 0, 1], 5353), ([10, 0, 0, 2], 5353));
        let serving = &["10.0.0.1:5353"][..];
        let at = |text: &str| text.parse().expect("a place");
        let host = (at("192.0.2.1:53"), at("10.0.0.1:5353"));
        let udp = |serving, node_port| Fronts::of(&[port(Protocol::Udp, serving, node_port)]);
        for (what, fronts, to, from, stale) in [
            ("who serves", udp(serving, None), service, one, false),
            ("who is gone", udp(serving, None), service, gone, true),
            ("nobody serves", udp(&[], None), service, one, true),
            (
                "nobody was led to",
                udp(serving, None),
                service,
                service,
                true,
            ),
            (
                "from the world",
                udp(serving, None),
                ([192, 0, 2, 5], 53),
                gone,
                true,
            ),
            (
                "another port",
                udp(serving, None),
                ([10, 96, 0, 5], 54),
                gone,
                false,
            ),
            (
                "another address",
                udp(serving, None),
                ([10, 96, 0, 6], 53),
                gone,
                false,
            ),
            (
                "by the node",
                udp(serving, Some(30053)),
                ([192, 0, 2, 1], 30053),
                gone,
                true,
            ),
            (
                "by the node, nobody serves",
                udp(&[], Some(30053)),
                ([192, 0, 2, 1], 30053),
                gone,
                false,
            ),
            (
                "by a port of the host",
                Fronts::of_host(std::iter::once(host)),
                ([192, 0, 2, 1], 53),
                gone,
                true,
            ),
            (
                "by that of another host",
                Fronts::of_host(std::iter::once(host)),
                ([192, 0, 2, 2], 53),
                gone,
                false,
            ),
            (
                "of TCP",
                Fronts::of(&[port(Protocol::Tcp, serving, None)]),
                service,
                gone,
                false,
            ),
        ] {
            let flow = flow(&told(UDP, to, from)).expect("a flow");
            assert_eq!(fronts.is_stale(&flow), stale, "{what}");
        }
    }

    #[test]
    fn flows_are_read_as_the_kernel_tells_them() {
        let told = told(UDP, ([10, 96, 0, 5], 53), ([10, 0, 0, 1], 5353));
        let found = flow(&told).expect("a flow");
        assert_eq!(found.to.to_string(), "10.96.0.5:53");
        assert_eq!(found.from.to_string(), "10.0.0.1:5353");
        assert_eq!(attribute(&found.handle, CTA_ID), Some(&[1, 2, 3, 4][..]));
        assert_eq!(
            attribute(&found.handle, CTA_TUPLE_ORIG),
            attribute(&told, CTA_TUPLE_ORIG)
        );
        // TCP flows and truncated messages are skipped.
        assert_eq!(
            flow(&super::tests::told(6, ([10, 96, 0, 5], 53), CLIENT)),
            None
        );
        let both = told.len() - 8;
        for length in 0..both {
            assert_eq!(flow(&told[..length]), None, "{length}");
        }
    }
}
