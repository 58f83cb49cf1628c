//! The resource scope: `end`, which checks a resource and adds it to the document.

use super::Flavour;
use super::doc::{self, Z};
use super::parser::Command;
use super::resource::{Resource, TMP_POOL, all, matches_property, to_element};
use super::session::{Scope, Session, Step};
use crate::fakehost::xml::Element;

const NOTHING_CAPPED: &str =
    "No property was specified.  One of physical, swap or locked is required.";

/// Who has an entry in passwd(5) of a host.
const USERS: &[&str] = &[
    "root", "daemon", "bin", "sys", "adm", "dladm", "netadm", "netcfg", "nobody", "noaccess",
];

impl Session<'_> {
    // ---- end ------------------------------------------------------------------------------

    pub(super) fn end(&mut self, command: &Command) -> Step {
        if self.flags(command, "").is_none() {
            return Ok(());
        }
        let Some(scope) = self.scope.take() else {
            self.fail("The end command only makes sense in the resource scope.");
            return Ok(());
        };
        match self.finished(&scope) {
            Ok(()) => self.changed = true,
            Err(error) => {
                if let Some(error) = error {
                    let zone = self.zone.clone();
                    self.complain(&zone, error);
                }
                self.scope = Some(scope);
            }
        }
        Ok(())
    }

    /// Checks a finished resource and adds it to the document. If there is no error to name, messages have been
    /// printed.
    pub(super) fn finished(&mut self, scope: &Scope) -> Result<(), Option<Z>> {
        let new = &scope.new;
        match scope.kind {
            "capped-cpu" => {
                let set = self
                    .document
                    .as_ref()
                    .is_some_and(|d| doc::aliased(d, "cpu-cap").is_ok());
                if !set {
                    self.fail("ncpus not specified");
                    return Err(None);
                }
                return Ok(());
            }
            "capped-memory" => return self.finished_memory(scope),
            "dedicated-cpu" => self.present(new, &[("min", "ncpus")])?,
            "security-flags" => {
                if !self.verify_secflags(new.get("default"), new.get("lower"), new.get("upper")) {
                    self.saw_error = true;
                    return Err(None);
                }
            }
            "fs" => self.finished_fs(new)?,
            "net" => self.present(new, &[("physical", "physical")])?,
            "device" => self.present(new, &[("match", "match")])?,
            "rctl" => {
                let named = self.present(new, &[("name", "name")]);
                if new.list.is_empty() {
                    self.fail("no value specified");
                    return Err(None);
                }
                named?;
            }
            "attr" => self.finished_attr(new)?,
            "dataset" => self.present(new, &[("name", "name")])?,
            "admin" => {
                let mut good = self.present(new, &[("user", "user")]);
                let user = new.get("user");
                if good.is_ok() && !USERS.contains(&user) {
                    self.fail(&format!("user {user} is not a valid username"));
                    good = Err(None);
                }
                self.present(new, &[("auths", "auths")])?;
                let known = |a: &&str| matches!(*a, "login" | "manage" | "clonefrom");
                let named = new.get("auths").split(',').filter(|a| !a.is_empty());
                for bad in named.filter(|a| !known(a)) {
                    // The library's own message, without a line number.
                    let zone = &self.zone;
                    self.err.push_str(&format!(
                        "zone '{zone}': '{bad}' is not a valid authorization\n"
                    ));
                    self.saw_error = true;
                    good = Err(None);
                }
                good?;
            }
            kind => {
                self.complain(kind, Z::NoResourceType);
                return Err(None);
            }
        }
        match &scope.old {
            None => self.refuse_duplicate(scope.kind, new)?,
            Some(old) => self.delete_resource(scope.kind, old).map_err(Some)?,
        }
        let element = to_element(scope.kind, new);
        if let Some(document) = &mut self.document {
            document.children.push(element);
            let importance = new.get("importance");
            if !importance.is_empty() {
                let pool = Element::new(TMP_POOL).with("importance", importance);
                document.children.push(pool);
            }
        }
        Ok(())
    }

    pub(super) fn present(
        &mut self,
        new: &Resource,
        wanted: &[(&str, &str)],
    ) -> Result<(), Option<Z>> {
        let mut good = true;
        for (field, property) in wanted {
            if new.get(field).is_empty() {
                self.fail(&format!("{property} not specified"));
                good = false;
            }
        }
        if good { Ok(()) } else { Err(None) }
    }

    pub(super) fn finished_fs(&mut self, new: &Resource) -> Result<(), Option<Z>> {
        let mut good = true;
        for property in ["dir", "special", "raw", "type"] {
            let value = new.get(property);
            if value.is_empty() && property != "raw" {
                self.fail(&format!("{property} not specified"));
                good = false;
            } else if matches!(property, "dir" | "raw")
                && !value.is_empty()
                && !value.starts_with('/')
            {
                self.fail(&format!("{property} {value} is not an absolute path."));
                good = false;
            }
        }
        if good { Ok(()) } else { Err(None) }
    }

    pub(super) fn finished_attr(&mut self, new: &Resource) -> Result<(), Option<Z>> {
        let mut good = self
            .present(
                new,
                &[("name", "name"), ("type", "type"), ("value", "value")],
            )
            .is_ok();
        let name = new.get("name");
        let first = name
            .bytes()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'.');
        if !first {
            self.fail(&format!(
                "Invalid attr name {name}: must start with an alpha-numeric character."
            ));
            good = false;
        } else if !rest {
            self.fail(&format!(
                "Invalid attr name {name}: can only contain alpha-numeric characters, plus '-' and '.'."
            ));
            good = false;
        }
        let (kind, value) = (new.get("type"), new.get("value"));
        let signed = value.trim_start();
        let valid = match kind {
            "boolean" => matches!(value, "true" | "false"),
            "int" => value.is_empty() || signed.parse::<i64>().is_ok(),
            // As strtoull(3C), which accepts a sign; negative values are rejected later.
            "uint" => {
                let (less, number) = match signed.strip_prefix('-') {
                    Some(number) => (true, number),
                    None => (false, signed.strip_prefix('+').unwrap_or(signed)),
                };
                let digits = number.starts_with(|c: char| c.is_ascii_digit());
                let parsed = number.parse::<u64>().ok().filter(|n| !less || *n == 0);
                value.is_empty() || (digits && parsed.is_some())
            }
            "string" => value.len() < 256,
            _ => {
                self.fail(&format!("invalid attr type '{kind}'"));
                return Err(None);
            }
        };
        if !valid {
            self.fail(&format!("invalid attr value for type={kind}"));
            good = false;
        }
        if good { Ok(()) } else { Err(None) }
    }

    pub(super) fn finished_memory(&mut self, scope: &Scope) -> Result<(), Option<Z>> {
        let gate = self.flavour == Flavour::Gate;
        let Some(document) = &mut self.document else {
            self.fail(NOTHING_CAPPED);
            return Err(None);
        };
        let physical = if gate {
            scope.new.get("physical").parse::<u64>().ok()
        } else {
            doc::aliased(document, "physical").ok()
        };
        let swap = doc::aliased(document, "swap").ok();
        let locked = doc::aliased(document, "locked").ok();
        if physical.is_none() && swap.is_none() && locked.is_none() {
            self.fail(NOTHING_CAPPED);
            return Err(None);
        }
        if let (Some(physical), Some(locked)) = (physical, locked)
            && physical < locked
        {
            self.fail("The locked cap must be less than or equal to the physical cap.");
            return Err(None);
        }
        if gate {
            document.children.retain(|c| c.name != "mcap");
            if physical.is_some() {
                document
                    .children
                    .push(to_element("capped-memory", &scope.new));
            }
        }
        Ok(())
    }

    pub(super) fn refuse_duplicate(
        &mut self,
        kind: &'static str,
        new: &Resource,
    ) -> Result<(), Option<Z>> {
        let Some(document) = &self.document else {
            return Err(Some(Z::BadHandle));
        };
        if kind == "net" {
            return self.refuse_duplicate_net(new);
        }
        let key = match kind {
            "fs" => "dir",
            "device" => "match",
            "rctl" | "attr" | "dataset" => "name",
            "admin" => "user",
            _ => return Ok(()),
        };
        let value = new.get(key).to_string();
        let taken = all(kind, document)
            .iter()
            .filter(|r| r.get(key) == value)
            .count();
        if taken == 1 {
            let article = if kind == "attr" { "An" } else { "A" };
            self.fail(&format!(
                "{article} {kind} resource with the {key} '{value}' already exists."
            ));
            return Err(None);
        }
        Ok(())
    }

    pub(super) fn refuse_duplicate_net(&mut self, new: &Resource) -> Result<(), Option<Z>> {
        let Some(document) = &self.document else {
            return Err(Some(Z::BadHandle));
        };
        let exclusive = doc::is_exclusive(document);
        let keys = ["physical", "address", "allowed-address", "defrouter"];
        if !new.get("address").is_empty() && !new.get("allowed-address").is_empty() {
            return Ok(());
        }
        let taken = all("net", document)
            .iter()
            .filter(|r| {
                keys.iter().all(|k| {
                    new.get(k).is_empty() || matches_property("net", k, new.get(k), r, exclusive)
                })
            })
            .count();
        if taken == 1 {
            let (what, address) = if new.get("address").is_empty() {
                ("allowed-address", new.get("allowed-address"))
            } else {
                ("address", new.get("address"))
            };
            self.fail(&format!(
                "A net resource with the physical '{}', and {what} '{address}' already exists.",
                new.get("physical")
            ));
            return Err(None);
        }
        Ok(())
    }
}
