//! dladm(8): datalinks and their properties.

mod properties;
mod show;
mod values;

use std::collections::BTreeMap;

use self::properties::{reset_linkprop, set_linkprop, show_linkprop};
use self::show::{show_etherstub, show_link, show_phys, show_vnic};
use super::exit;
use super::getopt::{Bad, Parsed, getopt};
use super::host::{Host, Link, LinkClass};
use super::run::{Run, Step};
use super::zonecfg::valid_link_name;

const LONG: &[(&str, char)] = &[
    ("temporary", 't'),
    ("link", 'l'),
    ("mac-address", 'm'),
    ("vlan", 'v'),
    ("prop", 'p'),
    ("output", 'o'),
    ("parsable", 'p'),
    ("persistent", 'P'),
    ("root-dir", 'R'),
];

/// Ends with an error, like `die`.
fn die<T>(run: &mut Run, text: &str) -> Step<T> {
    run.end(exit::ERROR, &format!("dladm: {text}"))
}

fn usage<T>(run: &mut Run) -> Step<T> {
    run.end(exit::ERROR, "usage:  dladm <subcommand> <args> ...")
}

/// Ends with an error if the link does not exist.
fn must_exist(run: &mut Run, name: &str) -> Step {
    match run.host().link(name) {
        Some(_) => Ok(()),
        None => die(run, &format!("link {name} is not valid: object not found")),
    }
}

/// Ends with an error if the named link has another class.
fn must_be(run: &mut Run, parsed: &Parsed, class: LinkClass, article: &str) -> Step {
    let Some(name) = parsed.rest.first() else {
        return Ok(());
    };
    let word = class.word();
    let text = match run.host().link(name).map(|link| link.class) {
        None => format!("invalid {word} name '{name}': object not found"),
        Some(found) if found == class => return Ok(()),
        Some(found) => format!(
            "datalink {name} is not {article} {word}: found class {}",
            found.word()
        ),
    };
    die(run, &text)
}

/// `dladm args...`
pub fn dladm(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Some((command, args)) = args.split_first() else {
        return show_link(run, &Parsed::default());
    };
    let known = match command.as_str() {
        "create-vnic" => "tfR:l:m:n:p:r:v:V:A:H",
        "create-etherstub" => "tR:",
        "delete-vnic" | "delete-etherstub" => "R:t",
        "show-vnic" | "show-etherstub" => "pPl:si:o:",
        "show-link" => "pPsSi:o:",
        "show-phys" => "pPo:mL",
        "set-linkprop" | "reset-linkprop" => "p:R:t",
        "show-linkprop" => "p:cPo:",
        "show-aggr" | "show-vlan" | "show-bridge" | "show-ether" | "create-aggr"
        | "create-vlan" | "delete-aggr" | "delete-vlan" | "rename-link" | "create-bridge"
        | "create-simnet" | "create-overlay" | "up-vnic" | "init-phys" | "show-secobj"
        | "create-iptun" => {
            return run.not_played(&format!("dladm {command}"));
        }
        other => {
            run.complain(&format!("dladm: unknown subcommand '{other}'"));
            return usage(run);
        }
    };
    let long: Vec<(&str, char)> = match command.starts_with("show-") {
        true => LONG.to_vec(),
        false => LONG
            .iter()
            .filter(|(name, _)| *name != "parsable")
            .copied()
            .collect(),
    };
    let parsed = match getopt(args, known, &long) {
        Ok(parsed) => parsed,
        Err(bad) => {
            run.complain(&match bad {
                Bad::Unknown(letter) => format!("dladm: unrecognized option '-{letter}'"),
                Bad::Long(name) => format!("dladm: unrecognized option '--{name}'"),
                Bad::Argument(letter) => format!("dladm: option '-{letter}' requires a value"),
            });
            return usage(run);
        }
    };
    let unplayed = match command.as_str() {
        "create-vnic" => "nrVAHR",
        "show-link" | "show-vnic" | "show-etherstub" => "siS",
        "show-phys" => "mL",
        _ => "R",
    };
    run.without(&parsed, &format!("dladm {command}"), unplayed)?;
    match command.as_str() {
        "create-vnic" => create_vnic(run, &parsed),
        "create-etherstub" => create_etherstub(run, &parsed),
        "delete-vnic" => delete(run, &parsed, false),
        "delete-etherstub" => delete(run, &parsed, true),
        "show-vnic" => show_vnic(run, &parsed),
        "show-etherstub" => show_etherstub(run, &parsed),
        "show-link" => show_link(run, &parsed),
        "show-phys" => show_phys(run, &parsed),
        "set-linkprop" => set_linkprop(run, &parsed),
        "reset-linkprop" => reset_linkprop(run, &parsed),
        _ => show_linkprop(run, &parsed),
    }
}

impl Host {
    /// An existing link.
    fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(name).filter(|link| link.active)
    }

    /// Whether a link is in use and so cannot be deleted.
    fn link_in_use(&self, name: &str) -> bool {
        self.link(name).is_some_and(|link| link.zone.is_some())
            || self.interfaces.contains_key(name)
            || self
                .links
                .values()
                .any(|link| link.active && link.over.as_deref() == Some(name))
    }
}

/// Splits `a=1,b=2,3` into properties with their values: a word without `=` belongs to the one before.
fn pairs(text: &str) -> Option<Vec<(&str, Vec<&str>)>> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for word in text.split(',').filter(|w| !w.is_empty()) {
        match word.split_once('=') {
            Some((name, value)) => all.push((name, vec![value])),
            None => all.last_mut()?.1.push(word),
        }
    }
    Some(all)
}

fn create_vnic(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    let vid = match parsed.value('v').map(str::parse::<u16>) {
        None => 0,
        Some(Ok(vid)) if (1..=4094).contains(&vid) => vid,
        Some(_) => {
            let text = format!(
                "invalid VLAN identifier '{}'",
                parsed.value('v').unwrap_or("")
            );
            return die(run, &text);
        }
    };
    let mac = match parsed.value('m') {
        None | Some("auto" | "random") => None,
        Some("fixed") => return die(run, "'fixed' is not a valid MAC address"),
        Some(text) => {
            let bytes: Option<Vec<u8>> = text
                .split(':')
                .map(|b| u8::from_str_radix(b, 16).ok())
                .collect();
            match bytes.filter(|b| b.len() == 6) {
                Some(bytes) => Some(bytes),
                None => return die(run, "invalid MAC address"),
            }
        }
    };
    let (Some(over), [name]) = (parsed.value('l'), parsed.rest.as_slice()) else {
        return usage(run);
    };
    if name.len() >= 32 {
        return die(run, &format!("link name too long '{name}'"));
    }
    if !valid_link_name(name) {
        return die(run, &format!("invalid link name '{name}'"));
    }
    let (host, _) = run.view();
    let Some(below) = host.link(over).cloned() else {
        return die(run, &format!("invalid link name '{over}'"));
    };
    let wanted: Vec<&str> = parsed.values('p').collect();
    let list = wanted.join(",");
    let Some(properties) = pairs(&list) else {
        return die(run, "invalid vnic property");
    };
    let failed = |why: &str| format!("vnic creation over {over} failed: {why}");
    if host.links.contains_key(name) {
        return die(run, &failed("object already exists"));
    }
    let temporary = parsed.has('t');
    if below.temporary && !temporary {
        return die(
            run,
            &failed("can't create persistent object on top of temporary object"),
        );
    }
    if below.class == LinkClass::Vnic {
        return die(run, &failed("operation not supported"));
    }
    let mac = match mac {
        // The lowest bit of the first byte marks group addresses.
        Some(bytes) if bytes[0] & 1 == 1 || bytes.iter().all(|b| *b == 0) => {
            return die(run, &failed("invalid MAC address value"));
        }
        Some(bytes) => bytes
            .iter()
            .map(|b| format!("{b:x}"))
            .collect::<Vec<_>>()
            .join(":"),
        None => host.mac(),
    };
    let taken = host
        .links
        .values()
        .any(|l| l.active && l.over.as_deref() == Some(over) && l.mac == mac && l.vlan == vid);
    if taken {
        return die(run, &failed("MAC address is already in use"));
    }
    let mut link = Link::new(LinkClass::Vnic, Some(over.to_owned()), mac);
    link.mac_kind = match parsed.value('m') {
        None | Some("auto" | "random") => "random".to_owned(),
        Some(_) => "fixed".to_owned(),
    };
    link.vlan = vid;
    link.temporary = temporary;
    host.links.insert(name.clone(), link);
    for (property, values) in &properties {
        match host.check_link_property(name, property, values) {
            Ok(value) => set(host, name, property, &value, !temporary),
            Err(why) => {
                host.links.remove(name);
                return die(run, &failed(why));
            }
        }
    }
    Ok(exit::OK)
}

fn set(host: &mut Host, name: &str, property: &str, value: &str, persistent: bool) {
    if let Some(link) = host.links.get_mut(name) {
        let put = |all: &mut BTreeMap<String, String>| match value {
            "" => all.remove(property),
            value => all.insert(property.to_owned(), value.to_owned()),
        };
        put(&mut link.properties);
        if persistent {
            put(&mut link.persistent);
        }
    }
}

fn create_etherstub(run: &mut Run, parsed: &Parsed) -> Step<i32> {
    let [name] = parsed.rest.as_slice() else {
        return usage(run);
    };
    if !valid_link_name(name) {
        return die(run, &format!("invalid link name '{name}'"));
    }
    let host = run.host();
    if host.links.contains_key(name) {
        return die(run, "etherstub creation failed: object already exists");
    }
    let mac = host.mac();
    let mut link = Link::new(LinkClass::Etherstub, None, mac);
    link.temporary = parsed.has('t');
    host.links.insert(name.clone(), link);
    Ok(exit::OK)
}

fn delete(run: &mut Run, parsed: &Parsed, etherstub: bool) -> Step<i32> {
    let [name] = parsed.rest.as_slice() else {
        return usage(run);
    };
    let host = run.host();
    let Some(link) = host.links.get(name).cloned() else {
        return die(run, &format!("invalid link name '{name}'"));
    };
    match link.class {
        LinkClass::Etherstub if !etherstub => {
            return die(run, &format!("'{name}' is not a vnic"));
        }
        LinkClass::Vnic if etherstub => {
            return die(run, &format!("'{name}' is not an etherstub"));
        }
        LinkClass::Vnic | LinkClass::Etherstub => {}
        _ => return die(run, "vnic deletion failed: invalid argument"),
    }
    if host.link_in_use(name) {
        return die(run, "vnic deletion failed: link busy");
    }
    match parsed.has('t') && !link.temporary {
        // A persistent link comes back at the next boot of the host.
        true => {
            if let Some(link) = host.links.get_mut(name) {
                link.active = false;
            }
        }
        false => {
            host.links.remove(name);
        }
    }
    Ok(exit::OK)
}
