//! Properties of datasets: their names, possible values, and sources of values (`zfs_prop.c`, `zprop_parse_value`).

use super::names;
use crate::fakehost::host::Host;

/// The type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One of several words.
    Word(&'static [&'static str]),
    /// Bytes, or `none`.
    Limit,
    /// A number.
    Number,
    /// A mountpoint.
    Mountpoint,
    /// Any text.
    Text,
    /// Computed.
    ReadOnly,
}

/// A native property.
#[derive(Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its short name.
    pub column: &'static str,
    /// Its type.
    pub shape: Shape,
    /// Whether children inherit it.
    pub inherits: bool,
    /// The default value.
    pub default: &'static str,
    /// Whether it can only be set at creation.
    pub fixed: bool,
}

const SWITCH: Shape = Shape::Word(&["on", "off"]);

const fn of(name: &'static str, shape: Shape, inherits: bool, default: &'static str) -> Property {
    Property {
        name,
        column: name,
        shape,
        inherits,
        default,
        fixed: false,
    }
}

const fn read(name: &'static str, column: &'static str) -> Property {
    Property {
        column,
        ..of(name, Shape::ReadOnly, false, "")
    }
}

const fn fixed(
    name: &'static str,
    words: &'static [&'static str],
    default: &'static str,
) -> Property {
    Property {
        fixed: true,
        ..of(name, Shape::Word(words), true, default)
    }
}

/// Every native property, in the order of `zfs get all`.
pub const PROPERTIES: &[Property] = &[
    read("type", "type"),
    read("creation", "creation"),
    read("used", "used"),
    read("available", "avail"),
    read("referenced", "refer"),
    read("compressratio", "ratio"),
    read("mounted", "mounted"),
    read("origin", "origin"),
    of("quota", Shape::Limit, false, "0"),
    Property {
        column: "reserv",
        ..of("reservation", Shape::Limit, false, "0")
    },
    Property {
        column: "recsize",
        ..of("recordsize", Shape::Number, true, "131072")
    },
    of("mountpoint", Shape::Mountpoint, true, ""),
    of("sharenfs", Shape::Text, true, "off"),
    of(
        "checksum",
        Shape::Word(&[
            "on",
            "off",
            "fletcher2",
            "fletcher4",
            "sha256",
            "noparity",
            "sha512",
            "skein",
            "edonr",
        ]),
        true,
        "on",
    ),
    Property {
        column: "compress",
        ..of(
            "compression",
            Shape::Word(&[
                "on", "off", "lzjb", "gzip", "gzip-1", "gzip-2", "gzip-3", "gzip-4", "gzip-5",
                "gzip-6", "gzip-7", "gzip-8", "gzip-9", "zle", "lz4",
            ]),
            true,
            "off",
        )
    },
    of("atime", SWITCH, true, "on"),
    of("devices", SWITCH, true, "on"),
    of("exec", SWITCH, true, "on"),
    of("setuid", SWITCH, true, "on"),
    Property {
        column: "rdonly",
        ..of("readonly", SWITCH, true, "off")
    },
    of("zoned", SWITCH, true, "off"),
    of(
        "snapdir",
        Shape::Word(&["hidden", "visible"]),
        true,
        "hidden",
    ),
    of(
        "aclmode",
        Shape::Word(&["discard", "groupmask", "passthrough", "restricted"]),
        true,
        "discard",
    ),
    of(
        "aclinherit",
        Shape::Word(&[
            "discard",
            "noallow",
            "restricted",
            "passthrough",
            "passthrough-x",
        ]),
        true,
        "restricted",
    ),
    of(
        "canmount",
        Shape::Word(&["on", "off", "noauto"]),
        false,
        "on",
    ),
    of("xattr", SWITCH, true, "on"),
    of("copies", Shape::Word(&["1", "2", "3"]), true, "1"),
    read("version", "version"),
    fixed("utf8only", &["on", "off"], "off"),
    fixed(
        "normalization",
        &["none", "formC", "formD", "formKC", "formKD"],
        "none",
    ),
    Property {
        column: "case",
        ..fixed(
            "casesensitivity",
            &["sensitive", "insensitive", "mixed"],
            "sensitive",
        )
    },
    of("vscan", SWITCH, true, "off"),
    of("nbmand", SWITCH, true, "off"),
    of("sharesmb", Shape::Text, true, "off"),
    of("refquota", Shape::Limit, false, "0"),
    Property {
        column: "refreserv",
        ..of("refreservation", Shape::Limit, false, "0")
    },
    read("guid", "guid"),
    of(
        "primarycache",
        Shape::Word(&["all", "none", "metadata"]),
        true,
        "all",
    ),
    of(
        "secondarycache",
        Shape::Word(&["all", "none", "metadata"]),
        true,
        "all",
    ),
    read("usedbysnapshots", "usedsnap"),
    read("usedbydataset", "usedds"),
    read("usedbychildren", "usedchild"),
    read("usedbyrefreservation", "usedrefreserv"),
    of(
        "logbias",
        Shape::Word(&["latency", "throughput"]),
        true,
        "latency",
    ),
    of(
        "dedup",
        Shape::Word(&["on", "off", "verify", "sha256"]),
        true,
        "off",
    ),
    of("mlslabel", Shape::Text, true, "none"),
    of(
        "sync",
        Shape::Word(&["standard", "always", "disabled"]),
        true,
        "standard",
    ),
    read("refcompressratio", "refratio"),
    read("written", "written"),
    read("clones", "clones"),
    read("logicalused", "lused"),
    read("logicalreferenced", "lrefer"),
    of("filesystem_limit", Shape::Limit, false, "0"),
    of("snapshot_limit", Shape::Limit, false, "0"),
    of(
        "redundant_metadata",
        Shape::Word(&["all", "most"]),
        true,
        "all",
    ),
    read("defer_destroy", "defer_destroy"),
    read("userrefs", "userrefs"),
];

/// The native property with a name or short name.
pub fn find(name: &str) -> Option<&'static Property> {
    PROPERTIES
        .iter()
        .find(|p| p.name == name || p.column == name)
}

/// Whether a name is that of a user property.
pub fn is_user(name: &str) -> bool {
    name.contains(':')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.:".contains(&b))
}

/// Parses a number with a suffix: `10G`, `1.5g`, `512`, `10GB`.
pub fn number(text: &str) -> Result<u64, String> {
    let bad = || format!("bad numeric value '{text}'");
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(bad());
    }
    let upper = suffix.to_ascii_uppercase();
    let unit = upper
        .strip_suffix('B')
        .filter(|u| u.len() == 1)
        .unwrap_or(&upper);
    let shift = match unit {
        "" | "B" => 0,
        unit => match "KMGTPE".find(unit).filter(|_| unit.len() == 1) {
            Some(at) => 10 * (at as u32 + 1),
            None => return Err(format!("invalid numeric suffix '{suffix}'")),
        },
    };
    if digits.contains('.') {
        let value: f64 = digits.parse().map_err(|_| bad())?;
        return Ok((value * (1u64 << shift) as f64) as u64);
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| "numeric value is too large".to_owned())
}

/// A number in human-readable form (`zfs_nicenum`).
pub fn nice(value: u64) -> String {
    let (mut index, mut n) = (0, value);
    while n >= 1024 {
        n /= 1024;
        index += 1;
    }
    let unit = ["", "K", "M", "G", "T", "P", "E"][index];
    if index == 0 || value.is_multiple_of(1 << (10 * index)) {
        return format!("{n}{unit}");
    }
    let exact = value as f64 / (1u64 << (10 * index)) as f64;
    [2, 1, 0]
        .iter()
        .map(|digits| format!("{exact:.digits$}{unit}"))
        .find(|text| text.len() <= 5)
        .unwrap_or_else(|| format!("{n}{unit}"))
}

/// The value to store for a property.
///
/// # Errors
/// What is wrong with the property or its value.
pub fn check(name: &str, value: &str, new: bool) -> Result<String, String> {
    let Some(property) = find(name) else {
        if !is_user(name) {
            return Err(format!("invalid property '{name}'"));
        }
        if name.len() >= 256 {
            return Err(format!("property name '{name}' is too long"));
        }
        if value.len() >= 8192 {
            return Err(format!("property value '{value}' too long"));
        }
        return Ok(value.to_owned());
    };
    if property.shape == Shape::ReadOnly || (property.fixed && !new) {
        return Err(format!("'{name}' is readonly"));
    }
    match property.shape {
        Shape::Word(words) if !words.contains(&value) => {
            Err(format!("'{name}' must be one of '{}'", words.join(" | ")))
        }
        Shape::Mountpoint => {
            if matches!(value, "none" | "legacy") {
                return Ok(value.to_owned());
            }
            if !value.starts_with('/') || value.len() >= 1024 {
                return Err(format!(
                    "'{name}' must be an absolute path, 'none', or 'legacy'"
                ));
            }
            Ok(match value.trim_end_matches('/') {
                "" => "/".to_owned(),
                path => path.to_owned(),
            })
        }
        Shape::Limit if value == "none" => Ok("0".to_owned()),
        Shape::Limit => number(value).map(|bytes| bytes.to_string()),
        Shape::Number => {
            let size = number(value)?;
            if !size.is_power_of_two() || !(512..=1 << 20).contains(&size) {
                return Err(format!("'{name}' must be power of 2 from 512B to 1M"));
            }
            Ok(size.to_string())
        }
        _ => Ok(value.to_owned()),
    }
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Set here.
    Local,
    /// Set nowhere.
    Default,
    /// Inherited from this dataset.
    Inherited(String),
    /// Computed.
    None,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Local => f.write_str("local"),
            Source::Default => f.write_str("default"),
            Source::Inherited(from) => write!(f, "inherited from {from}"),
            Source::None => f.write_str("-"),
        }
    }
}

impl Host {
    /// The stored value of a settable or user property of a file system or snapshot; None if it has none.
    pub fn property(&self, name: &str, property: &str) -> Option<(String, Source)> {
        let (dataset, snapshot) = match name.split_once('@') {
            Some((dataset, snapshot)) => (dataset, Some(snapshot)),
            None => (name, None),
        };
        if let Some(snapshot) = snapshot {
            let snapshot = self
                .datasets
                .get(dataset)?
                .snapshots
                .iter()
                .find(|s| s.name == snapshot)?;
            if let Some(value) = snapshot.properties.get(property) {
                return Some((value.clone(), Source::Local));
            }
            // A snapshot only has the native properties that matter for its files.
            if !is_user(property)
                && !matches!(
                    property,
                    "devices"
                        | "exec"
                        | "setuid"
                        | "xattr"
                        | "version"
                        | "utf8only"
                        | "normalization"
                        | "casesensitivity"
                        | "primarycache"
                        | "secondarycache"
                )
            {
                return None;
            }
        }
        if let Some(value) = self.datasets.get(dataset)?.properties.get(property) {
            let source = match snapshot {
                Some(_) => Source::Inherited(dataset.to_owned()),
                None => Source::Local,
            };
            return Some((value.clone(), source));
        }
        let native = find(property);
        if native.is_none_or(|p| p.inherits && !p.fixed) {
            let mut above = names::parent(dataset);
            while let Some(name) = above {
                if let Some(value) = self
                    .datasets
                    .get(name)
                    .and_then(|d| d.properties.get(property))
                {
                    return Some((value.clone(), Source::Inherited(name.to_owned())));
                }
                above = names::parent(name);
            }
        }
        native.map(|p| (p.default.to_owned(), Source::Default))
    }

    /// The configured mountpoint of a file system: a path, `none` or `legacy`.
    pub fn mountpoint(&self, dataset: &str) -> (String, Source) {
        let (value, source) = match self.property(dataset, "mountpoint") {
            Some((value, source)) if source != Source::Default => (value, source),
            _ => (format!("/{dataset}"), Source::Default),
        };
        match &source {
            Source::Inherited(from) if value.starts_with('/') => {
                let below = &dataset[from.len()..];
                (format!("{}{below}", value.trim_end_matches('/')), source)
            }
            _ => (value, source),
        }
    }

    /// Whether a boolean property is on.
    pub fn is_on(&self, dataset: &str, property: &str) -> bool {
        self.property(dataset, property)
            .is_some_and(|(value, _)| value == "on")
    }

    /// A limit of a file system in bytes, if set.
    pub fn limit(&self, dataset: &str, property: &str) -> Option<u64> {
        let (value, _) = self.property(dataset, property)?;
        value.parse().ok().filter(|bytes| *bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_shown_as_zfs_does() {
        for (text, bytes) in [
            ("512", Ok(512)),
            ("10G", Ok(10 << 30)),
            ("1.5k", Ok(1536)),
            ("2MB", Ok(2 << 20)),
            ("10Gi", Err("invalid numeric suffix 'Gi'")),
            ("abc", Err("bad numeric value 'abc'")),
            ("99999999999999999999", Err("numeric value is too large")),
        ] {
            assert_eq!(number(text), bytes.map_err(str::to_owned), "{text}");
        }
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (24 << 10, "24K"),
            (24_576 + 512, "24.5K"),
            (10 << 30, "10G"),
            ((10 << 30) + 1, "10.0G"),
        ] {
            assert_eq!(nice(bytes), text);
        }
    }

    #[test]
    fn values_are_checked() {
        for (name, value, result) in [
            ("quota", "10G", Ok("10737418240")),
            ("quota", "none", Ok("0")),
            ("refquota", "0", Ok("0")),
            ("reservation", "0", Ok("0")),
            ("atime", "yes", Err("'atime' must be one of 'on | off'")),
            ("mountpoint", "/a/", Ok("/a")),
            (
                "mountpoint",
                "a",
                Err("'mountpoint' must be an absolute path, 'none', or 'legacy'"),
            ),
            ("used", "1", Err("'used' is readonly")),
            ("reddwarf:pod", "u", Ok("u")),
            ("Reddwarf:pod", "u", Err("invalid property 'Reddwarf:pod'")),
            ("nope", "1", Err("invalid property 'nope'")),
        ] {
            let expected = result.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(check(name, value, false), expected, "{name}={value}");
        }
        assert!(check("utf8only", "on", true).is_ok());
        assert!(check("utf8only", "on", false).is_err());
    }
}
