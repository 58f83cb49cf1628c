//! The resource scope: `add` and `select`, which open it, and values added to lists.

use std::collections::BTreeMap;

use super::Flavour;
use super::doc::{self, Z};
use super::parser::{Command, Value};
use super::resource::{Resource, all, from_element, matches_property, shape};
use super::session::{Scope, Session, Step};
use crate::fakehost::xml::Element;

impl Session<'_> {
    // ---- add ------------------------------------------------------------------------------

    pub(super) fn add(&mut self, command: &Command) -> Step {
        if !command.args.is_empty() {
            let _ = self.flags(command, "");
            return Ok(());
        }
        if self.read_only() {
            return Ok(());
        }
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        if self.scope.is_some() {
            let Some((property, value)) = command.pairs.first() else {
                self.long_usage("add");
                return Ok(());
            };
            self.add_property(property, value);
            return Ok(());
        }
        let Some(kind) = command.target else {
            self.long_usage("add");
            return Ok(());
        };
        if self.global_zone && matches!(kind, "fs" | "net" | "device" | "attr" | "dataset") {
            self.fail(&format!("Cannot add a {kind} resource to the global zone."));
            return Ok(());
        }
        if let Some(reason) = self.add_refused(kind) {
            self.error(&reason);
            return Ok(());
        }
        match kind {
            "rctl" => self.warn_of_global("resource control"),
            "capped-memory" => self.warn_of_global("memory cap"),
            _ => {}
        }
        if kind == "security-flags" && self.has("security-flags") {
            self.error("The security-flags resource already exists.");
        }
        self.scope = Some(Scope {
            kind,
            old: None,
            new: Resource::default(),
        });
        Ok(())
    }

    /// Why a second or excluded resource cannot be added. These messages leave the exit status
    /// alone, and the next `set` runs in the global scope.
    pub(super) fn add_refused(&self, kind: &str) -> Option<String> {
        let document = self.document.as_ref()?;
        let exists = |what: &str| Some(format!("The {what} resource already exists."));
        let alias = |name: &str| doc::aliased(document, name);
        match kind {
            "dedicated-cpu" => {
                if self.has("pset") {
                    return exists("dedicated-cpu");
                }
                if alias("cpu-cap") != Err(Z::NoEntry) {
                    return exists("capped-cpu");
                }
                (!document.attr_or_empty("pool").is_empty()).then(|| {
                    "The pool property is already set.  A persistent pool is incompatible with\nthe dedicated-cpu resource.".to_string()
                })
            }
            "capped-cpu" => {
                if self.has("pset") {
                    return exists("dedicated-cpu");
                }
                match alias("cpu-cap") {
                    Err(Z::AliasDisallow) => {
                        Some(format!("capped-cpu: {}", Z::AliasDisallow.text()))
                    }
                    Ok(_) => exists("capped-cpu"),
                    Err(_) => None,
                }
            }
            "capped-memory" => {
                let physical = match self.flavour {
                    Flavour::Omnios => alias("physical").is_ok(),
                    Flavour::Gate => self.has("mcap"),
                };
                (physical || alias("swap").is_ok() || alias("locked").is_ok()).then(|| {
                    "The capped-memory resource or a related resource control already exists."
                        .to_string()
                })
            }
            _ => None,
        }
    }

    pub(super) fn add_property(&mut self, property: &'static str, value: &Value) {
        let Some(scope) = &self.scope else { return };
        let expected = match scope.kind {
            "fs" => "options",
            "net" | "device" if self.flavour == Flavour::Omnios => "property",
            "rctl" => "value",
            kind => {
                self.complain(kind, Z::NoResourceType);
                self.long_usage("add");
                return;
            }
        };
        if property != expected {
            self.complain(property, Z::NoPropertyType);
            self.long_usage("add");
            return;
        }
        match (expected, value) {
            ("options", Value::Complex(_)) => {
                self.fail("A simple or list value was expected here.");
            }
            ("options", Value::Simple(option)) => self.add_option(option),
            ("options", Value::List(items)) => {
                for item in items {
                    let Value::Simple(option) = item else { break };
                    self.add_option(option);
                }
            }
            ("value", Value::Simple(_)) => {
                self.fail("A complex or list value was expected here.");
            }
            ("value", Value::Complex(pieces)) => self.add_rctl_value(pieces),
            ("value", Value::List(items)) => {
                for item in items {
                    match item {
                        Value::Complex(pieces) => self.add_rctl_value(pieces),
                        _ => self.add_rctl_value(&[]),
                    }
                }
            }
            (_, Value::Complex(pieces)) => self.add_network_property(pieces),
            _ => self.fail("A complex value was expected here."),
        }
    }

    pub(super) fn add_option(&mut self, option: &str) {
        if let Some(scope) = &mut self.scope {
            scope
                .new
                .list
                .push(Element::new("fsoption").with("name", &doc::cut(option, 1023)));
        }
    }

    /// Adds a resource control's value. A wrong one prints a message and is dropped; only `end`
    /// then fails.
    pub(super) fn add_rctl_value(&mut self, pieces: &[(&'static str, String)]) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in pieces {
            if !matches!(*name, "priv" | "limit" | "action") {
                self.complain("value", Z::NoPropertyType);
                self.long_usage("add");
                return;
            }
            if seen.insert(name, value).is_some() {
                return self.error(&format!("{name} already specified"));
            }
        }
        let mut complete = true;
        for name in ["priv", "limit", "action"] {
            if !seen.contains_key(name) {
                self.error(&format!("{name} not specified"));
                complete = false;
            }
        }
        if !complete {
            return;
        }
        let limit = seen["limit"];
        if seen["priv"] != "privileged"
            || !matches!(seen["action"], "none" | "deny")
            || doc::parse_limit(limit).is_none()
        {
            return self.error("Invalid rctl value specification");
        }
        let element = Element::new("rctl-value")
            .with("priv", seen["priv"])
            .with("limit", limit)
            .with("action", seen["action"]);
        if let Some(scope) = &mut self.scope {
            scope.new.list.push(element);
        }
    }

    pub(super) fn add_network_property(&mut self, pieces: &[(&'static str, String)]) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in pieces {
            if !matches!(*name, "name" | "value") {
                self.complain("property", Z::NoPropertyType);
                self.long_usage("add");
                return;
            }
            if seen.insert(name, value).is_some() {
                return self.error(&format!("{name} already specified"));
            }
        }
        for name in ["name", "value"] {
            if !seen.contains_key(name) {
                self.error(&format!("{name} not specified"));
            }
        }
        let kept = |name: &str| doc::cut(seen.get(name).copied().unwrap_or(""), 255);
        let element = Element::new("net-attr")
            .with("name", &kept("name"))
            .with("value", &kept("value"));
        if let Some(scope) = &mut self.scope {
            scope.new.list.push(element);
        }
    }

    // ---- select ---------------------------------------------------------------------------

    pub(super) fn select(&mut self, command: &Command) -> Step {
        if self.read_only() {
            return Ok(());
        }
        if self.scope.is_some() {
            self.fail("The select command only makes sense in the global scope.");
            return Ok(());
        }
        let Some(kind) = command.target else {
            self.long_usage("select");
            return Ok(());
        };
        if let Err(e) = self.initialize(true) {
            // By now the original is in the resource scope.
            self.scope = Some(Scope {
                kind,
                old: Some(Resource::default()),
                new: Resource::default(),
            });
            return e.step();
        }
        match self.find(kind, &command.pairs) {
            Ok(found) => {
                self.scope = Some(Scope {
                    kind,
                    old: Some(found.clone()),
                    new: found,
                });
            }
            Err(e) => self.fail(&format!("select {kind}: {}", e.text())),
        }
        Ok(())
    }

    /// The only resource that matches all pairs.
    pub(super) fn find(
        &mut self,
        kind: &'static str,
        pairs: &[(&'static str, Value)],
    ) -> Result<Resource, Z> {
        // There is only one of these, whatever the pairs.
        let wanted = match kind {
            "capped-cpu" | "capped-memory" | "dedicated-cpu" => Resource::default(),
            _ => self.filled_in(kind, pairs)?,
        };
        let document = self.document.as_ref().ok_or(Z::BadHandle)?;
        let alias = |name: &str| doc::aliased(document, name);
        match kind {
            "capped-cpu" => return alias("cpu-cap").map(|_| Resource::default()),
            "capped-memory" => {
                let mcap = document.named("mcap").next();
                let physical = match self.flavour {
                    Flavour::Omnios => alias("physical").is_ok(),
                    Flavour::Gate => mcap.is_some(),
                };
                if !physical && alias("swap").is_err() && alias("locked").is_err() {
                    return Err(Z::NoResourceType);
                }
                return Ok(mcap.map_or_else(Resource::default, |m| from_element(kind, m)));
            }
            "dedicated-cpu" | "security-flags" => {
                return all(kind, document).into_iter().next().ok_or(Z::NoEntry);
            }
            _ => {}
        }
        if !wanted.get("address").is_empty() && !wanted.get("allowed-address").is_empty() {
            return Err(Z::Inval);
        }
        // Neither the VLAN nor a user's authorizations identify a resource.
        let named = |p: &str| p != "vlan-id" && (kind, p) != ("admin", "auths");
        let mut given = wanted.fields.iter().filter(|(p, _)| named(p));
        if given.all(|(_, value)| value.is_empty()) {
            return Err(match kind {
                "net" => Z::InsufficientSpec,
                "rctl" => Z::Inval,
                _ => Z::NoResourceId,
            });
        }
        let exclusive = doc::is_exclusive(document);
        let mut found = all(kind, document).into_iter().filter(|r| {
            wanted.fields.iter().all(|(property, value)| {
                value.is_empty()
                    || !named(property)
                    || matches_property(kind, property, value, r, exclusive)
            })
        });
        let first = found.next().ok_or(Z::NoResourceId)?;
        if found.next().is_some() {
            return Err(Z::InsufficientSpec);
        }
        Ok(first)
    }

    /// The pairs of a `select`, `remove` or `info` as a resource.
    pub(super) fn filled_in(
        &mut self,
        kind: &'static str,
        pairs: &[(&'static str, Value)],
    ) -> Result<Resource, Z> {
        let mut resource = Resource::default();
        for (property, value) in pairs {
            let Value::Simple(value) = value else {
                self.fail("A simple value was expected here.");
                return Err(Z::InsufficientSpec);
            };
            if !shape(kind).fields.iter().any(|(p, _, _)| p == property) {
                self.complain(property, Z::NoPropertyType);
                return Err(Z::InsufficientSpec);
            }
            resource.put(kind, property, value);
        }
        Ok(resource)
    }
}
