//! Operations on zone documents as in libzonecfg: lookups, aliases of resource controls, and the limits of its
//! fixed-size fields.

use std::net::IpAddr;

use super::Flavour;
use crate::fakehost::xml::Element;

/// libzonecfg's errors, with the texts of `zonecfg_strerror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Z {
    /// No such zone.
    NoZone,
    /// A document that cannot be parsed, or names an unknown brand.
    InvalidDocument,
    /// An invalid zone name.
    BogusZoneName,
    /// A zonepath is missing.
    RequiredResource,
    /// A property is missing.
    RequiredProperty,
    /// An invalid combination.
    Inval,
    /// A bad property value.
    BadProperty,
    /// A value that does not parse.
    InvalidProperty,
    /// A value that does not fit.
    TooBig,
    /// Nothing was loaded.
    BadHandle,
    /// Nothing to remove.
    NoEntry,
    /// No such resource type.
    NoResourceType,
    /// No resource matches.
    NoResourceId,
    /// The property does not belong to the resource.
    NoPropertyType,
    /// The list has no such value.
    NoPropertyId,
    /// Several match, or a resource is unfinished.
    InsufficientSpec,
    /// A zone that is up, or has a name in use.
    BadZoneState,
    /// The name is taken.
    NameInUse,
    /// An own resource control is in the way of an alias.
    AliasDisallow,
    /// The property cannot be cleared.
    ClearDisallow,
    /// Settings exclude one another.
    Incompatible,
    /// The brand's own check failed.
    BrandError,
    /// Writing failed.
    SavingFile,
    /// The index does not exist or cannot be locked.
    UpdatingIndex,
    /// The directory for configurations does not exist.
    MiscFs,
}

impl Z {
    /// The text shown to users.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoZone => "No such zone configured",
            Self::BadHandle => "Bad handle",
            Self::InvalidDocument => "Invalid document",
            Self::BogusZoneName => "Bogus zone name",
            Self::RequiredResource => "Required resource missing",
            Self::RequiredProperty => "Required property missing",
            Self::Inval => "Invalid argument",
            Self::BadProperty => "Bad document property",
            Self::InvalidProperty => "Specified property is invalid",
            Self::TooBig => "Argument list too long",
            Self::NoEntry => "No such entry",
            Self::NoResourceType => "No such resource type",
            Self::NoResourceId => "No such resource with that id",
            Self::NoPropertyType => "No such property type",
            Self::NoPropertyId => "No such property with that id",
            Self::InsufficientSpec => "Insufficient specification",
            Self::BadZoneState => "Zone state is invalid for the requested operation",
            Self::NameInUse => "Zone name already in use",
            Self::AliasDisallow => "An incompatible rctl already exists for this property",
            Self::ClearDisallow => "Clearing this property is not allowed",
            Self::Incompatible => "Incompatible settings",
            Self::BrandError => "Brand-specific error",
            Self::SavingFile => "Problem saving file",
            Self::UpdatingIndex => "Problem updating index file",
            Self::MiscFs => "Miscellaneous file system error",
        }
    }
}

/// Whether a name is a zone name (`zonecfg_validate_zonename`).
pub fn valid_zone_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    name != "global"
        && bytes.len() < 64
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// Whether a name is a datalink name (`dladm_valid_linkname`).
pub fn valid_link_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty()
        || bytes.len() >= 32
        || bytes[0].is_ascii_digit()
        || !bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"_.".contains(c))
    {
        return false;
    }
    let digits = bytes
        .iter()
        .rev()
        .take_while(|c| c.is_ascii_digit())
        .count();
    let number = &bytes[bytes.len() - digits..];
    digits > 0 && (digits == 1 || number[0] != b'0')
}

/// Whether a name is a ZFS file system name (`zfs_name_valid`).
pub fn valid_dataset_name(name: &str) -> bool {
    let component = |c: &str| {
        !c.is_empty()
            && c.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.: %".contains(&b))
    };
    name.len() < 256 && name.split('/').all(component)
}

/// A resource control alias: name, real name, action and lower bound.
#[derive(Debug)]
pub struct Alias {
    /// The property name.
    pub name: &'static str,
    /// The resource control.
    pub rctl: &'static str,
    /// What happens at the limit.
    pub action: &'static str,
    /// The lower bound.
    pub low: u64,
}

const ALIASES: &[Alias] = &[
    alias("max-lwps", "zone.max-lwps", "deny", 100),
    alias("max-shm-memory", "zone.max-shm-memory", "deny", 0),
    alias("max-shm-ids", "zone.max-shm-ids", "deny", 0),
    alias("max-msg-ids", "zone.max-msg-ids", "deny", 0),
    alias("max-sem-ids", "zone.max-sem-ids", "deny", 0),
    alias("locked", "zone.max-locked-memory", "deny", 0),
    alias("swap", "zone.max-swap", "deny", 0),
    alias("physical", "zone.max-physical-memory", "deny", 1_048_576),
    alias("cpu-shares", "zone.cpu-shares", "none", 0),
    alias("cpu-cap", "zone.cpu-cap", "deny", 0),
    alias("max-processes", "zone.max-processes", "deny", 100),
    alias("zfs-io-priority", "zone.zfs-io-priority", "none", 1),
];

const fn alias(name: &'static str, rctl: &'static str, action: &'static str, low: u64) -> Alias {
    Alias {
        name,
        rctl,
        action,
        low,
    }
}

/// The alias of a property.
pub fn find_alias(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|a| a.name == name)
}

/// The limit behind an alias; [`Z::NoEntry`] when unset, [`Z::AliasDisallow`] when the resource
/// control was set in a way the alias cannot express.
pub fn aliased(doc: &Element, name: &str) -> Result<u64, Z> {
    let alias = find_alias(name).ok_or(Z::NoEntry)?;
    let mut found = doc
        .named("rctl")
        .filter(|r| r.attr("name") == Some(alias.rctl));
    let rctl = found.next().ok_or(Z::NoEntry)?;
    if found.next().is_some() || rctl.children.len() != 1 {
        return Err(Z::AliasDisallow);
    }
    let value = &rctl.children[0];
    if value.attr("priv") != Some("privileged") || value.attr("action") != Some(alias.action) {
        return Err(Z::AliasDisallow);
    }
    // As strtoull(3C) with base 10: up to the first character that is not a digit.
    let limit = value.attr_or_empty("limit").trim_start();
    let limit = limit.strip_prefix('+').unwrap_or(limit);
    let end = limit
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(limit.len());
    Ok(match &limit[..end] {
        "" => 0,
        digits => digits.parse().unwrap_or(u64::MAX),
    })
}

/// Sets the limit behind an alias; the resource control moves to the end of the document.
pub fn set_aliased(doc: &mut Element, name: &str, limit: u64) {
    let Some(alias) = find_alias(name) else {
        return;
    };
    remove_aliased(doc, name);
    let value = Element::new("rctl-value")
        .with("priv", "privileged")
        .with("limit", &limit.to_string())
        .with("action", alias.action);
    let mut rctl = Element::new("rctl").with("name", alias.rctl);
    rctl.children.push(value);
    doc.children.push(rctl);
}

/// Removes the resource control behind an alias.
pub fn remove_aliased(doc: &mut Element, name: &str) {
    if let Some(alias) = find_alias(name) {
        doc.children
            .retain(|c| !(c.name == "rctl" && c.attr("name") == Some(alias.rctl)));
    }
}

/// An unsigned decimal number as parsed by `valid_uint`: no sign, nothing after it.
pub fn parse_uint(text: &str) -> Option<u64> {
    let text = text.trim_start();
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The limit of a resource control as parsed by strtoull(3C) with base 0: decimal, `0x` hexadecimal, `0` octal.
pub fn parse_limit(text: &str) -> Option<u64> {
    let body = text.trim_start();
    if text.starts_with('-') || body.is_empty() {
        return (!text.starts_with('-') && text.is_empty()).then_some(0);
    }
    let (negative, body) = match body.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, body.strip_prefix('+').unwrap_or(body)),
    };
    let lower = body.to_ascii_lowercase();
    let number = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16),
        (None, Some("")) => Ok(0),
        (None, Some(octal)) => u64::from_str_radix(octal, 8),
        (None, None) => lower.parse(),
    };
    let number = number
        .ok()
        .filter(|_| !lower.contains('+') && !lower.contains('-'))?;
    Some(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}

/// A size as parsed by `zonecfg_str_to_bytes`: a non-negative number, followed by nothing or one of K, M, G, T (or in
/// lower case), powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = float_prefix(text);
    if number < 0.0 {
        return None;
    }
    let unit = unit.trim_start();
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    // A long double represents every whole number of bytes.
    let digits = text
        .trim()
        .trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if let Ok(number) = digits.trim_end().parse::<u128>() {
        return Some(u64::try_from(number.saturating_mul(1 << shift)).unwrap_or(0));
    }
    Some(truncated(number * (1u64 << shift) as f64))
}

/// Converts a number to an unsigned integer like C on amd64: values that do not fit become 0.
pub fn truncated(number: f64) -> u64 {
    if number < 18_446_744_073_709_551_616.0 {
        number as u64
    } else {
        0
    }
}

/// The number at the beginning of a text, and the rest, like C99's `strtod`, which also parses hexadecimal numbers,
/// `inf` and `nan`; 0 if there is no number.
pub fn float_prefix(text: &str) -> (f64, &str) {
    let body = text.trim_start();
    let bytes = body.as_bytes();
    let mut end = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    if let Some((number, len)) = unusual_number(&body[end..]) {
        let number = if bytes[0] == b'-' { -number } else { number };
        return (number, &body[end + len..]);
    }
    let digits = |from: usize| {
        bytes[from.min(bytes.len())..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .count()
    };
    let whole = digits(end);
    end += whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return (0.0, text);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    let number = body[..end].trim_end_matches('.').parse().unwrap_or(0.0);
    (number, &body[end..])
}

/// An unsigned number in a form other than decimal digits, and its length.
fn unusual_number(text: &str) -> Option<(f64, usize)> {
    let lower = text.to_ascii_lowercase();
    let words = [
        ("infinity", f64::INFINITY),
        ("inf", f64::INFINITY),
        ("nan", f64::NAN),
    ];
    if let Some((word, number)) = words.iter().find(|(word, _)| lower.starts_with(word)) {
        return Some((*number, word.len()));
    }
    let digits = lower.strip_prefix("0x")?;
    let (mut number, mut scale, mut len) = (0.0, None, 0);
    for c in digits.chars() {
        match (c.to_digit(16), scale) {
            (Some(digit), None) => number = number * 16.0 + f64::from(digit),
            (Some(digit), Some(unit)) => {
                number += f64::from(digit) * unit;
                scale = Some(unit / 16.0);
            }
            (None, None) if c == '.' => scale = Some(1.0 / 16.0),
            _ => break,
        }
        len += 1;
    }
    let some = digits[..len].contains(|c: char| c.is_ascii_hexdigit());
    let power = digits[len..].strip_prefix('p').and_then(|rest| {
        let sign = usize::from(rest.starts_with(['+', '-']));
        let count = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        let exponent = rest[..sign + count].parse::<i32>().ok()?;
        Some((exponent, 1 + sign + count))
    });
    let (exponent, more) = power.unwrap_or((0, 0));
    some.then_some((number * 2f64.powi(exponent), 2 + len + more))
}

/// A size as `zonecfg info` shows it.
pub fn bytes_to_units(bytes: u64) -> String {
    let bytes = bytes.min(i64::MAX as u64);
    if bytes < 1024 {
        return bytes.to_string();
    }
    let units = ['B', 'K', 'M', 'G', 'T'];
    let (mut number, mut save, mut unit) = (bytes, 0, 0);
    while number >= 1024 && unit < 4 {
        unit += 1;
        save = number;
        number = (number + 512) >> 10;
    }
    if save % 1024 != 0 && (save >> 10) < 10 {
        format!("{:2.1}{}", save as f32 / 1024.0, units[unit])
    } else {
        format!("{number}{}", units[unit])
    }
}

/// Whether the name has the form of a zone-wide resource control's.
pub fn valid_rctl_name(name: &str) -> bool {
    name.strip_prefix("zone.").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphabetic() || c == b'-')
    })
}

/// Whether two addresses refer to the same host (`zonecfg_same_net_address`).
pub fn same_address(a: &str, b: &str) -> bool {
    let host = |text: &str| -> Option<IpAddr> { text.split('/').next().unwrap_or("").parse().ok() };
    a == b || matches!((host(a), host(b)), (Some(x), Some(y)) if x == y)
}

/// Whether the zone has its own IP stack.
pub fn is_exclusive(doc: &Element) -> bool {
    doc.attr("ip-type") == Some("exclusive")
}

/// The most bytes that a resource's property can hold; longer values are truncated silently.
pub fn field_limit(resource: &str, property: &str) -> usize {
    match (resource, property) {
        ("fs", "type") => 15,
        ("fs", _) | ("device", "match") => 1023,
        ("net", "address" | "allowed-address" | "defrouter") => 45,
        ("net", "physical" | "global-nic") => 31,
        ("net", "mac-addr") => 19,
        ("net", "vlan-id") => 10,
        ("attr", "value") => 2047,
        ("admin", "user") => 31,
        ("admin", "auths") => 4095,
        ("security-flags", _) => 1023,
        _ => 255,
    }
}

/// Whether the value of a zone's property fits into zonecfg's read buffer; longer ones can be set all the same.
pub fn readable(property: &str, value: &str) -> bool {
    value.len()
        < match property {
            "zonepath" | "fs-allowed" => 1024,
            "limitpriv" => usize::MAX,
            _ => 256,
        }
}

/// A value truncated to a field's size at a character boundary.
pub fn cut(value: &str, limit: usize) -> String {
    if value.len() <= limit {
        return value.to_string();
    }
    let mut end = limit;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value[..end].to_string()
}

/// The template documents shipped with each flavour.
pub fn template(name: &str, zone: &str, flavour: Flavour) -> Option<Element> {
    let (brand, exclusive) = match (flavour, name) {
        (Flavour::Omnios, "SUNWblank" | "SUNWdefault" | "OMNIlipkg") => ("lipkg", true),
        (Flavour::Omnios, "OMNIlx") => ("lx", true),
        (Flavour::Omnios, "OMNIipkg") => ("ipkg", true),
        (Flavour::Omnios, "OMNIsparse") => ("sparse", true),
        (Flavour::Gate, "SUNWblank" | "SUNWdefault") => ("ipkg", false),
        _ => return None,
    };
    let mut doc = Element::new("zone")
        .with("name", zone)
        .with("zonepath", "")
        .with("autoboot", "false")
        .with("brand", brand);
    if exclusive {
        doc.set("ip-type", "exclusive");
    }
    Some(doc)
}

/// Parses a list of security flags (`secflags_parse`): the set to assign, or None if the list only changes the current
/// one.
///
/// # Errors
/// A name is unknown.
pub fn parse_secflags(text: &str) -> Result<Option<u8>, ()> {
    let (mut add, mut remove, mut current) = (0u8, 0u8, false);
    for item in text.split(',') {
        let word = item.to_ascii_lowercase();
        match word.as_str() {
            "all" => add = 7,
            "none" => remove = 7,
            "current" => current = true,
            _ => {
                let less = word.starts_with(['-', '!']);
                let bit = match word.strip_prefix(['+', '-', '!']).unwrap_or(&word) {
                    "aslr" => 1,
                    "forbidnullmap" => 2,
                    "noexecstack" => 4,
                    _ => return Err(()),
                };
                if less {
                    remove |= bit;
                } else {
                    add |= bit;
                }
            }
        }
    }
    Ok((!current).then_some(add & !remove))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_library_reads_them() {
        for (text, bytes) in [
            ("512M", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("100", Some(100)),
            ("1 k", Some(1024)),
            ("M", Some(0)),
            ("512Mi", None),
            ("-1M", None),
            ("abc", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn link_names_end_in_a_number_without_leading_zero() {
        for good in ["rd0", "rd.1", "rdabc1d0", "Rd1", "r_0"] {
            assert!(valid_link_name(good), "{good}");
        }
        for bad in [
            "",
            "rd-1",
            "eth",
            "rd007",
            "0rd1",
            "a2345678901234567890123456789012",
        ] {
            assert!(!valid_link_name(bad), "{bad}");
        }
    }
}
