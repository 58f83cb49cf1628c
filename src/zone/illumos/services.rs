//! Services on an etherstub's network: rules of ipnat(5) on the host's own link there, which all zones go by, and on the
//! one that leads out. What the host itself asks of a service's address is not led: only what comes by a link is.
//!
//! A rule for each endpoint, in turn (`round-robin`). A zone that is led to another one of the same network would be
//! answered past the host, by an address that it did not ask: between zones the host asks in its own name. Follows
//! ipnat(5) and its grammar, usr/src/cmd/ipf/tools/ipnat_y.y of illumos-gate.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::illumos::{Tools, parse};
use crate::net::illumos::{EtherstubConfig, add_rules, remove_rules, show_rules};
use crate::net::services::{Backends, Protocol, ServicePort, ServiceRouter};
use crate::zone::supervised::{blocking, write_whole};

/// Leads services to zones by rules of ipnat.
pub struct ServiceRules {
    tools: Arc<dyn Tools>,
    network: EtherstubConfig,
    /// The rules that are ours or are about to be: ipnat tells no owner.
    notes: PathBuf,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

impl ServiceRules {
    /// Rules for the services of a network; which are its own it notes in the file `notes`.
    pub fn new(tools: Arc<dyn Tools>, network: EtherstubConfig, notes: &Path) -> Self {
        ServiceRules {
            tools,
            network,
            notes: notes.to_owned(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    async fn in_force(&self) -> Result<BTreeSet<String>, String> {
        let output = self.tools.run(&show_rules()).await;
        let output = output.map_err(|failure| failure.to_string())?;
        Ok(parse::nat_rules(&output.stdout).into_iter().collect())
    }

    async fn noted(&self) -> Result<BTreeSet<String>, String> {
        let notes = self.notes.clone();
        let read = move || match std::fs::read_to_string(&notes) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(format!("cannot read {}: {error}", notes.display())),
        };
        blocking(read).await
    }

    async fn note(&self, rules: &BTreeSet<String>) -> Result<(), String> {
        let text: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
        let notes = self.notes.clone();
        let write = move || {
            write_whole(&notes, text.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", notes.display()))
        };
        blocking(write).await
    }

    /// Makes `rules` all that are ours.
    async fn make(&self, rules: Vec<String>) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let noted = self.noted().await?;
        let changes = Changes::between(&rules, &noted, &self.in_force().await?);
        if !changes.ours.is_subset(&noted) {
            // Before they are there: what a crash leaves is known to be ours.
            self.note(&noted.union(&changes.ours).cloned().collect())
                .await?;
        }
        for command in [
            (!changes.remove.is_empty()).then(|| remove_rules(&changes.remove)),
            (!changes.add.is_empty()).then(|| add_rules(&changes.add)),
        ]
        .into_iter()
        .flatten()
        {
            let done = self.tools.run(&command).await;
            done.map_err(|failure| failure.to_string())?;
        }
        if !changes.is_empty() {
            // A rule that is refused is told on standard error alone: ipnat ends with 0.
            let left = Changes::between(&rules, &noted, &self.in_force().await?);
            if let Some(rule) = left.add.first() {
                return Err(format!("ipnat did not take the rule {rule:?}"));
            }
            if let Some(rule) = left.remove.first() {
                return Err(format!("ipnat did not remove the rule {rule:?}"));
            }
        }
        if changes.ours != noted {
            self.note(&changes.ours).await?;
        }
        Ok(())
    }
}

impl ServiceRouter for ServiceRules {
    fn route<'a>(&'a self, ports: &'a [ServicePort]) -> BoxFuture<'a, Result<(), String>> {
        self.make(rules(&self.network, ports)).boxed()
    }
}

/// What is to be done, each in order.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    remove: Vec<String>,
    add: Vec<String>,
    /// What is ours then.
    ours: BTreeSet<String>,
}

impl Changes {
    /// What makes the rules of services `wanted`: those of ours that are in force and not wanted go, those that are not
    /// in force come; all others are left alone. One that is wanted and in force without our doing stays somebody else's.
    fn between(
        wanted: &[String],
        noted: &BTreeSet<String>,
        in_force: &BTreeSet<String>,
    ) -> Changes {
        let stale = |rule: &&String| in_force.contains(*rule) && !wanted.contains(rule);
        let absent = |rule: &&String| !in_force.contains(*rule);
        let own = |rule: &&String| noted.contains(*rule) || absent(rule);
        Changes {
            remove: noted.iter().filter(stale).cloned().collect(),
            add: wanted.iter().filter(absent).cloned().collect(),
            ours: wanted.iter().filter(own).cloned().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// The rules that lead services, as [`parse::rule`] writes them. SCTP is not translated.
fn rules(network: &EtherstubConfig, ports: &[ServicePort]) -> Vec<String> {
    let link = network.host_link();
    let cidr = &network.cidr;
    // By ports of a range of their own: `auto` would give each zone a handful.
    let between = format!(
        "map {link} from {cidr} to {cidr} -> {}/32 portmap tcp/udp 1025:65000",
        network.gateway
    );
    let mut rules = vec![between];
    for port in ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
        // Whose addresses are for some only is not open to all: ipnat could tell them apart, but not refuse the others.
        let balancers = match port.source_ranges.is_empty() {
            true => port.balancer_ips.as_slice(),
            false => &[],
        };
        let world: Vec<Ipv4Addr> = [port.external_ips.as_slice(), balancers].concat();
        let inside = [port.cluster_ips.as_slice(), &world].concat();
        for address in inside {
            rules.extend(lead(
                &link,
                &format!("{address}/32"),
                port.port,
                port,
                &port.inside,
            ));
        }
        if let Some(node_port) = port.node_port {
            let host = format!("{}/32", network.gateway);
            rules.extend(lead(&link, &host, node_port, port, &port.inside));
        }
        let Some(external) = &network.external else {
            continue;
        };
        for address in world {
            rules.extend(lead(
                external,
                &format!("{address}/32"),
                port.port,
                port,
                &port.outside,
            ));
        }
        if let Some(node_port) = port.node_port {
            rules.extend(lead(external, "0.0.0.0/0", node_port, port, &port.outside));
        }
    }
    rules
}

/// The rules that lead a port of some address that is asked by a link.
fn lead<'a>(
    link: &'a str,
    address: &'a str,
    at: u16,
    port: &'a ServicePort,
    backends: &'a Backends,
) -> impl Iterator<Item = String> + use<'a> {
    let protocol = port.protocol.name();
    let sticky = if port.affinity.is_some() {
        " sticky"
    } else {
        ""
    };
    // What listens on the loopback is not reached from elsewhere.
    let endpoints = backends
        .endpoints
        .iter()
        .filter(|to| !to.ip().is_loopback());
    endpoints.map(move |to| {
        format!(
            "rdr {link} {address} port {at} -> {} port {} {protocol} round-robin{sticky}",
            to.ip(),
            to.port()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn port(endpoints: &[&str]) -> ServicePort {
        ServicePort::web([10, 96, 0, 7], endpoints)
    }

    const BETWEEN: &str = "map reddwarfgw0 from 10.88.0.0/24 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000";

    #[test]
    fn each_endpoint_of_each_address_is_a_rule_where_it_is_asked() {
        let cluster = port(&["10.88.0.11:8080", "10.88.0.12:8080"]);
        let open = ServicePort {
            external_ips: vec![Ipv4Addr::new(192, 0, 2, 7)],
            balancer_ips: vec![Ipv4Addr::new(192, 0, 2, 8)],
            node_port: Some(30080),
            outside: Backends::at(&["10.88.0.12:8080"]),
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
        let cases: [(&str, Option<&str>, &ServicePort, Vec<String>); 6] = [
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
            ("what is on the loopback", None, &host, vec![]),
            ("SCTP", None, &sctp, vec![]),
        ];
        for (what, external, port, mut expected) in cases {
            expected.insert(0, BETWEEN.to_owned());
            let made = rules(
                &EtherstubConfig::of_tests(external),
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

    #[test]
    fn only_what_is_ours_goes() {
        fn set<C: FromIterator<String>>(rules: &str) -> C {
            rules.split_whitespace().map(str::to_owned).collect()
        }
        for (wanted, noted, in_force, remove, add, ours) in [
            ("a b", "", "x", "", "a b", "a b"),
            ("a b", "a b", "x a b", "", "", "a b"),
            ("b", "a b", "x a b", "a", "", "b"),
            // The service was refreshed: what was added by hand is gone.
            ("a b", "a b", "x", "", "a b", "a b"),
            // Noted, and never made.
            ("", "a", "x", "", "", ""),
            // Somebody else's that is the same as ours: theirs until they remove it.
            ("x", "", "x", "", "", ""),
            ("", "", "x", "", "", ""),
            ("x", "", "", "", "x", "x"),
        ] {
            let wanted: Vec<String> = set(wanted);
            let found = Changes::between(&wanted, &set(noted), &set(in_force));
            let expected = Changes {
                remove: set(remove),
                add: set(add),
                ours: set(ours),
            };
            assert_eq!(
                found, expected,
                "{wanted:?} of {noted:?} beside {in_force:?}"
            );
        }
    }
}
