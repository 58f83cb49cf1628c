//! Warnings about ports of containers that are in each other's way.

use std::collections::{BTreeMap, HashMap};

use super::super::validate::{CONTAINERS, containers};
use super::Told;
use crate::meta::At;
use crate::meta::errors::quoted;
use crate::schema::Value;

/// A container's port and its path.
struct Port<'a> {
    path: String,
    port: &'a Value,
}

fn all_ports(spec: At<'_>) -> Vec<Port<'_>> {
    let mut all = Vec::new();
    for list in CONTAINERS {
        let at = spec.path.field(list);
        for (i, container) in spec.value.list(list).iter().enumerate() {
            let at = at.index(i);
            let at = at.field("ports");
            for (j, port) in container.list("ports").iter().enumerate() {
                let path = at.index(j).to_string();
                all.push(Port { path, port });
            }
        }
    }
    all
}

/// The ports of one number and protocol that were met, by what decides whether two of them are in each other's way.
#[derive(Default)]
struct Taken<'a> {
    all: Vec<usize>,
    /// By port and address of the host. Zero is no port of the host, and is in the way of every other.
    at: HashMap<(i64, &'a str), Vec<usize>>,
    /// By port of the host, and whether an address of it is given.
    given: HashMap<(i64, bool), Vec<usize>>,
}

impl<'a> Taken<'a> {
    /// Those that are in the way of another, and why.
    fn before(&self, host: i64, ip: &str) -> BTreeMap<usize, &'static str> {
        let mut found = BTreeMap::new();
        let mut note = |list: Option<&Vec<usize>>, what| {
            for index in list.into_iter().flatten() {
                found.entry(*index).or_insert(what);
            }
        };
        note(self.at.get(&(host, ip)), "duplicate");
        if host == 0 {
            note(Some(&self.all), "overlapping");
        } else {
            note(self.given.get(&(0, true)), "overlapping");
            note(self.given.get(&(0, false)), "overlapping");
            note(
                self.given.get(&(host, ip.is_empty())),
                "dangerously ambiguous",
            );
        }
        found
    }

    fn add(&mut self, index: usize, host: i64, ip: &'a str) {
        self.all.push(index);
        self.at.entry((host, ip)).or_default().push(index);
        self.given
            .entry((host, !ip.is_empty()))
            .or_default()
            .push(index);
    }
}

/// Adds a warning for each pair of ports of which one is in the other's way, and for each name that is there twice.
pub(super) fn tell(spec: At<'_>, told: &mut Told) {
    if containers(spec.value).all(|container| container.list("ports").is_empty()) {
        return;
    }
    let all = all_ports(spec);
    let mut taken: HashMap<(i64, &str), Taken<'_>> = HashMap::new();
    for (i, Port { path, port }) in all.iter().enumerate() {
        if told.is_full() {
            return;
        }
        let (host, ip) = (port.int("hostPort"), port.str("hostIP"));
        let (number, protocol) = (port.int("containerPort"), port.str("protocol"));
        if !ip.is_empty() && host == 0 {
            told.add(format_args!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:{host} ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}",
                port.str("name"),
            ));
        }
        let taken = taken.entry((number, protocol)).or_default();
        for (other, what) in taken.before(host, ip) {
            told.add(format_args!(
                "{path}: {what} port definition with {}",
                all[other].path
            ));
        }
        taken.add(i, host, ip);
    }
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for Port { path, port } in &all {
        let name = port.str("name");
        if name.is_empty() {
            continue;
        }
        match named.get(name) {
            Some(other) => told.add(format_args!(
                "{path}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                quoted(name)
            )),
            None => drop(named.insert(name, path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::json;

    fn told(ports: &str) -> Vec<String> {
        let spec = format!(r#"{{"containers":[{{"ports":[{ports}]}}]}}"#);
        let spec = json::parse(spec.as_bytes()).unwrap().value;
        let mut told = Told::default();
        tell(At::root(&spec), &mut told);
        told.0
    }

    #[test]
    fn pairs_of_ports_are_told_in_order() {
        let port = |host: i64, ip: &str| {
            format!(r#"{{"containerPort":1,"protocol":"TCP","hostPort":{host},"hostIP":"{ip}"}}"#)
        };
        for (ports, expected) in [
            ([(1, ""), (2, "")], None),
            ([(1, "a"), (1, "b")], None),
            ([(1, "a"), (1, "a")], Some("duplicate")),
            ([(0, ""), (0, "")], Some("duplicate")),
            ([(0, ""), (2, "")], Some("overlapping")),
            ([(1, "a"), (0, "")], Some("overlapping")),
            ([(1, "a"), (1, "")], Some("dangerously ambiguous")),
            ([(1, ""), (1, "a")], Some("dangerously ambiguous")),
        ] {
            let texts = ports.map(|(host, ip)| port(host, ip));
            let expected: Vec<String> = expected
                .map(|what| {
                    format!(
                        "containers[0].ports[1]: {what} port definition with containers[0].ports[0]"
                    )
                })
                .into_iter()
                .collect();
            assert_eq!(told(&texts.join(",")), expected, "{ports:?}");
        }
    }

    #[test]
    fn very_many_ports_are_told_in_part() {
        let same = vec![r#"{"containerPort":1}"#; 10_000].join(",");
        assert_eq!(told(&same).len(), 10_000);
        let apart =
            (0..50_000).map(|n| format!(r#"{{"containerPort":1,"hostPort":1,"hostIP":"ip{n}"}}"#));
        assert_eq!(
            told(&apart.collect::<Vec<_>>().join(",")),
            Vec::<String>::new()
        );
    }
}
