//! Simulates packets passing through ipnat rules: a small model of usr/src/uts/common/inet/ipf/ip_nat.c of
//! illumos-gate, for tests of rules. It applies to every packet that arrives or leaves on a link, including those of
//! the host itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A packet of a protocol with ports, or of ICMP, whose identifier stands for both ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: &'static str,
    /// The source.
    pub from: SocketAddrV4,
    /// The destination.
    pub to: SocketAddrV4,
}

/// A NAT session.
#[derive(Debug)]
struct Session {
    link: String,
    protocol: &'static str,
    /// The translated end, with its real address.
    inner: SocketAddrV4,
    /// The same end as seen by the other one.
    outer: SocketAddrV4,
    other: SocketAddrV4,
}

/// The kernel's tables.
#[derive(Debug)]
pub struct Table {
    /// The rules, in the order of `ipnat -l`.
    rules: Vec<String>,
    /// The addresses of links.
    own: BTreeMap<String, Ipv4Addr>,
    sessions: Vec<Session>,
    /// The next port of a rule.
    next: BTreeMap<String, u16>,
}

fn network(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
    Some((
        u32::from(address),
        u32::MAX.checked_shl(32 - bits).unwrap_or(0),
    ))
}

fn holds(network: (u32, u32), address: Ipv4Addr) -> bool {
    u32::from(address) & network.1 == network.0
}

impl Table {
    /// The active rules of a host whose links have these addresses.
    pub fn new(rules: Vec<String>, own: &[(&str, Ipv4Addr)]) -> Self {
        Table {
            rules,
            own: own
                .iter()
                .map(|(link, at)| ((*link).to_owned(), *at))
                .collect(),
            sessions: Vec::new(),
            next: BTreeMap::new(),
        }
    }

    /// `fr_checknatin`: translates replies back, and starts sessions for packets that a rule redirects.
    pub fn comes_in(&mut self, link: &str, packet: Packet) -> Packet {
        if let Some(known) = self.sessions.iter().find(|one| {
            (one.link.as_str(), one.protocol) == (link, packet.protocol)
                && (one.outer, one.other) == (packet.to, packet.from)
        }) {
            return Packet {
                to: known.inner,
                ..packet
            };
        }
        let inner = self.matching("rdr", link, |words| {
            let [at, "port", port, "->", to, "port", to_port, protocol, ..] = words else {
                return None;
            };
            let at = network(at).filter(|at| holds(*at, *packet.to.ip()))?;
            let fits = *protocol == packet.protocol && port.parse() == Ok(packet.to.port());
            let to = SocketAddrV4::new(to.parse().ok()?, to_port.parse().ok()?);
            fits.then_some((at.1, to))
        });
        let Some((inner, _)) = inner else {
            return packet;
        };
        self.begin(link, packet.protocol, inner, packet.to, packet.from);
        Packet {
            to: inner,
            ..packet
        }
    }

    /// `fr_checknatout`: translates replies back, and starts sessions for packets that a rule maps.
    pub fn goes_out(&mut self, link: &str, packet: Packet) -> Packet {
        if let Some(known) = self.sessions.iter().find(|one| {
            (one.link.as_str(), one.protocol) == (link, packet.protocol)
                && (one.inner, one.other) == (packet.from, packet.to)
        }) {
            return Packet {
                from: known.outer,
                ..packet
            };
        }
        let own = self.own.get(link).copied();
        let found = self.matching("map", link, |words| {
            let (from, words) = match words {
                ["from", from, "to", to, "->", rest @ ..] => {
                    network(to).filter(|to| holds(*to, *packet.to.ip()))?;
                    (from, rest)
                }
                [from, "->", rest @ ..] => (from, rest),
                _ => return None,
            };
            let from = network(from).filter(|from| holds(*from, *packet.from.ip()))?;
            let [to, how @ ..] = words else { return None };
            let address = match *to {
                "0.0.0.0/32" => own?,
                "0.0.0.0/0" => *packet.from.ip(),
                other => other.split('/').next()?.parse().ok()?,
            };
            let range = match how {
                [] => None,
                ["portmap", "tcp/udp", range] if packet.protocol != "icmp" => {
                    let (low, high) = range.split_once(':')?;
                    Some((low.parse().ok()?, high.parse().ok()?))
                }
                _ => return None,
            };
            Some((from.1, (address, range)))
        });
        let Some(((address, range), rule)) = found else {
            return packet;
        };
        let outer = match range {
            None => SocketAddrV4::new(address, packet.from.port()),
            Some((low, high)) => loop {
                let next = self.next.entry(rule.clone()).or_insert(low);
                let outer = SocketAddrV4::new(address, *next);
                *next = if *next < high { *next + 1 } else { low };
                let taken = |one: &Session| (one.outer, one.other) == (outer, packet.to);
                if !self.sessions.iter().any(taken) {
                    break outer;
                }
            },
        };
        self.begin(link, packet.protocol, packet.from, outer, packet.to);
        Packet {
            from: outer,
            ..packet
        }
    }

    fn begin(
        &mut self,
        link: &str,
        protocol: &'static str,
        inner: SocketAddrV4,
        outer: SocketAddrV4,
        other: SocketAddrV4,
    ) {
        self.sessions.push(Session {
            link: link.to_owned(),
            protocol,
            inner,
            outer,
            other,
        });
    }

    /// The first rule of a kind that matches a packet: longer masks first, then in order.
    fn matching<T>(
        &self,
        kind: &str,
        link: &str,
        take: impl Fn(&[&str]) -> Option<(u32, T)>,
    ) -> Option<(T, String)> {
        let taken = self.rules.iter().filter_map(|rule| {
            let words: Vec<&str> = rule.split(' ').collect();
            let [of, at, rest @ ..] = &words[..] else {
                return None;
            };
            let (mask, taken) = take(rest).filter(|_| (*of, *at) == (kind, link))?;
            Some((mask, taken, rule.clone()))
        });
        // The first of the best.
        let best = taken.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, taken, rule)| (taken, rule))
    }
}
