//! Resource quotas. Follows k8s.io/kubernetes/pkg/registry/core/resourcequota/strategy.go and
//! pkg/apis/core/validation.

use std::collections::BTreeSet;

use super::pods::validate::is_standard_quota;
use super::resources;
use crate::meta::quantity::Quantity;
use crate::meta::{At, Errors, table};
use crate::resources::groups::core::pods::defaults;
use crate::resources::{Deletion, Printing, Rules, StatusRules};
use crate::schema::{Object, Value, internal};

/// The rules of resource quotas.
pub(super) const RULES: Rules = Rules {
    defaults: |object, _| {
        for (owner, list) in [("spec", "hard"), ("status", "hard"), ("status", "used")] {
            if let Some(list) = object.get_mut(owner).and_then(|owner| owner.get_mut(list)) {
                defaults::round_up(list);
            }
        }
    },
    prepare_create: |object, _| object.set("status", Object::new()),
    validate: |object, old, _, errors| {
        let spec = object.field("spec");
        self::spec(spec, errors);
        if let Some(old) = old {
            let scopes = spec.field("scopes");
            let set = |spec: &Value| -> BTreeSet<String> {
                let scopes = spec.list("scopes").iter();
                scopes
                    .filter_map(|scope| scope.as_str().map(str::to_owned))
                    .collect()
            };
            if set(spec.value) != set(old.value.at("spec")) {
                scopes.invalid("field is immutable", errors);
            }
        }
    },
    status: StatusRules::validated_by(|object, _, _, errors| {
        let status = object.field("status");
        for list in ["hard", "used"] {
            amounts(status.field(list), errors);
        }
    }),
    warnings: |object, old, _| match old {
        None => warnings(object.at("spec").at("hard")),
        Some(_) => Vec::new(),
    },
    printing: Printing::of(cells),
    deletion: Deletion::RETURNS_OBJECT,
    internal: "core.ResourceQuota",
    ..Rules::DEFAULT
};

fn amounts(list: At<'_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resources::quota(name, amount, errors);
    }
}

fn spec(spec: At<'_>, errors: &mut Errors) {
    let hard = spec.field("hard");
    amounts(hard, errors);
    scopes(spec, errors);
    let selector = spec.field("scopeSelector");
    if !selector.is_absent() {
        self::selector(spec, selector, errors);
    }
}

/// Whether the scope exists.
fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "CrossNamespacePodAffinity"
            | "VolumeAttributesClass"
    )
}

/// Whether quotas for `resource` support a scope.
fn applies(scope: &str, resource: &str) -> bool {
    let compute = matches!(
        resource,
        "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
    );
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        scope if is_scope(scope) => compute || resource == "pods",
        _ => true,
    }
}

/// The number of resources in a quota that do not support the scope.
fn misapplied(spec: &Value, scope: &str) -> usize {
    if !is_scope(scope) {
        return 0;
    }
    spec.entries("hard")
        .filter(|(name, _)| is_standard_quota(name) && !applies(scope, name))
        .count()
}

/// The number of pairs of scopes that exclude each other.
fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    [
        ["BestEffort", "NotBestEffort"],
        ["Terminating", "NotTerminating"],
    ]
    .iter()
    .filter(|pair| pair.iter().all(|scope| scopes.contains(scope)))
    .count()
}

fn scopes(spec: At<'_>, errors: &mut Errors) {
    let scopes = spec.field("scopes");
    let mut set = BTreeSet::new();
    for scope in scopes.list() {
        if errors.is_full() {
            return;
        }
        let scope = scope.as_str().unwrap_or_default();
        if !is_scope(scope) {
            scopes.invalid("unsupported scope", errors);
        }
        for _ in 0..misapplied(spec.value, scope) {
            scopes.invalid("unsupported scope applied to resource", errors);
        }
        set.insert(scope);
    }
    for _ in 0..conflicts(&set) {
        scopes.invalid("conflicting scopes", errors);
    }
}

fn selector(spec: At<'_>, selector: At<'_>, errors: &mut Errors) {
    let expressions = selector.field("matchExpressions");
    let path = expressions.path;
    let mut set = BTreeSet::new();
    for expression in expressions.list() {
        if errors.is_full() {
            return;
        }
        let (scope, operator) = (expression.str("scopeName"), expression.str("operator"));
        if !is_scope(scope) {
            errors.invalid(path.field("scopeName"), scope, "unsupported scope");
        }
        for _ in 0..misapplied(spec.value, scope) {
            let shown = internal::shown(selector.value, "core.ScopeSelector");
            errors.invalid_shown(path, &shown, "unsupported scope applied to resource");
        }
        let must_exist =
            is_scope(scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if must_exist && operator != "Exists" {
            errors.invalid(path.field("operator"), operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        let values = expression.at("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                path.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                path.field("values"),
                values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(
                path.field("operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        set.insert(scope);
    }
    for _ in 0..conflicts(&set) {
        errors.invalid(path, spec.value.at("scopes"), "conflicting scopes");
    }
}

fn warnings(hard: &Value) -> Vec<String> {
    let amount = |name: &str| Quantity::parse(hard.at(name).as_str()?).ok();
    ["cpu", "memory", "storage", "ephemeral-storage"]
        .iter()
        .filter_map(|name| {
            let (mut asked, most) = (format!("requests.{name}"), format!("limits.{name}"));
            if amount(&asked).is_none() && matches!(*name, "cpu" | "memory") {
                (*name).clone_into(&mut asked);
            }
            let (request, limit) = (amount(&asked)?, amount(&most)?);
            (request > limit).then(|| {
                format!("ResourceQuota {asked} ({request}) should be less than {most} ({limit})")
            })
        })
        .collect()
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let status = object.at("status");
    let used = |name: &str| {
        status
            .at("used")
            .at(name)
            .as_str()
            .unwrap_or("0")
            .to_owned()
    };
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in status.entries("hard") {
        let text = format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or("0"));
        let side = if name.starts_with("limits.") {
            &mut limits
        } else {
            &mut requests
        };
        side.push(text);
    }
    vec![
        object.at("metadata").str("name").into(),
        requests.join(", ").into(),
        limits.join(", ").into(),
        table::age(object, now),
    ]
}
