//! Networking of illumos zones: the commands that create links, addresses and NAT rules, and the constraints on their
//! names and values. Pure, except for [`prepare`].

use std::net::Ipv4Addr;

use crate::illumos::parse::{self, VnicRow};
use crate::illumos::{Command, Tool, Tools};

/// A host-internal network: zones on an etherstub, routed by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtherstubConfig {
    /// The etherstub.
    pub etherstub: String,
    /// The host's address on it: the zones' default router.
    pub gateway: Ipv4Addr,
    /// The prefix length of the network.
    pub prefix_len: u8,
    /// The network, `10.244.0.0/24`.
    pub cidr: String,
    /// The host's external link, for NAT; `None`: zones only reach this host.
    pub external: Option<String>,
}

/// Zones on an existing network: their VNICs are on a NIC, an aggregation or a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectNicConfig {
    /// The link under the VNICs.
    pub link: String,
    /// The VLAN id of their frames, if any.
    pub vlan: Option<u16>,
    /// The network's router.
    pub gateway: Ipv4Addr,
    /// The prefix length of the network.
    pub prefix_len: u8,
}

/// How zones are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkConfig {
    /// On an etherstub.
    Etherstub(EtherstubConfig),
    /// On an existing network.
    Direct(DirectNicConfig),
}

/// The MTU of zones' links: etherstubs default to 9000, which external networks do not accept.
const MTU: &str = "1500";
/// Link protection besides allowed addresses: set after each boot, because zoneadmd(8) rejects links that are
/// protected already, and resets everything at each halt.
const PROTECTION: &str = "mac-nospoof,restricted,ip-nospoof,dhcp-nospoof";
/// The minimum bandwidth that dladm(8) accepts, in kbit/s.
const LEAST: u64 = 1200;
/// How connections of zones are mapped to ports of the host.
const PORTS: &str = "portmap tcp/udp 1025:65000";

/// Whether a link name is valid (`dladm_valid_linkname`): 1 to 31 of letters, digits, `_` and `.`; not beginning with a
/// digit; ending in a number without leading zeros.
pub fn is_link_name(name: &str) -> bool {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = &name[name.len() - digits..];
    (1..=31).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
        && !name.as_bytes()[0].is_ascii_digit()
        && !number.is_empty()
        && (number == "0" || !number.starts_with('0'))
}

impl NetworkConfig {
    /// The link under the VNICs of zones.
    pub fn over(&self) -> &str {
        match self {
            NetworkConfig::Etherstub(config) => &config.etherstub,
            NetworkConfig::Direct(config) => &config.link,
        }
    }
    /// The VLAN id of zones' frames; 0 means none.
    pub fn vlan(&self) -> u16 {
        match self {
            NetworkConfig::Etherstub(_) => 0,
            NetworkConfig::Direct(config) => config.vlan.unwrap_or(0),
        }
    }
    /// The link on which rules to and from the outside apply.
    pub fn external(&self) -> Option<&str> {
        match self {
            NetworkConfig::Etherstub(config) => config.external.as_deref(),
            NetworkConfig::Direct(_) => None,
        }
    }
    /// The ipnat(5) rules that it needs, in the order in which they must be evaluated.
    pub fn rules(&self) -> Vec<String> {
        match self {
            NetworkConfig::Etherstub(config) => config.rules(),
            NetworkConfig::Direct(_) => Vec::new(),
        }
    }
    /// Why it is unusable.
    pub fn check(&self) -> Result<(), String> {
        let (flag, link) = match self {
            NetworkConfig::Etherstub(config) => ("--etherstub-name", &config.etherstub),
            NetworkConfig::Direct(config) => ("--physical-nic", &config.link),
        };
        for (flag, link) in [(flag, link.as_str())]
            .into_iter()
            .chain(self.external().map(|link| ("--physical-nic", link)))
        {
            if !is_link_name(link) {
                return Err(format!(
                    "{flag} {link:?} is not the name of a link: letters, digits, `_` and `.`, at most 31, no digit first, a number without leading zeros last"
                ));
            }
        }
        if let NetworkConfig::Direct(DirectNicConfig {
            vlan: Some(vlan), ..
        }) = self
            && !(1..=4094).contains(vlan)
        {
            return Err(format!("--vlan {vlan} is not between 1 and 4094"));
        }
        Ok(())
    }
}

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
    /// `nat_newmap`).
    pub fn rules(&self) -> Vec<String> {
        let mut rules = Vec::new();
        if let Some(external) = &self.external {
            let out = format!("map {external} {} -> 0/32", self.cidr);
            rules.extend([format!("{out} {PORTS}"), out]);
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

fn dladm<const N: usize>(words: [&str; N]) -> Command {
    Command::new(Tool::Dladm, words)
}

fn ipadm<const N: usize>(words: [&str; N]) -> Command {
    Command::new(Tool::Ipadm, words)
}

/// The desired VNIC of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vnic {
    /// Its name.
    pub link: String,
    /// Its MAC address, two digits per byte.
    pub mac: String,
    /// The link under it.
    pub over: String,
    /// Its VLAN id; 0 means none.
    pub vlan: u16,
    /// Its maximum bandwidth, in bit/s.
    pub bandwidth: Option<u64>,
}

impl Vnic {
    /// Creates it until the next reboot, so that what a crash leaves behind does not stay.
    pub fn create(&self) -> Command {
        let mut words = vec!["create-vnic", "-t", "-l", &self.over, "-m", &self.mac];
        let vlan = self.vlan.to_string();
        if self.vlan != 0 {
            words.extend(["-v", &vlan]);
        }
        let mut properties = format!("mtu={MTU}");
        if let Some(bits) = self.bandwidth {
            properties.push_str(&format!(",maxbw={}K", bits.div_ceil(1000).max(LEAST)));
        }
        words.extend(["-p", &properties, &self.link]);
        Command::new(Tool::Dladm, words)
    }
    /// Whether the existing VNIC of its name matches.
    pub fn is(&self, row: &VnicRow) -> bool {
        row.link == self.link
            && row.over == self.over
            && row.vlan == self.vlan
            && row.mac == parse::mac(&self.mac)
    }
    /// Removes its protection: zoneadmd(8) does not boot a zone with a link that is protected already.
    pub fn unprotect(&self) -> Command {
        dladm([
            "reset-linkprop",
            "-t",
            "-p",
            "protection,allowed-ips",
            &self.link,
        ])
    }
    /// Protects it, once its zone is running.
    pub fn protect(&self) -> Command {
        let protection = format!("protection={PROTECTION}");
        dladm(["set-linkprop", "-t", "-p", &protection, &self.link])
    }
    /// Deletes it.
    pub fn delete(&self) -> Command {
        delete_vnic(&self.link)
    }
}

/// Whether the name and MAC address of a VNIC belong together, as those of zones' links do.
pub fn is_ours(row: &VnicRow) -> bool {
    let bytes: Vec<u8> = row
        .mac
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let &[_, _, a, b, c, d] = &bytes[..] else {
        return false;
    };
    let address = Ipv4Addr::new(a, b, c, d);
    row.mac == super::mac_address(address) && row.link == super::link_name(address.into())
}

/// Deletes a VNIC; one inside a zone is busy.
pub fn delete_vnic(link: &str) -> Command {
    dladm(["delete-vnic", "-t", link])
}

/// Lists all VNICs, for [`parse::vnics`].
pub fn show_vnics() -> Command {
    dladm(["show-vnic", "-p", "-o", "link,over,macaddress,vid"])
}

/// The rule that redirects a port of the host to one of a zone.
pub fn redirect(
    external: &str,
    at: Option<Ipv4Addr>,
    port: u16,
    to: Ipv4Addr,
    zone: u16,
    protocol: &str,
) -> String {
    let at = at.map_or("0.0.0.0/0".to_owned(), |at| format!("{at}/32"));
    format!(
        "rdr {external} {at} port {port} -> {to} port {zone} {}",
        protocol.to_lowercase()
    )
}

/// Lists the active rules, for [`parse::nat_rules`].
pub fn show_rules() -> Command {
    Command::new(Tool::Ipnat, ["-l"])
}

/// Adds one rule. Other rules stay: nothing is ever flushed.
pub fn add_rule(rule: &str) -> Command {
    add_rules(&[rule.to_owned()])
}

/// Adds rules. Only the list shows which were accepted: ipnat(8) reports rejected ones on standard error, continues
/// with the next, and exits with 0.
pub fn add_rules(rules: &[String]) -> Command {
    Command::new(Tool::Ipnat, ["-f", "-"]).fed(lines(rules))
}

/// Removes one rule.
pub fn remove_rule(rule: &str) -> Command {
    remove_rules(&[rule.to_owned()])
}

/// Removes rules; like [`add_rules`] it continues after missing ones.
pub fn remove_rules(rules: &[String]) -> Command {
    Command::new(Tool::Ipnat, ["-r", "-f", "-"]).fed(lines(rules))
}

fn lines(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("{rule}\n")).collect()
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
    let addresses = ask(Command::new(
        Tool::Ipadm,
        ["show-addr", "-p", "-o", "addrobj,state,addr"],
    ))
    .await?;
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
impl EtherstubConfig {
    /// The network of a host with the link `external`, for tests.
    pub(crate) fn of_tests(external: Option<&str>) -> EtherstubConfig {
        EtherstubConfig {
            etherstub: "reddwarf0".into(),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            prefix_len: 24,
            cidr: "10.88.0.0/24".into(),
            external: external.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_what_dladm_takes() {
        for (name, legal) in [
            ("rd7", true),
            ("rdab_0", true),
            ("rd3fa00n0", true),
            ("net.x10", true),
            ("rd007", false),
            ("rdabc007", false),
            ("rd-1", false),
            ("eth", false),
            ("0a1", false),
            ("", false),
        ] {
            assert_eq!(is_link_name(name), legal, "{name:?}");
        }
        assert!(is_link_name(&format!("{}1", "a".repeat(30))));
        assert!(!is_link_name(&format!("{}1", "a".repeat(31))));
        for name in ["reddwarf0", "s12", &format!("{}10", "a".repeat(29))] {
            let config = EtherstubConfig {
                etherstub: name.to_owned(),
                ..EtherstubConfig::of_tests(None)
            };
            assert!(is_link_name(&config.host_link()), "{}", config.host_link());
            assert_ne!(config.host_link(), name);
        }
        for number in [0, 1, 25, 26, 0x0af4_0002, u32::MAX] {
            assert!(is_link_name(&crate::net::link_name(number)));
        }
    }

    #[test]
    fn configurations_that_no_host_takes_are_refused_with_the_flag() {
        let direct = |link: &str, vlan| {
            NetworkConfig::Direct(DirectNicConfig {
                link: link.into(),
                vlan,
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                prefix_len: 24,
            })
        };
        assert!(direct("aggr0", Some(42)).check().is_ok());
        assert!(
            direct("aggr0", Some(4095))
                .check()
                .expect_err("refused")
                .contains("--vlan")
        );
        assert!(
            direct("eth-0", None)
                .check()
                .expect_err("refused")
                .contains("--physical-nic")
        );
        let external = NetworkConfig::Etherstub(EtherstubConfig::of_tests(Some("x")));
        assert!(
            external
                .check()
                .expect_err("refused")
                .contains("--physical-nic")
        );
    }

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
        assert_eq!(
            config.rules(),
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

    #[test]
    fn a_zones_link_is_made_recognised_and_protected() {
        let vnic = Vnic {
            link: "rdbn0".into(),
            mac: "02:5d:0a:58:00:11".into(),
            over: "aggr0".into(),
            vlan: 42,
            bandwidth: Some(10_000_000),
        };
        assert_eq!(
            vnic.create().to_string(),
            "dladm create-vnic -t -l aggr0 -m 02:5d:0a:58:00:11 -v 42 -p mtu=1500,maxbw=10000K rdbn0"
        );
        let rows = parse::vnics(
            "rdbn0:aggr0:2\\:5d\\:a\\:58\\:0\\:11:42\nrdbn0:aggr0:2\\:5d\\:a\\:58\\:0\\:12:42\n",
        );
        assert_eq!(
            rows.iter().map(|row| vnic.is(row)).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(
            vnic.protect().to_string(),
            "dladm set-linkprop -t -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof rdbn0"
        );
        let to = Ipv4Addr::new(10, 88, 0, 17);
        assert_eq!(
            add_rule(&redirect("e1000g0", None, 30080, to, 80, "TCP")).to_string(),
            "printf '%s\\n' 'rdr e1000g0 0.0.0.0/0 port 30080 -> 10.88.0.17 port 80 tcp' | ipnat -f -"
        );
    }
}
