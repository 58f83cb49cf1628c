//! Roles and cluster roles.

use super::COMMON;
use crate::meta::{At, Errors, table};
use crate::resources::{Printing, Rules, metadata};
use crate::schema::Value;

/// The rules of roles.
pub(super) const ROLES: Rules = Rules {
    validate: |role, old, cx, errors| {
        metadata::again(role, old, cx, errors);
        policy_rules(role.field("rules"), true, errors);
        verbs(role.field("rules"), errors);
    },
    printing: Printing::of(|object, _| table::name_and_creation(object)),
    internal: "rbac.Role",
    ..COMMON
};

/// The rules of cluster roles.
pub(super) const CLUSTER_ROLES: Rules = Rules {
    validate: |role, old, cx, errors| {
        metadata::again(role, old, cx, errors);
        policy_rules(role.field("rules"), false, errors);
        let any_value = old.is_some_and(|old| {
            let aggregation = old.field("aggregationRule");
            let selectors = aggregation.field("clusterRoleSelectors");
            selectors.items().any(|selector| selector.is_bad_selector())
        });
        let aggregation = role.field("aggregationRule");
        if !aggregation.is_absent() {
            let selectors = aggregation.field("clusterRoleSelectors");
            selectors.required(
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
                errors,
            );
            for selector in selectors.items() {
                selector.label_selector(any_value, errors);
                if selector.is_bad_selector() {
                    errors.invalid(selector.path, Value::Null, "invalid label selector.");
                }
            }
        }
        verbs(role.field("rules"), errors);
    },
    printing: Printing::of(|object, _| table::name_and_creation(object)),
    internal: "rbac.ClusterRole",
    ..COMMON
};

/// ValidatePolicyRule for each rule, except declarative validation.
fn policy_rules(rules: At<'_>, namespaced: bool, errors: &mut Errors) {
    for rule in rules.items() {
        let (urls, groups) = (rule.field("nonResourceURLs"), rule.field("apiGroups"));
        let resources = rule.field("resources");
        if !urls.value.is_empty() {
            if namespaced {
                urls.invalid("namespaced rules cannot apply to non-resource URLs", errors);
            }
            let of_resources = ["apiGroups", "resources", "resourceNames"];
            if of_resources
                .iter()
                .any(|field| !rule.value.list(field).is_empty())
            {
                urls.invalid(
                    "rules cannot apply to both regular resources and non-resource URLs",
                    errors,
                );
            }
            continue;
        }
        groups.required("resource rules must supply at least one api group", errors);
        resources.required("resource rules must supply at least one resource", errors);
    }
}

/// Declarative validation, which upstream reports last.
fn verbs(rules: At<'_>, errors: &mut Errors) {
    for rule in rules.items() {
        rule.field("verbs").required("", errors);
    }
}
