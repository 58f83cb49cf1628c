//! Parses the output of tools.

use std::net::Ipv4Addr;

/// The fields of a line of `-p` output: separated by colons, with `\:` and `\\` as escapes (dladm(8), ipadm(8),
/// zoneadm(8)).
pub fn fields(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut escaped = false;
    for c in line.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                all.last_mut().expect("there is always one").push(c);
            }
            '\\' => escaped = true,
            ':' => all.push(String::new()),
            _ => all.last_mut().expect("there is always one").push(c),
        }
    }
    all
}

/// The state of a zone (`zonecfg_impl.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// Configured only.
    Configured,
    /// An installation or removal failed half-way.
    Incomplete,
    /// Halted.
    Installed,
    /// Set up in the kernel, without processes.
    Ready,
    /// Set up for maintenance.
    Mounted,
    /// Its init was started.
    Running,
    /// Its processes are being ended.
    ShuttingDown,
    /// Its processes are gone, the rest is going.
    Down,
    /// An unknown state.
    Unknown,
}

impl HostState {
    /// The state in zoneadm(8)'s words.
    pub fn word(self) -> &'static str {
        match self {
            HostState::Configured => "configured",
            HostState::Incomplete => "incomplete",
            HostState::Installed => "installed",
            HostState::Ready => "ready",
            HostState::Mounted => "mounted",
            HostState::Running => "running",
            HostState::ShuttingDown => "shutting_down",
            HostState::Down => "down",
            HostState::Unknown => "unknown",
        }
    }
    fn parse(word: &str) -> Self {
        let all = [
            HostState::Configured,
            HostState::Incomplete,
            HostState::Installed,
            HostState::Ready,
            HostState::Mounted,
            HostState::Running,
            HostState::ShuttingDown,
            HostState::Down,
        ];
        all.into_iter()
            .find(|state| state.word() == word)
            .unwrap_or(HostState::Unknown)
    }
}

/// A line of `zoneadm list -cp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRow {
    /// Its kernel id: a different one for each boot.
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: HostState,
    /// Its zonepath.
    pub path: String,
    /// Its brand.
    pub brand: String,
    /// Whether it has a network stack of its own.
    pub exclusive: bool,
}

/// Parses `zoneadm list -p`, with or without `-c` and `-i`: at least seven fields; further ones, which some
/// distributions add, are ignored. Skips the global zone and malformed lines.
pub fn zones(text: &str) -> Vec<ZoneRow> {
    text.lines()
        .filter_map(|line| {
            let [id, name, state, path, _uuid, brand, stack, ..] = &fields(line)[..] else {
                return None;
            };
            (name != "global").then(|| ZoneRow {
                id: id.parse().ok(),
                name: name.clone(),
                state: HostState::parse(state),
                path: path.clone(),
                brand: brand.clone(),
                exclusive: stack == "excl",
            })
        })
        .collect()
}

/// The value of an attribute in the output of `zonecfg -z ZONE info attr`.
pub fn attribute(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| {
        line.strip_prefix("name:")
            .is_some_and(|found| unquoted(found) == name)
    })?;
    let value = lines
        .take_while(|line| !line.starts_with("name:"))
        .find_map(|line| line.strip_prefix("value:"))?;
    Some(unquoted(value).to_owned())
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}

/// A line of `dladm show-vnic -p -o link,over,macaddress,vid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VnicRow {
    /// Its name.
    pub link: String,
    /// The link below it.
    pub over: String,
    /// Its MAC address, with two digits per byte.
    pub mac: String,
    /// Its VLAN; 0 means none.
    pub vlan: u16,
}

/// A MAC address with two lower-case digits per byte, unlike dladm(8) prints it.
pub fn mac(text: &str) -> String {
    let bytes = text.split(':').map(|byte| format!("{byte:0>2}"));
    bytes.collect::<Vec<_>>().join(":").to_lowercase()
}

/// Parses `dladm show-vnic -p -o link,over,macaddress,vid`.
pub fn vnics(text: &str) -> Vec<VnicRow> {
    text.lines()
        .filter_map(|line| {
            let [link, over, address, vlan] = &fields(line)[..] else {
                return None;
            };
            Some(VnicRow {
                link: link.clone(),
                over: over.clone(),
                mac: mac(address),
                vlan: vlan.parse().unwrap_or(0),
            })
        })
        .collect()
}

/// Parses `dladm show-link -p -o link,class`: names and classes (`phys`, `aggr`, `vlan`, `vnic`, `etherstub`, ...).
pub fn links(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| match &fields(line)[..] {
            [link, class] => Some((link.clone(), class.clone())),
            _ => None,
        })
        .collect()
}

/// Parses `ipadm show-addr -p -o addrobj,state,addr`: objects, states, and addresses with prefixes.
pub fn addresses(text: &str) -> Vec<(String, String, String)> {
    text.lines()
        .filter_map(|line| match &fields(line)[..] {
            [object, state, address] => Some((object.clone(), state.clone(), address.clone())),
            _ => None,
        })
        .collect()
}

/// Whether `routeadm -p OPTION` shows that the option is currently on.
pub fn routing_on(text: &str) -> bool {
    text.split_whitespace()
        .any(|word| word == "current=enabled")
}

/// The value of a tunable in the output of `ipf -T NAME`.
pub fn tunable(text: &str) -> Option<u64> {
    let (_, value) = text.trim().rsplit_once("current ")?;
    value.parse().ok()
}

/// The link of the default route in the output of `route -n get default`.
pub fn default_link(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("interface:"))?;
    let link = line.trim();
    (!link.is_empty()).then(|| link.to_owned())
}

/// The privileges of one set (`E`, `I`, `P`, `L`) in the output of `ppriv -S PID`.
pub fn privileges(text: &str, set: char) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| Some(line.strip_prefix(set)?.strip_prefix(':')?.trim()))
}

/// The columns of a line of `zfs ... -H`: separated by tabs, `-` for no value.
pub fn columns(line: &str) -> Vec<Option<&str>> {
    line.split('\t')
        .map(|column| (column != "-").then_some(column))
        .collect()
}

/// The active rules in the output of `ipnat -l`, each normalized by [`rule`].
pub fn nat_rules(text: &str) -> Vec<String> {
    text.lines()
        .take_while(|line| !line.starts_with("List of active sessions"))
        .map(str::trim)
        .filter(|line| {
            ["map ", "map-block ", "rdr ", "bimap "]
                .iter()
                .any(|word| line.starts_with(word))
        })
        .map(rule)
        .collect()
}

/// A rule of ipnat(5) in normalized form: `0.0.0.0/32` for `0/32`, `0.0.0.0/0` for `any`, single spaces.
pub fn rule(text: &str) -> String {
    let words = text.split_whitespace().map(|word| match word {
        "0/32" => "0.0.0.0/32".to_owned(),
        "0/0" | "any" => "0.0.0.0/0".to_owned(),
        other => match other.parse::<Ipv4Addr>() {
            Ok(address) => address.to_string(),
            Err(_) => other.to_owned(),
        },
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Parses `kstat -p`: `module:instance:name:statistic` and the value.
pub fn kstats(text: &str) -> Vec<([String; 4], String)> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('\t')?;
            let mut parts = key.splitn(3, ':');
            let (module, instance, rest) = (parts.next()?, parts.next()?, parts.next()?);
            // A name may contain colons; a statistic does not.
            let (name, statistic) = rest.rsplit_once(':')?;
            let key = [module, instance, name, statistic].map(str::to_owned);
            Some((key, value.to_owned()))
        })
        .collect()
}
