//! The network of pods: a bridge, a veth pair for each pod, and address translation for external traffic.
//!
//! Links are created with ip(8) and rules with nft(8), a batch per step: both are on every host that runs containers,
//! and their input can be logged and typed by hand.

pub(super) mod links;
mod ports;
mod rules;

use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::thread::LinkNameSpaceType;

use self::links::{exists, is_our_link, no_ipv6};
use self::ports::{Element, element, elements_of, keys};
use self::rules::{LINKS, PODS, SPEAKERS, is_our_table};
use super::netlink::Netfilter;
use super::services::conntrack::{self, Fronts};
use super::services::{ServiceTable, Site};
use super::tables::{self, Ruleset, Shown};
use super::tools::{is_gone, tool};
use crate::meta::addresses::Network as Range;
use crate::zone::{ZoneNetwork, ZoneSpec};

/// The alias that marks a bridge as ours.
pub(super) const ALIAS: &str = "reddwarf";

/// The pods' network of an agent.
///
/// Zones reach one another only through the host, even on the same bridge: a direct answer would come from the wrong
/// address if an address of the host or of a service was asked. Therefore their addresses have no neighbours, and the
/// host sends no redirects. If the kernel translates addresses on bridges (`bridge-nf-call-iptables`), a zone's packets
/// to itself leave on the port they came from.
///
/// Zones cannot spoof: frames of a zone's link pass the bridge only with its own MAC address and its own IP address,
/// and only IPv4 and ARP pass. So no zone can receive what is sent to others or to the host, answer for them, or
/// announce itself as a router.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge; the rules are in a table of the same name.
    pub bridge: String,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
    /// The range of this node's pods.
    pub cidr: String,
    /// The known ranges of pods, without those of other nodes.
    known: Arc<[Range]>,
    /// The ranges of all pods in the cluster, once known.
    told: Arc<Mutex<Option<Arc<[Range]>>>>,
    ruleset: Arc<Ruleset>,
    /// The count of foreign rule changes when our rules were last complete.
    whole: Arc<Mutex<Option<u64>>>,
}

impl Network {
    /// The network of a bridge on which the host has the address `gateway` with this prefix length, for zones with
    /// addresses in `cidr`. Their traffic to the ranges in `pods`, none of which contains another, keeps its source
    /// address, until [`Network::admit`] sets more ranges.
    pub fn new(
        bridge: &str,
        (gateway, prefix): (Ipv4Addr, u8),
        cidr: &str,
        pods: Arc<[Range]>,
    ) -> Self {
        Network {
            bridge: bridge.to_owned(),
            gateway,
            prefix,
            cidr: cidr.to_owned(),
            known: pods,
            told: Arc::default(),
            ruleset: Arc::default(),
            whole: Arc::default(),
        }
    }

    /// Creates bridge and rules, or keeps existing ones.
    ///
    /// # Errors
    /// There is a foreign bridge or table with this name, which is left alone; or a tool or permission is missing.
    pub fn prepare(&self) -> Result<(), String> {
        let bridge = &self.bridge;
        for (family, is_ours) in [
            ("ip", is_our_table as fn(&str) -> bool),
            ("bridge", tables::is_ours),
        ] {
            if let Some(shown) = tables::show(family, bridge)?
                && !is_ours(&shown)
            {
                return Err(format!(
                    "there is a table {family} {bridge} of nft(8) that reddwarf did not make; choose another --etherstub-name"
                ));
            }
        }
        let shown = match exists(bridge) {
            true => Some(tool("ip", &["-o", "link", "show", "dev", bridge], "")?),
            false => None,
        };
        match shown {
            Some(shown) if is_our_link(&shown) => {}
            Some(_) => {
                return Err(format!(
                    "there is a link {bridge} that reddwarf did not make; choose another --etherstub-name"
                ));
            }
            None => {
                tool(
                    "ip",
                    &["-batch", "-"],
                    &format!("link add {bridge} type bridge\nlink set {bridge} alias {ALIAS}\n"),
                )?;
            }
        }
        tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "addr replace {}/{} dev {bridge}\nlink set {bridge} up\n",
                self.gateway, self.prefix
            ),
        )?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| format!("cannot turn on forwarding of packets: {error}"))?;
        no_ipv6(bridge)?;
        // A host port on the loopback leads through the bridge into a pod; traffic from the bridge may not use such
        // addresses.
        let local = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
        std::fs::write(&local, "1").map_err(|error| format!("{local}: {error}"))?;
        let script = self.script() + &self.ranges();
        self.ruleset.change(&script).map_err(|error| {
            match error.contains("Operation not supported") {
                true => {
                    format!("{error}; use a kernel with CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_NAT")
                }
                false => error,
            }
        })
    }

    /// The nft(8) commands that set the pod ranges. As long as none are set, those of an earlier agent stay, because it
    /// may have known more.
    fn ranges(&self) -> String {
        let told = self.told.lock().clone();
        let bridge = &self.bridge;
        if told.is_none() {
            let gateway = format!("{{ {} }}", self.gateway);
            let has = ["get", "element", "ip", bridge, PODS, &gateway];
            if tool("nft", &has, "").is_ok() {
                return String::new();
            }
        }
        let ranges = told.unwrap_or_else(|| self.known.clone());
        let ranges: Vec<String> = ranges.iter().map(Range::to_string).collect();
        let ranges = ranges.join(", ");
        format!("flush set ip {bridge} {PODS}\nadd element ip {bridge} {PODS} {{ {ranges} }}\n")
    }

    /// Sets the ranges of all pods in the cluster, none of which contains another.
    ///
    /// # Errors
    /// The error of nft(8), for example if the table does not exist.
    pub(super) fn admit(&self, pods: &Arc<[Range]>) -> Result<(), String> {
        let before = self.told.lock().replace(pods.clone());
        if before.as_ref() == Some(pods) {
            return Ok(());
        }
        let admitted = self.ruleset.change(&self.ranges());
        if admitted.is_err() {
            *self.told.lock() = before;
        }
        admitted
    }

    /// Whether the tables have all their rules, and all elements of these zones. An earlier positive result stays valid
    /// as long as nobody else changed rules.
    ///
    /// # Errors
    /// The error of the tool.
    pub fn is_whole<'z>(&self, zones: impl Iterator<Item = &'z ZoneSpec>) -> Result<bool, String> {
        let foreign = self.ruleset.foreign();
        if *self.whole.lock() == Some(foreign) {
            return Ok(true);
        }
        let is_whole = self.has_all(zones)?;
        *self.whole.lock() = is_whole.then_some(foreign);
        Ok(is_whole)
    }

    fn has_all<'z>(&self, zones: impl Iterator<Item = &'z ZoneSpec>) -> Result<bool, String> {
        let bridge = self.bridge.as_str();
        for (family, chains) in [
            ("ip", self.chains().to_vec()),
            ("bridge", vec![self.spoken()]),
        ] {
            let Some(text) = tables::show(family, bridge)? else {
                return Ok(false);
            };
            let found = Shown::read(&text).chains;
            let mut expected = chains.iter().map(|(chain, _, rules)| (chain, rules.len()));
            if !expected.all(|(chain, rules)| found.get(*chain) == Some(&rules)) {
                return Ok(false);
            }
        }
        // There may be more elements: zones come and go meanwhile.
        let zones: Vec<_> = zones.collect();
        let mut links = 0;
        for zone in &zones {
            links += usize::from(matches!(zone.network, ZoneNetwork::Own { .. }));
        }
        let ranges = self.told.lock().as_ref().map_or(1, |told| told.len());
        for (family, set, least) in [
            ("bridge", SPEAKERS, links),
            ("bridge", LINKS, links),
            ("ip", PODS, ranges),
        ] {
            if tables::count([family, bridge], "set", set)? < least {
                return Ok(false);
            }
        }
        for (map, keys) in keys(zones.into_iter())? {
            if tables::count(["ip", bridge], "map", &map)? < keys.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The table that implements services for zones on this network, on a host with node ports at `addresses`. All
    /// service addresses are in `range`, if that is known.
    pub fn services(&self, addresses: Vec<Ipv4Addr>, range: Option<String>) -> ServiceTable {
        let site = Site {
            gateway: self.gateway,
            addresses,
            services: range,
        };
        ServiceTable::new(&self.bridge, site, self.known.clone(), self.ruleset.clone())
    }

    /// Connects the network namespace of process `pid`.
    ///
    /// # Errors
    /// The error of a tool.
    pub fn connect(&self, spec: &ZoneSpec, pid: u32) -> Result<(), String> {
        let ZoneNetwork::Own {
            address,
            gateway,
            mac,
            link,
            ..
        } = &spec.network
        else {
            return Ok(());
        };
        if exists(link) {
            // Left by an interrupted boot.
            tool("ip", &["link", "del", link], "")?;
        }
        let bridge = &self.bridge;
        // Before it can send anything.
        self.ruleset.change(&self.speaker("add", spec))?;
        tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add name {link} type veth peer name eth0 address {mac} netns {pid}\nlink set {link} master {bridge} up\nlink set {link} type bridge_slave hairpin on\n"
            ),
        )?;
        no_ipv6(link)?;
        let inside = format!(
            "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\nroute add {gateway} dev eth0 scope link\nroute add default via {gateway}\n"
        );
        // The tool starts in the namespace that its thread joined; the thread ends with it.
        std::thread::spawn(move || {
            use std::os::fd::AsFd as _;
            let path = format!("/proc/{pid}/ns/net");
            let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
            rustix::thread::move_into_link_name_space(
                file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )
            .map_err(|error| format!("{path}: {error}"))?;
            no_ipv6("eth0")?;
            tool("ip", &["-batch", "-"], &inside).map(drop)
        })
        .join()
        .map_err(|_| "a thread broke".to_owned())??;
        self.lead_after(String::new(), spec)
    }

    /// Allows a connected zone to send, and adds its host ports; existing elements are kept.
    ///
    /// # Errors
    /// The error of the tool.
    pub fn lead(&self, spec: &ZoneSpec) -> Result<(), String> {
        self.lead_after(self.speaker("add", spec), spec)
    }

    /// Adds the host ports of a zone, in one transaction with a script.
    fn lead_after(&self, mut script: String, spec: &ZoneSpec) -> Result<(), String> {
        let bridge = &self.bridge;
        let ZoneNetwork::Own { address, .. } = &spec.network else {
            return Ok(());
        };
        let elements = elements_of(spec)?;
        for Element {
            map, key, value, ..
        } in &elements
        {
            script += &format!("add element ip {bridge} {map} {{ {key} : {value} }}\n");
        }
        if !elements.is_empty() {
            script += &format!("add {}\n", self.itself(*address));
        }
        if script.is_empty() {
            return Ok(());
        }
        self.ruleset.change(&script)?;
        let flows = Fronts::of_host(elements.iter().flat_map(Element::flows));
        if let Err(error) = conntrack::forget_stale(&flows) {
            tracing::debug!(%error, "cannot delete flows to a host port; they may go to the wrong pod for a while");
        }
        Ok(())
    }

    /// Undoes [`Network::connect`]; the zone's processes are gone.
    ///
    /// # Errors
    /// The error of a tool.
    pub fn disconnect(&self, spec: &ZoneSpec) -> Result<(), String> {
        let ZoneNetwork::Own {
            address,
            link,
            ports,
            ..
        } = &spec.network
        else {
            return Ok(());
        };
        let bridge = &self.bridge;
        // Invalid ones were never added.
        let made = ports.iter().filter_map(|port| element(port, *address).ok());
        for Element {
            map,
            key,
            key_kept,
            value_kept,
            ..
        } in made.flatten()
        {
            // Only elements that lead to this zone: the port may belong to another pod. Nobody else replaces our
            // elements.
            let kept = Netfilter::open().and_then(|kernel| kernel.element(bridge, &map, &key_kept));
            let kept = kept.map_err(|error| format!("cannot read the map {map}: {error}"))?;
            if kept == Some(value_kept) {
                self.ruleset
                    .change(&format!("delete element ip {bridge} {map} {{ {key} }}\n"))?;
            }
        }
        if exists(link) {
            // It is also removed with its peer in the zone, in which case this fails.
            let _ = tool("ip", &["link", "del", link], "");
        }
        let itself = format!("delete {}\n", self.itself(*address));
        let itself = (!ports.is_empty()).then_some(itself);
        for script in itself.into_iter().chain([self.speaker("delete", spec)]) {
            match self.ruleset.change(&script) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
