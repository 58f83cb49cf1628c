//! Messages about routes (linux/rtnetlink.h).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::{AF_INET, NLM_F_ACK, NLM_F_DUMP, Socket, attribute, put};
use crate::meta::addresses::Network;
use crate::net::routes::{Route, Via};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
/// The length of a route's header before the attributes.
const HEAD: usize = 12;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_MULTICAST: u8 = 5;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_VIA: u16 = 18;

/// A socket to read and change IPv4 routes.
pub(in super::super) struct Routing(Socket);

impl Routing {
    /// A socket in the network namespace of this thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(in super::super) fn open() -> io::Result<Routing> {
        Socket::open(None).map(Routing)
    }

    /// The routes in table `main`, and those to this host.
    ///
    /// # Errors
    /// The kernel rejects the request.
    pub(in super::super) fn routes(&self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        let mut all = [0; HEAD];
        all[0] = AF_INET;
        self.0.ask(RTM_GETROUTE, NLM_F_DUMP, &all, |kind, told| {
            if kind == RTM_NEWROUTE {
                routes.extend(route(told));
            }
        })?;
        Ok(routes)
    }

    /// Adds a route through a router on a link, replacing one to the same range with the same metric.
    ///
    /// # Errors
    /// The kernel rejects it, for example because the router is not on the link.
    pub(in super::super) fn make(&self, route: &Route) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.change(RTM_NEWROUTE, flags, route)
    }

    /// Removes a route, if it exists.
    ///
    /// # Errors
    /// The kernel rejects it.
    pub(in super::super) fn remove(&self, route: &Route) -> io::Result<()> {
        match self.change(RTM_DELROUTE, NLM_F_ACK, route) {
            // ESRCH: there is no such route.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(())
            }
            done => done,
        }
    }

    fn change(&self, kind: u16, flags: u16, route: &Route) -> io::Result<()> {
        let body = message(route).ok_or(io::ErrorKind::InvalidInput)?;
        self.0.ask(kind, flags, &body, |_, _| {})
    }
}

/// The body of a message about a route in table `main` through a router on a link; None for other routes.
fn message(route: &Route) -> Option<Vec<u8>> {
    let Via::Router(router, link) = route.via else {
        return None;
    };
    let IpAddr::V4(range) = route.range.address else {
        return None;
    };
    let mut body = vec![AF_INET, route.range.prefix, 0, 0];
    body.extend([RT_TABLE_MAIN, route.maker, RT_SCOPE_UNIVERSE, RTN_UNICAST]);
    body.extend([0; 4]);
    put(&mut body, RTA_DST, &range.octets());
    put(&mut body, RTA_GATEWAY, &router.octets());
    put(&mut body, RTA_OIF, &link.to_ne_bytes());
    put(&mut body, RTA_PRIORITY, &route.metric.to_ne_bytes());
    Some(body)
}

/// Parses a route; None for other tables, and for multicast and the like.
fn route(told: &[u8]) -> Option<Route> {
    let [family, prefix, _, _, table, maker, _, kind, ..] = *told.get(..HEAD)? else {
        return None;
    };
    if family != AF_INET || prefix > 32 || !matches!(table, RT_TABLE_MAIN | RT_TABLE_LOCAL) {
        return None;
    }
    let attributes = told.get(HEAD..)?;
    let number = |kind| {
        let content = attribute(attributes, kind)?;
        Some(u32::from_ne_bytes(content.try_into().ok()?))
    };
    let address = |kind| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = attribute(attributes, kind)?.try_into().ok()?;
        Some(octets.into())
    };
    let via = match (kind, address(RTA_GATEWAY), number(RTA_OIF)) {
        (RTN_LOCAL, ..) => Via::Here,
        (RTN_UNICAST, Some(router), Some(link)) => Via::Router(router, link),
        (RTN_UNICAST, None, Some(link)) if attribute(attributes, RTA_VIA).is_none() => {
            Via::Link(link)
        }
        (RTN_UNICAST, ..) => Via::Routers,
        (RTN_BROADCAST | RTN_MULTICAST, ..) => return None,
        _ => Via::Nowhere,
    };
    Some(Route {
        range: Network {
            address: address(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            prefix,
        },
        via,
        metric: number(RTA_PRIORITY).unwrap_or(0),
        maker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Route {
        Route {
            range: Network {
                address: [10, 244, 1, 0].into(),
                prefix: 24,
            },
            via: Via::Router([192, 0, 2, 2].into(), 7),
            metric: 99,
            maker: 114,
        }
    }

    #[test]
    fn a_route_is_read_as_it_is_told() {
        let told = message(&example()).expect("a message");
        assert_eq!(route(&told), Some(example()));
        let with = |position: usize, value: u8| {
            let mut told = told.clone();
            told[position] = value;
            route(&told).map(|route| route.via)
        };
        for (what, position, value, expected) in [
            ("of version 6", 0, 10, None),
            ("of another table", 4, 100, None),
            ("this host", 7, RTN_LOCAL, Some(Via::Here)),
            ("a broadcast", 7, RTN_BROADCAST, None),
            ("unreachable", 7, 7, Some(Via::Nowhere)),
            // The type of the attribute that contained the router.
            ("by version 6", HEAD + 8 + 2, 18, Some(Via::Routers)),
            ("on a link", HEAD + 8 + 2, 99, Some(Via::Link(7))),
        ] {
            assert_eq!(with(position, value), expected, "{what}");
        }
        assert_eq!(route(&told[..8]), None);
    }

    #[test]
    fn only_routes_by_a_router_are_made() {
        for via in [Via::Here, Via::Link(1), Via::Routers, Via::Nowhere] {
            let other = Route { via, ..example() };
            assert_eq!(message(&other), None, "{via:?}");
        }
    }
}
