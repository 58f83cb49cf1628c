//! What tools print, read.

use std::net::Ipv4Addr;

/// Fields of a line of `-p` output: separated by colons, with `\:` and `\\` for what would not be read back
/// (dladm(8), ipadm(8), zoneadm(8)).
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

/// What the host says a zone is doing (`zonecfg_impl.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// Configured only.
    Configured,
    /// An installation or removal began and did not end well.
    Incomplete,
    /// Halted.
    Installed,
    /// In the kernel, without processes.
    Ready,
    /// Set up for maintenance.
    Mounted,
    /// Its init was started.
    Running,
    /// Its processes are being ended.
    ShuttingDown,
    /// Its processes are gone, the rest is going.
    Down,
    /// Something that this program does not know.
    Unknown,
}

impl HostState {
    /// As zoneadm(8) words it.
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
    /// Its id in the kernel: another one with each boot.
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: HostState,
    /// Its zonepath.
    pub path: String,
    /// Its brand.
    pub brand: String,
    /// Whether it has a network stack of its own.
    pub exclusive: bool,
}

/// Lines of `zoneadm list -p`, with or without `-c` and `-i`: at least seven fields; further ones, which some
/// distributions add, are not looked at. The global zone is left out, lines that are no such line are too.
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

/// The value of an attribute in what `zonecfg -z ZONE info attr` prints.
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
    /// Its hardware address, two digits a byte.
    pub mac: String,
    /// Its VLAN; 0 means none.
    pub vlan: u16,
}

/// A hardware address with two lower-case digits a byte, as dladm(8) does not print it.
pub fn mac(text: &str) -> String {
    let bytes = text.split(':').map(|byte| format!("{byte:0>2}"));
    bytes.collect::<Vec<_>>().join(":").to_lowercase()
}

/// Lines of `dladm show-vnic -p -o link,over,macaddress,vid`.
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

/// Lines of `dladm show-link -p -o link,class`: names and classes (`phys`, `aggr`, `vlan`, `vnic`, `etherstub`, ...).
pub fn links(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| match &fields(line)[..] {
            [link, class] => Some((link.clone(), class.clone())),
            _ => None,
        })
        .collect()
}

/// Lines of `ipadm show-addr -p -o addrobj,state,addr`: objects, their states and addresses with prefixes.
pub fn addresses(text: &str) -> Vec<(String, String, String)> {
    text.lines()
        .filter_map(|line| match &fields(line)[..] {
            [object, state, address] => Some((object.clone(), state.clone(), address.clone())),
            _ => None,
        })
        .collect()
}

/// Whether `routeadm -p OPTION` says that something is on now.
pub fn routing_on(text: &str) -> bool {
    text.split_whitespace()
        .any(|word| word == "current=enabled")
}

/// The link of the default route in what `route -n get default` prints.
pub fn default_link(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("interface:"))?;
    let link = line.trim();
    (!link.is_empty()).then(|| link.to_owned())
}

/// The privileges of one set (`E`, `I`, `P`, `L`) in what `ppriv -S PID` prints.
pub fn privileges(text: &str, set: char) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| Some(line.strip_prefix(set)?.strip_prefix(':')?.trim()))
}

/// Columns of a line of `zfs ... -H`: separated by tabs, `-` where there is nothing.
pub fn columns(line: &str) -> Vec<Option<&str>> {
    line.split('\t')
        .map(|column| (column != "-").then_some(column))
        .collect()
}

/// Rules that are in force by `ipnat -l`, each as [`rule`] writes it.
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

/// A rule of ipnat(5) in one spelling: `0/32` is `0.0.0.0/32`, `any` is `0.0.0.0/0`, one blank between words.
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

/// Lines of `kstat -p`: `module:instance:name:statistic` and the value.
pub fn kstats(text: &str) -> Vec<([String; 4], String)> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('\t')?;
            let mut parts = key.splitn(3, ':');
            let (module, instance, rest) = (parts.next()?, parts.next()?, parts.next()?);
            // A name may hold colons; a statistic holds none.
            let (name, statistic) = rest.rsplit_once(':')?;
            let key = [module, instance, name, statistic].map(str::to_owned);
            Some((key, value.to_owned()))
        })
        .collect()
}
