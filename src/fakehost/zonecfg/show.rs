//! `info` and `export`.

use std::fmt::Write as _;
use std::path::Path;

use super::doc::{self, Z};
use super::global::GLOBAL_ZONE_LACKS;
use super::parser::{Command, Value};
use super::resource::{Resource, all, element_name, to_element};
use super::session::{Session, Step, strerror};
use super::{Flavour, Z_GLOBAL};
use crate::fakehost::xml::Element;

impl Session<'_> {
    pub(super) fn info(&mut self, command: &Command) -> Step {
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        let Some(document) = self.document.clone() else {
            return Ok(());
        };
        if let Some(scope) = &self.scope {
            // On the gate the memory cap is only added to the document at the end.
            let mut document = document;
            if scope.kind == "capped-memory" && self.flavour == Flavour::Gate {
                document.children.retain(|c| c.name != "mcap");
                if !scope.new.get("physical").is_empty() {
                    document.children.push(to_element(scope.kind, &scope.new));
                }
            }
            let mut text = self.resource_text(scope.kind, &scope.new, &document);
            if text.is_empty() && scope.kind == "capped-memory" {
                text.push_str("capped-memory:\n");
            }
            self.out.push_str(&text);
            return Ok(());
        }
        let global = self.global_zone;
        let lacks =
            |name: &&str| global && (GLOBAL_ZONE_LACKS.contains(name) || LOCAL.contains(name));
        match command.target {
            None => {
                self.info_property("zonename", &document);
                let first = ["zonepath", "brand", "autoboot", "bootargs"];
                for name in first.iter().chain(Z_GLOBAL).filter(|n| !lacks(n)) {
                    self.info_property(name, &document);
                }
                for kind in [
                    "fs",
                    "net",
                    "device",
                    "dedicated-cpu",
                    "capped-cpu",
                    "capped-memory",
                    "attr",
                    "dataset",
                    "admin",
                    "rctl",
                    "security-flags",
                ]
                .iter()
                .filter(|k| !(lacks(k) || global && **k == "admin"))
                {
                    self.info_resources(kind, &[], &document);
                }
            }
            Some(name) if lacks(&name) => {
                let what = if LOCAL.contains(&name) {
                    "resource"
                } else {
                    "property"
                };
                self.error(&format!(
                    "{name} is not a valid {what} for the global zone."
                ));
            }
            Some(name) if !element_name(name).is_empty() || name == "capped-cpu" => {
                self.info_resources(name, &command.pairs, &document);
            }
            Some(name) => self.info_property(name, &document),
        }
        Ok(())
    }

    fn info_property(&mut self, name: &str, document: &Element) {
        if doc::find_alias(name).is_some() {
            if let Ok(limit) = doc::aliased(document, name) {
                let text = if name == "max-shm-memory" {
                    doc::bytes_to_units(limit)
                } else {
                    limit.to_string()
                };
                let _ = writeln!(self.out, "[{name}: {text}]");
            }
            return;
        }
        let brand = self.brand(document);
        let path = self.zonepath(document);
        let value = match name {
            "zonename" => document.attr_or_empty("name"),
            "zonepath" => &path,
            "ip-type" if doc::is_exclusive(document) => "exclusive",
            "ip-type" => "shared",
            "brand" => &brand,
            "autoboot" if document.attr_or_empty("autoboot") != "true" => "false",
            _ => document.attr_or_empty(name),
        }
        .to_string();
        if doc::readable(name, &value) {
            let _ = writeln!(self.out, "{name}: {value}");
        } else if name == "zonepath" {
            let _ = writeln!(self.out, "{name} not specified");
        } else {
            let zone = self.zone.clone();
            self.complain(&zone, Z::TooBig);
        }
    }

    fn info_resources(
        &mut self,
        kind: &'static str,
        pairs: &[(&'static str, Value)],
        document: &Element,
    ) {
        if matches!(kind, "capped-cpu" | "capped-memory") {
            let text = self.resource_text(kind, &Resource::default(), document);
            self.out.push_str(&text);
            return;
        }
        let mut shown = false;
        for resource in all(kind, document) {
            if !pairs.is_empty() && !matches!(kind, "dedicated-cpu" | "security-flags") {
                let Ok(wanted) = self.filled_in(kind, pairs) else {
                    continue;
                };
                let matches = wanted.fields.iter().all(|(property, value)| {
                    value.is_empty()
                        || (kind == "net" && !matches!(*property, "physical" | "address"))
                        || resource.get(property) == value
                });
                if !matches {
                    continue;
                }
            }
            let text = self.resource_text(kind, &resource, document);
            self.out.push_str(&text);
            shown = true;
        }
        let one = matches!(kind, "dedicated-cpu" | "security-flags");
        if !shown && !pairs.is_empty() && !one {
            let _ = writeln!(self.out, "No such {kind} resource.");
        }
    }

    fn resource_text(&self, kind: &str, resource: &Resource, document: &Element) -> String {
        let mut out = String::new();
        let line = |out: &mut String, name: &str, value: &str| {
            if value.is_empty() {
                let _ = writeln!(out, "\t{name} not specified");
            } else if value.contains(' ') {
                let _ = writeln!(out, "\t{name}: \"{value}\"");
            } else {
                let _ = writeln!(out, "\t{name}: {value}");
            }
        };
        let properties: &[&str] = match kind {
            "fs" => &["dir", "special", "raw", "type"],
            "net" if self.flavour == Flavour::Gate => {
                &["address", "allowed-address", "physical", "defrouter"]
            }
            "net" => &[
                "address",
                "allowed-address",
                "defrouter",
                "global-nic",
                "mac-addr",
                "physical",
                "vlan-id",
            ],
            "device" => &["match"],
            "rctl" | "dataset" => &["name"],
            "attr" => &["name", "type", "value"],
            "admin" => &["user", "auths"],
            "security-flags" => &["default", "lower", "upper"],
            _ => &[],
        };
        match kind {
            "capped-cpu" => {
                if let Ok(cap) = doc::aliased(document, "cpu-cap") {
                    let _ = writeln!(out, "{kind}:\n\t[ncpus: {:.2}]", cap as f32 / 100.0);
                }
                return out;
            }
            "capped-memory" => {
                let physical = match self.flavour {
                    Flavour::Omnios => doc::aliased(document, "physical").ok(),
                    Flavour::Gate => document
                        .named("mcap")
                        .next()
                        .and_then(|m| m.attr_or_empty("physcap").parse().ok()),
                };
                let swap = doc::aliased(document, "swap").ok();
                let locked = doc::aliased(document, "locked").ok();
                if physical.is_none() && swap.is_none() && locked.is_none() {
                    return out;
                }
                let _ = writeln!(out, "{kind}:");
                if let Some(bytes) = physical {
                    let text = doc::bytes_to_units(bytes);
                    let _ = match self.flavour {
                        Flavour::Omnios => writeln!(out, "\t[physical: {text}]"),
                        Flavour::Gate => writeln!(out, "\tphysical: {text}"),
                    };
                }
                for (name, bytes) in [("swap", swap), ("locked", locked)] {
                    if let Some(bytes) = bytes {
                        let _ = writeln!(out, "\t[{name}: {}]", doc::bytes_to_units(bytes));
                    }
                }
                return out;
            }
            "dedicated-cpu" => {
                let _ = writeln!(out, "{kind}:");
                let (low, high) = (resource.get("min"), resource.get("max"));
                let _ = if low == high {
                    writeln!(out, "\tncpus: {high}")
                } else {
                    writeln!(out, "\tncpus: {low}-{high}")
                };
                if !resource.get("importance").is_empty() {
                    let _ = writeln!(out, "\timportance: {}", resource.get("importance"));
                }
                return out;
            }
            _ => {}
        }
        let _ = writeln!(out, "{kind}:");
        for property in properties {
            line(&mut out, property, resource.get(property));
        }
        if kind == "fs" {
            let options: Vec<String> = resource
                .list
                .iter()
                .map(|e| {
                    let name = e.attr_or_empty("name");
                    if name.contains('=') {
                        format!("\"{name}\"")
                    } else {
                        name.to_string()
                    }
                })
                .collect();
            let _ = writeln!(out, "\toptions: [{}]", options.join(","));
        } else {
            for value in &resource.list {
                let _ = writeln!(out, "\t{}", complex_text(value, ": "));
            }
        }
        out
    }

    pub(super) fn export(&mut self, command: &Command) -> Step {
        let Some(flags) = self.flags(command, "f:") else {
            return Ok(());
        };
        // The file is created before there is anything to write.
        if let Some((_, path)) = flags.0.last()
            && let Err(error) = self.host.write_file(Path::new(path), "")
        {
            self.error(&format!("opening file {path}: {}", strerror(&error)));
            return Ok(());
        }
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        let Some(document) = &self.document else {
            return Ok(());
        };
        // The brand in the saved configuration, whatever has been set since.
        let brand = match self.store.load(&self.zone) {
            _ if self.global_zone => Some(self.brand(&Element::new("zone"))),
            Ok(saved) => saved.map(|saved| self.brand(&saved)),
            Err(_) => None,
        };
        let path = self.zonepath(document);
        let text = export_text(document, &path, brand.as_deref(), self.flavour);
        match flags.0.last() {
            None => self.out.push_str(&text),
            Some((_, path)) => {
                if let Err(error) = self.host.write_file(Path::new(path), &text) {
                    self.error(&format!("opening file {path}: {}", strerror(&error)));
                }
            }
        }
        Ok(())
    }
}

/// Resources that the global zone does not have.
const LOCAL: &[&str] = &["fs", "net", "device", "attr", "dataset"];

fn complex_text(value: &Element, separator: &str) -> String {
    let get = |name: &str| value.attr_or_empty(name).to_string();
    if value.name == "net-attr" {
        format!(
            "property{separator}(name={},value=\"{}\")",
            get("name"),
            get("value")
        )
    } else {
        format!(
            "value{separator}(priv={},limit={},action={})",
            get("priv"),
            get("limit"),
            get("action")
        )
    }
}

/// The document as a command file that recreates it.
fn export_text(document: &Element, path: &str, brand: Option<&str>, flavour: Flavour) -> String {
    let mut out = String::from("create -b\n");
    let get = |name: &str| match document.attr_or_empty(name) {
        value if doc::readable(name, value) => value,
        _ => "",
    };
    if !path.is_empty() && doc::readable("zonepath", path) {
        let _ = writeln!(out, "set zonepath={path}");
    }
    if let Some(brand) = brand.filter(|brand| *brand != "native") {
        let _ = writeln!(out, "set brand={brand}");
    }
    let autoboot = if get("autoboot") == "true" {
        "true"
    } else {
        "false"
    };
    let _ = writeln!(out, "set autoboot={autoboot}");
    for name in ["bootargs", "pool", "limitpriv", "scheduling-class"] {
        if !get(name).is_empty() {
            let _ = writeln!(out, "set {name}={}", get(name));
        }
    }
    let ip_type = if doc::is_exclusive(document) {
        "exclusive"
    } else {
        "shared"
    };
    let _ = writeln!(out, "set ip-type={ip_type}");
    for name in ["hostid", "fs-allowed"] {
        if !get(name).is_empty() {
            let _ = writeln!(out, "set {name}={}", get(name));
        }
    }
    let quoted = |out: &mut String, resource: &Resource, names: &[&str]| {
        for name in names {
            if !resource.get(name).is_empty() {
                let _ = writeln!(out, "set {name}=\"{}\"", resource.get(name));
            }
        }
    };
    let kinds: &[(&str, &[&str])] = &[
        ("fs", &["dir", "special", "raw", "type"]),
        (
            "net",
            &[
                "address",
                "allowed-address",
                "physical",
                "mac-addr",
                "vlan-id",
                "global-nic",
                "defrouter",
            ],
        ),
        ("device", &["match"]),
        ("capped-memory", &[]),
        ("rctl", &["name"]),
        ("attr", &["name", "type", "value"]),
        ("dataset", &["name"]),
        ("dedicated-cpu", &[]),
        ("admin", &["user", "auths"]),
        ("security-flags", &["default", "lower", "upper"]),
    ];
    for (kind, names) in kinds {
        if *kind == "capped-memory" && flavour == Flavour::Omnios {
            continue;
        }
        for resource in all(kind, document) {
            let _ = writeln!(out, "add {kind}");
            match *kind {
                "capped-memory" => {
                    let bytes = resource.get("physical").parse().unwrap_or(0);
                    let _ = writeln!(out, "set physical={}", doc::bytes_to_units(bytes));
                }
                "dedicated-cpu" => {
                    let (low, high) = (resource.get("min"), resource.get("max"));
                    let range = if low == high {
                        high.to_string()
                    } else {
                        format!("{low}-{high}")
                    };
                    let _ = writeln!(out, "set ncpus={range}");
                    if !resource.get("importance").is_empty() {
                        let _ = writeln!(out, "set importance={}", resource.get("importance"));
                    }
                }
                _ => quoted(&mut out, &resource, names),
            }
            for item in &resource.list {
                if *kind == "fs" {
                    let name = item.attr_or_empty("name");
                    let _ = if name.contains('=') {
                        writeln!(out, "add options \"{name}\"")
                    } else {
                        writeln!(out, "add options {name}")
                    };
                } else {
                    let _ = writeln!(out, "add {}", complex_text(item, " "));
                }
            }
            out.push_str("end\n");
        }
    }
    out
}
