//! The resource scope: `set`.

use super::Flavour;
use super::doc::{self, Z};
use super::parser::Value;
use super::resource::plain;
use super::session::{MEMORY_EXPECTED, Session, Step};

impl Session<'_> {
    // ---- set ------------------------------------------------------------------------------

    pub(super) fn set_in_resource(&mut self, property: &'static str, value: Value) -> Step {
        let Some(kind) = self.scope.as_ref().map(|s| s.kind) else {
            return Ok(());
        };
        let listed = matches!(
            (kind, property),
            ("fs", "options") | ("rctl", "value") | ("net", "property")
        );
        if !listed && !matches!(value, Value::Simple(_)) {
            self.fail("A simple value was expected here.");
            return Ok(());
        }
        if let Err(e) = self.initialize(true) {
            return e.step();
        }
        if listed {
            self.set_list(kind, property, value);
            return Ok(());
        }
        let Value::Simple(value) = value else {
            return Ok(());
        };
        match (kind, property) {
            ("device", "property") if self.flavour == Flavour::Omnios => {
                self.fail("A complex value was expected here.");
            }
            ("capped-cpu", "ncpus") => self.set_cpu_cap(&value),
            ("capped-memory", "physical" | "swap" | "locked") => self.set_memory(property, &value),
            ("dedicated-cpu", "ncpus") => self.set_cpu_range(&value),
            ("dedicated-cpu", "importance") => {
                if doc::parse_uint(&value).is_none() {
                    self.fail("importance property is out of range.");
                } else {
                    self.put(property, &value);
                }
            }
            ("fs", "type") if !valid_fs_type(&value) => {
                self.fail(&format!("\"{value}\" is not a valid type."));
            }
            ("fs", "type") => self.put(property, &value),
            ("net", "address" | "allowed-address") => {
                if self.valid_address(&value, false) {
                    self.put(property, &value);
                }
            }
            ("net", "defrouter") => {
                if self.valid_address(&value, true) {
                    self.put(property, &value);
                }
            }
            ("net", "physical") => {
                if self.valid_physical(&value) {
                    self.put(property, &value);
                } else {
                    self.saw_error = true;
                }
            }
            ("rctl", "name") => {
                if doc::valid_rctl_name(&value) {
                    self.put(property, &value);
                } else {
                    self.error(&format!("'{value}' is not a valid zone rctl name."));
                }
            }
            _ if plain(kind, property) => self.put(property, &value),
            _ => {
                self.complain(property, Z::NoPropertyType);
                self.long_usage("set");
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, property: &'static str, value: &str) {
        if let Some(scope) = &mut self.scope {
            scope.new.put(scope.kind, property, value);
        }
    }

    pub(super) fn set_list(&mut self, kind: &str, property: &'static str, value: Value) {
        let wrong = match (kind, &value) {
            ("fs", Value::Complex(_)) => Some("A simple or list value was expected here."),
            ("rctl", Value::Simple(_)) => Some("A complex or list value was expected here."),
            ("net", Value::Simple(_) | Value::List(_)) => {
                Some("A complex value was expected here.")
            }
            _ => None,
        };
        if let Some(text) = wrong {
            return self.fail(text);
        }
        if let Some(scope) = &mut self.scope {
            scope.new.list.clear();
        }
        if value != Value::List(Vec::new()) {
            self.add_property(property, &value);
        }
    }

    pub(super) fn set_cpu_cap(&mut self, value: &str) {
        let (number, rest) = doc::float_prefix(value);
        // OmniOS rounds, and keeps the low bits of too large values, like C on amd64; the gate truncates a float after
        // two decimals, and rejects values that are not an int.
        let (hundredths, small) = match self.flavour {
            Flavour::Omnios => {
                let low = doc::truncated(number * 100.0 + 0.5) & u64::from(u32::MAX);
                (low, number * 100.0 < 1.0)
            }
            Flavour::Gate => {
                let cut = number as f32 * 100.0;
                let fits = (1.0..2_147_483_648.0).contains(&cut);
                (cut as u64, !fits)
            }
        };
        if number <= 0.0 || !rest.is_empty() || small {
            return self.fail("ncpus property is out of range.");
        }
        if let Some(document) = &mut self.document {
            doc::set_aliased(document, "cpu-cap", hundredths);
            self.changed = true;
        }
    }

    pub(super) fn set_cpu_range(&mut self, value: &str) {
        let (low, high) = value.split_once('-').unwrap_or((value, value));
        match (doc::parse_uint(low), doc::parse_uint(high)) {
            (Some(a), Some(b)) if a >= 1 && a <= b => {
                self.put("min", low);
                self.put("max", high);
            }
            _ => self.fail("ncpus property is out of range."),
        }
    }

    pub(super) fn set_memory(&mut self, property: &'static str, value: &str) {
        let gate_physical = self.flavour == Flavour::Gate && property == "physical";
        if let Some(document) = &self.document
            && !gate_physical
            && doc::aliased(document, property) == Err(Z::AliasDisallow)
        {
            let subject = if property == "physical" {
                "locked"
            } else {
                property
            };
            return self.complain(subject, Z::AliasDisallow);
        }
        let positive = property == "swap" || gate_physical;
        let Some(bytes) = doc::parse_bytes(value) else {
            return self.fail(if positive {
                "A positive number with a required scale suffix (K, M, G or T) was expected here."
            } else {
                MEMORY_EXPECTED
            });
        };
        let least: u64 = match property {
            "swap" if self.global_zone => 100 << 20,
            "swap" => 50 << 20,
            _ if gate_physical => 1 << 20,
            _ => 0,
        };
        if bytes < least {
            return self.fail(&format!(
                "{property} value is too small.  It must be at least {}.",
                doc::bytes_to_units(least)
            ));
        }
        if gate_physical {
            return self.put("physical", &bytes.to_string());
        }
        if let Some(document) = &mut self.document {
            doc::set_aliased(document, property, bytes);
            self.changed = true;
        }
    }

    /// Whether an address is valid for zonecfg, which also accepts host names; an invalid one sets the exit status.
    pub(super) fn valid_address(&mut self, address: &str, host: bool) -> bool {
        let (part, prefix) = match address.split_once('/') {
            Some((part, prefix)) => (part, Some(leading_number(prefix))),
            None => (address, None),
        };
        if host && prefix.is_some() {
            self.error(&format!(
                "Warning: prefix length in {address} is not required and will be ignored. The default host-prefix length will be used"
            ));
        }
        if part.parse::<std::net::Ipv6Addr>().is_ok() {
            if host {
                return true;
            }
            let Some(prefix) = prefix else {
                self.fail(&format!(
                    "{address}: IPv6 addresses require /prefix-length suffix."
                ));
                return false;
            };
            if !(0..=128).contains(&prefix) {
                self.fail(&format!(
                    "{address}: IPv6 address prefix lengths must be 0 - 128."
                ));
                return false;
            }
            return true;
        }
        if !host && prefix.is_some_and(|p| !(0..=32).contains(&p)) {
            self.fail(&format!(
                "{address}: IPv4 address prefix lengths must be 0 - 32."
            ));
            return false;
        }
        let bytes = part.as_bytes();
        let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes
                .iter()
                .all(|c| c.is_ascii_alphanumeric() || b"-.".contains(c));
        if !good {
            self.fail(&format!(
                "{part}: bogus host name or network address syntax"
            ));
            self.err.push_str(ADDRESS_SYNTAX);
        }
        good
    }
}

const ADDRESS_SYNTAX: &str = "
<net-addr> :=\t<IPv4-address>[/<IPv4-prefix-length>] |
\t\t<IPv6-address>/<IPv6-prefix-length> |
\t\t<hostname>[/<IPv4-prefix-length>]
See inet(3SOCKET) for IPv4 and IPv6 address syntax.
<IPv4-prefix-length> := [0-32]
<IPv6-prefix-length> := [0-128]
<hostname> := [A-Za-z0-9][A-Za-z0-9-.]*
";

fn valid_fs_type(name: &str) -> bool {
    !name.is_empty() && name.len() < 256 && !name.contains('/') && name != "." && name != ".."
}

/// The number at the beginning of a text, as `atoi`.
fn leading_number(text: &str) -> i64 {
    let body = text.trim_start();
    let sign = usize::from(body.starts_with(['-', '+']));
    let digits = body[sign..].bytes().take_while(u8::is_ascii_digit).count();
    body[..sign + digits].parse().unwrap_or(0)
}
