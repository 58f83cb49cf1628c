//! Services on an etherstub's network: rules of ipnat(5) on the host's own link there, which all traffic of zones
//! passes, and on the external link. Requests of the host itself to a service address are not translated: rules only
//! apply to packets that arrive on a link.
//!
//! There is a rule for each endpoint, used in turn (`round-robin`). A zone that is led to another zone on the same
//! network would get answers directly, from an address that it did not ask: therefore a rule of the network makes
//! traffic between zones come from the host's address. A port without endpoints leads to a closed port of the host, so
//! that connections are refused at once, as by upstream's rules. A reject route would answer that the host is
//! unreachable, which TCP of illumos only records until its own timeout (`tcp_icmp_input`). Follows ipnat(5) and its
//! grammar, usr/src/cmd/ipf/tools/ipnat_y.y of illumos-gate.

use std::net::Ipv4Addr;

use crate::net::illumos::EtherstubConfig;
use crate::net::services::{Policy, Protocol, ServicePort};

/// A TCP and UDP port of the host on which nothing listens: tcpmux, which illumos does not have.
const CLOSED: u16 = 1;

/// The rules of services, in the notation of `ipnat -l`. SCTP is not translated. Node ports are served at `addresses`,
/// besides the host's address on the network.
pub(super) fn rules(
    network: &EtherstubConfig,
    addresses: &[Ipv4Addr],
    ports: &[ServicePort],
) -> Vec<String> {
    let link = network.host_link();
    let mut rules = Vec::new();
    for port in ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
        // Addresses with source ranges are not opened to everybody: ipnat could match the ranges, but not reject the
        // others.
        let balancers = match port.source_ranges.is_empty() {
            true => port.balancer_ips.as_slice(),
            false => &[],
        };
        let world: Vec<Ipv4Addr> = [port.external_ips.as_slice(), balancers].concat();
        let own = port.cluster_ips.iter().map(|ip| (ip, port.inside));
        // Clients within the cluster that use external addresses are not subject to the policy.
        let others = world.iter().map(|ip| (ip, Policy::Cluster));
        for (address, policy) in own.chain(others) {
            let at = format!("rdr {link} {address}/32 port {}", port.port);
            rules.extend(lead_or_refuse(&at, port, policy, network.gateway));
        }
        if let Some(node_port) = port.node_port {
            // Without endpoints the host itself refuses connections.
            for address in addresses.iter().chain([&network.gateway]) {
                let at = format!("rdr {link} {address}/32 port {node_port}");
                rules.extend(lead(&at, port, Policy::Cluster));
            }
        }
        let Some(external) = &network.external else {
            continue;
        };
        // An endpoint on another node would answer external clients directly, from an address that they did not ask.
        for address in world {
            let at = format!("rdr {external} {address}/32 port {}", port.port);
            rules.extend(lead_or_refuse(&at, port, Policy::Local, network.gateway));
        }
        if let Some(node_port) = port.node_port {
            let at = format!("rdr {external} 0.0.0.0/0 port {node_port}");
            rules.extend(lead(&at, port, Policy::Local));
        }
    }
    rules
}

/// The rules that lead traffic matching `at` to the endpoints of a port.
fn lead(at: &str, port: &ServicePort, policy: Policy) -> Vec<String> {
    let protocol = port.protocol.name();
    let sticky = if port.affinity.is_some() {
        " sticky"
    } else {
        ""
    };
    // A listener on the loopback cannot be reached from other links.
    let endpoints = port
        .endpoints(policy)
        .iter()
        .filter(|to| !to.ip().is_loopback());
    let rule = |to: &std::net::SocketAddrV4| {
        let (ip, to) = (to.ip(), to.port());
        format!("{at} -> {ip} port {to} {protocol} round-robin{sticky}")
    };
    endpoints.map(rule).collect()
}

/// Like [`lead`]; without endpoints, a rule that leads to a closed port of `host`.
fn lead_or_refuse(at: &str, port: &ServicePort, policy: Policy, host: Ipv4Addr) -> Vec<String> {
    let rules = lead(at, port, policy);
    match rules.is_empty() {
        false => rules,
        true => {
            let protocol = port.protocol.name();
            vec![format!("{at} -> {host} port {CLOSED} {protocol}")]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::illumos::parse;
    use crate::net::services::endpoints_of;

    fn port(endpoints: &[&str]) -> ServicePort {
        ServicePort::web([10, 96, 0, 7], endpoints)
    }

    #[test]
    fn each_endpoint_of_each_address_is_a_rule_where_it_is_asked() {
        let cluster = port(&["10.88.0.11:8080", "10.88.0.12:8080"]);
        let open = ServicePort {
            external_ips: vec![Ipv4Addr::new(192, 0, 2, 7)],
            balancer_ips: vec![Ipv4Addr::new(192, 0, 2, 8)],
            node_port: Some(30080),
            local: endpoints_of(&["10.88.0.12:8080"]),
            outside: Policy::Local,
            affinity: Some(Duration::from_secs(10)),
            ..port(&["10.88.0.11:8080"])
        };
        let closed = ServicePort {
            source_ranges: vec!["198.51.100.0/24".into()],
            external_ips: Vec::new(),
            node_port: None,
            ..open.clone()
        };
        let host = port(&["127.0.0.1:6443"]);
        let unready = ServicePort {
            local: Vec::new(),
            ..open.clone()
        };
        let refused = |link: &str, at: &str| format!("rdr {link} {at} -> 10.88.0.1 port 1 tcp");
        let sctp = ServicePort {
            protocol: Protocol::Sctp,
            ..cluster.clone()
        };
        let inside = "rdr reddwarfgw0 10.96.0.7/32 port 80 -> 10.88.0.11 port 8080 tcp round-robin";
        let other = "rdr reddwarfgw0 10.96.0.7/32 port 80 -> 10.88.0.12 port 8080 tcp round-robin";
        let to = |link: &str, at: &str, endpoint: &str| {
            format!("rdr {link} {at} -> {endpoint} port 8080 tcp round-robin sticky")
        };
        let own = |at: &str| to("reddwarfgw0", at, "10.88.0.11");
        let world = |at: &str| to("e1000g0", at, "10.88.0.12");
        let cases: [(&str, Option<&str>, &ServicePort, Vec<String>); 7] = [
            (
                "by its address in the cluster",
                None,
                &cluster,
                vec![inside.into(), other.into()],
            ),
            (
                "by all its addresses, without a way out",
                None,
                &open,
                vec![
                    own("10.96.0.7/32 port 80"),
                    own("192.0.2.7/32 port 80"),
                    own("192.0.2.8/32 port 80"),
                    own("192.0.2.1/32 port 30080"),
                    own("10.88.0.1/32 port 30080"),
                ],
            ),
            (
                "by all its addresses, from the world too",
                Some("e1000g0"),
                &open,
                vec![
                    own("10.96.0.7/32 port 80"),
                    own("192.0.2.7/32 port 80"),
                    own("192.0.2.8/32 port 80"),
                    own("192.0.2.1/32 port 30080"),
                    own("10.88.0.1/32 port 30080"),
                    world("192.0.2.7/32 port 80"),
                    world("192.0.2.8/32 port 80"),
                    world("0.0.0.0/0 port 30080"),
                ],
            ),
            (
                "a balancer for some is for nobody",
                Some("e1000g0"),
                &closed,
                vec![own("10.96.0.7/32 port 80")],
            ),
            (
                "what is on the loopback: refused",
                None,
                &host,
                vec![refused("reddwarfgw0", "10.96.0.7/32 port 80")],
            ),
            (
                "without endpoints for the world: refused there, and node ports by the host itself",
                Some("e1000g0"),
                &unready,
                vec![
                    own("10.96.0.7/32 port 80"),
                    own("192.0.2.7/32 port 80"),
                    own("192.0.2.8/32 port 80"),
                    own("192.0.2.1/32 port 30080"),
                    own("10.88.0.1/32 port 30080"),
                    refused("e1000g0", "192.0.2.7/32 port 80"),
                    refused("e1000g0", "192.0.2.8/32 port 80"),
                ],
            ),
            ("SCTP", None, &sctp, vec![]),
        ];
        for (what, external, port, expected) in cases {
            let made = rules(
                &EtherstubConfig::of_tests(external),
                &[Ipv4Addr::new(192, 0, 2, 1)],
                std::slice::from_ref(port),
            );
            assert_eq!(made, expected, "{what}");
            for rule in made {
                assert_eq!(
                    parse::rule(&rule),
                    rule,
                    "{what}: in the spelling of ipnat -l"
                );
            }
        }
    }

    /// Simulates packets through the rules of a network and of services.
    #[test]
    fn packets_get_where_they_are_led_and_answers_come_from_whom_was_asked() {
        use crate::fakehost::{Packet, Table};
        let network = EtherstubConfig::of_tests(Some("e1000g0"));
        let ports = [
            port(&["10.88.0.7:8080"]),
            ServicePort {
                cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 8)],
                ..port(&[])
            },
        ];
        let rules = network
            .rules(Some(Ipv4Addr::new(192, 0, 2, 1)))
            .into_iter()
            .chain(rules(&network, &[], &ports));
        let rules = rules.map(|rule| parse::rule(&rule)).collect();
        let own = [
            ("reddwarfgw0", network.gateway),
            ("e1000g0", Ipv4Addr::new(192, 0, 2, 1)),
        ];
        let mut table = Table::new(rules, &own);
        let at = |text: &str| text.parse().expect("a place");
        let packet = |protocol, from: &str, to: &str| Packet {
            protocol,
            from: at(from),
            to: at(to),
        };
        let inside = "reddwarfgw0";
        // The host's own answers, like those of the name server, are not translated: clients expect their source port.
        for protocol in ["udp", "tcp"] {
            let asked = packet(protocol, "10.88.0.5:40000", "10.88.0.1:53");
            assert_eq!(table.comes_in(inside, asked), Some(asked));
            let answer = packet(protocol, "10.88.0.1:53", "10.88.0.5:40000");
            assert_eq!(table.goes_out(inside, answer), Some(answer));
        }
        // A request of the host to a zone creates no session.
        let probe = packet("tcp", "10.88.0.1:50000", "10.88.0.5:8080");
        assert_eq!(table.goes_out(inside, probe), Some(probe));
        // A service leads to another zone, and to the zone that asks.
        for from in ["10.88.0.5:40000", "10.88.0.6:40000", "10.88.0.7:40000"] {
            let led = table
                .comes_in(inside, packet("tcp", from, "10.96.0.7:80"))
                .expect("passes");
            assert_eq!(led, packet("tcp", from, "10.88.0.7:8080"));
            let led = table.goes_out(inside, led).expect("passes");
            assert_eq!(
                (led.from.ip(), led.to),
                (&network.gateway, at("10.88.0.7:8080"))
            );
            let answer = Packet {
                from: led.to,
                to: led.from,
                ..led
            };
            let answer = table.comes_in(inside, answer).expect("passes");
            assert_eq!(answer, packet("tcp", "10.88.0.7:8080", from));
            let answer = table.goes_out(inside, answer).expect("passes");
            assert_eq!(answer, packet("tcp", "10.96.0.7:80", from));
        }
        // For one without endpoints the host refuses, from the service's address.
        let led = table
            .comes_in(inside, packet("tcp", "10.88.0.5:40001", "10.96.0.8:80"))
            .expect("passes");
        assert_eq!(led.to, at("10.88.0.1:1"));
        let refusal = packet("tcp", "10.88.0.1:1", "10.88.0.5:40001");
        let refusal = table.goes_out(inside, refusal).expect("passes");
        assert_eq!(refusal, packet("tcp", "10.96.0.8:80", "10.88.0.5:40001"));
        // External hosts see the host's address, with a port for each connection, however many there are.
        let mut seen = std::collections::BTreeSet::new();
        for zone in ["10.88.0.5", "10.88.0.6"] {
            for number in 0..600 {
                let from = format!("{zone}:{}", 40_000 + number);
                let out = packet("tcp", &from, "198.51.100.1:443");
                let out = table.goes_out("e1000g0", out).expect("passes");
                assert_eq!(out.from.ip(), &own[1].1);
                assert!(seen.insert(out.from.port()), "{out:?}");
            }
        }
        let echo = table
            .goes_out("e1000g0", packet("icmp", "10.88.0.5:9", "198.51.100.1:9"))
            .expect("passes");
        assert_eq!(echo.from, at("192.0.2.1:9"));
    }

    /// However unlucky ports are chosen, and until the kernel's table is full.
    #[test]
    fn each_connection_gets_out_until_the_table_is_full() {
        use crate::fakehost::{Packet, Table};
        let network = EtherstubConfig::of_tests(Some("e1000g0"));
        let outer = Ipv4Addr::new(192, 0, 2, 1);
        let connections = |outer_known: Option<Ipv4Addr>, room: usize| {
            let rules = network.rules(outer_known);
            let rules = rules.iter().map(|rule| parse::rule(rule)).collect();
            let table = Table::new(rules, &[("e1000g0", outer)]).unlucky();
            let mut table = table.holding(room);
            // Clients with the same port ask the same server.
            let begun = (2..22).filter_map(|zone| {
                let packet = Packet {
                    protocol: "tcp",
                    from: std::net::SocketAddrV4::new(Ipv4Addr::new(10, 88, 0, zone), 40_000),
                    to: "198.51.100.1:443".parse().expect("a place"),
                };
                table.goes_out("e1000g0", packet)
            });
            begun.count()
        };
        assert_eq!(connections(Some(outer), 100), 20);
        // Where ports are tried once, one has its own besides.
        assert_eq!(connections(None, 100), 2);
        assert_eq!(connections(Some(outer), 7), 7);
    }
}
