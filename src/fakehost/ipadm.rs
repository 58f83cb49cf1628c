//! ipadm(8), route(8), routeadm(8): the global zone's own addresses and routes.

use std::net::IpAddr;

use super::exit;
use super::getopt::getopt;
use super::host::{Address, Interface, Route};
use super::ofmt::{self, Table};
use super::run::{Run, Step};
use crate::meta::addresses::{Network, parse_cidr};

fn fail<T>(run: &mut Run, text: &str) -> Step<T> {
    run.end(exit::ERROR, &format!("ipadm: {text}"))
}

/// Parses `ADDRESS[/PREFIX]`, with the prefix length of its class by default: the address and its network.
pub fn cidr(text: &str) -> Option<(IpAddr, Network)> {
    if text.contains('/') {
        return parse_cidr(text);
    }
    let prefix = match text.parse().ok()? {
        IpAddr::V4(a) => match a.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        },
        IpAddr::V6(_) => 64,
    };
    parse_cidr(&format!("{text}/{prefix}"))
}

/// `ipadm args...`
pub fn ipadm(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Some((command, args)) = args.split_first() else {
        return show_addr(run, &[]);
    };
    match command.as_str() {
        "create-if" => create_if(run, args),
        "delete-if" => delete_if(run, args),
        "show-if" => show_if(run, args),
        "create-addr" => create_addr(run, args),
        "delete-addr" => delete_addr(run, args),
        "show-addr" => show_addr(run, args),
        "enable-if" | "disable-if" | "up-addr" | "down-addr" | "refresh-addr" | "disable-addr"
        | "enable-addr" | "set-prop" | "show-prop" | "reset-prop" | "set-ifprop"
        | "show-ifprop" | "reset-ifprop" | "set-addrprop" | "show-addrprop" | "reset-addrprop" => {
            run.not_played(&format!("ipadm {command}"))
        }
        other => {
            run.complain(&format!(
                "ipadm: unknown subcommand '{other}'\nusage:  ipadm <subcommand> <args> ..."
            ));
            Ok(exit::ERROR)
        }
    }
}

fn usage<T>(run: &mut Run, command: &str) -> Step<T> {
    run.end(exit::ERROR, &format!("usage:  ipadm {command} ..."))
}

/// Checks whether an interface can be created on a link.
fn plumb(run: &mut Run, name: &str, temporary: bool) -> Result<(), String> {
    let host = run.host();
    if host.interfaces.contains_key(name) {
        return Err("Interface already exists".to_owned());
    }
    match host.links.get(name).filter(|l| l.active) {
        None => Err("Interface does not exist".to_owned()),
        Some(link) if link.zone.is_some() => Err("Interface does not exist".to_owned()),
        Some(link) if link.class == super::LinkClass::Etherstub => {
            Err("Operation not supported".to_owned())
        }
        Some(link) if link.temporary && !temporary => {
            Err("Persistent operation on temporary object".to_owned())
        }
        Some(_) => {
            let interface = Interface {
                temporary,
                ..Interface::default()
            };
            host.interfaces.insert(name.to_owned(), interface);
            Ok(())
        }
    }
}

fn create_if(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "t", &[("temporary", 't')]) else {
        return usage(run, "create-if");
    };
    let [name] = parsed.rest.as_slice() else {
        return usage(run, "create-if");
    };
    match plumb(run, name, parsed.has('t')) {
        Ok(()) => Ok(exit::OK),
        Err(why) => fail(run, &format!("Could not create {name} : {why}")),
    }
}

fn delete_if(run: &mut Run, args: &[String]) -> Step<i32> {
    let [name] = args else {
        return usage(run, "delete-if");
    };
    match run.host().interfaces.remove(name) {
        Some(_) => Ok(exit::OK),
        None => fail(
            run,
            &format!("Could not delete {name}: Interface does not exist"),
        ),
    }
}

fn create_addr(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(
        args,
        "tT:a:di:p:w:1h:",
        &[("temporary", 't'), ("type", 'T'), ("address", 'a')],
    ) else {
        return usage(run, "create-addr");
    };
    run.without(&parsed, "ipadm create-addr", "dipw1h")?;
    let (Some(kind), [object]) = (parsed.value('T'), parsed.rest.as_slice()) else {
        return usage(run, "create-addr");
    };
    let cannot = |why: &str| format!("Could not create address: {why}");
    let parts = object.split_once('/').filter(|(_, name)| {
        name.len() < 32
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    let Some((interface, name)) = parts else {
        return match object.split_once('/') {
            Some((_, name)) if !name.is_empty() => fail(
                run,
                "Error in creating address object: Invalid argument provided",
            ),
            _ => fail(run, &format!("invalid address object name: {object}")),
        };
    };
    let text = match (kind, parsed.value('a')) {
        ("static", Some(text)) => {
            let text = text
                .strip_prefix("local=")
                .unwrap_or(text)
                .split(',')
                .next()
                .unwrap_or("");
            match cidr(text) {
                Some((address, network)) => format!("{address}/{}", network.prefix),
                None => return fail(run, "Error in setting local address: Invalid address"),
            }
        }
        ("dhcp" | "addrconf", None) => {
            return run.not_played(&format!("ipadm create-addr -T {kind}"));
        }
        _ => return usage(run, "create-addr"),
    };
    let temporary = parsed.has('t');
    let host = run.host();
    match host.interfaces.get(interface) {
        None => {
            if let Err(why) = plumb(run, interface, temporary) {
                return fail(run, &cannot(&why));
            }
            run.point("interface")?;
        }
        Some(i) if i.temporary && !temporary => {
            return fail(run, &cannot("Persistent operation on temporary object"));
        }
        Some(_) => {}
    }
    let host = run.host();
    let used = host
        .interfaces
        .values()
        .flat_map(|i| i.addresses.values())
        .any(|a| a.address.split('/').next() == text.split('/').next());
    let Some(found) = host.interfaces.get_mut(interface) else {
        return fail(run, &cannot("Interface does not exist"));
    };
    if found.addresses.contains_key(name) {
        return fail(run, &cannot("Address object already exists"));
    }
    if used {
        return fail(run, &cannot("Address already in use"));
    }
    found.addresses.insert(
        name.to_owned(),
        Address {
            kind: kind.to_owned(),
            address: text,
            temporary,
            state: "ok".to_owned(),
        },
    );
    Ok(exit::OK)
}

fn delete_addr(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "r", &[]) else {
        return usage(run, "delete-addr");
    };
    let [object] = parsed.rest.as_slice() else {
        return usage(run, "delete-addr");
    };
    let removed = object.split_once('/').and_then(|(interface, name)| {
        run.host()
            .interfaces
            .get_mut(interface)?
            .addresses
            .remove(name)
    });
    match removed {
        Some(_) => Ok(exit::OK),
        None => fail(run, "could not delete address: Object not found"),
    }
}

fn show_addr(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "po:", &[("parsable", 'p'), ("output", 'o')]) else {
        return usage(run, "show-addr");
    };
    if parsed.has('p') && !parsed.has('o') {
        return fail(run, "-p requires -o");
    }
    let wanted = parsed.rest.first().cloned();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (interface, i) in &run.host().interfaces {
        for (name, a) in &i.addresses {
            let object = format!("{interface}/{name}");
            let chosen = wanted.as_deref().is_none_or(|w| {
                w == object || w.strip_suffix('/').is_some_and(|w| w == interface) || w == interface
            });
            if chosen {
                let current = format!("U-{}", if a.temporary { "-" } else { "r" });
                rows.push(vec![
                    object,
                    a.kind.clone(),
                    a.state.clone(),
                    current,
                    a.address.clone(),
                ]);
            }
        }
    }
    if rows.is_empty() && wanted.is_some() {
        return fail(run, "Address object not found");
    }
    let table = Table {
        columns: &["addrobj", "type", "state", "current", "addr"],
        usual: &["addrobj", "type", "state", "addr"],
        rows,
    };
    ofmt::print(run, "ipadm", &table, parsed.has('p'), parsed.value('o'))
}

fn show_if(run: &mut Run, args: &[String]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "po:", &[("parsable", 'p'), ("output", 'o')]) else {
        return usage(run, "show-if");
    };
    let wanted = parsed.rest.first();
    let rows: Vec<Vec<String>> = run
        .host()
        .interfaces
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|w| w == *name))
        .map(|(name, i)| {
            let persistent = if i.temporary { "---" } else { "46-" };
            [name, "ok", "bm--------46", persistent]
                .map(str::to_owned)
                .to_vec()
        })
        .collect();
    if rows.is_empty() && wanted.is_some() {
        return fail(run, "Could not get interface(s): Interface does not exist");
    }
    let columns = ["ifname", "state", "current", "persistent"];
    let table = Table {
        columns: &columns,
        usual: &columns,
        rows,
    };
    ofmt::print(run, "ipadm", &table, parsed.has('p'), parsed.value('o'))
}

/// Whether an address is in the network of an interface's own address.
fn is_near(own: &str, other: &str) -> bool {
    match (cidr(own), other.parse()) {
        (Some((_, network)), Ok(other)) => network.contains(other),
        _ => false,
    }
}

/// `route [-p] add|delete|get|show ...`
pub fn route(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "npqvfR:", &[]) else {
        run.complain("usage: route [-fnpqv] [-R <root-dir>] cmd [[-<qualifers>] args]");
        return Ok(exit::ERROR);
    };
    let words: Vec<&str> = parsed
        .rest
        .iter()
        .map(String::as_str)
        .filter(|w| !matches!(*w, "-n" | "-net" | "-inet" | "-host" | "-inet6"))
        .collect();
    match words.as_slice() {
        ["add", destination, gateway] => {
            if gateway.parse::<IpAddr>().is_err() {
                return run.end(exit::ERROR, &format!("{gateway}: bad value"));
            }
            if *destination != "default" && cidr(destination).is_none() {
                return run.end(exit::ERROR, &format!("{destination}: bad value"));
            }
            let same = run
                .host()
                .routes
                .iter()
                .any(|r| r.destination == *destination && r.gateway == *gateway);
            let what = format!("add net {destination}: gateway {gateway}");
            if same {
                run.say(&format!("{what}: entry exists"));
                return Ok(exit::ERROR);
            }
            let reachable = run
                .host()
                .interfaces
                .values()
                .flat_map(|i| i.addresses.values())
                .any(|a| is_near(&a.address, gateway));
            if !reachable {
                run.say(&format!("{what}: Network is unreachable"));
                return Ok(exit::ERROR);
            }
            run.host().routes.push(Route {
                destination: (*destination).to_owned(),
                gateway: (*gateway).to_owned(),
                persistent: parsed.has('p'),
            });
            run.say(&what);
            Ok(exit::OK)
        }
        ["delete", destination, gateway] => {
            let before = run.host().routes.len();
            run.host()
                .routes
                .retain(|r| r.destination != *destination || r.gateway != *gateway);
            let what = format!("delete net {destination}: gateway {gateway}");
            if run.host().routes.len() == before {
                run.say(&format!("{what}: not in table"));
                return Ok(exit::ERROR);
            }
            run.say(&what);
            Ok(exit::OK)
        }
        ["get", target] => {
            let host = run.host();
            let near = host
                .interfaces
                .iter()
                .find(|(_, i)| i.addresses.values().any(|a| is_near(&a.address, target)));
            let text = match near {
                Some((name, _)) => Some((name.clone(), None)),
                None => host
                    .routes
                    .iter()
                    .find(|r| r.destination == "default")
                    .and_then(|r| {
                        let out = host.interfaces.iter().find(|(_, i)| {
                            i.addresses
                                .values()
                                .any(|a| is_near(&a.address, &r.gateway))
                        })?;
                        Some((out.0.clone(), Some(r.gateway.clone())))
                    }),
            };
            match text {
                Some((interface, gateway)) => {
                    run.say(&format!("   route to: {target}\ndestination: {target}"));
                    if let Some(gateway) = gateway {
                        run.say(&format!("    gateway: {gateway}"));
                    }
                    run.say(&format!("  interface: {interface}\n      flags: <UP,DONE>"));
                    Ok(exit::OK)
                }
                None => {
                    run.complain(&format!("{target}: not in table"));
                    Ok(exit::ERROR)
                }
            }
        }
        ["show"] => {
            let lines: Vec<String> = run
                .host()
                .routes
                .iter()
                .filter(|r| r.persistent)
                .map(|r| format!("persistent: route add {} {}", r.destination, r.gateway))
                .collect();
            lines.iter().for_each(|line| run.say(line));
            Ok(exit::OK)
        }
        _ => {
            run.complain("usage: route [-fnpqv] [-R <root-dir>] cmd [[-<qualifers>] args]");
            Ok(exit::ERROR)
        }
    }
}

/// The options of routeadm.
const FORWARDING: [&str; 2] = ["ipv4-forwarding", "ipv6-forwarding"];

/// `routeadm [-e|-d NAME]... [-u]`
pub fn routeadm(run: &mut Run, args: &[String], _: &[u8]) -> Step<i32> {
    let Ok(parsed) = getopt(args, "e:d:up", &[]) else {
        run.complain("usage: routeadm [-p [<option>]] [-R <root-dir>]");
        return Ok(exit::ERROR);
    };
    for (letter, enabled) in [('e', true), ('d', false)] {
        let names: Vec<String> = parsed.values(letter).map(str::to_owned).collect();
        for name in names {
            let service = format!("svc:/network/{name}:default");
            match run.host().services.get_mut(&service) {
                Some(service) if FORWARDING.contains(&name.as_str()) => service.enabled = enabled,
                _ => return run.end(exit::ERROR, &format!("routeadm: invalid option: {name}")),
            }
        }
    }
    if parsed.has('u') {
        for name in FORWARDING {
            if let Some(s) = run
                .host()
                .services
                .get_mut(&format!("svc:/network/{name}:default"))
            {
                s.state = if s.enabled { "online" } else { "disabled" }.to_owned();
            }
        }
    }
    if args.is_empty() {
        return run.not_played("the table of routeadm");
    }
    if parsed.has('p') {
        // A requested option is not named in the output.
        let asked = parsed.rest.first().cloned();
        let wanted = |name: &str| asked.as_deref().is_none_or(|asked| asked == name);
        if !FORWARDING.iter().any(|name| wanted(name)) {
            let name = asked.unwrap_or_default();
            return run.end(exit::ERROR, &format!("routeadm: invalid option: {name}"));
        }
        for name in FORWARDING.iter().filter(|name| wanted(name)) {
            let host = run.host();
            let s = &host.services[&format!("svc:/network/{name}:default")];
            let word = |on: bool| if on { "enabled" } else { "disabled" };
            let name = match asked {
                Some(_) => String::new(),
                None => format!("{name} "),
            };
            let line = format!(
                "{name}persistent={} default=disabled current={}",
                word(s.enabled),
                word(s.state == "online")
            );
            run.say(&line);
        }
    }
    Ok(exit::OK)
}
