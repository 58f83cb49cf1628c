//! Allocates and releases addresses and node ports when a service is written. Follows beginCreate, beginUpdate and
//! afterDelete in k8s.io/kubernetes/pkg/registry/core/service/storage.

use std::collections::{BTreeMap, BTreeSet};

use super::addresses::{FULL, Pool, give_back};
use super::families::{self, set_texts, stays_as_it_is, texts};
use super::ports::Ports;
use super::{HEADLESS, has_node_ports, is_named, needs_health_check, node_ports};
use crate::meta::addresses::parse_ip;
use crate::meta::status::About;
use crate::meta::{Errors, Path, Status};
use crate::resources::Cx;
use crate::resources::groups::core::pods::defaults;
use crate::schema::{Object, Value};
use crate::store::Change;

/// The effects of a write: `(new, old)`, see [`crate::resources::Rules::effects`].
pub(super) fn effects(
    new: Option<&mut Value>,
    old: Option<&Value>,
    cx: &Cx<'_>,
) -> Result<Vec<Change>, Status> {
    let Some(new) = new else {
        return Ok(old.map(|old| ended(old.at("spec"), cx)).unwrap_or_default());
    };
    let name = new.at("metadata").str("name").to_owned();
    let mut spec = new.remove("spec").unwrap_or_else(|| Object::new().into());
    let before = old.map(|old| old.at("spec"));
    let taken = Allocation { cx, name: &name }.run(&mut spec, before);
    new.set("spec", spec);
    taken
}

/// What a deleted service releases.
fn ended(spec: &Value, cx: &Cx<'_>) -> Vec<Change> {
    let mut ports = Ports::new(cx.cluster, cx.dry_run);
    node_ports(spec).for_each(|port| ports.give_back(port));
    let health = spec.int("healthCheckNodePort");
    if needs_health_check(spec) && health > 0 {
        ports.give_back(health);
    }
    addresses_of(spec)
        .iter()
        .filter_map(|ip| give_back(cx.cluster, ip))
        .chain(ports.change())
        .collect()
}

/// The addresses allocated to a service.
pub(super) fn addresses_of(spec: &Value) -> Vec<String> {
    if is_named(spec) || families::is_headless(spec) {
        Vec::new()
    } else {
        texts(spec, "clusterIPs")
    }
}

struct Allocation<'a> {
    cx: &'a Cx<'a>,
    name: &'a str,
}

impl Allocation<'_> {
    fn run(&self, spec: &mut Value, before: Option<&Value>) -> Result<Vec<Change>, Status> {
        if let Some(before) = before {
            keep_what_was_given(spec, before);
        }
        agree_on_addresses(spec, before);
        families::fill_in(spec, before, &self.configured())
            .map_err(|errors| self.invalid(&errors))?;
        let mut changes = match before {
            None => self.take_addresses(spec)?,
            Some(before) => self.change_addresses(spec, before)?,
        };
        let mut ports = Ports::new(self.cx.cluster, self.cx.dry_run);
        match before {
            None => self.take_ports(spec, &mut ports)?,
            Some(before) => self.change_ports(spec, before, &mut ports)?,
        }
        changes.extend(ports.change());
        Ok(changes)
    }

    /// The cluster's IP families, the default one first.
    fn configured(&self) -> Vec<&'static str> {
        let ranges = self.cx.cluster.settings.service_ranges.iter();
        ranges
            .map(|range| {
                if range.address.is_ipv4() {
                    "IPv4"
                } else {
                    "IPv6"
                }
            })
            .collect()
    }

    fn invalid(&self, errors: &Errors) -> Status {
        let about = About {
            group: "",
            kind: "Service",
            name: self.name,
        };
        Status::invalid(about, errors)
    }

    fn refused(&self, path: Path<'_>, value: impl Into<Value>, why: &str) -> Status {
        let mut errors = Errors::default();
        errors.invalid(path, value, why);
        self.invalid(&errors)
    }

    /// Allocates an address per family for a new service.
    fn take_addresses(&self, spec: &mut Value) -> Result<Vec<Change>, Status> {
        if is_named(spec)
            || spec.list("clusterIPs").first().and_then(Value::as_str) == Some(HEADLESS)
        {
            return Ok(Vec::new());
        }
        let families = texts(spec, "ipFamilies");
        let mut ips = texts(spec, "clusterIPs");
        if ips.len() < families.len() {
            ips.resize(families.len(), String::new());
        }
        // Errors show the list with its empty items.
        set_texts(spec, "clusterIPs", &ips);
        let pool = Pool::new(self.cx, self.name);
        let mut changes = Vec::new();
        for (ip, family) in ips.iter_mut().zip(&families) {
            *ip = self.take_address(&pool, spec, family, ip, &mut changes)?;
        }
        if let Some(first) = ips.first() {
            spec.set("clusterIP", first);
        }
        set_texts(spec, "clusterIPs", &ips);
        Ok(changes)
    }

    fn take_address(
        &self,
        pool: &Pool<'_>,
        spec: &Value,
        family: &str,
        ip: &str,
        changes: &mut Vec<Change>,
    ) -> Result<String, Status> {
        let refused = |why: &str| {
            let path = Path::ROOT.field("spec.clusterIPs");
            self.refused(path, spec.at("clusterIPs"), why)
        };
        if ip.is_empty() {
            return match pool.take_any(family == "IPv4") {
                Ok((ip, change)) => {
                    changes.extend(change);
                    Ok(ip.to_string())
                }
                Err(why) if why == FULL => Err(Status::internal(&format!(
                    "failed to allocate a serviceIP for Service \"{}\": {why}",
                    self.name
                ))),
                Err(why) => Err(refused(&format!("failed to allocate IP: {why}"))),
            };
        }
        let Some(parsed) = parse_ip(ip) else {
            let why = format!("failed to parse service IP \"{ip}\"");
            return Err(Status::internal(&why));
        };
        match pool.take(parsed) {
            Ok(change) => {
                changes.extend(change);
                Ok(ip.to_owned())
            }
            Err(why) => Err(refused(&format!("failed to allocate IP {ip}: {why}"))),
        }
    }

    fn change_addresses(&self, spec: &mut Value, before: &Value) -> Result<Vec<Change>, Status> {
        if stays_as_it_is(spec, before) {
            return Ok(Vec::new());
        }
        if is_named(before) && !is_named(spec) {
            return self.take_addresses(spec);
        }
        if families::is_headless(before) {
            return Ok(Vec::new());
        }
        let release = |ips: &[String]| -> Vec<Change> {
            let ips = ips.iter();
            ips.filter_map(|ip| give_back(self.cx.cluster, ip))
                .collect()
        };
        let had = texts(before, "clusterIPs");
        if !is_named(before) && is_named(spec) {
            return Ok(release(&had));
        }
        let families = texts(spec, "ipFamilies");
        match (before.list("ipFamilies").len(), families.len()) {
            (1, 2) => {
                let mut ips = texts(spec, "clusterIPs");
                ips.resize(2, String::new());
                set_texts(spec, "clusterIPs", &ips);
                let pool = Pool::new(self.cx, self.name);
                let mut changes = Vec::new();
                ips[1] = self.take_address(&pool, spec, &families[1], &ips[1], &mut changes)?;
                set_texts(spec, "clusterIPs", &ips);
                Ok(changes)
            }
            (2, 1) => Ok(release(had.get(1..).unwrap_or_default())),
            _ => Ok(Vec::new()),
        }
    }

    /// Allocates node ports for a new service; ports with the same number but different protocols share one.
    fn take_ports(&self, spec: &mut Value, ports: &mut Ports<'_>) -> Result<(), Status> {
        if has_node_ports(spec) {
            let allocates = allocates_ports(spec);
            let asked: Vec<(i64, i64)> = spec
                .list("ports")
                .iter()
                .map(|port| (port.int("port"), port.int("nodePort")))
                .collect();
            let mut given: BTreeMap<i64, i64> = BTreeMap::new();
            for (i, port) in defaults::items(spec, "ports").enumerate() {
                let (number, own) = asked[i];
                if own == 0 && !allocates {
                    continue;
                }
                match given.get(&number) {
                    Some(node) if own == 0 => port.set("nodePort", *node),
                    Some(node) if own == *node => {}
                    Some(_) => ports
                        .take(own)
                        .map_err(|why| self.port_refused(i, own, &why))?,
                    None => {
                        let wanted = asked.iter().find(|(n, node)| *n == number && *node != 0);
                        let node = match wanted {
                            Some((_, node)) => {
                                ports
                                    .take(*node)
                                    .map_err(|why| self.port_refused(i, *node, &why))?;
                                *node
                            }
                            None => self.any_port(ports)?,
                        };
                        // If another port with the same number requests another node port, it allocates that itself.
                        port.set("nodePort", node);
                        given.insert(number, node);
                    }
                }
            }
        }
        if needs_health_check(spec) {
            self.take_health_port(spec, ports)?;
        }
        Ok(())
    }

    fn port_refused(&self, index: usize, port: i64, why: &str) -> Status {
        let path = Path::ROOT.field("spec.ports");
        let path = path.index(index);
        self.refused(path.field("nodePort"), port, why)
    }

    fn any_port(&self, ports: &mut Ports<'_>) -> Result<i64, Status> {
        ports
            .take_any()
            .map_err(|why| Status::internal(&format!("failed to allocate a nodePort: {why}")))
    }

    fn take_health_port(&self, spec: &mut Value, ports: &mut Ports<'_>) -> Result<(), Status> {
        let asked = spec.int("healthCheckNodePort");
        if asked == 0 {
            let port = ports.take_any().map_err(|why| {
                Status::internal(&format!(
                    "failed to allocate a HealthCheck NodePort 0: {why}"
                ))
            })?;
            spec.set("healthCheckNodePort", port);
            return Ok(());
        }
        ports.take(asked).map_err(|why| {
            Status::internal(&format!(
                "failed to allocate requested HealthCheck NodePort {asked}: {why}"
            ))
        })
    }

    fn change_ports(
        &self,
        spec: &mut Value,
        before: &Value,
        ports: &mut Ports<'_>,
    ) -> Result<(), Status> {
        let had: BTreeSet<i64> = node_ports(before).collect();
        if has_node_ports(before) && matches!(spec.str("type"), "ExternalName" | "ClusterIP") {
            had.iter().for_each(|port| ports.give_back(*port));
        }
        if has_node_ports(spec) {
            let allocates = allocates_ports(spec);
            let mut seen: BTreeSet<(String, i64)> = BTreeSet::new();
            let mut taken: BTreeSet<i64> = BTreeSet::new();
            for (i, port) in defaults::items(spec, "ports").enumerate() {
                let mut node = port.int("nodePort");
                if node == 0 && !allocates {
                    continue;
                }
                if node == 0 {
                    node = self.any_port(ports)?;
                    port.set("nodePort", node);
                } else if !had.contains(&node) && !taken.contains(&node) {
                    ports
                        .take(node)
                        .map_err(|why| self.port_refused(i, node, &why))?;
                    taken.insert(node);
                }
                let key = (port.str("protocol").to_owned(), node);
                if seen.contains(&key) {
                    let why = format!("duplicate nodePort: {{{} {}}}", key.0, key.1);
                    return Err(Status::unclassified(why));
                }
                seen.insert(key);
            }
            let now: BTreeSet<i64> = node_ports(spec).collect();
            let gone = had.iter().filter(|port| !now.contains(port));
            gone.for_each(|port| ports.give_back(*port));
        }
        match (needs_health_check(before), needs_health_check(spec)) {
            (false, true) => self.take_health_port(spec, ports)?,
            (true, false) => ports.give_back(before.int("healthCheckNodePort")),
            _ => {}
        }
        Ok(())
    }
}

/// Whether node ports are allocated for all ports: shouldAllocateNodePorts.
fn allocates_ports(spec: &Value) -> bool {
    match spec.str("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.bool("allocateLoadBalancerNodePorts"),
        _ => false,
    }
}

/// Keeps allocated values that the client omits in an update: patchAllocatedValues.
fn keep_what_was_given(spec: &mut Value, before: &Value) {
    if !is_named(before) && !is_named(spec) {
        for key in ["clusterIP", "clusterIPs"] {
            if spec.at(key).is_empty()
                && let Some(had) = before.get(key)
            {
                spec.set(key, had);
            }
        }
    }
    let has_ports = |spec: &Value| match spec.str("type") {
        "NodePort" => true,
        "LoadBalancer" => spec
            .at("allocateLoadBalancerNodePorts")
            .as_bool()
            .unwrap_or(true),
        _ => false,
    };
    if has_ports(before) && has_ports(spec) {
        let said: Vec<i64> = node_ports(spec).collect();
        let used: Vec<i64> = node_ports(before)
            .filter(|port| said.contains(port))
            .collect();
        let named: BTreeMap<String, i64> = before
            .list("ports")
            .iter()
            .map(|port| (port.str("name").to_owned(), port.int("nodePort")))
            .collect();
        for port in defaults::items(spec, "ports") {
            let had = named.get(port.str("name")).copied().unwrap_or(0);
            if port.int("nodePort") == 0 && had != 0 && !used.contains(&had) {
                port.set("nodePort", had);
            }
        }
    }
    if needs_health_check(before)
        && needs_health_check(spec)
        && spec.int("healthCheckNodePort") == 0
    {
        spec.set("healthCheckNodePort", before.int("healthCheckNodePort"));
    }
}

/// Makes clusterIP and clusterIPs agree, as far as the intention is clear: normalizeClusterIPs.
fn agree_on_addresses(spec: &mut Value, before: Option<&Value>) {
    let one = spec.str("clusterIP").to_owned();
    let Some(before) = before else {
        if !one.is_empty() && spec.list("clusterIPs").is_empty() {
            set_texts(spec, "clusterIPs", &[one]);
        }
        return;
    };
    let had = texts(before, "clusterIPs");
    let changed = before.str("clusterIP") != one;
    if !had.is_empty() && spec.list("clusterIPs").is_empty() && !changed {
        set_texts(spec, "clusterIPs", &had);
    }
    if changed && texts(spec, "clusterIPs") == had {
        let cleared = one.is_empty() && !before.str("clusterIP").is_empty();
        set_texts(
            spec,
            "clusterIPs",
            if cleared {
                &[]
            } else {
                std::slice::from_ref(&one)
            },
        );
    }
}
