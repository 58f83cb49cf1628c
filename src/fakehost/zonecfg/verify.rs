//! `verify`, and the save that follows it in `commit`.

use super::doc::{self, Z};
use super::session::{Session, Step};
use crate::fakehost::xml::Element;

impl Session<'_> {
    /// Checks the document; with `save`, writes it if nothing was wrong.
    pub(super) fn verify(&mut self, save: bool) -> Step {
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        let Some(document) = self.document.clone() else {
            return Ok(());
        };
        let zone = self.zone.clone();
        let mut result = None;
        let path = self.zonepath(&document);
        if !self.global_zone && (path.is_empty() || !doc::readable("zonepath", &path)) {
            self.fail(match path.len() {
                0 => "zonepath cannot be empty.",
                _ => "zonepath not specified",
            });
            result = Some(Z::RequiredResource);
        }
        let brand = document.attr_or_empty("brand");
        let checked = match doc::readable("brand", brand) {
            true => self.verify_brand(&document),
            false => Err(Z::TooBig),
        };
        if let Err(error) = checked {
            self.complain(&zone, error);
            return Ok(());
        }
        if let Err(name) = self.host.verify_privileges(&document) {
            // Nothing else is reported or saved.
            self.error(&format!("{zone}: invalid privilege: {name}"));
            return Ok(());
        }
        self.verify_filesystems(&document, &mut result);
        self.verify_networks(&document, &mut result);
        self.verify_rctls(&document, &mut result);
        for attr in document.named("attr") {
            for name in ["name", "type", "value"] {
                self.required(attr, "attr", name, name, &mut result);
            }
        }
        for dataset in document.named("dataset") {
            let name = dataset.attr_or_empty("name");
            if name.is_empty() {
                self.fail("dataset: name not specified");
                result.get_or_insert(Z::RequiredProperty);
            } else if !doc::valid_dataset_name(name) {
                self.fail("dataset: name invalid");
                result.get_or_insert(Z::BadProperty);
            }
        }
        if let Some(flags) = document.named("security-flags").next()
            && !self.verify_secflags(
                flags.attr_or_empty("default"),
                flags.attr_or_empty("lower"),
                flags.attr_or_empty("upper"),
            )
        {
            result = Some(Z::BadProperty);
        }
        if self.scope.is_some() {
            self.fail("resource specification incomplete");
            result.get_or_insert(Z::InsufficientSpec);
        }
        if save {
            match result {
                None => result = self.save().err(),
                Some(_) => self.error(&format!("Zone {zone} failed to verify")),
            }
        }
        if let Some(error) = result {
            self.complain(&zone, error);
        }
        Ok(())
    }

    fn verify_brand(&mut self, document: &Element) -> Result<(), Z> {
        if !self.host.has_brand(&self.brand(document)) {
            let text = format!("{}: unknown brand.\n", self.zone);
            self.error(&text);
            return Err(Z::InvalidDocument);
        }
        self.host.verify_brand(document).map_err(|message| {
            self.err.push_str(&message);
            self.err.push('\n');
            Z::BrandError
        })
    }

    fn required(
        &mut self,
        element: &Element,
        kind: &str,
        attribute: &str,
        property: &str,
        result: &mut Option<Z>,
    ) {
        if element.attr_or_empty(attribute).is_empty() {
            self.fail(&format!("{kind}: {property} not specified"));
            result.get_or_insert(Z::RequiredProperty);
        }
    }

    fn verify_filesystems(&mut self, document: &Element, result: &mut Option<Z>) {
        for fs in document.named("filesystem") {
            for (attribute, property) in [
                ("directory", "dir"),
                ("special", "special"),
                ("type", "type"),
            ] {
                self.required(fs, "fs", attribute, property, result);
            }
        }
    }

    fn verify_networks(&mut self, document: &Element, result: &mut Option<Z>) {
        let exclusive = doc::is_exclusive(document);
        // Newest first, as in the original's list.
        let mut links: Vec<(&str, bool, bool)> = Vec::new();
        for net in document.named("network") {
            self.required(net, "net", "physical", "physical", result);
            let physical = net.attr_or_empty("physical");
            if !self.valid_physical(physical) {
                self.saw_error = true;
                result.get_or_insert(Z::Inval);
            }
            let allowed = !net.attr_or_empty("allowed-address").is_empty();
            let router = !net.attr_or_empty("defrouter").is_empty();
            if !exclusive {
                self.required(net, "net", "address", "address", result);
                if allowed {
                    self.fail("net: allowed-address cannot be specified for a shared IP type");
                    result.get_or_insert(Z::Inval);
                }
            } else if !net.attr_or_empty("address").is_empty() {
                self.fail("net: address cannot be specified for an exclusive IP type");
                result.get_or_insert(Z::Inval);
            } else if let Some(link) = links.iter_mut().find(|(name, _, _)| *name == physical) {
                link.1 |= allowed;
                link.2 |= router;
            } else {
                links.insert(0, (physical, allowed, router));
            }
        }
        for (name, allowed, router) in links {
            if router && !allowed {
                self.fail(&format!(
                    "net: defrouter for {name} cannot be specified without allowed-address for an exclusive IP type"
                ));
                *result = Some(Z::Inval);
            }
        }
    }

    fn verify_rctls(&mut self, document: &Element, result: &mut Option<Z>) {
        let (mut shares, mut cap) = (false, false);
        for rctl in document.named("rctl") {
            self.required(rctl, "rctl", "name", "name", result);
            shares |= rctl.attr("name") == Some("zone.cpu-shares");
            cap |= rctl.attr("name") == Some("zone.cpu-cap");
            if rctl.children.is_empty() {
                self.fail("rctl: no value specified");
                result.get_or_insert(Z::RequiredProperty);
            }
        }
        let pset = document.named("pset").next().is_some();
        if pset && shares {
            self.fail("rctl zone.cpu-shares and dedicated-cpu are incompatible.");
            result.get_or_insert(Z::Incompatible);
        }
        let class = document.attr_or_empty("scheduling-class");
        if shares && !class.is_empty() && class != "FSS" {
            self.fail(&format!(
                "WARNING: rctl zone.cpu-shares and scheduling-class={class} are incompatible"
            ));
            result.get_or_insert(Z::Incompatible);
        }
        if pset && cap {
            self.fail("rctl zone.cpu-cap and the dedicated-cpu are incompatible.");
            result.get_or_insert(Z::Incompatible);
        }
    }

    /// Whether a network interface name fits the zone's IP type; reports the problem if not.
    pub(super) fn valid_physical(&mut self, name: &str) -> bool {
        let exclusive = self.document.as_ref().is_some_and(doc::is_exclusive);
        if exclusive {
            if doc::valid_link_name(name) {
                return true;
            }
            self.error(&if name.contains(':') {
                format!(
                    "{name}: physical interface name required; logical interface name not allowed"
                )
            } else {
                format!("{name}: invalid physical interface name")
            });
            return false;
        }
        // As ifparse_ifspec: a name that ends in a number, and optionally a number after a colon.
        let (physical, unit) = match name.split_once(':') {
            Some((p, u)) => (p, Some(u)),
            None => (name, None),
        };
        let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let good = name.len() < 32
            && physical.ends_with(|c: char| c.is_ascii_digit())
            && unit.is_none_or(number);
        if !good {
            self.error(&format!("{name}: invalid physical interface name"));
            return false;
        }
        if unit.is_some() {
            self.error(&format!(
                "{name}: LUNs not allowed in physical interface names"
            ));
            return false;
        }
        true
    }

    /// Whether security flags are valid and nested; reports the problem if not.
    pub(super) fn verify_secflags(&mut self, default: &str, lower: &str, upper: &str) -> bool {
        let mut good = true;
        let mut changes: Vec<&str> = Vec::new();
        let mut read = |session: &mut Self, which: &'static str, text: &str, unset: u8| {
            if text.is_empty() {
                return unset;
            }
            let set = doc::parse_secflags(text);
            if set.is_err() {
                session.error(&format!("{which} security flags '{text}' are invalid"));
                good = false;
            }
            // An invalid list assigns nothing.
            set.ok().flatten().unwrap_or_else(|| {
                changes.push(which);
                0
            })
        };
        let default_set = read(self, "default", default, 0);
        let upper_set = read(self, "upper", upper, 7);
        let lower_set = read(self, "lower", lower, 0);
        for (which, text) in [("default", default), ("lower", lower), ("upper", upper)] {
            if changes.contains(&which) {
                self.error(&format!(
                    "only assignment of security flags is allowed ({which}: {text})"
                ));
            }
        }
        let (default, lower, upper) = (default_set, lower_set, upper_set);
        for (wrong, text) in [
            (
                default & !upper,
                "default secflags must be within the upper limit",
            ),
            (
                lower & !default,
                "default secflags must be above the lower limit",
            ),
            (
                lower & !upper,
                "lower secflags must be within the upper limit",
            ),
        ] {
            if wrong != 0 {
                self.error(text);
                good = false;
            }
        }
        good
    }
}
