//! Checks shared by several kinds of this group. Follows k8s.io/kubernetes/pkg/apis/resource/validation and, for
//! declarative validation (reported after everything else), k8s.io/apimachinery/pkg/api/validate.

use std::collections::BTreeSet;

use crate::meta::checks::Check;
use crate::meta::errors::{Reason, quoted};
use crate::meta::{At, Errors, names};
use crate::schema::{Value, json};

/// The effects of a device taint.
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
/// The maximum length of a name's domain.
const DOMAIN: usize = 63;
/// The maximum length of a name without its domain.
const ID: usize = 32;
/// The maximum size of a driver's parameters as JSON, in bytes.
const PARAMETERS: usize = 10 * 1024;

/// Rejects a list of more than `max` items. Returns whether it is short enough to look at its items.
pub(super) fn few(list: At<'_>, max: usize, errors: &mut Errors) -> bool {
    let count = list.list().len();
    if count > max {
        errors.too_many(list.path, count, max);
    }
    count <= max
}

/// Rejects items with a key that occurred before; errors show the whole item.
pub(super) fn unique<'a, K: Ord>(list: At<'a>, key: impl Fn(&'a Value) -> K, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.list().iter().enumerate() {
        if !seen.insert(key(item)) {
            errors.duplicate(list.path.index(index), item.clone());
        }
    }
}

/// Rejects repeated strings.
pub(super) fn unique_texts(list: At<'_>, errors: &mut Errors) {
    unique(list, |item| item.as_str().unwrap_or_default(), errors);
}

/// Declarative validation of a driver's name.
pub(super) fn declared_driver(driver: At<'_>, errors: &mut Errors) {
    if driver.required("", errors) {
        driver.checked(names::long_name_caseless, errors);
        if driver.str().chars().count() > DOMAIN {
            let message = format!("Too long: may not be more than {DOMAIN} characters");
            errors.push(Reason::TooLong, driver.path, message);
        }
    }
}

/// Validates the name of a pool.
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

/// Declarative validation of the name of a pool.
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

/// Validates the name of an attribute or capacity, which may have a domain. Errors have the path of the map.
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
        // Upstream accepts all others.
        _ => {}
    }
}

/// Declarative validation of a name that must have a domain.
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

/// Validates a driver's parameters: a JSON object of limited size.
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

/// Validates a driver's configuration.
pub(super) fn configuration(config: At<'_>, errors: &mut Errors) {
    let opaque = config.field("opaque");
    if opaque.is_absent() {
        errors.required(opaque.path, "");
    } else {
        parameters(opaque.field("parameters"), errors);
    }
}

/// Declarative validation of a driver's configuration.
pub(super) fn declared_configuration(config: At<'_>, errors: &mut Errors) {
    let opaque = config.field("opaque");
    if !opaque.is_absent() {
        declared_driver(opaque.field("driver"), errors);
    }
}

/// Validates device selectors. Their expressions are validated where they are evaluated.
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

/// Validates a device taint.
pub(super) fn taint(taint: At<'_>, errors: &mut Errors) {
    taint.field("key").checked(names::qualified_name, errors);
    taint
        .field("value")
        .checked_if_said(names::label_value, errors);
}

/// Declarative validation of a device taint.
pub(super) fn declared_taint(taint: At<'_>, errors: &mut Errors) {
    taint.field("effect").required_one_of(&EFFECTS, errors);
}

/// Validates tolerations of device taints.
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

/// Declarative validation of tolerations of device taints.
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

/// Validates binding conditions and binding failure conditions.
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

/// Declarative validation of those conditions.
pub(super) fn declared_binding_conditions(owner: At<'_>, errors: &mut Errors) {
    few(owner.field("bindingConditions"), 4, errors);
    few(owner.field("bindingFailureConditions"), 4, errors);
}

/// Declarative validation of counters' names, which are keys of a map.
pub(super) fn declared_counters(counters: At<'_>, errors: &mut Errors) {
    if counters.required("", errors) {
        for (key, _) in counters.entries() {
            for wrong in names::short_name(key) {
                errors.invalid(counters.path, key, wrong);
            }
        }
    }
}

/// Requires a name for which the declarative `check` finds no error.
pub(super) fn declared_name(name: At<'_>, check: Check, errors: &mut Errors) {
    name.required_checked(check, errors);
}

/// The fields of a union that are set, as shown in errors: `{`a`, `b`}`.
pub(super) fn several(said: &[&str]) -> String {
    let names: Vec<String> = said.iter().map(|name| format!("`{name}`")).collect();
    quoted(&format!("{{{}}}", names.join(", ")))
}
