//! Pod addresses, routes and services. Independent of Kubernetes types: the owner of an address is a string.

pub mod illumos;
mod ipam;
mod names;
pub mod routes;
pub mod services;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

pub use ipam::{Ipam, IpamError, Lease};
pub use names::{link_name, mac_address};

/// The source address that this host uses for packets to `target`; `None` if there is no route.
pub fn own_address(target: Ipv4Addr) -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing: it asks the routing table.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((target, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
