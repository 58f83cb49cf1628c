//! A device of a resource slice. Follows validateDevice in k8s.io/kubernetes/pkg/apis/resource/validation.

use super::{checks, slices};
use crate::meta::errors::Reason;
use crate::meta::quantity::{Form, Quantity};
use crate::meta::{At, Errors, names};
use crate::resources::groups::core::pods::defaults;
use crate::resources::groups::core::pods::validate::node_selector;
use crate::schema::Value;

const ATTRIBUTES_AND_CAPACITIES: usize = 32;
const ATTRIBUTE_VALUES: usize = 48;
const VALUE: usize = 64;
const TAINTS: usize = 16;
const OPTIONS: usize = 10;
const PLACES: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
const SINGLE: [&str; 4] = ["int", "bool", "string", "version"];

/// Drops fields of features that are disabled by default.
pub(super) fn drop_disabled(device: &mut Value) {
    device.remove("nodeAllocatableResources");
    for consumption in defaults::items(device, "consumesCounters") {
        consumption.remove("compatibilityGroups");
    }
    let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
    for (_, attribute) in attributes.into_iter().flat_map(|map| map.iter_mut()) {
        for list in ["ints", "bools", "strings", "versions"] {
            attribute.remove(list);
        }
    }
}

/// Validates a device; `per_device` is whether each device specifies its nodes.
pub(super) fn device(device: At<'_>, old: Option<&Value>, per_device: bool, errors: &mut Errors) {
    device.field("name").checked(names::dns1123_label, errors);
    let (attributes, capacity) = (device.field("attributes"), device.field("capacity"));
    let values = attributes.entries().count();
    for (count, most, what) in [
        (
            values + capacity.entries().count(),
            ATTRIBUTES_AND_CAPACITIES,
            "attributes and capacities",
        ),
        (values, ATTRIBUTE_VALUES, "attribute values"),
    ] {
        if count > most {
            let why = format!("the total number of {what} must not exceed {most}");
            errors.invalid(device.path, count as i64, why);
        }
    }
    for (name, attribute) in attributes.entries() {
        checks::qualified(name, attributes, errors);
        self::attribute(attribute, errors);
    }
    let same = |name: &str| old.is_some_and(|old| old.at(name) == device.value.at(name));
    if !same("capacity") {
        let many = device.value.bool("allowMultipleAllocations");
        for (name, capacity_of) in capacity.entries() {
            checks::qualified(name, capacity, errors);
            let policy = capacity_of.field("requestPolicy");
            if policy.is_absent() {
                continue;
            }
            if many {
                self::policy(policy, capacity_of.value, errors);
            } else {
                errors.forbidden(policy.path, "allowMultipleAllocations must be true");
            }
        }
    }
    let taints = device.field("taints");
    if !same("taints") && checks::few(taints, TAINTS, errors) {
        taints
            .items()
            .for_each(|taint| checks::taint(taint, errors));
    }
    let consumes = device.field("consumesCounters");
    if consumes.list().len() <= 2 {
        for consumption in consumes.items() {
            slices::too_many_counters(consumption.field("counters"), errors);
        }
    }
    places(device, per_device, errors);
    checks::binding_conditions(device, errors);
}

fn attribute(attribute: At<'_>, errors: &mut Errors) {
    attribute.field("string").at_most(VALUE, errors);
    let version = attribute.field("version");
    if let Some(text) = version.value.as_str() {
        if !is_semantic(text) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            version.invalid(why, errors);
        }
        version.at_most(VALUE, errors);
    }
}

/// Whether the text is a semantic version: `1.2.3-rc.1+build`.
fn is_semantic(text: &str) -> bool {
    let number = |part: &str| {
        part == "0"
            || (part.bytes().all(|b| b.is_ascii_digit())
                && !part.is_empty()
                && !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let before =
        |part: &str| word(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit()));
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(before))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Validates the policy for requests of a shared capacity.
fn policy(policy: At<'_>, capacity: &Value, errors: &mut Errors) {
    let most = quantity(capacity.at("value"));
    let (values, range) = (policy.field("validValues"), policy.field("validRange"));
    let default = policy.field("default");
    let said = match (values.list().is_empty(), range.is_absent()) {
        (true, true) => return,
        (false, false) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            return errors.forbidden(policy.path, why);
        }
        (false, true) => "validValues",
        (true, false) => "validRange",
    };
    if default.is_absent() {
        return errors.required(default.path, &format!("required when {said} is defined"));
    }
    let default = quantity(default.value);
    if range.is_absent() {
        options(values, &default, &most, errors);
    } else {
        self::range(range, &default, &most, errors);
    }
}

/// A quantity; decoding has validated it.
fn quantity(value: &Value) -> Quantity {
    Quantity::parse(value.as_str().unwrap_or("0"))
        .unwrap_or_else(|_| Quantity::units(0, Form::Decimal))
}

fn options(values: At<'_>, default: &Quantity, most: &Quantity, errors: &mut Errors) {
    let list: Vec<Quantity> = values.list().iter().map(quantity).collect();
    for (index, pair) in list.windows(2).enumerate() {
        if pair[0] > pair[1] {
            errors.invalid(
                values.path.index(index + 1),
                pair[1].to_string(),
                "values must be sorted in ascending order",
            );
        }
    }
    let mut found = false;
    if checks::few(values, OPTIONS, errors) {
        for (index, option) in list.iter().enumerate() {
            if option > most {
                let why = format!("option is larger than capacity value: {most}");
                errors.invalid(values.path.index(index), option.to_string(), why);
            }
            found |= option == default;
        }
        let mut seen = std::collections::BTreeSet::new();
        for (index, option) in list.iter().enumerate() {
            let whole = option.value();
            if !seen.insert(whole) {
                errors.duplicate(values.path.index(index), whole.to_string());
            }
        }
    }
    if !found {
        let why = "default value is not valid according to the requestPolicy";
        errors.invalid(values.path, default.to_string(), why);
    }
}

fn range(range: At<'_>, default: &Quantity, most: &Quantity, errors: &mut Errors) {
    let bound = |name: &str| {
        let value = range.value.at(name);
        (!value.is_null()).then(|| quantity(value))
    };
    let mut refuse = |name: &str, shown: &Quantity, why: String| {
        errors.invalid(range.path.field(name), shown.to_string(), why);
    };
    let Some(min) = bound("min") else {
        let path = range.path.field("min");
        return errors.required(path, "required when validRange is defined");
    };
    let (max, step) = (bound("max"), bound("step"));
    if min > *most {
        refuse(
            "min",
            &min,
            format!("min is larger than capacity value: {most}"),
        );
    }
    if *default < min {
        refuse(
            "default",
            default,
            format!("default is less than min: {min}"),
        );
    }
    if let Some(max) = &max {
        if min > *max {
            refuse("max", &min, format!("min is larger than max: {max}"));
        }
        if max > most {
            refuse(
                "max",
                max,
                format!("max is larger than capacity value: {most}"),
            );
        }
        if default > max {
            refuse(
                "default",
                default,
                format!("default is more than max: {max}"),
            );
        }
    }
    let Some(step) = step else {
        return;
    };
    if step.sign() <= 0 {
        return refuse("step", &step, "must be greater than zero".to_owned());
    }
    let added = min + step;
    if added > *most {
        let why = format!("one step {added} is larger than capacity value: {most}");
        refuse("step", &step, why);
    }
    let mut usable = true;
    for (name, value) in [
        ("default", Some(default)),
        ("min", Some(&min)),
        ("max", max.as_ref()),
        ("step", Some(&step)),
    ] {
        let Some(value) = value else {
            continue;
        };
        let limit = Quantity::units(i64::MAX, Form::Decimal);
        let why = if value.sign() < 0 {
            "must be greater than or equal to 0"
        } else if *value > limit {
            "must not be larger than 9223372036854775807"
        } else {
            continue;
        };
        refuse(name, value, why.to_owned());
        usable = false;
    }
    if usable {
        for value in [Some(default), max.as_ref()].into_iter().flatten() {
            // Both are between zero and the largest integer, as validated above.
            let away = i128::from(value.value()) - i128::from(min.value());
            if away % i128::from(step.value().max(1)) != 0 {
                let why = format!("value is not a multiple of a given step ({step}) from ({min})");
                refuse("step", value, why);
            }
        }
    }
}

fn places(device: At<'_>, per_device: bool, errors: &mut Errors) {
    let (node, selector, all) = (
        device.field("nodeName"),
        device.field("nodeSelector"),
        device.field("allNodes"),
    );
    if !per_device {
        if !node.is_absent() || !selector.is_absent() || !all.is_absent() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(device.path, Value::Null, why);
        }
        return;
    }
    let mut said = Vec::new();
    match node.value.as_str() {
        None => {}
        Some("") => node.invalid("must not be empty", errors),
        Some(_) => {
            said.push("nodeName");
            node.checked(|name| names::subdomain_name(name, false), errors);
        }
    }
    if !selector.is_absent() {
        said.push("nodeSelector");
        node_selector(selector, || false, errors);
    }
    match all.value.as_bool() {
        None => {}
        Some(true) => said.push("allNodes"),
        Some(false) => all.invalid("must be either unset or set to true", errors),
    }
    slices::one_place(device.path, &said, PLACES, "", errors);
}

/// Declarative validation of a device.
pub(super) fn declared(device: At<'_>, errors: &mut Errors) {
    let attributes = device.field("attributes");
    for (_, attribute) in attributes.entries() {
        union(attribute, errors);
    }
    let consumes = device.field("consumesCounters");
    if checks::few(consumes, 2, errors) {
        checks::unique(consumes, |item| item.str("counterSet"), errors);
        for consumption in consumes.items() {
            checks::declared_name(consumption.field("counterSet"), names::short_name, errors);
            checks::declared_counters(consumption.field("counters"), errors);
        }
    }
    let taints = device.field("taints");
    taints
        .items()
        .for_each(|taint| checks::declared_taint(taint, errors));
    checks::declared_binding_conditions(device, errors);
}

/// Requires exactly one value of an attribute.
fn union(attribute: At<'_>, errors: &mut Errors) {
    const ALL: &str = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";
    let said: Vec<&str> = SINGLE
        .into_iter()
        .filter(|name| attribute.value.get(name).is_some())
        .collect();
    match said.len() {
        0 => errors.invalid(attribute.path, "", format!("must specify one of: {ALL}")),
        1 => {}
        _ => {
            let shown = checks::several(&said).replace('`', "");
            let why = format!("must specify exactly one of: {ALL}");
            let message = format!("Invalid value: {shown}: {why}");
            errors.push(Reason::Invalid, attribute.path, message);
        }
    }
}
