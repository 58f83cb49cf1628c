//! Limit ranges. Follows k8s.io/kubernetes/pkg/registry/core/limitrange/strategy.go and pkg/apis/core/validation.

use std::collections::{BTreeMap, BTreeSet};

use super::pods::validate;
use crate::meta::quantity::{Form, Quantity};
use crate::meta::{At, Errors, names, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Printing, Rules, metadata};
use crate::schema::{Object, Value};

const LISTS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

/// The rules of limit ranges.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        if let Some(spec) = object.get_mut("spec") {
            defaults::items(spec, "limits").for_each(item_defaults);
        }
    },
    // Upstream generates a name if there is none.
    prepare_create: |object, _| {
        let meta = object.object_mut().object_mut("metadata");
        if meta.get("name").is_none_or(Value::is_empty) {
            meta.insert("name", names::new_uid());
        }
    },
    validate: |object, old, cx, errors| {
        metadata::again(object, old, cx, errors);
        let spec = object.field("spec");
        let limits = spec.field("limits");
        let mut seen = BTreeSet::new();
        for (limit, raw) in limits.items().zip(limits.list()) {
            let kind = limit.field("type");
            type_name(kind, errors);
            if !seen.insert(raw.str("type")) {
                errors.duplicate(kind.path, kind.str());
            }
            item(limit, errors);
        }
    },
    printing: Printing::of(|object, _| {
        vec![
            object.at("metadata").str("name").into(),
            table::created(object),
        ]
    }),
    create_on_update: true,
    internal: "core.LimitRange",
    ..Rules::DEFAULT
};

/// Defaults for containers: limits default to the maximum, requests to the limits or else the minimum.
fn item_defaults(item: &mut Value) {
    for list in LISTS {
        if let Some(list) = item.get_mut(list) {
            defaults::round_up(list);
        }
    }
    if item.str("type") != "Container" {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(amounts) = item.at(from).as_object().cloned() else {
            continue;
        };
        let target = item.object_mut().object_mut(to);
        for (name, amount) in amounts {
            if !target.contains(&name) {
                target.insert(name, amount);
            }
        }
    }
}

fn type_name(kind: At<'_>, errors: &mut Errors) {
    let wrong = names::qualified_name(kind.str());
    let known = matches!(kind.str(), "Pod" | "Container" | "PersistentVolumeClaim");
    if wrong.is_empty() && !kind.str().contains('/') && !known {
        kind.invalid_text("must be a standard limit type or fully qualified", errors);
    }
    kind.checked(names::qualified_name, errors);
}

fn item(limit: At<'_>, errors: &mut Errors) {
    let kind = limit.value.str("type");
    let mut amounts: BTreeMap<&str, Object> = BTreeMap::new();
    for list in LISTS {
        let at = limit.field(list);
        if kind == "Pod" && list.starts_with("default") {
            at.forbid_said("may not be specified when `type` is 'Pod'", errors);
            continue;
        }
        if list == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let has = |list: &str| limit.value.at(list).get("storage").is_some();
            if !has("min") && !has("max") {
                errors.required(
                    limit.path.field("limits"),
                    "either minimum or maximum storage value is required, but neither was provided",
                );
            }
        }
        for (name, amount) in at.entries() {
            match kind {
                "Pod" | "Container" => validate::container_resource_name(name, amount, errors),
                _ => drop(validate::resource_name(name, amount, errors)),
            }
            amounts.entry(list).or_default().insert(name, amount.value);
        }
    }
    let keys: BTreeSet<String> = amounts
        .values()
        .flat_map(|list| list.keys().map(ToString::to_string))
        .collect();
    for key in keys {
        let amount = |list: &str| {
            let amount = amounts.get(list)?.get(&key)?.as_str()?;
            Quantity::parse(amount).ok()
        };
        compare(limit, &key, amount, errors);
    }
}

/// Validates the values for one resource against each other.
fn compare(
    limit: At<'_>,
    key: &str,
    amount: impl Fn(&str) -> Option<Quantity>,
    errors: &mut Errors,
) {
    let [max, min, default, request, ratio] = LISTS.map(&amount);
    let mut refuse = |list: &str, shown: Quantity, why: String| {
        let path = limit.path.field(list);
        errors.invalid(path.key(key), shown.to_string(), why);
    };
    let both = |a: Option<Quantity>, b: Option<Quantity>| a.zip(b).filter(|(a, b)| a > b);
    if let Some((min, max)) = both(min, max) {
        refuse(
            "min",
            min,
            format!("min value {min} is greater than max value {max}"),
        );
    }
    if let Some((min, request)) = both(min, request) {
        let why = format!("min value {min} is greater than default request value {request}");
        refuse("defaultRequest", request, why);
    }
    if let Some((request, max)) = both(request, max) {
        let why = format!("default request value {request} is greater than max value {max}");
        refuse("defaultRequest", request, why);
    }
    if let Some((request, default)) = both(request, default) {
        let why = format!(
            "default request value {request} is greater than default limit value {default}"
        );
        refuse("defaultRequest", request, why);
    }
    if let Some((min, default)) = both(min, default) {
        let why = format!("min value {min} is greater than default value {default}");
        refuse("default", min, why);
    }
    if let Some((default, max)) = both(default, max) {
        let why = format!("default value {default} is greater than max value {max}");
        refuse("default", max, why);
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::units(1, Form::Decimal) {
            refuse(
                "maxLimitRequestRatio",
                ratio,
                format!("ratio {ratio} is less than 1"),
            );
        }
        if let Some((min, max)) = min.zip(max)
            && let Some(most) = beyond(ratio, min, max)
        {
            let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
            refuse("maxLimitRequestRatio", ratio, why);
        }
    }
    if !validate::overcommits(key)
        && let Some((default, request)) = default.zip(request).filter(|(a, b)| a != b)
    {
        let why = format!(
            "default value {default} must equal to defaultRequest value {request} in {key}"
        );
        refuse("defaultRequest", request, why);
    }
}

/// The quotient `max/min`, if it exceeds the ratio.
fn beyond(ratio: Quantity, min: Quantity, max: Quantity) -> Option<f64> {
    // Upstream calculates with milli-units unless they overflow.
    const MOST: i64 = i64::MAX / 1000;
    let small = [ratio, min, max].iter().all(|amount| amount.value() < MOST);
    #[allow(clippy::cast_precision_loss)]
    let number = |amount: Quantity| {
        if small {
            amount.milli_value() as f64
        } else {
            amount.value() as f64
        }
    };
    let asked = if small {
        number(ratio) / 1000.0
    } else {
        number(ratio)
    };
    let most = number(max) / number(min);
    (asked > most).then_some(most)
}
