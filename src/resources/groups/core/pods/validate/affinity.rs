//! Node affinity, pod affinity, and topology spread constraints.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Before;
use crate::meta::{At, Errors, names};
use crate::schema::Value;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_OPERATOR: &str = "not a valid selector operator";

/// Validates a pod's affinity.
pub(super) fn affinity(affinity: At<'_>, before: Before<'_>, errors: &mut Errors) {
    if affinity.value.is_empty() {
        return;
    }
    let node = affinity.field("nodeAffinity");
    let required = node.field(REQUIRED);
    if !required.is_absent() {
        node_selector(required, || before.any_node_value(), errors);
    }
    for preferred in node.field(PREFERRED).items() {
        weight(preferred, errors);
        // Upstream allows invalid label values here.
        let term = preferred.field("preference");
        node_selector_term(term, &|| true, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(kind);
        for term in pods.field(REQUIRED).items() {
            pod_term(term, before, errors);
        }
        for preferred in pods.field(PREFERRED).items() {
            weight(preferred, errors);
            pod_term(preferred.field("podAffinityTerm"), before, errors);
        }
    }
}

fn weight(term: At<'_>, errors: &mut Errors) {
    let weight = term.value.int("weight");
    if !(1..=100).contains(&weight) {
        errors.invalid(
            term.path.field("weight"),
            weight,
            "must be in the range 1-100",
        );
    }
}

/// Validates a node selector: ValidateNodeSelector. `any_value` returns whether invalid label values are allowed.
pub(in crate::resources::groups) fn node_selector(
    selector: At<'_>,
    any_value: impl Fn() -> bool,
    errors: &mut Errors,
) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.required("must have at least one node selector term", errors) {
        for term in terms.items() {
            node_selector_term(term, &any_value, errors);
        }
    }
}

fn node_selector_term(term: At<'_>, any_value: &dyn Fn() -> bool, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        let (operator, values) = (expression.field("operator"), expression.field("values"));
        let count = values.list().len();
        match operator.str() {
            "In" | "NotIn" if count == 0 => errors.required(
                values.path,
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(
                values.path,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if count != 1 => errors.required(
                values.path,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => operator.invalid_text(NO_OPERATOR, errors),
        }
        expression
            .field("key")
            .checked(names::qualified_name, errors);
        for value in values.items() {
            let wrong = names::label_value(value.str());
            if !wrong.is_empty() && !any_value() {
                value.invalid_each(wrong, errors);
            }
        }
    }
    for field in term.field("matchFields").items() {
        let (operator, values) = (field.field("operator"), field.field("values"));
        match operator.str() {
            "In" | "NotIn" if values.list().len() == 1 => {}
            "In" | "NotIn" => errors.required(
                values.path,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            _ => operator.invalid_text(NO_OPERATOR, errors),
        }
        let key = field.field("key");
        if key.str() == "metadata.name" {
            for value in values.items() {
                value.checked(names::dns1123_subdomain, errors);
            }
        } else {
            key.invalid_text("not a valid field selector key", errors);
        }
    }
}

/// validatePodAffinityTerm
fn pod_term(term: At<'_>, before: Before<'_>, errors: &mut Errors) {
    for selector in ["labelSelector", "namespaceSelector"] {
        let selector = term.field(selector);
        let any_value = selector.is_bad_selector() && before.any_affinity_value();
        selector.label_selector(any_value, errors);
    }
    for name in term.value.list("namespaces") {
        let name = name.as_str().unwrap_or_default();
        for wrong in names::dns1123_label(name) {
            errors.invalid(term.path.field("namespace"), name, wrong);
        }
    }
    label_keys(term, errors);
    let key = term.field("topologyKey");
    key.required("can not be empty", errors);
    key.checked(names::qualified_name, errors);
}

/// Validates the keys of labels whose values are taken from the pod: ValidateMatchLabelKeysAndMismatchLabelKeys.
pub(super) fn label_keys(owner: At<'_>, errors: &mut Errors) {
    let selector = owner.value.at("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = owner.field(list);
        if keys.list().is_empty() {
            continue;
        }
        if selector.is_null() {
            errors.forbidden(
                keys.path,
                "must not be specified when labelSelector is not set",
            );
            continue;
        }
        for key in keys.items() {
            key.checked(names::qualified_name, errors);
        }
    }
    // Expressions for these keys have already been added: a key that occurs twice was in the original selector.
    let matched = owner.value.list("matchLabelKeys").iter().enumerate();
    let last: HashMap<&str, usize> = matched
        .filter_map(|(i, key)| Some((key.as_str()?, i)))
        .collect();
    let mut known: BTreeSet<&str> = selector
        .entries("matchLabels")
        .map(|(key, _)| key.as_str())
        .collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.str("key");
        if let Some(&i) = last.get(key)
            && known.contains(key)
        {
            errors.invalid(
                owner.path.index(i),
                key,
                "exists in both matchLabelKeys and labelSelector",
            );
        }
        known.insert(key);
    }
    let mismatched = owner.value.list("mismatchLabelKeys").iter();
    let mismatched: HashSet<Option<&str>> = mismatched.map(Value::as_str).collect();
    for key in owner.field("matchLabelKeys").items() {
        if mismatched.contains(&key.value.as_str()) {
            key.invalid(
                "exists in both matchLabelKeys and mismatchLabelKeys",
                errors,
            );
        }
    }
}

/// Validates spread constraints: validateTopologySpreadConstraints.
pub(super) fn spread(list: At<'_>, before: Before<'_>, errors: &mut Errors) {
    let pair = |value: &'_ Value| {
        let of = |key| value.str(key).to_owned();
        (of("topologyKey"), of("whenUnsatisfiable"))
    };
    let pairs = list.list().iter().map(pair).enumerate();
    let last: HashMap<(String, String), usize> = pairs.map(|(i, pair)| (pair, i)).collect();
    for (i, constraint) in list.items().enumerate() {
        let skew = constraint.value.int("maxSkew");
        if skew <= 0 {
            errors.invalid(
                constraint.path.field("maxSkew"),
                skew,
                "must be greater than zero",
            );
        }
        let key = constraint.field("topologyKey");
        key.required("can not be empty", errors);
        let action = constraint.field("whenUnsatisfiable");
        action.one_of(&["DoNotSchedule", "ScheduleAnyway"], errors);
        let own = pair(constraint.value);
        if last.get(&own).is_some_and(|last| *last > i) {
            errors.duplicate(
                constraint.path.field("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {}}}", own.0, own.1),
            );
        }
        let domains = constraint.field("minDomains");
        if let Some(n) = domains.int() {
            if n <= 0 {
                domains.invalid("must be greater than zero", errors);
            }
            if action.str() != "DoNotSchedule" {
                domains.invalid(
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                        action.str()
                    ),
                    errors,
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint
                .field(policy)
                .one_of_if_there(&["Honor", "Ignore"], errors);
        }
        let refused = errors.0.len();
        label_keys(constraint, errors);
        if errors.0.len() > refused && before.any_spread_keys() {
            errors.truncate(refused);
            older_label_keys(constraint, errors);
        }
        let selector = constraint.field("labelSelector");
        if !before.any_spread_selector() {
            selector.label_selector(false, errors);
        }
    }
}

/// The rule for label keys of spread constraints before v1.34: ValidateMatchLabelKeysInTopologySpread.
fn older_label_keys(constraint: At<'_>, errors: &mut Errors) {
    let selector = constraint.value.at("labelSelector");
    let keys = constraint.field("matchLabelKeys");
    if selector.is_null() && !keys.list().is_empty() {
        errors.forbidden(
            keys.path,
            "must not be specified when labelSelector is not set",
        );
    }
    let expressions = selector.list("matchExpressions").iter();
    let expressions: HashSet<&str> = expressions.map(|e| e.str("key")).collect();
    for key in keys.items() {
        key.checked(names::qualified_name, errors);
        if selector.at("matchLabels").get(key.str()).is_some() || expressions.contains(key.str()) {
            key.invalid("exists in both matchLabelKeys and labelSelector", errors);
        }
    }
}
