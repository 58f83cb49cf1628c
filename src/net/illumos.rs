//! Networking of illumos zones: the commands that create links, addresses and NAT rules, and the constraints on their
//! names and values. Pure, except for [`prepare`].

mod host;
mod nat;
mod vnic;

use std::net::Ipv4Addr;

use crate::illumos::{Command, Tool};

pub use self::host::{address_of, prepare, show_addresses};
pub use self::nat::{add_rule, add_rules, redirect, remove_rule, remove_rules, show_rules};
pub use self::vnic::{Vnic, delete_vnic, is_ours, show_vnics};

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

    /// The ipnat(5) rules that it needs, in the order in which they must be evaluated; `outer` is the address of the
    /// external link.
    pub fn rules(&self, outer: Option<std::net::Ipv4Addr>) -> Vec<String> {
        match self {
            NetworkConfig::Etherstub(config) => config.rules(outer),
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

fn dladm<const N: usize>(words: [&str; N]) -> Command {
    Command::new(Tool::Dladm, words)
}

fn ipadm<const N: usize>(words: [&str; N]) -> Command {
    Command::new(Tool::Ipadm, words)
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
}
