//! Matching of requests by webhooks and policies: rules, selectors, and conditions.

use std::collections::BTreeSet;

use super::MATCHES;
use crate::meta::{At, Errors, names};

/// All operations, sorted.
pub(super) const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// The maximum number of match conditions.
const CONDITIONS: usize = 64;

/// Validates a rule's operations and resources: validateRuleWithOperations.
pub(super) fn rule(rule: At<'_>, errors: &mut Errors) {
    let operations = rule.field("operations");
    operations.required("", errors);
    operations.alone("operations", errors);
    for operation in operations.items() {
        operation.one_of(OPERATIONS, errors);
    }
    let (groups, versions) = (rule.field("apiGroups"), rule.field("apiVersions"));
    groups.required("", errors);
    groups.alone("API groups", errors);
    versions.required("", errors);
    versions.alone("API versions", errors);
    for version in versions.items() {
        version.required("", errors);
    }
    resources(rule.field("resources"), errors);
    rule.field("scope")
        .one_of_if_there(&["*", "Cluster", "Namespaced"], errors);
}

/// Validates resources and subresources, which must not overlap: validateResources.
fn resources(list: At<'_>, errors: &mut Errors) {
    list.required("", errors);
    let (mut all_of, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    let mut last_without = false;
    for item in list.items() {
        let text = item.str();
        if !item.required("", errors) {
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            // Upstream checks only the last one without a subresource.
            last_without = text != "*";
            continue;
        };
        if all_of.contains(resource) {
            item.invalid(
                format!("if '{resource}/*' is present, must not specify {text}"),
                errors,
            );
        }
        if of_all.contains(sub) {
            item.invalid(
                format!("if '*/{sub}' is present, must not specify {text}"),
                errors,
            );
        }
        if sub == "*" {
            all_of.insert(resource.to_owned());
        }
        if resource == "*" {
            of_all.insert(sub.to_owned());
        }
    }
    let has = |text: &str| list.list().iter().any(|item| item.as_str() == Some(text));
    if list.list().len() > 1 && has("*/*") {
        list.invalid(
            "if '*/*' is present, must not specify other resources",
            errors,
        );
    }
    if has("*") && last_without {
        list.invalid(
            "if '*' is present, must not specify other resources without subresources",
            errors,
        );
    }
}

/// The match resources of a policy or binding: validateMatchResources.
pub(super) fn match_resources(matched: At<'_>, errors: &mut Errors) {
    let policy = matched.field("matchPolicy");
    if policy.is_absent() {
        errors.required(policy.path, "");
    } else {
        policy.one_of(MATCHES, errors);
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        let selector = matched.field(selector);
        if selector.is_absent() {
            errors.required(selector.path, "");
        }
        selector.label_selector(false, errors);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in matched.field(list).items() {
            let mut known = BTreeSet::new();
            for name in rule.field("resourceNames").items() {
                name.checked(names::path_segment, errors);
                if !known.insert(name.str()) {
                    errors.duplicate(name.path, name.str());
                }
            }
            self::rule(rule, errors);
        }
    }
}

/// Match conditions: validateMatchConditions, without compiling the expressions.
pub(super) fn conditions(list: At<'_>, errors: &mut Errors) {
    let mut known = BTreeSet::new();
    if list.list().len() > CONDITIONS {
        errors.too_many(list.path, list.list().len(), CONDITIONS);
    }
    for condition in list.items() {
        expression(condition.field("expression"), "", errors);
        let name = condition.field("name");
        if name.required("", errors) {
            name.checked(names::qualified_name, errors);
            if !known.insert(condition.value.str("name")) {
                errors.duplicate(name.path, name.str());
            }
        }
    }
}

/// Requires an expression that is not blank. Returns whether it is present.
pub(super) fn expression(expression: At<'_>, detail: &str, errors: &mut Errors) -> bool {
    let said = !expression.str().trim().is_empty();
    if !said {
        errors.required(expression.path, detail);
    }
    said
}

impl At<'_> {
    /// Rejects `*` together with other items.
    fn alone(&self, what: &str, errors: &mut Errors) {
        if self.list().len() > 1 && self.list().iter().any(|item| item.as_str() == Some("*")) {
            self.invalid(
                format!("if '*' is present, must not specify other {what}"),
                errors,
            );
        }
    }
}
