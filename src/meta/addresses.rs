//! IP addresses and CIDRs: which forms upstream accepts, rejects, or warns about. Follows
//! k8s.io/apimachinery/pkg/util/validation/ip.go and the sloppy parsers of k8s.io/utils/net.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::Wrong;
use crate::schema::Value;

/// A network: its address with the host bits cleared, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address.
    pub address: IpAddr,
    /// The length of the network prefix in bits.
    pub prefix: u8,
}

impl Network {
    /// The first address that can belong to a host.
    pub fn first_host(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(1)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(1)).into(),
        }
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                u32::from(network) == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                u128::from(network) == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Parses an IP as Go's older parser did: leading zeros are ignored, and an IPv4-mapped IPv6 address is the IPv4
/// address. No zones.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let address = parse_wide(text)?;
    Some(match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}

/// Like [`parse_ip`], but a mapped address stays IPv6.
fn parse_wide(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let groups: Vec<String> = text
            .split(':')
            .map(|group| {
                group
                    .split('.')
                    .map(without_zeros)
                    .collect::<Vec<_>>()
                    .join(".")
            })
            .collect();
        groups.join(":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        text.split('.')
            .map(without_zeros)
            .collect::<Vec<_>>()
            .join(".")
            .parse::<Ipv4Addr>()
            .ok()
            .map(IpAddr::V4)
    }
}

fn without_zeros(digits: &str) -> &str {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.len() < digits.len() && !trimmed.starts_with(|c: char| c.is_ascii_hexdigit()) {
        &digits[digits.len() - trimmed.len() - 1..]
    } else {
        trimmed
    }
}

/// Parses an address with its network as Go's older parser did: `10.1.2.3/8`, leading zeros allowed.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, Network)> {
    let (address, bits) = text.split_once('/')?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u32 = without_zeros(bits).parse().ok()?;
    let wide = parse_wide(address)?;
    let network = match wide {
        IpAddr::V4(v4) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Network {
                address: Ipv4Addr::from(u32::from(v4) & mask).into(),
                prefix: u8::try_from(bits).ok()?,
            }
        }
        IpAddr::V6(v6) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let masked = Ipv6Addr::from(u128::from(v6) & mask);
            match masked.to_ipv4_mapped() {
                Some(v4) => Network {
                    address: v4.into(),
                    prefix: u8::try_from(bits.saturating_sub(96)).ok()?,
                },
                None => Network {
                    address: masked.into(),
                    prefix: u8::try_from(bits).ok()?,
                },
            }
        }
        _ => return None,
    };
    Some((parse_ip(address)?, network))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address of an older field: IsValidIPForLegacyField with strict validation.
pub fn ip_legacy(value: &str) -> Wrong {
    if parse_ip(value).is_none() {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    }
    match value.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s".to_owned()],
        Ok(address) if is_mapped(address) => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Wrong::new(),
    }
}

/// An address in its canonical form: IsValidIP.
pub fn ip(value: &str) -> Wrong {
    let wrong = ip_legacy(value);
    match parse_ip(value) {
        Some(address) if wrong.is_empty() && address.to_string() != value => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => wrong,
    }
}

/// The warning for an accepted address: GetWarningsForIP, without the field's path.
pub fn ip_warning(value: &str) -> Option<String> {
    let parsed = parse_ip(value)?;
    match value.parse::<IpAddr>() {
        Ok(address) if !is_mapped(address) => (address.is_ipv6() && address.to_string() != value)
            .then(|| format!("IPv6 address \"{value}\" should be in RFC 5952 canonical format (\"{address}\")")),
        _ => Some(format!("non-standard IP address \"{value}\" is invalid: use \"{parsed}\"")),
    }
}

/// [`ip_warning`] for the member `ip` of each item of the list at `path`, prefixed with the item's path and `below`.
pub fn listed_ip_warnings(object: &Value, path: &[&str], below: &str) -> Vec<String> {
    let items = object.path(path).as_array().into_iter().flatten();
    let warned = items.enumerate().filter_map(|(i, item)| {
        let warning = ip_warning(item.str("ip"))?;
        Some(format!("{}[{i}]{below}: {warning}", path.join(".")))
    });
    warned.collect()
}

/// The address and prefix length of a CIDR as Go's newer parser takes them: no leading zeros.
fn parse_prefix(value: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    if bits.is_empty()
        || bits.len() > 1 && bits.starts_with('0')
        || !bits.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// A CIDR of an older field: IsValidCIDRForLegacyField with strict validation.
pub fn cidr_legacy(value: &str) -> Wrong {
    let Some((_, network)) = parse_cidr(value) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    match parse_prefix(value) {
        None => vec!["must not have leading 0s in IP or prefix length".to_owned()],
        Some((address, _)) if is_mapped(address) => {
            vec!["must not have an IPv4-mapped IPv6 address".to_owned()]
        }
        Some((address, _)) if address != network.address => {
            vec!["must not have bits set beyond the prefix length".to_owned()]
        }
        Some(_) => Wrong::new(),
    }
}

/// A CIDR in its canonical form: IsValidCIDR.
pub fn cidr(value: &str) -> Wrong {
    let wrong = cidr_legacy(value);
    match parse_cidr(value) {
        Some((_, network)) if wrong.is_empty() && network.to_string() != value => {
            vec![format!("must be in canonical form (\"{network}\")")]
        }
        _ => wrong,
    }
}

/// The warnings for an accepted CIDR: GetWarningsForCIDR, without the field's path.
pub fn cidr_warnings(value: &str) -> Vec<String> {
    let Some((address, network)) = parse_cidr(value) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if address != network.address {
        let bits = if network.address.is_ipv4() { 32 } else { 128 };
        warnings.push(format!("CIDR value \"{value}\" is ambiguous in this context (should be \"{network}\" or \"{address}/{bits}\"?)"));
    }
    match parse_prefix(value) {
        Some((exact, bits)) if !is_mapped(exact) => {
            let canonical = format!("{exact}/{bits}");
            if warnings.is_empty() && exact.is_ipv6() && canonical != value {
                warnings.push(format!("IPv6 CIDR value \"{value}\" should be in RFC 5952 canonical format (\"{canonical}\")"));
            }
        }
        _ => warnings.push(format!(
            "non-standard CIDR value \"{value}\" is invalid: use \"{network}\""
        )),
    }
    warnings
}

/// An interface's address with the length of its network's prefix, in canonical form: IsValidInterfaceAddress.
pub fn interface_address(value: &str) -> Wrong {
    match parse_cidr(value) {
        None => vec![
            "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned(),
        ],
        Some((address, network)) => {
            let canonical = format!("{address}/{}", network.prefix);
            if value == canonical {
                Wrong::new()
            } else {
                vec![format!("must be in canonical form (\"{canonical}\")")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_accepted_refused_and_warned_of() {
        for (value, wrong, warned) in [
            ("10.0.0.1", "", ""),
            ("0.0.0.0", "", ""),
            ("2001:db8::ffff", "", ""),
            ("::", "", ""),
            (
                "010.0.0.1",
                "must not have leading 0s",
                "non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
            ),
            (
                "::ffff:1.2.3.4",
                "must not be an IPv4-mapped IPv6 address",
                "non-standard IP address \"::ffff:1.2.3.4\" is invalid: use \"1.2.3.4\"",
            ),
            (
                "1.2.3",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "",
            ),
            (
                "fe80::1%eth0",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "",
            ),
            (
                "FE80:0::1",
                "",
                "IPv6 address \"FE80:0::1\" should be in RFC 5952 canonical format (\"fe80::1\")",
            ),
        ] {
            assert_eq!(ip_legacy(value).join("|"), wrong, "{value}");
            assert_eq!(ip_warning(value).unwrap_or_default(), warned, "{value}");
        }
        assert_eq!(
            ip("FE80::1").join("|"),
            "must be in canonical form (\"fe80::1\")"
        );
    }

    #[test]
    fn cidrs_are_accepted_refused_and_warned_of() {
        for (value, wrong, warned) in [
            ("10.0.0.0/8", "", ""),
            ("0.0.0.0/0", "", ""),
            ("::/0", "", ""),
            (
                "10.0.0.1/8",
                "must not have bits set beyond the prefix length",
                "CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            ),
            (
                "10.0.0.0/08",
                "must not have leading 0s in IP or prefix length",
                "non-standard CIDR value \"10.0.0.0/08\" is invalid: use \"10.0.0.0/8\"",
            ),
            (
                "10.0.0.0/33",
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "",
            ),
            (
                "::ffff:10.0.0.0/104",
                "must not have an IPv4-mapped IPv6 address",
                "non-standard CIDR value \"::ffff:10.0.0.0/104\" is invalid: use \"10.0.0.0/8\"",
            ),
        ] {
            assert_eq!(cidr_legacy(value).join("|"), wrong, "{value}");
            assert_eq!(cidr_warnings(value).join("|"), warned, "{value}");
        }
        assert!(interface_address("10.0.0.1/24").is_empty());
        assert_eq!(
            interface_address("010.0.0.1/24").join(""),
            "must be in canonical form (\"10.0.0.1/24\")"
        );
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let (_, network) = parse_cidr("10.96.0.0/12").unwrap();
        assert!(network.contains([10, 111, 0, 1].into()));
        assert!(!network.contains([10, 112, 0, 1].into()));
        assert!(!network.contains(Ipv6Addr::LOCALHOST.into()));
    }
}
