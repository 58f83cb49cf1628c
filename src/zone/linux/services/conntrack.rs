//! Flows of UDP that the kernel follows. It judges only the first packet of one: who goes on to ask from the same port
//! would ask an endpoint that is gone for as long as he asks. Follows k8s.io/kubernetes/pkg/proxy/conntrack; the messages
//! are those of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use crate::net::services::{Protocol, ServicePort};

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No part of an answer is longer, in bytes.
const PART: usize = 32 << 10;
/// Bytes of a message's head, and of the head of what netfilter is told.
const HEAD: usize = 16 + 4;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Messages of connection tracking: `NFNL_SUBSYS_CTNETLINK << 8`.
const CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_NEW: u16 = CTNETLINK;
const IPCTNL_MSG_CT_GET: u16 = CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = CTNETLINK | 2;
const AF_INET: u8 = 2;
const NLA_F_NESTED: u16 = 0x8000;
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

/// Where clients of UDP services come in, and the endpoints that serve them: also those that no new client is led to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fronts {
    by_address: BTreeMap<SocketAddrV4, Places>,
    by_node_port: BTreeMap<u16, Places>,
}

/// A flow of UDP.
#[derive(Debug, PartialEq)]
struct Flow {
    /// Where the client sends to.
    to: SocketAddrV4,
    /// Who answers.
    from: SocketAddrV4,
    /// By what the kernel finds it: attributes of a message.
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
                // Of two services with one address and port, the first has it.
                fronts.by_address.entry(at).or_insert(serving.clone());
            }
            // Any host may be asked by this port, also one that has no part in it: where nobody serves, no flow is judged.
            if let Some(node_port) = port.node_port.filter(|_| !serving.is_empty()) {
                fronts.by_node_port.entry(node_port).or_insert(serving);
            }
        }
        fronts
    }

    fn is_empty(&self) -> bool {
        self.by_address.is_empty() && self.by_node_port.is_empty()
    }

    /// Whether a flow to a service is answered by somebody who does not serve it.
    fn is_stale(&self, flow: &Flow) -> bool {
        let by_address = self.by_address.get(&flow.to);
        let serving = by_address.or_else(|| self.by_node_port.get(&flow.to.port()));
        serving.is_some_and(|serving| !serving.contains(&flow.from))
    }
}

/// Ends flows to services that lead to nobody who serves them; tells how many.
///
/// # Errors
/// The kernel does not tell, or may not be told.
pub(super) fn forget_stale(fronts: &Fronts) -> io::Result<usize> {
    if fronts.is_empty() {
        return Ok(0);
    }
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut flows = Vec::new();
    ask(&socket, IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[], |told| {
        flows.extend(flow(told).filter(|flow| fronts.is_stale(flow)));
    })?;
    let mut ended = 0;
    for flow in &flows {
        match ask(
            &socket,
            IPCTNL_MSG_CT_DELETE,
            NLM_F_ACK,
            &flow.handle,
            |_| {},
        ) {
            Ok(()) => ended += 1,
            // It ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// Sends a message about connections of IPv4, and reads what is told until the end of it.
fn ask(
    socket: &OwnedFd,
    kind: u16,
    flags: u16,
    attributes: &[u8],
    mut tell: impl FnMut(&[u8]),
) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    let message = message(kind, flags, attributes)?;
    sendto(socket, &message, SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; PART];
    loop {
        let (_, length) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut left = &buffer[..length.min(PART)];
        while let Some((kind, body, after)) = next_message(left) {
            match kind {
                IPCTNL_MSG_CT_NEW => tell(body.get(4..).unwrap_or_default()),
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body.get(..4).and_then(|code| code.try_into().ok());
                    return match code.map(i32::from_ne_bytes) {
                        Some(0) => Ok(()),
                        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        None => Err(io::ErrorKind::InvalidData.into()),
                    };
                }
                _ => {}
            }
            left = after;
        }
    }
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEAD + attributes.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Neither a number nor an address: one question at a time is asked, of the kernel.
    message.extend([0; 8]);
    message.extend([AF_INET, 0, 0, 0]);
    message.extend(attributes);
    Ok(message)
}

/// Parts of messages begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The kind and the body of the first of some messages, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, body, after))
}

/// The content of an attribute among others.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let content = bytes.get(4..length)?;
        if kind & !NLA_F_NESTED == wanted {
            return Some(content);
        }
        bytes = bytes.get(aligned(length)..)?;
    }
}

fn put(attributes: &mut Vec<u8>, kind: u16, content: &[u8]) {
    // What was read as one has such a length.
    let length = u16::try_from(4 + content.len()).unwrap_or(u16::MAX);
    attributes.extend(length.to_ne_bytes());
    attributes.extend(kind.to_ne_bytes());
    attributes.extend(content);
    attributes.resize(aligned(attributes.len()), 0);
}

/// What one side of a flow of UDP has as its own, or as the other's: an address and a port.
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

/// The flow that the kernel tells; none where it is not one of UDP.
fn flow(attributes: &[u8]) -> Option<Flow> {
    let asked = attribute(attributes, CTA_TUPLE_ORIG)?;
    let answered = attribute(attributes, CTA_TUPLE_REPLY)?;
    let mut handle = Vec::new();
    put(&mut handle, CTA_TUPLE_ORIG | NLA_F_NESTED, asked);
    // Not another one that took its place meanwhile.
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

    /// A flow as the kernel tells it.
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
            inside: Default::default(),
            outside: Default::default(),
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
        // One of TCP, and what is cut anywhere, are none.
        assert_eq!(
            flow(&super::tests::told(6, ([10, 96, 0, 5], 53), CLIENT)),
            None
        );
        let both = told.len() - 8;
        for length in 0..both {
            assert_eq!(flow(&told[..length]), None, "{length}");
        }
    }

    #[test]
    fn messages_are_read_one_after_the_other() {
        let one = message(
            IPCTNL_MSG_CT_GET,
            NLM_F_DUMP,
            &nested(&[(CTA_ZONE, &[0, 7])]),
        )
        .expect("a message");
        let two = [&one[..], &one[..]].concat();
        let (kind, body, after) = next_message(&two).expect("one");
        assert_eq!(kind, IPCTNL_MSG_CT_GET);
        assert_eq!(attribute(&body[4..], CTA_ZONE), Some(&[0, 7][..]));
        assert_eq!(after, one);
        assert_eq!(next_message(&one[..one.len() - 1]), None);
        assert_eq!(next_message(&[0; 32]), None);
    }
}
