//! `info` and `export`.

use std::fmt::Write as _;

use super::doc;
use super::parser::{Command, Value};
use super::resource::{Resource, all, element_name};
use super::session::{Session, Step};
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
            let text = self.resource_text(scope.kind, &scope.new, &document);
            self.out.push_str(&text);
            return Ok(());
        }
        match command.target {
            None => {
                for name in ["zonename", "zonepath", "brand", "autoboot", "bootargs"] {
                    self.info_property(name, &document);
                }
                for name in Z_GLOBAL {
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
                ] {
                    self.info_resources(kind, &[], &document);
                }
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
        let value = match name {
            "zonename" => document.attr_or_empty("name"),
            "ip-type" if doc::is_exclusive(document) => "exclusive",
            "ip-type" => "shared",
            "autoboot" if document.attr_or_empty("autoboot") != "true" => "false",
            _ => document.attr_or_empty(name),
        }
        .to_string();
        let _ = writeln!(self.out, "{name}: {value}");
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
            if !pairs.is_empty() {
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
        if !shown && !pairs.is_empty() {
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
                &["address", "allowed-address", "defrouter", "physical"]
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
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        let Some(document) = &self.document else {
            return Ok(());
        };
        let text = export_text(document, self.flavour);
        match flags.0.last() {
            None => self.out.push_str(&text),
            Some((_, path)) => {
                if let Err(e) = std::fs::write(path, text) {
                    self.error(&format!("opening file {path}: {e}"));
                }
            }
        }
        Ok(())
    }
}

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

/// The document as a command file that makes it again.
fn export_text(document: &Element, flavour: Flavour) -> String {
    let mut out = String::from("create -b\n");
    let get = |name: &str| document.attr_or_empty(name);
    for name in ["zonepath", "brand"] {
        if !get(name).is_empty() {
            let _ = writeln!(out, "set {name}={}", get(name));
        }
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
                    let _ = writeln!(out, "set physical={}", resource.get("physical"));
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
