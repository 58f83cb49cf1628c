//! The host's side of an etherstub: its link, its address, what is not ours.

use std::net::Ipv4Addr;

use super::{EtherstubConfig, MTU, dladm, ipadm};
use crate::illumos::parse;
use crate::illumos::{Command, Tool, Tools};

/// How connections of zones are mapped to ports of the host.
const PORTS: &str = "portmap tcp/udp 1025:65000";

impl EtherstubConfig {
    /// The host's own VNIC on the etherstub: the etherstub's name with `gw` before its number.
    pub fn host_link(&self) -> String {
        let stem = self
            .etherstub
            .trim_end_matches(|c: char| c.is_ascii_digit());
        let number = &self.etherstub[stem.len()..];
        let stem = &stem[..stem.len().min(29 - number.len().min(20))];
        format!("{stem}gw{number}")
    }

    /// The address object of the host.
    pub fn host_address(&self) -> String {
        format!("{}/v4", self.host_link())
    }

    /// The NAT rules for connections of zones to the outside, first protocols with ports, then others (ICMP); and for
    /// traffic that the host forwards between zones, which gets the host's address, because replies would otherwise
    /// bypass it. That last rule must not match packets of the host itself: its replies (DNS, API server) would leave
    /// from other ports than they were requested from, because ipfilter's NAT considers everything that leaves a link
    /// (`fr_checknatout`).
    ///
    /// Ports come from a range: `auto` would divide them among all addresses of the network (252 for each of 254, and
    /// none if there are more than 64,512), and would not use another one if a port is taken (`nat_setgroupmap`,
    /// `nat_newmap`). For the same reason the external link's address is named (`outer`), if it has one: for the address
    /// that a link happens to have (`0/32`) one port is tried, and if it is taken and the client's own is too, the
    /// packet is dropped.
    pub fn rules(&self, outer: Option<Ipv4Addr>) -> Vec<String> {
        let mut rules = Vec::new();
        if let Some(external) = &self.external {
            let out = format!("map {external} {} ->", self.cidr);
            let at = outer.map_or("0/32".to_owned(), |outer| format!("{outer}/32"));
            rules.extend([format!("{out} {at} {PORTS}"), format!("{out} 0/32")]);
        }
        let (link, host, cidr) = (self.host_link(), self.gateway, &self.cidr);
        let between = |from| format!("map {link} from {from} to {cidr} -> {host}/32 {PORTS}");
        rules.extend(self.beside_the_host().map(between));
        rules
    }

    /// The network except the host's address, which is its first, as a list of networks.
    fn beside_the_host(&self) -> impl Iterator<Item = String> + use<> {
        let host = u32::from(self.gateway);
        (self.prefix_len + 1..=31).rev().map(move |bits| {
            let size = 1 << (32 - u32::from(bits));
            let network = Ipv4Addr::from((host ^ size) & !(size - 1));
            format!("{network}/{bits}")
        })
    }

    /// The commands that configure the host's side of the network, in order, from the output of `dladm show-link -p -o
    /// link,class`, `ipadm show-addr -p -o addrobj,state,addr` and `routeadm -p ipv4-forwarding`.
    ///
    /// # Errors
    /// Something else already has a name or address that is needed.
    pub fn host_side(
        &self,
        links: &str,
        addresses: &str,
        routing: &str,
    ) -> Result<Vec<Command>, String> {
        let mut commands = Vec::new();
        let links = parse::links(links);
        let class = |name: &str| {
            links
                .iter()
                .find(|(link, _)| link == name)
                .map(|(_, class)| class.as_str())
        };
        let (stub, link) = (self.etherstub.as_str(), self.host_link());
        match class(stub) {
            Some("etherstub") => {}
            None => commands.push(dladm(["create-etherstub", "-t", stub])),
            Some(other) => {
                return Err(format!(
                    "the link {stub} is there and is no etherstub but of class {other}; name another with --etherstub-name"
                ));
            }
        }
        match class(&link) {
            Some("vnic") => {}
            None => commands.push(dladm([
                "create-vnic",
                "-t",
                "-l",
                stub,
                "-p",
                &format!("mtu={MTU}"),
                &link,
            ])),
            Some(other) => {
                return Err(format!(
                    "the link {link}, which should be this host's on {stub}, is of class {other}; name another etherstub with --etherstub-name"
                ));
            }
        }
        let (object, wanted) = (
            self.host_address(),
            format!("{}/{}", self.gateway, self.prefix_len),
        );
        let known = parse::addresses(addresses);
        match known.iter().find(|(name, _, _)| *name == object) {
            Some((_, state, address)) if *address == wanted => {
                if state == "duplicate" {
                    return Err(format!(
                        "another host has this host's address {wanted} on {stub}; choose another --pod-cidr"
                    ));
                }
            }
            Some((_, _, address)) => {
                tracing::info!(
                    object,
                    address,
                    wanted,
                    "changing this host's address on the pods' network"
                );
                commands.push(ipadm(["delete-addr", &object]));
                commands.push(ipadm([
                    "create-addr",
                    "-t",
                    "-T",
                    "static",
                    "-a",
                    &wanted,
                    &object,
                ]));
            }
            None => commands.push(ipadm([
                "create-addr",
                "-t",
                "-T",
                "static",
                "-a",
                &wanted,
                &object,
            ])),
        }
        if self.external.is_some() && !parse::routing_on(routing) {
            commands.push(Command::new(Tool::Routeadm, ["-e", "ipv4-forwarding"]));
            commands.push(Command::new(Tool::Routeadm, ["-u"]).within(120));
        }
        Ok(commands)
    }
}

/// Shows the addresses of a link of the host, for [`address_of`].
pub fn show_addresses() -> Command {
    ipadm(["show-addr", "-p", "-o", "addrobj,state,addr"])
}

/// The first IPv4 address of a link, from the output of [`show_addresses`].
pub fn address_of(link: &str, shown: &str) -> Option<Ipv4Addr> {
    parse::addresses(shown)
        .into_iter()
        .find_map(|(object, state, address)| {
            let (of, _) = object.split_once('/')?;
            let address = address.split('/').next()?.parse().ok()?;
            (of == link && state == "ok").then_some(address)
        })
}

/// Configures what is missing on the host's side of the pods' network, except its rules.
///
/// # Errors
/// The error of a tool, or that a link belongs to someone else.
pub async fn prepare(tools: &dyn Tools, config: &EtherstubConfig) -> Result<(), String> {
    let ask = async |command: Command| {
        let answer = tools.run(&command).await;
        answer
            .map(|output| output.stdout)
            .map_err(|failure| failure.to_string())
    };
    let links = ask(Command::new(
        Tool::Dladm,
        ["show-link", "-p", "-o", "link,class"],
    ))
    .await?;
    let addresses = ask(show_addresses()).await?;
    let routing = ask(Command::new(Tool::Routeadm, ["-p", "ipv4-forwarding"])).await?;
    for command in config.host_side(&links, &addresses, &routing)? {
        match tools.run(&command).await {
            Err(failure) if !failure.exists() => return Err(failure.to_string()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_side_is_made_once_and_what_is_anothers_is_refused() {
        let texts = |commands: Vec<Command>| -> Vec<String> {
            commands.iter().map(Command::to_string).collect()
        };
        let off = "persistent=disabled default=disabled current=disabled";
        let on = "persistent=enabled default=disabled current=enabled";
        let config = EtherstubConfig::of_tests(Some("e1000g0"));
        assert_eq!(
            texts(
                config
                    .host_side("e1000g0:phys\n", "lo0/v4:ok:127.0.0.1/8\n", off)
                    .expect("fine")
            ),
            [
                "dladm create-etherstub -t reddwarf0",
                "dladm create-vnic -t -l reddwarf0 -p mtu=1500 reddwarfgw0",
                "ipadm create-addr -t -T static -a 10.88.0.1/24 reddwarfgw0/v4",
                "routeadm -e ipv4-forwarding",
                "routeadm -u",
            ]
        );
        let there = "reddwarf0:etherstub\nreddwarfgw0:vnic\n";
        let address = "reddwarfgw0/v4:ok:10.88.0.1/24\n";
        assert!(
            config
                .host_side(there, address, on)
                .expect("fine")
                .is_empty()
        );
        let wrong = "reddwarfgw0/v4:ok:10.9.0.1/24\n";
        assert_eq!(
            texts(config.host_side(there, wrong, on).expect("fine")),
            [
                "ipadm delete-addr reddwarfgw0/v4",
                "ipadm create-addr -t -T static -a 10.88.0.1/24 reddwarfgw0/v4",
            ]
        );
        for (links, addresses, part) in [
            ("reddwarf0:phys\n", "", "no etherstub"),
            ("reddwarf0:etherstub\nreddwarfgw0:vlan\n", "", "class vlan"),
            (
                there,
                "reddwarfgw0/v4:duplicate:10.88.0.1/24\n",
                "another host",
            ),
        ] {
            let error = config.host_side(links, addresses, on).expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
        let shown = "lo0/v4:ok:127.0.0.1/8\ne1000g1/v4:ok:192.0.2.2/24\ne1000g0/v6:ok:fe80\\:\\:1/10\ne1000g0/_a:disabled:192.0.2.3/24\ne1000g0/dhcp:ok:192.0.2.4/24\n";
        let outer = address_of("e1000g0", shown);
        assert_eq!(outer, Some(Ipv4Addr::new(192, 0, 2, 4)));
        assert_eq!(address_of("e1000g2", shown), None);
        assert_eq!(
            config.rules(outer)[..2],
            [
                "map e1000g0 10.88.0.0/24 -> 192.0.2.4/32 portmap tcp/udp 1025:65000",
                "map e1000g0 10.88.0.0/24 -> 0/32",
            ]
        );
        assert_eq!(
            config.rules(None),
            [
                "map e1000g0 10.88.0.0/24 -> 0/32 portmap tcp/udp 1025:65000",
                "map e1000g0 10.88.0.0/24 -> 0/32",
                "map reddwarfgw0 from 10.88.0.2/31 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.4/30 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.8/29 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.16/28 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.32/27 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.64/26 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
                "map reddwarfgw0 from 10.88.0.128/25 to 10.88.0.0/24 -> 10.88.0.1/32 portmap tcp/udp 1025:65000",
            ]
        );
    }
}
