//! The commands of the global scope.

use std::fmt::Write as _;
use std::path::Path;

use super::doc::{self, Z};
use super::parser::{Command, Value};
use super::session::{Exit, InitError, MEMORY_EXPECTED, Session, Step};
use super::{DETACHED, Flavour};
use crate::fakehost::xml::{self, Element};

impl Session<'_> {
    // ---- commands of the global scope -------------------------------------------------------

    pub(super) fn create(&mut self, command: &Command) -> Step {
        let Some(flags) = self.flags(command, "a:bFt:") else {
            return Ok(());
        };
        let mut template = "SUNWdefault".to_string();
        let mut attach = None;
        for (letter, value) in &flags.0 {
            match letter {
                'b' => template = "SUNWblank".to_string(),
                't' if self.flavour == Flavour::Gate
                    || value.starts_with(|c: char| c.is_ascii_uppercase()) =>
                {
                    template = value.clone();
                }
                't' => template = format!("OMNI{value}"),
                'a' => attach = Some(value.as_str()),
                _ => {}
            }
        }
        if self.read_only() {
            return Ok(());
        }
        if matches!(self.store.load(&self.zone), Ok(Some(_))) {
            if self.installed() {
                let text = format!("Zone {} already installed; create not allowed.", self.zone);
                self.error(&text);
                return Ok(());
            }
            if !flags.has('F') {
                self.saw_error = true;
                self.error(
                    "Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.",
                );
                return Err(Exit);
            }
            let _ = writeln!(self.out, "Zone {} already exists; overwriting.", self.zone);
        }
        let document = match attach {
            Some(path) => match self.detached(path) {
                Ok(document) => Some(document),
                // These are not errors of zonecfg: no line number is printed, and the exit status stays.
                Err(why) => {
                    let _ = writeln!(self.err, "{why}");
                    return Ok(());
                }
            },
            None => self.template(&template),
        };
        match document {
            Some(document) => {
                self.document = Some(document);
                self.fresh = true;
                self.changed = true;
                self.got_handle = true;
            }
            None => self.complain(&template, Z::NoZone),
        }
        Ok(())
    }

    /// The configuration that a detached zone left in its zonepath (`zonecfg_get_attach_handle`).
    fn detached(&self, path: &str) -> Result<Element, &'static str> {
        let at = Path::new(path);
        let nothing = "invalid path to detached zone";
        if !self.host.is_directory(&at.join("root")) {
            return Err(nothing);
        }
        let text = self
            .host
            .read_file(&at.join(DETACHED))
            .map_err(|_| nothing)?;
        let document = xml::parse(&String::from_utf8_lossy(&text)).filter(|e| e.name == "zone");
        let mut document =
            document.ok_or("Cannot attach to an earlier release of the operating system")?;
        // Its installed packages are included.
        document
            .children
            .retain(|child| !matches!(child.name.as_str(), "package" | "patch"));
        document.set("zonepath", path);
        document.set("name", &self.zone);
        Ok(document)
    }

    pub(super) fn delete(&mut self, command: &Command) -> Step {
        let Some(flags) = self.flags(command, "F") else {
            return Ok(());
        };
        if self.read_only() {
            return Ok(());
        }
        if !flags.has('F') {
            if let Err(e) = self.initialize(true) {
                return e.step();
            }
            self.saw_error = true;
            self.error(
                "Input not from terminal and -F not specified:\ndelete command ignored, exiting.",
            );
            return Err(Exit);
        }
        if let Err(InitError::Exit) = self.initialize(true) {
            return Err(Exit);
        }
        if self.kernel_state(&self.zone).is_some() {
            let zone = self.zone.clone();
            self.complain(&zone, Z::BadZoneState);
        } else {
            match self.store.remove(&self.zone) {
                Ok(true) => {}
                Ok(false) => {
                    let zone = self.zone.clone();
                    self.complain(&zone, Z::NoZone);
                }
                Err(_) => {
                    let zone = self.zone.clone();
                    self.complain(&zone, Z::SavingFile);
                }
            }
        }
        self.changed = false;
        if flags.has('F') && self.document.is_none() {
            self.suggest_create();
        }
        self.document = self.store.load(&self.zone).ok().flatten();
        self.got_handle = self.document.is_some();
        Ok(())
    }

    pub(super) fn exit(&mut self, command: &Command) -> Step {
        let Some(flags) = self.flags(command, "F") else {
            return Ok(());
        };
        self.forced_exit |= flags.has('F');
        if self.scope.is_none() || self.forced_exit {
            self.leaving = true;
            return Ok(());
        }
        self.saw_error = true;
        self.error(
            "Resource incomplete, input not from terminal and -F not specified:\nexit command ignored, but exiting anyway.",
        );
        Err(Exit)
    }

    pub(super) fn commit(&mut self, command: &Command) -> Step {
        if self.flags(command, "").is_none() || self.read_only() {
            return Ok(());
        }
        self.verify(true)
    }

    pub(super) fn verify_command(&mut self, command: &Command) -> Step {
        let save = command.args.first().is_some_and(|a| a == "save");
        if self.flags(command, "").is_none() || self.read_only() {
            return Ok(());
        }
        self.verify(save)
    }

    pub(super) fn revert(&mut self, command: &Command) -> Step {
        let Some(flags) = self.flags(command, "F") else {
            return Ok(());
        };
        if self.read_only() {
            return Ok(());
        }
        if self.scope.is_some() {
            self.fail("You can only use revert in the global scope.\nUse 'cancel' to cancel changes to a resource specification.");
            return Ok(());
        }
        if self.document.is_none() {
            self.fail("No changes to revert.");
            return Ok(());
        }
        if !flags.has('F') {
            self.saw_error = true;
            self.error(
                "Input not from terminal and -F not specified:\nrevert command ignored, exiting.",
            );
            return Err(Exit);
        }
        self.renamed_from = None;
        self.document = self.store.load(&self.revert_zone).ok().flatten();
        self.fresh = false;
        if self.document.is_none() {
            self.got_handle = false;
            let text = format!("{}: no such saved zone to revert to.", self.revert_zone);
            self.fail(&text);
        }
        self.zone = self.revert_zone.clone();
        Ok(())
    }

    pub(super) fn set(&mut self, command: &Command) -> Step {
        if self.read_only() {
            return Ok(());
        }
        self.quiet_options = true;
        let mut forced = false;
        let mut wrong = false;
        // A word that is not an option is ignored.
        let options = command.args.first().and_then(|a| a.strip_prefix('-'));
        for letter in options.filter(|o| *o != "-").unwrap_or("").chars() {
            match letter {
                'F' => forced = true,
                _ => {
                    self.short_usage("set");
                    wrong = true;
                }
            }
        }
        if wrong {
            return Ok(());
        }
        let Some((property, value)) = command.pairs.first().cloned() else {
            return Ok(());
        };
        if self.scope.is_some() {
            if forced {
                self.fail("Only zonepath setting can be forced.");
                return Ok(());
            }
            return self.set_in_resource(property, value);
        }
        if self.global_zone && GLOBAL_ZONE_LACKS.contains(&property) {
            let text = format!("{property} is not a valid property for the global zone.");
            self.fail(&text);
            return Ok(());
        }
        if !GLOBAL_PROPERTIES.contains(&property) {
            self.fail("Cannot set a resource-specific property from the global scope.");
            return Ok(());
        }
        if forced && self.root.is_empty() {
            self.fail("Zonepath is changeable only in an alternate root.");
            return Ok(());
        }
        let Value::Simple(value) = value else {
            self.fail("A simple value was expected here.");
            return Ok(());
        };
        if property == "zonename" && !self.got_handle && self.state().is_none() {
            if !doc::valid_zone_name(&value) {
                self.complain(&value, Z::BogusZoneName);
                self.name_syntax();
                return Ok(());
            }
            self.zone = value;
            return Ok(());
        }
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        self.set_global(property, &value, forced);
        Ok(())
    }

    fn set_global(&mut self, property: &'static str, value: &str, forced: bool) {
        match property {
            "zonename" => return self.set_name(value),
            "zonepath" | "brand" if !forced && self.installed() => {
                let text = format!(
                    "Zone {} already installed; set {property} not allowed.",
                    self.zone
                );
                return self.error(&text);
            }
            "zonepath" => {
                if !value.starts_with('/') {
                    return self.fail(&format!("{value} is not an absolute path."));
                }
                if value.bytes().all(|c| c == b'/') {
                    return self.fail("/ is not allowed as a zonepath.");
                }
            }
            "autoboot" if value != "true" && value != "false" => {
                return self.fail("autoboot value must be 'true' or 'false'.");
            }
            "pool" if value.starts_with("SUNW") => {
                return self.fail("pool names starting with SUNW are reserved.");
            }
            "pool" if self.has("pset") => {
                return self.fail("The dedicated-cpu resource already exists.  A persistent pool is incompatible\nwith the dedicated-cpu resource.");
            }
            "ip-type" => return self.set_ip_type(value),
            "hostid" => match valid_host_id(value) {
                Ok(()) => {}
                Err(Z::TooBig) => {
                    return self.fail(&format!("hostid string is too large: {value}"));
                }
                Err(e) => return self.complain("hostid", e),
            },
            "fs-allowed" if !valid_fs_allowed(value) => {
                let zone = self.zone.clone();
                return self.complain(&zone, Z::InvalidProperty);
            }
            _ if doc::find_alias(property).is_some() => return self.set_alias(property, value),
            _ => {}
        }
        let value = match property {
            // Shown with the alternate root, stored without it.
            "zonepath" => {
                let path = collapse_slashes(value);
                match path.strip_prefix(&self.root).filter(|p| p.starts_with('/')) {
                    Some(path) => path.to_string(),
                    None => {
                        let zone = self.zone.clone();
                        return self.complain(&zone, Z::BadProperty);
                    }
                }
            }
            _ => value.to_string(),
        };
        if let Some(document) = &mut self.document {
            document.set(property, &value);
            self.changed = true;
        }
    }

    fn set_ip_type(&mut self, value: &str) {
        match value {
            "shared" => {
                if let Some(document) = &mut self.document {
                    document.unset("ip-type");
                }
            }
            "exclusive" => {
                let brand = self.document.as_ref().map(|d| self.brand(d));
                if !self.host.has_brand(&brand.unwrap_or_default()) {
                    let text = format!("{}: unknown brand.\n", self.zone);
                    return self.fail(&text);
                }
                if let Some(document) = &mut self.document {
                    document.set("ip-type", "exclusive");
                }
            }
            _ => return self.fail("ip-type value must be 'shared' or 'exclusive'."),
        }
        self.changed = true;
    }

    fn set_alias(&mut self, property: &str, value: &str) {
        if property != "cpu-shares" {
            self.warn_of_global("resource control");
        }
        let mut text = value.to_string();
        if property == "max-shm-memory" {
            match doc::parse_bytes(value) {
                Some(bytes) => text = bytes.to_string(),
                None => return self.fail(MEMORY_EXPECTED),
            }
        }
        let Some(document) = &mut self.document else {
            return;
        };
        if doc::aliased(document, property) == Err(Z::AliasDisallow) {
            return self.complain(property, Z::AliasDisallow);
        }
        let low = doc::find_alias(property).map_or(0, |a| a.low);
        match doc::parse_uint(&text).filter(|n| *n >= low) {
            Some(limit) => {
                doc::set_aliased(document, property, limit);
                self.changed = true;
            }
            None => self.fail(&format!("{property} property is out of range.")),
        }
    }

    fn set_name(&mut self, name: &str) {
        let current = self.attr("name");
        if name == current {
            return;
        }
        let taken = self.store.entry(name).is_some() && self.renamed_from.as_deref() != Some(name);
        let error = if name.starts_with("SUNW") || !doc::valid_zone_name(name) {
            Some(Z::BogusZoneName)
        } else if taken {
            Some(Z::NameInUse)
        } else if !self.fresh && self.kernel_state(&current).is_some() {
            Some(Z::BadZoneState)
        } else {
            None
        };
        if let Some(error) = error {
            self.complain(name, error);
            return self.name_syntax();
        }
        if self.renamed_from.as_deref() == Some(name) {
            self.renamed_from = None;
        } else if !self.fresh && self.renamed_from.is_none() {
            self.renamed_from = Some(current);
        }
        if let Some(document) = &mut self.document {
            document.set("name", name);
        }
        self.zone = name.to_string();
        self.changed = true;
    }

    pub(super) fn clear(&mut self, command: &Command) -> Step {
        if self.read_only() {
            return Ok(());
        }
        let property = command.target.unwrap_or("");
        if self.scope.is_some() {
            return self.clear_in_resource(property);
        }
        if self.global_zone && GLOBAL_ZONE_LACKS.contains(&property) {
            let text = format!("{property} is not a valid property for the global zone.");
            self.fail(&text);
            return Ok(());
        }
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        if doc::find_alias(property).is_some() && GLOBAL_PROPERTIES.contains(&property) {
            self.clear_alias(property);
            return Ok(());
        }
        match property {
            "zonename" | "zonepath" | "brand" => self.complain(property, Z::ClearDisallow),
            "autoboot" => {
                if let Some(document) = &mut self.document {
                    document.set("autoboot", "false");
                }
                self.changed = true;
            }
            _ if GLOBAL_PROPERTIES.contains(&property) => {
                if let Some(document) = &mut self.document {
                    document.unset(property);
                }
                self.changed = true;
            }
            _ => {
                self.complain(property, Z::NoPropertyType);
                self.long_usage("clear");
            }
        }
        Ok(())
    }

    /// Removes the resource control behind a property.
    pub(super) fn clear_alias(&mut self, property: &str) {
        let Some(document) = &mut self.document else {
            return;
        };
        match doc::aliased(document, property) {
            Ok(_) => {
                doc::remove_aliased(document, property);
                self.changed = true;
            }
            Err(e) => self.fail(&format!("clear {property}: {}", e.text())),
        }
    }
}

/// Properties of the global scope.
const GLOBAL_PROPERTIES: &[&str] = &[
    "zonename",
    "zonepath",
    "autoboot",
    "brand",
    "pool",
    "limitpriv",
    "bootargs",
    "scheduling-class",
    "ip-type",
    "max-lwps",
    "max-processes",
    "max-shm-memory",
    "max-shm-ids",
    "max-msg-ids",
    "max-sem-ids",
    "cpu-shares",
    "hostid",
    "fs-allowed",
    "zfs-io-priority",
];

/// Properties that the global zone does not have.
pub(super) const GLOBAL_ZONE_LACKS: &[&str] = &[
    "zonename",
    "zonepath",
    "autoboot",
    "limitpriv",
    "bootargs",
    "brand",
    "scheduling-class",
    "ip-type",
    "hostid",
    "fs-allowed",
];

fn collapse_slashes(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    if out.len() > 1 && out.ends_with('/') {
        out.pop();
    }
    out
}

fn valid_host_id(text: &str) -> Result<(), Z> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Z::InvalidProperty);
    }
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    let hex = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    let prefix = text.len() - digits.len();
    if prefix + hex >= 11 {
        return Err(Z::TooBig);
    }
    let value = u64::from_str_radix(&digits[..hex], 16).unwrap_or(0);
    if hex != digits.len() || value >= u64::from(u32::MAX) {
        return Err(Z::InvalidProperty);
    }
    Ok(())
}

fn valid_fs_allowed(text: &str) -> bool {
    text.is_empty()
        || text.split(',').all(|name| {
            !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        })
}
