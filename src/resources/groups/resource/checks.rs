//! Checks shared by several kinds of this group. Follows k8s.io/kubernetes/pkg/apis/resource/validation and, for
//! declarative validation (reported after everything else), k8s.io/apimachinery/pkg/api/validate.

use std::collections::BTreeSet;

use crate::meta::checks::Check;
use crate::meta::errors::{Reason, quoted};
use crate::meta::{At, Errors, names};
use crate::schema::{Value, json};

/// The effects of a device taint.
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
/// How long the driver's part of a name may be.
const DOMAIN: usize = 63;
/// How long the other part may be.
const ID: usize = 32;
/// How much JSON a driver's parameters may be, in bytes.
const PARAMETERS: usize = 10 * 1024;

/// Rejects a list of more than `max` items. Returns whether it is short enough to look at its items.
pub(super) fn few(list: At<'_>, max: usize, errors: &mut Errors) -> bool {
    let count = list.list().len();
    if count > max {
        errors.too_many(list.path, count, max);
    }
    count <= max
}

/// Rejects items whose key was there before; they are shown as they are.
pub(super) fn unique<'a, K: Ord>(list: At<'a>, key: impl Fn(&'a Value) -> K, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.list().iter().enumerate() {
        if !seen.insert(key(item)) {
            errors.duplicate(list.path.index(index), item.clone());
        }
    }
}

/// Rejects texts that were there before.
pub(super) fn unique_texts(list: At<'_>, errors: &mut Errors) {
    unique(list, |item| item.as_str().unwrap_or_default(), errors);
}

/// The name of a driver as declared rules judge it.
pub(super) fn declared_driver(driver: At<'_>, errors: &mut Errors) {
    if driver.required("", errors) {
        driver.checked(names::long_name_caseless, errors);
        if driver.str().chars().count() > DOMAIN {
            let message = format!("Too long: may not be more than {DOMAIN} characters");
            errors.push(Reason::TooLong, driver.path, message);
        }
    }
}

/// The name of a pool of devices.
pub(super) fn pool_name(pool: At<'_>, errors: &mut Errors) {
    if pool.required("", errors) {
        pool.at_most(253, errors);
        for part in pool.str().split('/') {
            for wrong in names::dns1123_subdomain(part) {
                errors.invalid(pool.path, part, wrong);
            }
        }
    }
}

/// The name of a pool of devices as declared rules judge it.
pub(super) fn declared_pool_name(pool: At<'_>, errors: &mut Errors) {
    if !pool.required("", errors) {
        return;
    }
    pool.at_most(253, errors);
    for (index, part) in pool.str().split('/').enumerate() {
        if part.is_empty() {
            pool.invalid(format!("segment {index}: must not be empty"), errors);
        }
        for wrong in names::long_name(part) {
            if !part.is_empty() {
                errors.invalid(pool.path, part, format!("segment {index}: {wrong}"));
            }
        }
    }
}

fn identifier(id: &str, at: At<'_>, errors: &mut Errors) {
    if id.len() > ID {
        errors.too_long(at.path, ID);
    }
    for wrong in names::c_identifier(id) {
        errors.invalid(at.path, id, wrong);
    }
}

/// The name of an attribute or capacity, perhaps behind a domain. The path is the whole map's.
pub(super) fn qualified(name: &str, map: At<'_>, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, map, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(map.path, "", "the domain must not be empty");
            } else {
                if domain.len() > DOMAIN {
                    errors.too_long(map.path, DOMAIN);
                }
                for wrong in names::dns1123_subdomain(&domain.to_lowercase()) {
                    errors.invalid(map.path, domain, wrong);
                }
            }
            if id.is_empty() {
                errors.invalid(map.path, "", "the name must not be empty");
            } else {
                identifier(id, map, errors);
            }
        }
        // Upstream lets all others pass.
        _ => {}
    }
}

/// A name that must have a domain, as declared rules judge it.
pub(super) fn declared_full_name(name: At<'_>, errors: &mut Errors) {
    if name.is_absent() {
        return;
    }
    match name.str().split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, name, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(name.path, "", "prefix must not be empty");
            } else {
                if domain.len() > DOMAIN {
                    errors.too_long(name.path, DOMAIN);
                }
                for wrong in names::long_name(domain) {
                    errors.invalid(name.path, domain, format!("prefix: {wrong}"));
                }
            }
            if id.is_empty() {
                errors.invalid(name.path, "", "name must not be empty");
            } else {
                identifier(id, name, errors);
            }
        }
        _ => {}
    }
    if !name.str().contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        name.invalid(why, errors);
    }
}

/// Parameters that only a driver understands: a JSON object that is not too large.
pub(super) fn parameters(parameters: At<'_>, errors: &mut Errors) {
    match parameters.value {
        Value::Null => errors.required(parameters.path, ""),
        value if json::to_string(value).len() > PARAMETERS => {
            errors.too_long(parameters.path, PARAMETERS);
        }
        Value::Object(_) => {}
        _ => errors.invalid(
            parameters.path,
            "<value omitted>",
            "must be a valid JSON object",
        ),
    }
}

/// A driver's configuration.
pub(super) fn configuration(config: At<'_>, errors: &mut Errors) {
    let opaque = config.field("opaque");
    if opaque.is_absent() {
        errors.required(opaque.path, "");
    } else {
        parameters(opaque.field("parameters"), errors);
    }
}

/// What is declared of a driver's configuration.
pub(super) fn declared_configuration(config: At<'_>, errors: &mut Errors) {
    let opaque = config.field("opaque");
    if !opaque.is_absent() {
        declared_driver(opaque.field("driver"), errors);
    }
}

/// A list of selectors of devices. Their expressions are validated where they are evaluated.
pub(super) fn selectors(list: At<'_>, errors: &mut Errors) {
    if list.list().len() > 32 {
        return;
    }
    for selector in list.items() {
        let cel = selector.field("cel");
        if cel.is_absent() {
            errors.required(cel.path, "");
        } else {
            cel.field("expression").at_most(PARAMETERS, errors);
        }
    }
}

/// What a taint of devices says.
pub(super) fn taint(taint: At<'_>, errors: &mut Errors) {
    taint.field("key").checked(names::qualified_name, errors);
    taint
        .field("value")
        .checked_if_said(names::label_value, errors);
}

/// What is declared of a taint of devices.
pub(super) fn declared_taint(taint: At<'_>, errors: &mut Errors) {
    taint.field("effect").required_one_of(&EFFECTS, errors);
}

/// Tolerations of taints of devices.
pub(super) fn tolerations(list: At<'_>, errors: &mut Errors) {
    for toleration in list.items() {
        let value = toleration.field("value");
        match toleration.value.str("operator") {
            "Exists" if !value.str().is_empty() => {
                value.invalid("must be empty for operator `Exists`", errors);
            }
            "Equal" => value.checked(names::label_value, errors),
            _ => {}
        }
    }
}

/// What is declared of tolerations of taints of devices.
pub(super) fn declared_tolerations(list: At<'_>, errors: &mut Errors) {
    for toleration in list.items() {
        toleration
            .field("key")
            .checked_if_said(names::qualified_name, errors);
        toleration
            .field("operator")
            .required_one_of(&["Equal", "Exists"], errors);
        let effect = toleration.field("effect");
        if !effect.str().is_empty() {
            effect.one_of(&EFFECTS, errors);
        }
    }
}

/// The conditions that a device is bound under, and those that it cannot be.
pub(super) fn binding_conditions(owner: At<'_>, errors: &mut Errors) {
    let (good, bad) = (
        owner.field("bindingConditions"),
        owner.field("bindingFailureConditions"),
    );
    for list in [good, bad] {
        if list.list().len() <= 4 {
            let items = list.items();
            items.for_each(|item| item.checked(names::qualified_name, errors));
        }
    }
    unique_texts(good, errors);
    let mut seen = BTreeSet::new();
    for item in bad.items() {
        if !seen.insert(item.str()) {
            errors.duplicate(item.path, item.str());
        }
        if good.list().contains(item.value) {
            let why = "bindingFailureConditions must not overlap with bindingConditions";
            item.invalid(why, errors);
        }
    }
    for (empty, other, name, of) in [
        (good, bad, "bindingConditions", "bindingFailureConditions"),
        (bad, good, "bindingFailureConditions", "bindingConditions"),
    ] {
        if empty.list().is_empty() && !other.list().is_empty() {
            empty.invalid(format!("{name} are required to use {of}"), errors);
        }
    }
}

/// What is declared of those conditions.
pub(super) fn declared_binding_conditions(owner: At<'_>, errors: &mut Errors) {
    few(owner.field("bindingConditions"), 4, errors);
    few(owner.field("bindingFailureConditions"), 4, errors);
}

/// Names of counters, which are the keys of a map.
pub(super) fn declared_counters(counters: At<'_>, errors: &mut Errors) {
    if counters.required("", errors) {
        for (key, _) in counters.entries() {
            for wrong in names::short_name(key) {
                errors.invalid(counters.path, key, wrong);
            }
        }
    }
}

/// Rejects absent text, and text that a declared `check` finds wrong.
pub(super) fn declared_name(name: At<'_>, check: Check, errors: &mut Errors) {
    name.required_checked(check, errors);
}

/// At most one of these may be said: `{`a`, `b`}`.
pub(super) fn several(said: &[&str]) -> String {
    let names: Vec<String> = said.iter().map(|name| format!("`{name}`")).collect();
    quoted(&format!("{{{}}}", names.join(", ")))
}
