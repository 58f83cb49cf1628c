//! `clear`, `remove` and `cancel`.

use super::Flavour;
use super::doc::{self, Z};
use super::parser::{Command, Value};
use super::resource::{Resource, TMP_POOL, element_name, from_element, shape};
use super::session::{Session, Step};

impl Session<'_> {
    // ---- clear, remove, cancel -------------------------------------------------------------

    pub(super) fn clear_in_resource(&mut self, property: &'static str) -> Step {
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        let Some(kind) = self.scope.as_ref().map(|s| s.kind) else {
            return Ok(());
        };
        let gate = self.flavour == Flavour::Gate;
        match (kind, property) {
            ("capped-memory", "physical") if gate => self.put("physical", ""),
            ("capped-memory", "physical" | "swap" | "locked") => {
                self.clear_alias(property);
                return Ok(());
            }
            ("fs", "raw")
            | ("dedicated-cpu", "importance")
            | ("security-flags", "lower" | "default" | "upper") => self.put(property, ""),
            ("net", "allowed-address" | "defrouter" | "global-nic" | "mac-addr" | "vlan-id")
                if !gate =>
            {
                self.put(property, "");
            }
            _ => {
                self.complain(property, Z::ClearDisallow);
                return Ok(());
            }
        }
        self.changed = true;
        Ok(())
    }

    pub(super) fn cancel(&mut self, command: &Command) -> Step {
        if self.flags(command, "").is_none() {
            return Ok(());
        }
        if self.scope.is_none() {
            self.fail("The cancel command only makes sense in the resource scope.");
        }
        self.scope = None;
        Ok(())
    }

    pub(super) fn remove(&mut self, command: &Command) -> Step {
        if self.read_only() {
            return Ok(());
        }
        if self.scope.is_some() {
            match &command.pairs[..] {
                [(property, value)] => return self.remove_property(property, value),
                [] => self.long_usage("remove"),
                _ => self.long_usage("add"),
            }
            return Ok(());
        }
        let Some(kind) = command.target else {
            self.long_usage("remove");
            return Ok(());
        };
        if self.global_zone && matches!(kind, "fs" | "net" | "device" | "attr" | "dataset") {
            self.fail(&format!(
                "{kind} is not a valid resource for the global zone."
            ));
            return Ok(());
        }
        let Some(flags) = self.flags(command, "F") else {
            return Ok(());
        };
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        match self.removed(kind, &command.pairs, flags.has('F')) {
            Ok(()) => self.changed = true,
            // The original reports it and continues.
            Err(Some(e)) if kind == "security-flags" => {
                self.error(&format!("remove {kind}: {}", e.text()));
            }
            Err(Some(e)) => self.fail(&format!("remove {kind}: {}", e.text())),
            Err(None) => {}
        }
        Ok(())
    }

    pub(super) fn removed(
        &mut self,
        kind: &'static str,
        pairs: &[(&'static str, Value)],
        force: bool,
    ) -> Result<(), Option<Z>> {
        if !pairs.is_empty()
            && !matches!(
                kind,
                "capped-cpu" | "capped-memory" | "dedicated-cpu" | "security-flags"
            )
        {
            let found = self.find(kind, pairs).map_err(Some)?;
            return self.delete_resource(kind, &found).map_err(Some);
        }
        let gate = self.flavour == Flavour::Gate;
        let Some(document) = &mut self.document else {
            return Err(Some(Z::BadHandle));
        };
        match kind {
            "capped-cpu" => {
                if doc::aliased(document, "cpu-cap").is_err() {
                    return Err(Some(Z::NoResourceType));
                }
                doc::remove_aliased(document, "cpu-cap");
            }
            "capped-memory" => {
                let before = document.children.len();
                for name in ["physical", "swap", "locked"] {
                    if doc::aliased(document, name).is_ok() && !(gate && name == "physical") {
                        doc::remove_aliased(document, name);
                    }
                }
                document.children.retain(|c| c.name != "mcap");
                if document.children.len() == before {
                    return Err(Some(Z::NoResourceType));
                }
            }
            _ => {
                let element = element_name(kind);
                let count = document.named(element).count();
                if count == 0 {
                    return Err(Some(if kind == "security-flags" {
                        Z::NoResourceType
                    } else {
                        Z::NoEntry
                    }));
                }
                if count > 1 && !force {
                    self.fail("There are multiple instances of this resource.  Either qualify the resource to\nremove a single instance or use the -F option to remove all instances.");
                    return Err(None);
                }
                document.children.retain(|c| c.name != element);
                if kind == "dedicated-cpu" {
                    document.children.retain(|c| c.name != TMP_POOL);
                }
            }
        }
        Ok(())
    }

    /// Removes the first element with the same identifying properties as the resource.
    pub(super) fn delete_resource(&mut self, kind: &str, wanted: &Resource) -> Result<(), Z> {
        let document = self.document.as_mut().ok_or(Z::BadHandle)?;
        let element = element_name(kind);
        let at = document
            .children
            .iter()
            .position(|c| {
                if c.name != element {
                    return false;
                }
                let have = from_element(kind, c);
                let same = |p: &str| have.get(p) == wanted.get(p);
                match kind {
                    "net" => {
                        same("physical")
                            && ["address", "allowed-address", "mac-addr", "global-nic"]
                                .iter()
                                .any(|p| same(p))
                    }
                    "rctl" => same("name"),
                    "admin" => same("user"),
                    _ => shape(kind).fields.iter().all(|(p, _, _)| same(p)),
                }
            })
            .ok_or(Z::NoResourceId)?;
        document.children.remove(at);
        if kind == "dedicated-cpu" {
            document.children.retain(|c| c.name != TMP_POOL);
        }
        Ok(())
    }

    pub(super) fn remove_property(&mut self, property: &'static str, value: &Value) -> Step {
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        self.remove_from_resource(property, value);
        Ok(())
    }

    fn remove_from_resource(&mut self, property: &'static str, value: &Value) {
        let Some(kind) = self.scope.as_ref().map(|s| s.kind) else {
            return;
        };
        let expected = match kind {
            "fs" => "options",
            "net" | "device" if self.flavour == Flavour::Omnios => "property",
            "net" => "defrouter",
            "rctl" => "value",
            _ => {
                self.complain(kind, Z::NoResourceType);
                return self.long_usage("remove");
            }
        };
        if property != expected {
            self.complain(property, Z::NoPropertyType);
            return self.long_usage("remove");
        }
        if property == "defrouter" {
            // Whatever the value.
            return self.put(property, "");
        }
        let gone: Vec<Vec<(&str, String)>> = match (expected, value) {
            ("options", Value::Complex(_)) => {
                return self.fail("A simple or list value was expected here.");
            }
            ("options", Value::Simple(option)) => vec![vec![("name", option.clone())]],
            ("options", Value::List(items)) => items
                .iter()
                .map_while(|i| match i {
                    Value::Simple(s) => Some(vec![("name", s.clone())]),
                    _ => None,
                })
                .collect(),
            ("property", Value::Complex(pieces))
                if pieces.iter().any(|(n, _)| !matches!(*n, "name" | "value")) =>
            {
                self.complain(property, Z::NoPropertyType);
                return self.long_usage("remove");
            }
            (_, Value::Complex(pieces)) => vec![pieces.clone()],
            _ => return self.fail("A complex value was expected here."),
        };
        for pieces in gone {
            let Some(scope) = &mut self.scope else { return };
            let at = scope.new.list.iter().position(|e| {
                pieces.iter().all(|(n, v)| e.attr_or_empty(n) == v) && e.attrs.len() == pieces.len()
            });
            match at {
                Some(at) => {
                    scope.new.list.remove(at);
                }
                None => self.complain(property, Z::NoPropertyId),
            }
        }
    }
}
