//! Simulates packets passing through ipnat rules: a small model of usr/src/uts/common/inet/ipf/ip_nat.c of
//! illumos-gate, for tests of rules. It applies to every packet that arrives or leaves on a link, including those of
//! the host itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::nat::SESSIONS;

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
    /// How many it holds.
    room: usize,
    /// The next port of a rule. Without one, luck is bad: each first choice is the first port of the range.
    next: Option<BTreeMap<String, u16>>,
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
            room: SESSIONS,
            next: Some(BTreeMap::new()),
        }
    }

    /// One that holds so many sessions (`ipf_nattable_max`).
    pub fn holding(self, room: usize) -> Self {
        Table { room, ..self }
    }

    /// One whose random choices of ports are always the same.
    pub fn unlucky(self) -> Self {
        Table { next: None, ..self }
    }

    /// `fr_checknatin`: translates replies back, and starts sessions for packets that a rule redirects. None is a packet
    /// that is dropped: there is a rule for it, and no session.
    pub fn comes_in(&mut self, link: &str, packet: Packet) -> Option<Packet> {
        if let Some(known) = self.sessions.iter().find(|one| {
            (one.link.as_str(), one.protocol) == (link, packet.protocol)
                && (one.outer, one.other) == (packet.to, packet.from)
        }) {
            return Some(Packet {
                to: known.inner,
                ..packet
            });
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
        let Some((inner, _)) = inner.into_iter().next() else {
            return Some(packet);
        };
        self.begin(link, packet.protocol, inner, packet.to, packet.from)
            .then_some(Packet {
                to: inner,
                ..packet
            })
    }

    /// `fr_checknatout`: translates replies back, and starts sessions for packets that a rule maps. None is a packet that
    /// is dropped: there are rules for it, and none gives it a session.
    pub fn goes_out(&mut self, link: &str, packet: Packet) -> Option<Packet> {
        if let Some(known) = self.sessions.iter().find(|one| {
            (one.link.as_str(), one.protocol) == (link, packet.protocol)
                && (one.inner, one.other) == (packet.from, packet.to)
        }) {
            return Some(Packet {
                from: known.outer,
                ..packet
            });
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
            // What is not a given address is tried once (`nat_newmap`).
            let (address, again) = match *to {
                "0.0.0.0/32" => (own?, false),
                "0.0.0.0/0" => (*packet.from.ip(), false),
                other => (other.split('/').next()?.parse().ok()?, true),
            };
            let range = match how {
                [] => None,
                ["portmap", "tcp/udp", range] if packet.protocol != "icmp" => {
                    let (low, high) = range.split_once(':')?;
                    Some((low.parse().ok()?, high.parse().ok()?))
                }
                _ => return None,
            };
            Some((from.1, (address, range, again)))
        });
        if found.is_empty() {
            return Some(packet);
        }
        // Where one rule finds no free port the next one is asked.
        let outer = found
            .into_iter()
            .find_map(|((address, range, again), rule)| {
                let is_free = |outer: &SocketAddrV4| {
                    let taken = |one: &Session| {
                        (one.protocol, one.outer, one.other) == (packet.protocol, *outer, packet.to)
                    };
                    !self.sessions.iter().any(taken)
                };
                let at = |port| SocketAddrV4::new(address, port);
                let Some((low, high)) = range else {
                    return Some(at(packet.from.port())).filter(is_free);
                };
                let first = match &self.next {
                    Some(next) => next.get(&rule).copied().unwrap_or(low),
                    None => low,
                };
                let mut ports = (first..=high).chain(low..first).map(at);
                let outer = match again {
                    true => ports.find(is_free),
                    false => ports.next().filter(is_free),
                };
                if let (Some(next), Some(outer)) = (&mut self.next, outer) {
                    let after = outer.port() + 1;
                    next.insert(rule, if after > high { low } else { after });
                }
                outer
            })?;
        self.begin(link, packet.protocol, packet.from, outer, packet.to)
            .then_some(Packet {
                from: outer,
                ..packet
            })
    }

    /// Starts a session, if the table has room for one (`nat_new`).
    fn begin(
        &mut self,
        link: &str,
        protocol: &'static str,
        inner: SocketAddrV4,
        outer: SocketAddrV4,
        other: SocketAddrV4,
    ) -> bool {
        if self.sessions.len() >= self.room {
            return false;
        }
        self.sessions.push(Session {
            link: link.to_owned(),
            protocol,
            inner,
            outer,
            other,
        });
        true
    }

    /// The rules of a kind that match a packet: longer masks first, then in order.
    fn matching<T>(
        &self,
        kind: &str,
        link: &str,
        take: impl Fn(&[&str]) -> Option<(u32, T)>,
    ) -> Vec<(T, String)> {
        let taken = self.rules.iter().filter_map(|rule| {
            let words: Vec<&str> = rule.split(' ').collect();
            let [of, at, rest @ ..] = &words[..] else {
                return None;
            };
            let (mask, taken) = take(rest).filter(|_| (*of, *at) == (kind, link))?;
            Some((mask, taken, rule.clone()))
        });
        let mut taken: Vec<_> = taken.collect();
        taken.sort_by_key(|(mask, ..)| std::cmp::Reverse(*mask));
        let taken = taken.into_iter();
        taken.map(|(_, taken, rule)| (taken, rule)).collect()
    }
}
