//! Host ports: the map elements that lead from a port of this host to a port of a zone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::links::local_addresses;
use crate::zone::{HostPort, ZoneNetwork, ZoneSpec};

/// The protocols of host ports, as rules spell them.
pub(super) const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A map element that leads from a host port to a port of a zone.
#[derive(Debug, PartialEq)]
pub(super) struct Element {
    pub(super) map: String,
    pub(super) key: String,
    pub(super) value: String,
    /// Key and value in the kernel's format.
    pub(super) key_kept: Vec<u8>,
    pub(super) value_kept: Vec<u8>,
    /// For UDP, the zone's address and the host port, to find its flows.
    flow: Option<(SocketAddrV4, HostPort)>,
}

impl Element {
    /// The UDP addresses of this host that it covers, each with the zone's address.
    pub(super) fn flows(&self) -> Vec<(SocketAddrV4, SocketAddrV4)> {
        let Some((to, port)) = &self.flow else {
            return Vec::new();
        };
        let at = |address| (SocketAddrV4::new(address, port.host), *to);
        match port.host_address {
            Some(IpAddr::V4(address)) if !address.is_unspecified() => vec![at(address)],
            _ => local_addresses().into_iter().map(at).collect(),
        }
    }
}

/// The element for a host port of the zone with this address; None if the host address is not IPv4.
pub(super) fn element(port: &HostPort, zone: IpAddr) -> Result<Option<Element>, String> {
    // Zones have no IPv6 addresses.
    let IpAddr::V4(zone) = zone else {
        return Ok(None);
    };
    let protocol = port.protocol.to_lowercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!(
            "host ports of protocol {} are not offered",
            port.protocol
        ));
    }
    // Parts of concatenated keys are padded to four bytes.
    let pair = |address: Ipv4Addr, port: u16| {
        [&address.octets()[..], &port.to_be_bytes(), &[0, 0]].concat()
    };
    let (map, key, key_kept) = match port.host_address {
        Some(IpAddr::V6(address)) if !address.is_unspecified() => return Ok(None),
        Some(IpAddr::V4(address)) if !address.is_unspecified() => (
            "addressed",
            format!("{address} . {}", port.host),
            pair(address, port.host),
        ),
        _ => (
            "ports",
            port.host.to_string(),
            port.host.to_be_bytes().to_vec(),
        ),
    };
    let flow = (protocol == "udp").then(|| (SocketAddrV4::new(zone, port.zone), port.clone()));
    Ok(Some(Element {
        map: format!("{protocol}_{map}"),
        key,
        value: format!("{zone} . {}", port.zone),
        key_kept,
        value_kept: pair(zone, port.zone),
        flow,
    }))
}

/// The elements for all host ports of a zone.
pub(super) fn elements_of(spec: &ZoneSpec) -> Result<Vec<Element>, String> {
    let ZoneNetwork::Own { address, ports, .. } = &spec.network else {
        return Ok(Vec::new());
    };
    let elements = ports.iter().map(|port| element(port, *address));
    elements.filter_map(Result::transpose).collect()
}

/// The keys of the elements of some zones, by map.
pub(super) fn keys<'z>(
    zones: impl Iterator<Item = &'z ZoneSpec>,
) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for zone in zones {
        for Element { map, key, .. } in elements_of(zone)? {
            keys.entry(map).or_default().insert(key);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>) -> HostPort {
        HostPort {
            protocol: "TCP".into(),
            host_address: address.map(|text| text.parse().expect("an address")),
            host: 80,
            zone: 8080,
        }
    }

    #[test]
    fn ports_of_an_address_are_its_own() {
        let addressed = [127, 0, 0, 1, 0, 80, 0, 0];
        for (address, expected) in [
            (None, Some(("tcp_ports", "80", &[0, 80][..]))),
            (Some("0.0.0.0"), Some(("tcp_ports", "80", &[0, 80]))),
            (Some("::"), Some(("tcp_ports", "80", &[0, 80]))),
            (
                Some("127.0.0.1"),
                Some(("tcp_addressed", "127.0.0.1 . 80", &addressed)),
            ),
            (Some("::1"), None),
        ] {
            let found = element(&port(address), [10, 0, 0, 5].into()).expect("offered");
            let expected = expected.map(|(map, key, kept)| Element {
                map: map.to_owned(),
                key: key.to_owned(),
                value: "10.0.0.5 . 8080".to_owned(),
                key_kept: kept.to_vec(),
                value_kept: vec![10, 0, 0, 5, 0x1f, 0x90, 0, 0],
                flow: None,
            });
            assert_eq!(found, expected, "{address:?}");
        }
        let of = |protocol: &str| {
            let port = HostPort {
                protocol: protocol.into(),
                ..port(None)
            };
            let element = element(&port, [10, 0, 0, 5].into());
            element.map(|element| element.expect("one").map)
        };
        assert_eq!(of("UDP"), Ok("udp_ports".to_owned()));
        assert_eq!(of("SCTP"), Ok("sctp_ports".to_owned()));
        assert!(of("DCCP").is_err());
    }

    #[test]
    fn flows_over_udp_are_known_by_the_hosts_addresses() {
        let port = |protocol: &str, address| HostPort {
            protocol: protocol.into(),
            ..port(address)
        };
        let flows = |port: &HostPort| {
            let found = element(port, [10, 0, 0, 5].into()).expect("offered");
            found.expect("one").flows()
        };
        let at = |text: &str| -> SocketAddrV4 { text.parse().expect("a place") };
        assert_eq!(flows(&port("TCP", None)), []);
        let own = flows(&port("UDP", Some("192.0.2.1")));
        assert_eq!(own, [(at("192.0.2.1:80"), at("10.0.0.5:8080"))]);
    }
}
