//! The properties of links: which there are, their values, and what is refused.

use super::super::host::{Host, Link, LinkClass};
use super::super::ipadm::cidr;

/// Writable properties, with their defaults.
pub(super) const PROPERTIES: &[&str] = &[
    "mtu",
    "protection",
    "allowed-ips",
    "allowed-dhcp-cids",
    "maxbw",
    "cpus",
    "priority",
    "zone",
    "autopush",
    "promisc-filtered",
    "dynamic-methods",
];
/// Read-only properties.
pub(super) const READ_ONLY: &[&str] = &[
    "rxrings-available",
    "txrings-available",
    "cpus-effective",
    "state",
];
/// The values of `protection`.
const PROTECTIONS: &[&str] = &["mac-nospoof", "restricted", "ip-nospoof", "dhcp-nospoof"];

/// The error for an unknown property.
pub(super) const UNKNOWN: &str = "object not found";
/// The error for an invalid value.
pub(super) const BAD_VALUE: &str = "invalid value";

impl Host {
    /// The upper limit for a link's MTU.
    fn mtu_limit(&self, link: &Link) -> u32 {
        match (&link.over, link.class) {
            (_, LinkClass::Etherstub) => 9000,
            (Some(over), _) => match self.links.get(over) {
                Some(below) if below.class == LinkClass::Etherstub => 9000,
                Some(below) => self.link_property(below, "mtu").parse().unwrap_or(1500),
                None => 1500,
            },
            (None, _) => 9000,
        }
    }

    /// The current value of a link property.
    pub fn link_property(&self, link: &Link, property: &str) -> String {
        if let Some(value) = link.properties.get(property) {
            return value.clone();
        }
        match property {
            "mtu" => match (link.class, &link.over) {
                (LinkClass::Etherstub, _) => "9000".to_owned(),
                (_, Some(_)) => self.mtu_limit(link).to_string(),
                _ => "1500".to_owned(),
            },
            "priority" => "high".to_owned(),
            "zone" => link.zone.clone().unwrap_or_default(),
            "promisc-filtered" => "on".to_owned(),
            "state" => "up".to_owned(),
            _ => String::new(),
        }
    }

    /// The value to store for a property.
    pub(super) fn check_link_property(
        &self,
        name: &str,
        property: &str,
        values: &[&str],
    ) -> Result<String, &'static str> {
        if READ_ONLY.contains(&property) {
            return Err("read-only property");
        }
        if !PROPERTIES.contains(&property) {
            return Err(UNKNOWN);
        }
        let one = match values {
            [one] => Some(*one),
            _ => None,
        };
        let bad = BAD_VALUE;
        match property {
            "mtu" => {
                let mtu: u32 = one
                    .ok_or("incorrect number of values")?
                    .parse()
                    .map_err(|_| bad)?;
                let link = self.link(name).ok_or("object not found")?;
                if mtu < 68 || mtu > self.mtu_limit(link) {
                    return Err(bad);
                }
                if mtu.to_string() != self.link_property(link, "mtu")
                    && self.interfaces.contains_key(name)
                {
                    return Err("link busy");
                }
            }
            "protection" if !values.iter().all(|v| PROTECTIONS.contains(v)) => return Err(bad),
            "allowed-ips" if !values.iter().all(|v| cidr(v).is_some()) => return Err(bad),
            "maxbw" => {
                let text = one.ok_or("incorrect number of values")?;
                let (number, unit) = text.split_at(
                    text.trim_end_matches(|c: char| c.is_ascii_alphabetic())
                        .len(),
                );
                let number: f64 = number.parse().map_err(|_| bad)?;
                let mega = match unit {
                    "" | "M" | "m" => number,
                    "K" | "k" => number / 1000.0,
                    "G" | "g" => number * 1000.0,
                    _ => return Err(bad),
                };
                if number != 0.0 && mega < 1.2 {
                    return Err("minimum value for maxbw is 1200K");
                }
                return Ok(match mega.fract() {
                    0.0 => format!("{mega:5.0}"),
                    _ => format!("{mega:8.3}"),
                });
            }
            "zone" => return Err("not played by the fake host"),
            "priority" if !matches!(one, Some("low" | "medium" | "high")) => return Err(bad),
            _ => {}
        }
        Ok(values.join(","))
    }
}
