//! Nodes, and what other kinds share of them: selectors of nodes, labels that are no longer used.

use crate::meta::{At, Errors, names};
use crate::schema::Value;

/// Why a label of nodes should no longer be used; none where it may be. Follows pkg/api/node.
pub(in crate::resources::groups) fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Warnings of a LabelSelector over nodes at `path`.
pub(in crate::resources::groups) fn selector_warnings(selector: &Value, path: &str) -> Vec<String> {
    let mut warnings = term_warnings(selector, path);
    for (label, _) in selector.entries("matchLabels") {
        if let Some(why) = deprecated_label(label) {
            warnings.push(format!("{path}.matchLabels.{label}: {why}"));
        }
    }
    warnings
}

/// Warnings of the `matchExpressions` of a term at `path`.
pub(in crate::resources::groups) fn term_warnings(term: &Value, path: &str) -> Vec<String> {
    let expressions = term.list("matchExpressions").iter().enumerate();
    expressions
        .filter_map(|(i, expression)| {
            let key = expression.str("key");
            let why = deprecated_label(key)?;
            Some(format!("{path}.matchExpressions[{i}].key: {key} is {why}"))
        })
        .collect()
}

/// Whether the terms of a NodeSelector ask for values that no label may have.
pub(in crate::resources::groups) fn has_bad_label_values(selector: &Value) -> bool {
    selector.list("nodeSelectorTerms").iter().any(|term| {
        term.list("matchExpressions").iter().any(|expression| {
            let mut values = expression.list("values").iter();
            values.any(|value| !names::label_value(value.as_str().unwrap_or_default()).is_empty())
        })
    })
}

/// Judges a NodeSelector, as ValidateNodeSelector; `any_value` lets values be what no label may be.
pub(in crate::resources::groups) fn selector(
    selector: At<'_>,
    any_value: bool,
    errors: &mut Errors,
) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.required("must have at least one node selector term", errors) {
        for term in terms.items() {
            self::term(term, any_value, errors);
        }
    }
}

/// Judges a term of a NodeSelector, as ValidateNodeSelectorTerm.
pub(in crate::resources::groups) fn term(term: At<'_>, any_value: bool, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        let values = expression.field("values");
        let operator = expression.field("operator");
        match operator.str() {
            "In" | "NotIn" => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                values.required(why, errors);
            }
            "Exists" | "DoesNotExist" => values.forbid_said(
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                errors,
            ),
            "Gt" | "Lt" if values.list().len() != 1 => errors.required(
                values.path,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "Gt" | "Lt" => {}
            _ => operator.invalid_text("not a valid selector operator", errors),
        }
        expression
            .field("key")
            .checked(names::qualified_name, errors);
        if !any_value {
            values
                .items()
                .for_each(|value| value.checked(names::label_value, errors));
        }
    }
    for field in term.field("matchFields").items() {
        let (key, values) = (field.field("key"), field.field("values"));
        let operator = field.field("operator");
        match operator.str() {
            "In" | "NotIn" if values.list().len() == 1 => {}
            "In" | "NotIn" => errors.required(
                values.path,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            _ => operator.invalid_text("not a valid selector operator", errors),
        }
        if key.str() == "metadata.name" {
            for value in values.items() {
                value.checked(|name| names::subdomain_name(name, false), errors);
            }
        } else {
            key.invalid_text("not a valid field selector key", errors);
        }
    }
}
